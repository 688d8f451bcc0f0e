"""What is told apart as another identity, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import causalunet as cu
from causalunet.errors import ModelError
from causalunet.identity import differences, identity_of, telling_prompts
from causalunet.models.text_to_image import TextToImage
from causalunet.schedule import cosine_alpha_bar, linear_alpha_bar
from tests.models.adapters import adapter

SAMPLER = cu.DDPM(steps=5)


@pytest.mark.parametrize("schedule", [cosine_alpha_bar, linear_alpha_bar])
def test_rounding_of_another_machine_is_no_other_schedule(schedule: Any, tiny_model: TextToImage) -> None:
    values = schedule()
    here = replace(tiny_model, alpha_bar=values)
    known = identity_of(here, SAMPLER, ["a red circle"])
    noise = np.random.default_rng(0).uniform(-1, 1, len(values))
    assert differences(known, replace(here, alpha_bar=values * (1 + 1e-14 * noise)), SAMPLER) == []
    (told,) = differences(known, replace(here, alpha_bar=values * (1 - 1e-3)), SAMPLER)
    assert told.startswith('noise_schedule is "1000 timesteps, ')
    late = values.copy()
    late[3] = (late[2] + 3 * late[3]) / 4  # a timestep that five steps do not call
    (told,) = differences(known, replace(here, alpha_bar=late), SAMPLER)
    assert told.startswith("noise_schedule")
    del known["noise_schedule"]
    assert differences(known, replace(here, alpha_bar=late), SAMPLER) == []


def test_what_follows_is_not_told_twice(tiny_model: TextToImage) -> None:
    known = identity_of(tiny_model, SAMPLER, [])
    assert differences(known, tiny_model, cu.DDPM(steps=4)) == ["sampler.steps is 5 there and 4 here"]
    assert differences(known, tiny_model) == [], "without a sampler, only the model is compared"
    short = replace(tiny_model, alpha_bar=cosine_alpha_bar(3))  # has no five steps
    (told,) = differences(known, short, SAMPLER)
    assert told.startswith("noise_schedule")


def test_prompts_that_cannot_be_read_any_more(tiny_model: TextToImage) -> None:
    known = identity_of(tiny_model, SAMPLER, ["a red circle"])
    known["tokens"]["a mauve circle"] = "0123"
    told = ['tokens of "a mauve circle" is "0123" there and "cannot be read" here']
    assert differences(known, tiny_model, SAMPLER) == told


def test_prompts_with_other_words_come_first() -> None:
    prompts = ["red, blue", "blue", "red", "blue green", *(f"{number} red" for number in range(1100))]
    chosen = telling_prompts([*prompts, "late"], guided=True)
    assert chosen[:3] == ["", "red, blue", "blue green"]
    assert len(chosen) == 1024
    assert telling_prompts(["red", cu.NO_PROMPT, "red"], guided=False) in (["red", ""], ["", "red"])
    assert telling_prompts(["red", "red dog", "dog"], guided=False) == ["red", "red dog", "dog"]


def test_an_adapter_names_parts_of_its_own() -> None:
    plain, named = adapter(), adapter(identity={"decoder": "v1", "sizes": (1, 2)})
    assert {"decoder", "sizes", "tokens"}.isdisjoint(identity_of(plain, SAMPLER, ["x"]))
    known = identity_of(named, SAMPLER, ["x"])
    assert (known["decoder"], known["sizes"]) == ("v1", [1, 2])
    assert differences(known, adapter(identity={"decoder": "v2"}), SAMPLER) == ['decoder is "v1" there and "v2" here']
    assert differences(known, plain, SAMPLER) == [], "of which nothing is known here"
    assert differences(identity_of(plain, SAMPLER, ["x"]), named, SAMPLER) == []


def test_an_adapter_says_what_prompts_become() -> None:
    def tokens(prompts: Any) -> Any:
        return (np.array([[len(prompt)] for prompt in prompts]),)

    def longer(prompts: Any) -> Any:
        return (np.array([[len(prompt) + (prompt == "yy")] for prompt in prompts]),)

    known = identity_of(adapter(tokens=tokens), SAMPLER, ["x", "yy"])
    (told,) = differences(known, adapter(tokens=longer), SAMPLER)
    assert told.startswith('tokens of "yy" is ')


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"identity": 5}, "each with a plain JSON value.*got 5"),
        ({"identity": {1: "x"}}, "got {1: 'x'}"),
        ({"identity": {"decoder": np.zeros(3)}}, "not of a plain JSON type"),
        ({"identity": {"clip": True}}, "got clip"),
        ({"tokens": lambda prompts: prompts[0]}, r"tokens\(\) gave 'x' for one prompt"),
        ({"tokens": lambda prompts: ()}, r"tokens\(\) gave \(\) for one prompt"),
        ({"tokens": lambda prompts: (np.zeros((2, 3)),)}, "arrays of numbers with one row per prompt"),
        ({"tokens": lambda prompts: (np.array(prompts),)}, "arrays of numbers with one row per prompt"),
        ({"tokens": lambda prompts: (np.float64(1),)}, "arrays of numbers with one row per prompt"),
    ],
)
def test_what_an_adapter_may_not_say(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        identity_of(adapter(**fields), SAMPLER, ["x"])
