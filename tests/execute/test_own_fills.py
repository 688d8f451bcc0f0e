"""Fills that users write: one class, applied like those of the package, and refused when they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr

import causalunet as cu
from causalunet.design import Fill
from causalunet.design.fills import FILLS
from causalunet.errors import SpecError

WINDOW = cu.Window(5, 2)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with FILLS.scoped():
        yield


def own(apply: Callable[[Any, Any], Any] | None) -> Fill:
    methods = {} if apply is None else {"apply": apply}
    kind = type("Own", (Fill,), {"name": "own", "__slots__": (), **methods})
    return dataclass(frozen=True)(kind)()


def test_a_fill_of_ones_own_does_what_it_says(run_study: Callable[..., xr.DataTree]) -> None:
    places = [("mid", "both"), ("up.1", "cond"), ("skip.1", "uncond"), ("down.2", "both")]

    def halves(fill: Fill) -> xr.DataTree:
        return run_study(*(cu.Edit(place, WINDOW, fill, branch) for place, branch in places))  # type: ignore[arg-type]

    halved, scaled = halves(own(lambda self, value: 0.5 * value)), halves(cu.Scale(0.5))
    assert np.array_equal(halved.outcomes.image.values, scaled.outcomes.image.values)
    assert (halved.outcomes.ssim.sel(kind="edit") < 1).all()


def test_it_is_written_and_read_like_others() -> None:
    fill = own(lambda self, value: -value)
    edit = cu.Edit("mid", WINDOW, fill)
    assert cu.design.Intervention.from_json(edit.to_json()) == edit


@pytest.mark.parametrize(
    ("apply", "said"),
    [
        (lambda self, value: value, "a new tensor"),
        (lambda self, value: value.mean((-2, -1), keepdim=True), r"gave \(4, 16, 1, 1\) float32 for \(4, 16, 8, 8\)"),
        (lambda self, value: value.double(), "float64 for"),
    ],
)
def test_what_does_not_fit_is_refused(
    run_study: Callable[..., xr.DataTree], apply: Callable[[Any, Any], Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        run_study(cu.Edit("mid", WINDOW, own(apply)))


def test_a_fill_that_says_nothing_is_refused_where_it_is_used() -> None:
    @dataclass(frozen=True, slots=True)
    class Nothing(Fill):
        name: ClassVar[str] = "nothing"

    with pytest.raises(SpecError, match=r"'nothing' does not say what it puts in place: give its class apply"):
        cu.Edit("mid", WINDOW, Nothing())
