"""Coordinates that a kind of intervention gives in its own way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import causalunet as cu
from causalunet.design import Intervention
from causalunet.design.interventions import KINDS
from causalunet.design.study import StudySpec
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
    "another name": {"strength": 3},
    "a fraction": {"top": 0.5},
    "text": {"top": "many"},
    "below zero": {"relax": -1},
    "too large": {"start": 2**63},
    "a truth value": {"cuts": True},
    "another label": {"label": "other"},
    "another digest": {"digest": "0" * 16},
    "an array": {"bottom": np.arange(2)},
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

        def coordinates(self) -> dict[str, str | int]:
            return {**Base.coordinates(self), "top": 7}

    results = run_study(Own(), steps=4, prompts=["a red circle"])
    assert results.outcomes.ssim.sel(top=7).kind.values.tolist() == ["own"]
    assert results.verify(quiet=True)
