"""Windows: which steps they hold, what they refuse, and cut-relax-cut against a plain reference."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalunet.design import Window, Windows, cut_relax_cut
from causalunet.design.windows import count_steps, joined, windows_from_json, windows_to_json
from causalunet.errors import SpecError
from tests.design.examples import STEPS, single_windows, windows


@given(single_windows())
def test_window_holds_its_steps(window: Window) -> None:
    steps = list(window)
    assert len(steps) == window.length
    assert steps[0] == window.start
    assert steps[-1] == window.stop
    assert all(earlier - later == 1 for earlier, later in pairwise(steps))
    assert window.stop >= 1
    assert window.parts == (window,)


@pytest.mark.parametrize("name", ["start", "length"])
@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3", None])
def test_window_takes_positive_integers_only(name: str, value: Any) -> None:
    values = {"start": 5, "length": 1, name: value}
    with pytest.raises(SpecError, match=rf"Window {name} {value!r} is not valid; it must be an integer of at least 1"):
        Window(**values)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32, np.array])
def test_numbers_of_numpy_are_numbers(kind: Any) -> None:
    window = Window(kind(5), kind(2))
    assert window == Window(5, 2)
    assert {type(window.start), type(window.length)} == {int}
    cut = cut_relax_cut(kind(20), cut=kind(3), relax=kind(2), cuts=kind(2))
    assert cut == cut_relax_cut(20, cut=3, relax=2, cuts=2)
    json.dumps(windows_to_json(cut))


@pytest.mark.parametrize("name", ["start", "cut", "relax", "cuts"])
@pytest.mark.parametrize("value", [-1, 1.5, "1", None, True, np.float64(2), np.arange(2)])
def test_cut_relax_cut_takes_integers_only(name: str, value: Any) -> None:
    values = {"start": 20, "cut": 2, "relax": 1, "cuts": 2, name: value}
    with pytest.raises(SpecError, match=rf"cut_relax_cut got {name}=.*; it must be an integer of at least"):
        cut_relax_cut(**values)


def test_window_cannot_run_below_step_1() -> None:
    assert list(Window(3, 3)) == [3, 2, 1]
    with pytest.raises(SpecError, match=r"would run down to step 0; the last step is 1, so length can be at most 3"):
        Window(3, 4)


@given(windows(), st.integers(1, STEPS))
def test_check_accepts_exactly_the_windows_within_the_run(window: Window | Windows, steps: int) -> None:
    if max(window) <= steps:
        window.check(steps)
        return
    with pytest.raises(SpecError, match=rf"starts above step {steps}, the first step of a run of {steps} steps"):
        window.check(steps)


def test_check_names_the_choices() -> None:
    with pytest.raises(SpecError, match=r"Window\(start=12, length=5\).*Choose start in 5 \.\.\. 10"):
        Window(12, 5).check(10)


@given(windows())
def test_windows_hold_the_steps_of_their_parts(window: Window | Windows) -> None:
    steps = list(window)
    assert steps == [step for part in window.parts for step in part]
    assert steps == sorted(set(steps), reverse=True)
    assert window.start == steps[0]
    assert window.length == window.parts[0].length


@given(st.lists(single_windows(), min_size=1, max_size=3))
def test_windows_are_apart_and_in_order(parts: list[Window]) -> None:
    steps = [step for part in parts for step in part]
    if steps == sorted(set(steps), reverse=True):
        assert list(Windows(tuple(parts))) == steps
    else:
        with pytest.raises(SpecError, match="does not come after"):
            Windows(tuple(parts))


@given(st.lists(windows(), max_size=4))
def test_joined_windows_are_the_fewest_of_the_same_steps(many: list[Window | Windows]) -> None:
    parts = joined(many)
    assert [step for part in parts for step in part] == sorted({step for window in many for step in window})[::-1]
    assert all(earlier.stop > later.start + 1 for earlier, later in pairwise(parts))
    assert count_steps(many) == len({step for window in many for step in window})


@given(windows())
def test_equal_steps_are_equal_windows(window: Window | Windows) -> None:
    by_step = Windows(tuple(Window(step, 1) for step in window))
    assert windows_to_json(by_step) == windows_to_json(window)
    assert by_step.parts == window.parts


def test_windows_that_overlap_by_one_step() -> None:
    Windows((Window(10, 3), Window(7, 2)))
    with pytest.raises(SpecError, match=r"Window\(start=8, .*\) does not come after Window\(start=10, .*\) in the run"):
        Windows((Window(10, 3), Window(8, 2)))


@pytest.mark.parametrize("parts", [(), None, {Window(5, 5)}, (5, 4), 5], ids=repr)
def test_windows_of_something_else(parts: Any) -> None:
    with pytest.raises(SpecError, match="Window"):
        Windows(parts)


def test_windows_are_values() -> None:
    assert Window(5, 2) == Window(5, 2) != Window(5, 1)
    assert len({Window(5, 2), Window(5, 2), Windows((Window(5, 2),))}) == 2
    assert len({Windows([Window(5, 2)]), Windows((Window(5, 2),))}) == 1
    with pytest.raises(AttributeError):
        Window(5, 2).start = 4  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Windows((Window(5, 2),)).parts = ()  # type: ignore[misc]


@given(windows())
def test_json_round_trip(window: Window | Windows) -> None:
    again = windows_from_json(windows_to_json(window))
    assert again.parts == window.parts


@pytest.mark.parametrize("value", [None, 3, [3], [[3]], [[3, 2, 1, 0]], {"start": 3}, [(3, 2)]])
def test_json_of_something_else(value: Any) -> None:
    with pytest.raises(SpecError, match=r"written as \[\[start, length\], \.\.\.\]"):
        windows_from_json(value)


def test_json_of_no_window() -> None:
    with pytest.raises(SpecError, match="at least one Window"):
        windows_from_json([])


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 8), st.integers(1, 4))
def test_cut_relax_cut_against_a_walk(start: int, cut: int, relax: int, cuts: int) -> None:
    """Walk down from the start: a cut, a relaxation, a cut, ..., no relaxation after the last."""
    walk, step = [], start
    for index in range(cuts):
        walk += range(step, step - cut, -1)
        step -= cut + (relax if index < cuts - 1 else 0)
    if step < 0:
        with pytest.raises(SpecError, match=rf"needs {start - step} steps, and only {start} are left at step {start}"):
            cut_relax_cut(start, cut=cut, relax=relax, cuts=cuts)
        return
    made = cut_relax_cut(start, cut=cut, relax=relax, cuts=cuts)
    assert list(made) == walk
    assert len(made.parts) == (cuts if relax else 1)


def test_cut_relax_cut_without_relaxing_is_one_window() -> None:
    assert cut_relax_cut(20, cut=5, relax=0, cuts=3).parts == (Window(20, 15),)


@pytest.mark.parametrize("values", [{"cut": 5, "relax": -1}, {"cut": 5, "relax": 1, "cuts": 0}, {"cut": 0, "relax": 1}])
def test_cut_relax_cut_refuses(values: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="at least"):
        cut_relax_cut(20, **values)


@pytest.mark.parametrize("stage", [-1, 255, True, 0.5, "0"])
def test_a_stage_is_a_call_of_a_step(stage: Any) -> None:
    with pytest.raises(SpecError, match=rf"Window stage {stage!r} is not valid; it counts the U-Net calls of a step"):
        Window(5, 2, stage=stage)


@given(windows(), st.none() | st.integers(0, 254))
def test_a_stage_is_kept_and_no_stage_is_not_written(window: Window | Windows, stage: int | None) -> None:
    staged = Windows(tuple(replace(part, stage=stage) for part in window.parts))
    assert staged.stage == stage
    assert list(staged) == list(window)
    written = windows_to_json(staged)
    assert written == [[*entry, *([] if stage is None else [stage])] for entry in windows_to_json(window)]
    assert list(windows_from_json(written).parts) == list(staged.parts)
    assert (staged == Windows(window.parts)) == (stage is None)


def test_windows_have_one_stage() -> None:
    with pytest.raises(SpecError, match=r"got the stages 1, None; all windows of one edit have the same"):
        Windows((Window(9, 2, stage=1), Window(5, 2)))
    assert cut_relax_cut(20, cut=3, relax=2, stage=1).parts == (Window(20, 3, 1), Window(15, 3, 1))
    assert repr(Window(np.int64(5), 2, stage=np.uint8(1))) == "Window(start=5, length=2, stage=1)"
    with pytest.raises(SpecError, match=r"A window is written as \[\[start, length\], \.\.\.\]"):
        windows_from_json([[5, 2, 1, 0]])
