"""Sweeps: the product of the values, in order, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalunet.design import (
    AblateBlock,
    AblateSkip,
    Composition,
    Edit,
    Intervention,
    Null,
    Scale,
    SkipSteps,
    Window,
    cut_relax_cut,
    factorial,
    sweep,
)
from causalunet.errors import SpecError

bottoms = st.lists(st.integers(1, 16), min_size=1, max_size=3)
starts = st.lists(st.integers(5, 100), min_size=1, max_size=3)
lengths = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@given(bottoms, starts, lengths, st.permutations(["bottom", "start", "length"]))
def test_product_with_the_last_field_fastest(
    bottom: list[int], start: list[int], length: list[int], order: list[str]
) -> None:
    values = {"bottom": bottom, "start": start, "length": length}
    made = sweep(AblateBlock, **{name: values[name] for name in order})
    rows = (dict(zip(order, row, strict=True)) for row in itertools.product(*(values[name] for name in order)))
    assert made == tuple(AblateBlock(row["bottom"], Window(row["start"], row["length"])) for row in rows)
    assert len(made) == len(bottom) * len(start) * len(length)


def test_single_values_and_any_kind_of_sequence() -> None:
    made = sweep(AblateSkip, top=2, start=range(10, 4, -5), length=5)
    assert made == sweep(AblateSkip, top=(2,), start=[10, 5], length=(n for n in [5]))
    assert made == (AblateSkip(2, Window(10, 5)), AblateSkip(2, Window(5, 5)))
    assert sweep(SkipSteps, start=9, length=(1, 2)) == (SkipSteps(Window(9, 1)), SkipSteps(Window(9, 2)))


def test_windows_are_an_axis_or_one_value() -> None:
    cut = cut_relax_cut(20, cut=5, relax=2)
    assert sweep(AblateBlock, bottom=(1, 2), window=cut) == (AblateBlock(1, cut), AblateBlock(2, cut))
    assert sweep(Null, window=Window(9, 2)) == (Null(Window(9, 2)),)
    assert sweep(Null, window=[Window(9, 2), cut]) == (Null(Window(9, 2)), Null(cut))


def test_stages_are_an_axis_beside_start_and_length() -> None:
    made = sweep(AblateBlock, bottom=1, start=(9, 8), length=2, stage=(None, 1))
    assert [item.window for item in made] == [Window(9, 2), Window(9, 2, 1), Window(8, 2), Window(8, 2, 1)]


def test_text_is_one_value_and_fills_are_swept() -> None:
    made = sweep(Edit, component="up.3", fill=[Scale(0.5), Scale(2.0)], window=Window(9, 2), branch=("cond", "both"))
    assert [(item.component, item.fill, item.branch) for item in made] == [
        ("up.3", Scale(0.5), "cond"),
        ("up.3", Scale(0.5), "both"),
        ("up.3", Scale(2.0), "cond"),
        ("up.3", Scale(2.0), "both"),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no field has no values"),
        ({"bottom": 2, "start": range(5, 5), "length": 1}, "The sweep over AblateBlock is empty: start has no values"),
        ({"bottom": (), "start": [], "length": 1}, "is empty: bottom, start has no values"),
    ],
)
def test_empty(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sweep(AblateBlock, **values)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            AblateSkip,
            {"bottom": 2, "start": 9, "length": 1},
            "AblateSkip has no field bottom to sweep; it has branch, ",
        ),
        (
            Null,
            {"branch": "cond"},
            "Null has no field branch to sweep; it has components, length, stage, ",
        ),
        (Null, {"window": Window(9, 1), "label": "x"}, "Null has no field label to sweep"),
        (Composition, {"start": 3, "length": 1}, "Composition has no field length, start to sweep; it has parts"),
        (AblateSkip, {"top": 2, "start": 9}, "only one of start and length; a window needs both"),
        (AblateSkip, {"top": 2, "length": 1}, "only one of start and length; a window needs both"),
        (AblateSkip, {"top": 2, "start": 9, "length": 1, "window": Window(9, 1)}, "both window and start"),
        (AblateSkip, {"top": 2}, "AblateSkip lacks window"),
        (AblateSkip, {"start": 9, "length": 1}, "AblateSkip lacks top"),
        (AblateSkip, {"top": (1, 0), "start": 9, "length": 1}, "top=0; it must be an integer of at least 1"),
        (AblateSkip, {"top": 2, "start": (9, 3), "length": 5}, "length can be at most 3"),
    ],
)
def test_refuses(kind: type[Intervention], values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sweep(kind, **values)


A, B, C = AblateBlock(1, Window(9, 2)), AblateSkip(2, Window(9, 2)), Edit("up.3", Window(4, 2))


def test_a_factorial_design_has_all_sums_up_to_an_order() -> None:
    assert factorial(A, B) == (A, B, A + B)
    assert factorial(A, B, C) == (A, B, C, A + B, A + C, B + C)
    assert factorial(A, B, C, order=3) == (A, B, C, A + B, A + C, B + C, A + B + C)


@pytest.mark.parametrize(
    ("given", "order", "message"),
    [
        ((A,), 2, "give two or more that differ"),
        ((A, B, A), 2, "give two or more that differ"),
        ((A, B), 3, "give a number from 2 to 2"),
        ((A, sweep(AblateSkip, top=2, start=9, length=2)), 2, r"unpack what is several: \*sweep"),
        ((A, Edit("up.0", Window(9, 1), Scale(2.0))), 2, "up.0 at step 9 is edited twice"),
    ],
)
def test_what_is_no_factorial_design(given: Any, order: int, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        factorial(*given, order=order)
