"""Coordinates that a kind of intervention gives in its own way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import causalunet as cu
from causalunet.design import Intervention
from causalunet.design.coordinates import coordinate_columns, coordinates_of
from causalunet.design.interventions import KINDS
from causalunet.design.study import StudySpec
from causalunet.design.views import Channels
from causalunet.errors import SpecError

WINDOW = cu.Window(4, 2)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with KINDS.scoped():
        yield


@dataclass(frozen=True, slots=True)
class Base(Intervention):
    start: int = 4

    def edits(self) -> tuple[cu.Edit, ...]:
        return (cu.Edit("mid", cu.Window(self.start, 2)), cu.Edit("skip.0", cu.Window(self.start - 3, 1)))


def study(item: Intervention) -> StudySpec:
    return StudySpec(name="own", prompts=["a"], interventions=[item])


def test_a_kind_without_a_window_has_the_steps_of_its_edits() -> None:
    @dataclass(frozen=True, slots=True)
    class Own(Base):
        kind: ClassVar[str] = "own"

    coordinates = study(Own()).interventions[0].coordinates()
    assert {name: coordinates[name] for name in ("start", "length", "cuts", "relax", "top")} == {
        "start": 4,
        "length": 2,
        "cuts": 2,
        "relax": 1,
        "top": 0,
    }


WRONG: dict[str, dict[str, Any]] = {
    "a fraction": {"top": 0.5},
    "text": {"top": "many"},
    "below zero": {"relax": -1},
    "too large": {"start": 2**63},
    "a truth value": {"cuts": True},
    "another label": {"label": "other"},
    "another digest": {"digest": "0" * 16},
    "an array": {"bottom": np.arange(2)},
    "an array more": {"strength": np.arange(2)},
    "nothing": {"strength": None},
    "a number that is too large": {"strength": 2**63},
    "half a character": {"strength": "\ud800"},
    "a dimension": {"step": 3},
    "a name with a blank": {"how strong": 3},
    "a name that is none": {3: 3},
    "a long name": {"a" * 65: 3},
    "a branch that is a number": {"branch": 3},
}


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG)
def test_coordinates_that_no_store_can_hold(changed: dict[str, Any]) -> None:
    @dataclass(frozen=True, slots=True)
    class Own(Base):
        kind: ClassVar[str] = "own"

        def coordinates(self) -> dict[str, str | int]:
            return {**Base.coordinates(self), **changed}

    for item in (Own(), Own() + cu.AblateBlock(1, WINDOW)):
        with pytest.raises(SpecError, match=rf"Own has the coordinates .* cannot hold {next(iter(changed))} so"):
            study(item)


def test_coordinates_that_are_missing_or_none() -> None:
    @dataclass(frozen=True, slots=True)
    class Own(Base):
        kind: ClassVar[str] = "own"
        given: tuple[()] | None = ()

        def coordinates(self) -> dict[str, str | int]:
            return self.given if self.given is None else {}  # type: ignore[return-value]

    with pytest.raises(SpecError, match="cannot hold kind, label, digest, top, bottom, start, length, cuts, relax so"):
        study(Own())
    with pytest.raises(SpecError, match=r"coordinates\(\) of Own gave None"):
        study(Own(given=None))


def test_coordinates_of_ones_own(run_study: Any) -> None:
    @dataclass(frozen=True, slots=True)
    class Own(Base):
        kind: ClassVar[str] = "own"

        def coordinates(self) -> dict[str, Any]:
            return {**Base.coordinates(self), "top": 7, "strength": 0.5, "group": "early", "mild": True, "part": 3}

    results = run_study(Own(), Own() + cu.SkipSteps(cu.Window(2, 1)), steps=4, prompts=["a red circle"])
    outcomes = results.outcomes
    assert outcomes.ssim.sel(top=7, kind="own").kind.values.tolist() == ["own"]
    assert outcomes.ssim.sel(strength=slice(0.1, 0.6), mild=True, kind="own").shape == (1, 1)
    assert outcomes.ssim.sel(group="early").kind.values.tolist() == ["own", "composition"], (
        "all parts that say it agree"
    )
    np.testing.assert_array_equal(outcomes.strength, [0.5, 0.5, np.nan])
    assert [outcomes[name].dtype.kind for name in ("strength", "group", "mild", "part")] == ["f", "T", "b", "i"]
    assert outcomes.part.values.tolist() == [3, 3, 0]
    assert results.trajectory.x0_distance.sel(part=3).sizes["intervention"] == 2
    assert results.verify(quiet=True)


def test_coordinates_of_several_kinds_go_together() -> None:
    @dataclass(frozen=True, slots=True)
    class Own(Base):
        kind: ClassVar[str] = "own"
        strength: float | int | str = 0

        def coordinates(self) -> dict[str, Any]:
            return {**Base.coordinates(self), "strength": self.strength}

    items = [Own(strength=2), Own(strength=0.5), cu.AblateBlock(1, WINDOW)]
    assert coordinate_columns(items)["strength"][0] == "float64"
    assert coordinate_columns(items)["strength"][1][:2] == [2.0, 0.5]
    with pytest.raises(SpecError, match=r"'strength' is int64 for 'own .*' and str for 'own .*strength=much.*'"):
        StudySpec(name="own", prompts=["a"], interventions=[Own(strength=2), Own(strength="much")])


def test_what_edits_say_is_overridden_by_the_kind() -> None:
    @dataclass(frozen=True, slots=True)
    class Own(Base):
        kind: ClassVar[str] = "own"

        def coordinates(self) -> dict[str, Any]:
            return {**Base.coordinates(self), "component": "mid and skip.0"}

    assert coordinates_of(Own())["component"] == "mid and skip.0"
    edit = cu.Edit("mid", WINDOW, cu.Scale(0.5), "cond", Channels((0, 1)))
    assert {name: coordinates_of(edit)[name] for name in ("component", "fill", "branch", "view")} == {
        "component": "mid",
        "fill": "scale 0.5",
        "branch": "cond",
        "view": "channels 0-1",
    }
    assert coordinates_of(cu.AblateBlock(1, WINDOW))["view"] == "whole"
    assert coordinates_of(edit + cu.AblateSkip(1, WINDOW))["view"] == ""
