"""What is alike in everything but one number, whoever asks: searches, curves and figures."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalunet.design import AblateBlock, Edit, Intervention, Null, Scale, Window, cut_relax_cut
from causalunet.design.families import alike_but_for

NUMBERS = ("bottom", "start", "length", "cuts", "relax")
VALUES = {"bottom": (1, 2), "start": (60, 50), "length": (2, 4), "cuts": (1, 2, 3), "relax": (0, 3, 5)}


def cut(bottom: int, start: int, length: int, cuts: int, relax: int) -> Intervention:
    return AblateBlock(bottom, cut_relax_cut(start, cut=length, relax=relax, cuts=cuts))


CUTS = [dict(zip(NUMBERS, values, strict=True)) for values in itertools.product(*VALUES.values())]
CUTS = [one for one in CUTS if (one["cuts"] == 1) == (one["relax"] == 0)]


@given(st.lists(st.sampled_from(CUTS), unique_by=str, min_size=1), st.sampled_from(NUMBERS))
def test_groups_are_those_of_the_other_numbers(drawn: list[dict[str, int]], by: str) -> None:
    expected: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for position, numbers in enumerate(drawn):
        expected[tuple(value for name, value in numbers.items() if name != by)].add(position)
        if by == "relax" and numbers["cuts"] > 1:
            whole = {**numbers, "length": numbers["length"] * numbers["cuts"], "cuts": 1, "relax": 0}
            same = tuple(value for name, value in numbers.items() if name != by)
            expected[same] |= {place for place, other in enumerate(drawn) if other == whole}
    found = alike_but_for([cut(**numbers).to_json() for numbers in drawn], by)
    if by == "relax":  # a single window has no relaxation to differ in
        expected = {key: group for key, group in expected.items() if key[NUMBERS.index("cuts")] > 1}
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected.values()))
    assert [group[0] for group in found] == sorted(group[0] for group in found) or by == "relax"


@pytest.mark.parametrize("by", ["start", "length"])
def test_what_is_alike_is_so_in_fill_branch_and_all_parts(by: str) -> None:
    window, other = Window(9, 2), Window(8, 2) if by == "start" else Window(9, 3)
    items = [
        Edit("mid", window, Scale(0.5)),
        Edit("mid", other, Scale(0.5), label="under another name"),
        Edit("mid", other, Scale(0.25)),
        Edit("mid", other, Scale(0.5), "cond"),
        Null(window),
        AblateBlock(1, window) + Edit("down.0", window),
        AblateBlock(1, other) + Edit("down.0", other),
    ]
    assert alike_but_for([item.to_json() for item in items], by) == [[0, 1], [2], [3], [5, 6]]


@pytest.mark.parametrize("by", ["start", "length", "relax"])
def test_stages_are_families_of_their_own(by: str) -> None:
    numbers = {"start": 60, "cut": 4, "relax": 3, "cuts": 2 if by == "relax" else 1}
    name = "cut" if by == "length" else by
    both = [numbers, {**numbers, name: 5}]
    windows = [cut_relax_cut(**one, stage=stage) for stage in (None, 0, 1) for one in both]
    made = [AblateBlock(1, window).to_json() for window in windows]
    assert alike_but_for(made, by) == [[0, 1], [2, 3], [4, 5]]
