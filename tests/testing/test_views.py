"""The kit tells what is wrong with a view, and lets pass what is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import causalunet as cu
from causalunet.design import Axes, View
from causalunet.design.views import VIEWS
from causalunet.errors import ConformanceError, SpecError
from causalunet.testing import check_view


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with VIEWS.scoped():
        yield


def own(**members: Any) -> View:
    """The first half of the channels, but for what is given."""

    def selected(self: View, axes: Axes) -> Any:
        return {"channel": slice(0, axes.size("channel") // 2)}

    given = {"name": "own", "dims": ("channel",), "selected": selected, "__slots__": (), **members}
    view: View = dataclass(frozen=True)(type("Own", (View,), given))()
    return view


def put_twice_the_part(self: View, value: Any, part: Any, axes: Axes) -> Any:
    return View.put(self, value, 2 * part, axes)


def put_in_place(self: View, value: Any, part: Any, axes: Axes) -> Any:
    value[:, : value.shape[1] // 2] = part
    return value


def put_beside(self: View, value: Any, part: Any, axes: Axes) -> Any:
    changed = View.put(self, value, part, axes)
    changed[:, -1] = part[:, 0]
    return changed


def add(self: View, value: Any, part: Any, axes: Axes) -> Any:
    return View.put(self, value, self.get(value, axes) + part, axes)


def mixed(self: View, value: Any, axes: Axes) -> Any:
    return View.get(self, value, axes) + value.mean(dim=0, keepdim=True)[:, :1]


@pytest.mark.parametrize(
    "view",
    [cu.Whole(), cu.Rows("uncond"), cu.Channels(0, 3), cu.Pixels((1, 4)), cu.Channels(2) @ cu.Rows("cond"), None],
)
def test_what_is_right_passes(view: View | None) -> None:
    report = check_view(own() if view is None else view)
    assert report
    assert len(report.findings) == 10


@pytest.mark.parametrize(
    ("members", "check", "said"),
    [
        ({"get": lambda self, value, axes: value[:, 0]}, "part", "get() gave 3 dimensions"),
        ({"get": mixed}, "part", "change rows [0, 1, 2, 3] of the part. Keep rows apart"),
        ({"put": put_in_place}, "value untouched", "put() wrote into what it was given"),
        ({"put": put_twice_the_part}, "put back", "put back, changes it"),
        ({"put": put_twice_the_part}, "put in", "is not the one that is shown then"),
        ({"put": add}, "put twice", "something of the first is left"),
        ({"put": put_beside}, "mask", "that mask() does not show"),
        ({"put": lambda self, value, part, axes: value.clone()}, "mask", "no part that is put into"),
        ({"covers": lambda self, axes: True}, "covers", "something is left of that"),
        ({"selected": lambda self, axes: {"channel": slice(99, 120)}}, "fits", "own shows nothing of a value (4 row"),
        ({"selected": lambda self, axes: {"token": (0,)}}, "fits", "no dimension token; it has row, channel, y, x"),
        ({"selected": View.selected}, "fits", "does not say what it shows"),
        ({"name": ""}, "registered", "has no name"),
    ],
)
def test_what_is_wrong_is_told(members: dict[str, Any], check: str, said: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_view(own(**members))
    assert any(line.startswith(f"{check}: ") and said in line for line in str(caught.value).splitlines()), caught.value


def test_other_dimensions_can_be_tried() -> None:
    view = cu.Channels(0, 1)
    assert check_view(view, dims=("row", "token", "channel"), shapes=[(2, 5, 4)])
    with pytest.raises(ConformanceError, match=r"channels 0-1 asks for channel of a value .* no channel"):
        check_view(view, dims=("row", "token"), shapes=[(2, 5)])
    for wrong in ({"shapes": [(1, 2, 3, 4)]}, {"dims": ("row",)}, {"shapes": []}):
        with pytest.raises(SpecError, match="takes sizes of"):
            check_view(view, **wrong)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="is no view"):
        check_view(np.zeros(3))  # type: ignore[arg-type]
