"""Interventions are values: equality, JSON, digests, what they edit, and what they refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalunet.design import (
    AblateBlock,
    AblateSkip,
    Composition,
    Edit,
    Identity,
    Intervention,
    Jump,
    Null,
    Scale,
    SkipSteps,
    Window,
    Windows,
    Zero,
    cut_relax_cut,
)
from causalunet.errors import SpecError
from tests.design.examples import STEPS, interventions, windows

WINDOW = Window(60, 5)

PINNED = {
    AblateBlock(2, WINDOW): "0b722ee0cf574d0b",
    AblateSkip(2, cut_relax_cut(60, cut=5, relax=2), "cond"): "530e7df5b1f2525a",
    SkipSteps(Window(17, 17)) + Edit("mid", WINDOW, Scale(1.5)): "94205d0928b4c933",
}

READ_DIGESTS = """
import json, sys
from causalunet.design import Intervention
print(json.dumps([Intervention.from_json(spec).digest for spec in json.load(sys.stdin)]))
"""


def through_json(item: Intervention) -> Intervention:
    return Intervention.from_json(json.loads(json.dumps(item.to_json())))


def content(value: Any) -> Any:
    """What a digest has to tell apart: types and fields, without labels."""
    if isinstance(value, Windows):
        return value.parts
    if isinstance(value, Composition):
        alike: dict[Any, set[int]] = {}
        for edit in value.edits():
            alike.setdefault((edit.component, edit.branch, edit.fill), set()).update(edit.window)
        return (Composition, frozenset((*key, frozenset(steps)) for key, steps in alike.items()))
    if isinstance(value, Intervention):
        own = ((entry.name, content(getattr(value, entry.name))) for entry in fields(value) if entry.name != "label")
        return (type(value), tuple(own))
    return value


@given(interventions())
def test_json_round_trip(item: Intervention) -> None:
    again = through_json(item)
    assert again == item
    assert type(again) is type(item)
    assert again.label == item.label
    assert hash(again) == hash(item)
    assert again.digest == item.digest
    assert again.to_json() == item.to_json()
    assert again.edits() == item.edits()


@given(interventions(), interventions(), st.text(min_size=1, max_size=4))
def test_digest_names_the_content_and_not_the_label(one: Intervention, other: Intervention, label: str) -> None:
    assert (one.digest == other.digest) == (content(one) == content(other))
    assert replace(one, label=label).digest == one.digest
    assert len(one.digest) == 16
    int(one.digest, 16)


def test_digest_ignores_the_labels_of_parts() -> None:
    parts = (AblateSkip(1, WINDOW), AblateBlock(2, Window(20, 5)))
    named = tuple(replace(part, label=f"part {index}") for index, part in enumerate(parts))
    assert Composition(named).digest == Composition(parts).digest
    assert Composition(named).label == "part 0 + part 1"


@pytest.mark.parametrize(("item", "digest"), PINNED.items(), ids=lambda value: str(getattr(value, "kind", "")))
def test_digest_is_that_of_stored_results(item: Intervention, digest: str) -> None:
    """A digest that changes orphans every stored result, unless opening renews it as `renewed_digests` does."""
    assert item.digest == digest


def test_digest_is_the_same_in_another_process() -> None:
    items = [*PINNED, Null(WINDOW), Edit("mid", WINDOW, Scale(1 / 3), "uncond", label="named")]
    done = subprocess.run(
        [sys.executable, "-c", READ_DIGESTS],
        input=json.dumps([item.to_json() for item in items]),
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [item.digest for item in items]


@given(interventions())
def test_every_field_is_frozen(item: Intervention) -> None:
    for entry in fields(item):
        with pytest.raises(FrozenInstanceError):
            setattr(item, entry.name, getattr(item, entry.name))


def test_equality_is_by_content_and_label() -> None:
    assert AblateBlock(2, WINDOW) == AblateBlock(2, Window(60, 5))
    assert len({AblateBlock(2, WINDOW), AblateBlock(2, WINDOW), AblateBlock(3, WINDOW), AblateSkip(2, WINDOW)}) == 3
    assert AblateBlock(2, WINDOW) != AblateBlock(2, WINDOW, label="mine")
    assert Null(WINDOW) != SkipSteps(WINDOW)


def test_one_window_is_one_window_however_written() -> None:
    assert AblateBlock(2, Windows((WINDOW,))) == AblateBlock(2, WINDOW)
    assert through_json(AblateBlock(2, cut_relax_cut(60, cut=5, relax=0))) == AblateBlock(2, Window(60, 10))


@given(interventions())
def test_steps_are_those_of_the_edits(item: Intervention) -> None:
    assert item.steps == {step for edit in item.edits() for step in edit.window}
    coordinates = item.coordinates()
    assert coordinates["start"] == max(item.steps)
    assert all(isinstance(coordinates[name], int) for name in ("top", "bottom", "start", "length", "cuts", "relax"))
    assert (coordinates["kind"], coordinates["label"], coordinates["digest"]) == (item.kind, item.label, item.digest)


def test_what_each_kind_edits() -> None:
    assert AblateSkip(2, WINDOW, "cond").edits() == (
        Edit("skip.0", WINDOW, Zero(), "cond"),
        Edit("skip.1", WINDOW, Zero(), "cond"),
    )
    assert AblateBlock(2, WINDOW).edits() == (Edit("up.1", WINDOW, Zero()),)
    assert SkipSteps(WINDOW).edits() == (Edit("unet", WINDOW, Jump()),)
    assert Null(WINDOW).edits() == (Edit("mid", WINDOW, Identity()), Edit("skip.0", WINDOW, Identity()))
    assert Edit("mid", WINDOW).edits() == (Edit("mid", WINDOW, Zero(), "both"),)
    with pytest.raises(SpecError, match="SkipSteps does not say what it edits; define edits"):
        Intervention.edits(SkipSteps(WINDOW))
    with pytest.raises(SpecError, match="Intervention has no name"):
        Intervention()


def test_coordinates() -> None:
    cut = AblateBlock(3, cut_relax_cut(60, cut=5, relax=2, cuts=3)).coordinates()
    expected = {"kind": "ablate_block", "top": 0, "bottom": 3, "start": 60, "length": 5, "cuts": 3, "relax": 2}
    assert {name: cut[name] for name in expected} == expected
    both = (AblateSkip(2, Window(40, 5)) + AblateBlock(4, WINDOW)).coordinates()
    expected = {"kind": "composition", "top": 2, "bottom": 4, "start": 60, "length": 10, "cuts": 1, "relax": 0}
    assert {name: both[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("item", "label"),
    [
        (AblateBlock(2, WINDOW), "ablate_block bottom=2 60-56"),
        (AblateSkip(2, WINDOW, "cond"), "ablate_skip top=2 60-56 branch=cond"),
        (SkipSteps(cut_relax_cut(60, cut=5, relax=1)), "skip_steps 60-56 54-50"),
        (Edit("up.3", WINDOW, Scale(1.5)), "edit up.3 60-56 scale 1.5"),
        (AblateSkip(1, WINDOW) + Null(Window(9, 1)), "ablate_skip top=1 60-56 + null 9-9"),
        (AblateBlock(2, WINDOW, label="mine"), "mine"),
    ],
)
def test_labels(item: Intervention, label: str) -> None:
    assert item.label == label


def test_sums_are_flat_and_can_be_labelled() -> None:
    one, two, three = AblateSkip(1, WINDOW), AblateBlock(1, Window(20, 2)), SkipSteps(Window(10, 2))
    assert ((one + two) + three).parts == (one + (two + three)).parts == (one, two, three)
    named = (one + two).labelled("both")
    assert named.label == "both"
    assert named.parts == (one, two)
    nested = Composition((Composition((one, two)), three))
    assert nested.edits() == (one + two + three).edits()
    assert nested.digest == (three + two + one).digest
    assert Composition([one, two]) == one + two  # type: ignore[arg-type]


@given(interventions(low=9), interventions(high=8), interventions(high=8))
def test_sums_are_values(early: Intervention, late: Intervention, other: Intervention) -> None:
    total = early + late
    assert total == late + early
    assert (total.digest, total.label, total.to_json()) == (
        (late + early).digest,
        (late + early).label,
        (late + early).to_json(),
    )
    assert ((early + other).digest == total.digest) == (content(early + other) == content(total))
    assert Composition((total, early)).digest == total.digest


@given(windows(), st.integers(1, 4))
def test_equal_edits_have_one_digest_however_they_are_cut_into_parts(window: Window | Windows, top: int) -> None:
    block = AblateBlock(1, Window(STEPS, 1))
    whole = block + AblateSkip(top, window)
    steps = sum((AblateSkip(top, Window(step, 1)) for step in window), start=Composition((block, block)))
    edits = [Edit(f"skip.{index}", window) for index in reversed(range(top))]
    assert steps.digest == (block + AblateSkip(1, window) + AblateSkip(top, window)).digest == whole.digest
    assert Composition((*edits, block)).digest == whole.digest
    assert Composition((*edits, block), label="named").digest == whole.digest
    assert (whole + Edit("mid", window)).digest != whole.digest
    assert Composition((replace(edits[0], fill=Scale(2.0)), *edits[1:], block)).digest != whole.digest


def test_windows_that_touch_are_one_window() -> None:
    apart, whole = Windows((Window(5, 1), Window(4, 1))), Window(5, 2)
    assert AblateSkip(1, apart) == AblateSkip(1, whole)
    assert AblateSkip(1, apart).digest == AblateSkip(1, whole).digest
    assert AblateSkip(1, apart).label == "ablate_skip top=1 5-4"


def test_coordinates_of_a_sum_count_edited_steps() -> None:
    item = AblateSkip(1, Window(5, 1)) + AblateSkip(2, Window(9, 2))
    assert [item.coordinates()[name] for name in ("start", "length")] == [9, 3]
    overlapping = AblateSkip(1, Window(9, 3)) + Edit("mid", Window(8, 4))
    assert [overlapping.coordinates()[name] for name in ("start", "length")] == [9, 5]


def test_equal_edits_of_two_parts_are_one_edit() -> None:
    assert (AblateSkip(1, WINDOW) + AblateSkip(2, WINDOW)).edits() == AblateSkip(2, WINDOW).edits()


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "2", None])
@pytest.mark.parametrize(("kind", "name"), [(AblateSkip, "top"), (AblateBlock, "bottom")])
def test_counts_are_positive_integers(kind: Callable[..., Intervention], name: str, count: Any) -> None:
    with pytest.raises(SpecError, match=rf"{name}={count!r}; it must be an integer of at least 1"):
        kind(count, WINDOW)


@pytest.mark.parametrize("make", [lambda b: AblateSkip(1, WINDOW, b), lambda b: Edit("mid", WINDOW, Zero(), b)])
@pytest.mark.parametrize("branch", ["conditional", "", None])
def test_branch_is_one_of_three(make: Callable[[Any], Intervention], branch: Any) -> None:
    with pytest.raises(SpecError, match="is not one of 'both', 'cond', 'uncond'"):
        make(branch)


@pytest.mark.parametrize("window", [5, (60, 5), [WINDOW], range(5)])
def test_a_window_is_a_window(window: Any) -> None:
    with pytest.raises(SpecError, match=r"AblateBlock got window=.*; give a Window or Windows"):
        AblateBlock(2, window)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Edit("unet", WINDOW, Zero()), r"the component 'unet' and the fill Jump\(\) belong together"),
        (lambda: Edit("mid", WINDOW, Jump()), r"the component 'unet' and the fill Jump\(\) belong together"),
        (lambda: Edit("unet", WINDOW, Jump(), "cond"), "branch='cond' cannot be honoured"),
        (lambda: Edit("mid", WINDOW, 0.5), "got fill=0.5; give one of the fills"),
        (lambda: Edit("mid", WINDOW, Zero), "give one of the fills"),
    ],
)
def test_edit_refuses(make: Callable[[], Intervention], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Composition(()), "two or more interventions"),
        (lambda: Composition((Null(WINDOW),)), "two or more interventions"),
        (lambda: Composition((Null(WINDOW), "null")), "two or more interventions"),
        (lambda: Composition(Null(WINDOW)), "two or more interventions"),
        (lambda: SkipSteps(WINDOW) + AblateSkip(1, Window(56, 1)), r"Step 56 is skipped, so the edit of skip\.0 there"),
        (lambda: AblateSkip(1, Window(56, 1)) + SkipSteps(WINDOW), r"Step 56 is skipped, so the edit of skip\.0 there"),
        (
            lambda: Edit("mid", WINDOW, Scale(2.0)) + Null(Window(57, 9)),
            r"mid at step 57 is edited twice, by 'edit mid 60-56 scale 2.0' and by 'edit mid 57-49 identity'",
        ),
        (lambda: AblateSkip(1, WINDOW) + AblateSkip(1, WINDOW, "cond"), r"skip\.0 at step 60 is edited twice"),
        (lambda: (Null(WINDOW) + AblateSkip(2, Window(5, 5))) + Edit("mid", WINDOW), "mid at step 60 is edited twice"),
    ],
)
def test_composition_refuses(make: Callable[[], Intervention], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


def test_composition_of_what_does_not_conflict() -> None:
    halves = Edit("mid", WINDOW, Zero(), "cond") + Edit("mid", WINDOW, Scale(2.0), "uncond")
    assert len(halves.edits()) == 2
    assert len((SkipSteps(WINDOW) + AblateSkip(1, Window(55, 1))).edits()) == 2
    assert len((SkipSteps(WINDOW) + SkipSteps(Window(57, 9))).edits()) == 2


KINDS = "ablate_block, .*ablate_skip, .*composition, .*edit, .*null, .*skip_steps"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, f"known kinds: .*{KINDS}"),
        ({"name": "ablate"}, f"'ablate'.* known kinds: .*{KINDS}"),
        ({"name": ["null"]}, "known kinds"),
        ({"name": "null", "configuration": [1]}, "known kinds"),
        ({"name": "ablate_skip", "configuration": {"bottom": 2, "window": [[5, 1]]}}, "AblateSkip has no field bottom"),
        ({"name": "ablate_skip", "configuration": {"top": 2}}, "AblateSkip lacks window"),
        ({"name": "ablate_skip", "configuration": {"top": 0, "window": [[5, 1]]}}, "top=0; it must be an integer"),
        ({"name": "ablate_skip", "configuration": {"top": 2, "window": [5, 1]}}, "A window is written as"),
        ({"name": "edit", "configuration": {"component": "mid", "window": [[5, 1]], "fill": "zero"}}, "known fills"),
        ({"name": "composition", "configuration": {"parts": [{"name": "none"}]}}, "known kinds"),
        ({"name": "composition", "configuration": {"parts": 3}}, "Composition cannot be read"),
    ],
)
def test_json_of_something_else(value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Intervention.from_json(value)
