"""Proposals: windows that cover what they may and nothing else, and runs of fewer steps that are evenly spaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.analysis.estimates import estimate_quality
from causalunet.analysis.proposals import fewer_steps, propose_shortcuts, stopping_step
from causalunet.errors import SpecError
from causalunet.schedule import spaced_timesteps

STEPS = 60


def groups(*rows: tuple[int, int, int, float]) -> xr.Dataset:
    """What `relaxation_needed` answers: rows of bottom, start, cut, relaxation."""
    columns = zip(("bottom", "start", "cut", "relax"), zip(*rows, strict=True), strict=True)
    return xr.Dataset({name: ("group", np.array(values)) for name, values in columns})


def brute_force(start: int, cut: int, relax: float, stop: int) -> set[int]:
    """Steps cut, walking down one by one."""
    steps, phase = set(), 0
    for step in range(start, stop, -1):
        if phase < cut:
            steps.add(step)
        phase += 1
        if not np.isnan(relax) and phase == cut + relax:
            phase = 0
    return steps


@given(
    st.integers(2, STEPS),
    st.integers(1, 20),
    st.one_of(st.just(np.nan), st.integers(0, 12)),
    st.integers(1, STEPS - 1),
)
def test_cuts_and_relaxations_take_turns_down_to_the_stop(start: int, cut: int, relax: float, stop: int) -> None:
    made = propose_shortcuts(groups((4, start, cut, relax)), {"stop": stop}, steps=STEPS)
    if start <= stop:
        assert not made
        return
    (whole,) = made.values()
    cuts = {step for edit in whole.edits() if edit.component == "up.3" for step in edit.window}
    skipped = {step for edit in whole.edits() if edit.component == "unet" for step in edit.window}
    assert cuts == brute_force(start, cut, relax, stop)
    assert skipped == set(range(stop - 1, 0, -1))
    assert stop not in cuts | skipped


def test_every_depth_with_every_stop() -> None:
    made = propose_shortcuts(groups((4, 50, 10, 5), (8, 40, 5, 20)), {"early": 30, "late": 10}, steps=STEPS)
    assert list(made) == [
        "bottom 4 from 50, early",
        "bottom 4 from 50, late",
        "bottom 8 from 40, early",
        "bottom 8 from 40, late",
    ]
    expected = cu.AblateBlock(bottom=8, window=cu.Windows((cu.Window(40, 5), cu.Window(15, 5)))) + cu.SkipSteps(
        cu.Window(9, 9)
    )
    assert made["bottom 8 from 40, late"].digest == expected.digest


@pytest.mark.parametrize("stop", [0, STEPS])
def test_a_stop_outside_the_run(stop: int) -> None:
    with pytest.raises(SpecError, match=r"can stop at 1 \.\.\. 59; asked: \{'x'"):
        propose_shortcuts(groups((4, 50, 10, 5)), {"x": stop}, steps=STEPS)


@given(st.integers(3, 200).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(2, steps - 1))))
def test_fewer_steps_are_evenly_spaced_with_both_ends(sizes: tuple[int, int]) -> None:
    steps, kept = sizes
    called = sorted(set(range(1, steps + 1)) - fewer_steps(steps, kept).steps)
    assert len(called) == kept
    assert (called[0], called[-1]) == (1, steps)
    gaps = np.diff(called)
    assert gaps.max() - gaps.min() <= 1
    # The spacing of OpenAI's samplers, which rounds halves in the other direction here and there.
    assert np.abs(np.array(called) - 1 - np.sort(spaced_timesteps(steps, kept))).max() <= 1


@given(
    st.integers(4, 200)
    .flatmap(lambda steps: st.tuples(st.just(steps), st.integers(2, steps - 1)))
    .flatmap(lambda sizes: st.tuples(st.just(sizes), st.integers(0, sizes[1] - 1)))
)
def test_dense_ones_come_first_and_the_rest_is_spaced_evenly(sizes: tuple[tuple[int, int], int]) -> None:
    (steps, kept), dense = sizes
    called = sorted(set(range(1, steps + 1)) - fewer_steps(steps, kept, dense=dense).steps, reverse=True)
    assert len(called) == kept
    assert (called[0], called[-1]) == (steps, 1)
    assert called[:dense] == list(range(steps, steps - dense, -1))
    gaps = -np.diff(called[max(dense - 1, 0) :])
    assert gaps.max() - gaps.min() <= 1
    if dense <= 1:
        assert fewer_steps(steps, kept, dense=dense) == fewer_steps(steps, kept)


@pytest.mark.parametrize("dense", [-1, 4, 5])
def test_numbers_of_dense_steps_that_cannot_be(dense: int) -> None:
    with pytest.raises(SpecError, match=r"Of 4 steps kept, 0 \.\.\. 3 can be the first"):
        fewer_steps(10, 4, dense=dense)


@pytest.mark.parametrize("kept", [1, 10, 11])
def test_numbers_of_steps_that_cannot_be(kept: int) -> None:
    with pytest.raises(SpecError, match=r"Of 10 steps 2 \.\.\. 9 can be kept"):
        fewer_steps(10, kept)


def test_stopping_step_is_the_first_that_stays_above(run_study, tmp_path: Path) -> None:
    results = run_study(cu.SkipSteps(cu.Window(2, 1)), steps=8)
    mean = estimate_quality(results)["ssim"].mean("sample")
    for threshold in (-1.0, 0.2, 0.5, 0.9, 0.999):
        expected = None
        for step in range(1, 9):  # from the end of the run backwards
            if float(mean.sel(step=step)) < threshold:
                break
            expected = step
        assert stopping_step(results, threshold=threshold) == expected
    crossing = [step for step in range(8, 0, -1) if float(mean.sel(step=step)) >= 0.5]
    assert stopping_step(results, threshold=0.5, lasting=False) == (crossing[0] if crossing else None)
