"""Prompts drawn from the ImageNet classes: distinct, reproducible, and refused when out of range."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.errors import SpecError
from causalunet.prompts import imagenet, imagenet_classes


def test_there_are_1000_distinct_class_names() -> None:
    classes = imagenet_classes()
    assert len(classes) == len(set(classes)) == 1000
    assert all(name == name.strip() and name.isascii() and name for name in classes)
    assert not any(name.startswith("#") or "{" in name for name in classes)


def test_class_names_stand_at_their_index() -> None:
    classes = imagenet_classes()
    known = {0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 388: "giant panda", 999: "toilet tissue"}
    assert {index: classes[index] for index in known} == known
    assert (classes[134], classes[517]) == ("crane bird", "crane")


def test_the_draw_is_the_same_everywhere() -> None:
    assert imagenet(3) == ("ear", "beagle", "motor scooter")
    digest = hashlib.sha256("|".join(imagenet(1000, seed=7)).encode()).hexdigest()
    assert digest.startswith("1d417411abd442bb")


@given(st.integers(1, 1000), st.integers(0, 2**63 - 1))
def test_prompts_are_distinct_classes(n: int, seed: int) -> None:
    prompts = imagenet(n, seed)
    assert len(prompts) == len(set(prompts)) == n
    assert set(prompts) <= set(imagenet_classes())
    assert imagenet(1000, seed)[:n] == prompts


def test_another_seed_draws_others() -> None:
    draws = [imagenet(100, seed) for seed in range(4)]
    assert len({frozenset(draw) for draw in draws}) == 4


def test_the_template_takes_the_name() -> None:
    assert imagenet(5, template="a {} in {1: 2}, {}") == tuple(f"a {name} in {{1: 2}}, {name}" for name in imagenet(5))


def test_the_paper_s_samples() -> None:
    study = cu.Study(name="paper", prompts=imagenet(), interventions=[cu.SkipSteps(cu.Window(50, 5))])
    assert [sample.prompt for sample in study.samples] == list(imagenet(100))
    assert [sample.seed for sample in study.samples] == list(range(100))


@pytest.mark.parametrize("n", [0, -1, 1001, 2.0, True, "3", None])
def test_a_wrong_number_is_refused(n: Any) -> None:
    with pytest.raises(SpecError, match=r"n=.*takes an integer from 1 to 1000"):
        imagenet(n)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, False])
def test_a_wrong_seed_is_refused(seed: Any) -> None:
    with pytest.raises(SpecError, match=r"seed=.*takes an integer from 0"):
        imagenet(1, seed)


@pytest.mark.parametrize("template", ["a photo", "", "{name}", 3])
def test_a_template_without_place_is_refused(template: Any) -> None:
    with pytest.raises(SpecError, match=r"has no place for the class name; write \{\} where it goes"):
        imagenet(1, template=template)
