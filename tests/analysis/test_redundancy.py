"""Redundant steps, longest windows and relaxations, against loops and on simulated studies with known answers."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from causalunet.analysis.criteria import Criterion
from causalunet.analysis.redundancy import (
    _START,
    _answer,
    _Question,
    canonical_order,
    first_redundant_step,
    longest_window,
    relaxation_needed,
    resampling_weights,
)
from causalunet.design import AblateBlock, AblateSkip, Null, Window, cut_relax_cut, sweep
from causalunet.errors import SpecError, StoreError
from tests.analysis.synthetic import write_results

INTERVENTIONS = (
    Null(window=Window(20, 20)),
    *sweep(AblateBlock, bottom=(2, 4), start=(12, 4, 20, 8, 16), length=3),
    *sweep(AblateBlock, bottom=2, start=10, length=(4, 1, 2, 3)),
    *sweep(AblateBlock, bottom=2, start=18, length=(1, 2, 5)),
    *(AblateBlock(bottom=2, window=cut_relax_cut(18, cut=2, relax=relax)) for relax in (2, 0, 6, 4)),
    *(AblateBlock(bottom=4, window=cut_relax_cut(18, cut=2, relax=relax, cuts=3)) for relax in (3, 1)),
    *sweep(AblateSkip, top=2, start=(20, 10), length=5),
)
SWEEP = {"kind": "ablate_block", "length": 3, "start": [4, 8, 12, 16, 20]}
CRITERIA = (
    Criterion(threshold=0.6),
    Criterion(threshold=0.6, kind="lower", resamples=199),
    Criterion(threshold=0.5, kind="share", share=0.6),
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return write_results(tmp_path_factory.mktemp("redundancy") / "results.zarr", INTERVENTIONS)


def planted(stored: xr.DataTree, values: dict[str, Any]) -> xr.DataTree:
    """The stored results with these SSIM values, by label; all others are 1."""
    data = stored["outcomes"].to_dataset()
    ssim = np.ones(data["ssim"].shape)
    for label, value in values.items():
        ssim[data["intervention"].values.tolist().index(label)] = value
    return xr.DataTree.from_dict({"outcomes": data.assign(ssim=(data["ssim"].dims, ssim))})


def block(bottom: int, start: int, stop: int) -> str:
    return f"ablate_block bottom={bottom} {start}-{stop}"


# What is asked, on planted values


def test_redundant_from_the_earliest_start_that_lasts(stored: xr.DataTree) -> None:
    results = planted(stored, {block(2, 20, 18): 0.1, block(2, 12, 10): 0.5, block(4, 4, 2): 0.79})
    found = first_redundant_step(results, **SWEEP)
    assert found["step"].dims == ("bottom",)
    assert found["bottom"].values.tolist() == [2, 4]
    assert found["step"].values.tolist() == [8.0, pytest.approx(np.nan, nan_ok=True)]
    np.testing.assert_array_equal(found["interval"], [[8, 8], [np.nan, np.nan]])
    assert found["never"].values.tolist() == [0, 1]
    assert found["candidate"].values.tolist() == [4, 8, 12, 16, 20]
    assert found["passes"].values.tolist() == [[True, True, False, True, False], [False, True, True, True, True]]
    assert found["tested"].all()
    assert found["at_edge"].values.tolist() == [False, False]
    first = first_redundant_step(results, lasting=False, **SWEEP)
    assert first["step"].values.tolist() == [16, 20]
    assert first["at_edge"].values.tolist() == [False, True]


def test_threshold_and_criterion(stored: xr.DataTree) -> None:
    values = {block(2, start, start - 2): level for start, level in zip((4, 8, 12), (0.9, 0.8, 0.7), strict=True)}
    results = planted(stored, {**values, block(2, 16, 14): 0.1})
    asked = {"bottom": 2, **SWEEP}
    steps = [first_redundant_step(results, threshold=at, **asked)["step"].item() for at in (0.95, 0.85, 0.8, 0.6)]
    np.testing.assert_array_equal(steps, [np.nan, 4, 8, 12])
    mixed = planted(stored, {block(2, 4, 2): [0.9] * 9 + [0.7] * 3})
    for share, passed in ((0.75, True), (0.76, False)):
        found = first_redundant_step(mixed, Criterion(kind="share", share=share), **asked)
        assert found["passes"].sel(candidate=4).item() is passed
    assert found.attrs["criterion"] == "SSIM >= 0.8 in at least 76 % of samples"
    with pytest.raises(SpecError, match="one of them"):
        first_redundant_step(results, Criterion(), threshold=0.5, **asked)


@pytest.mark.parametrize("kind", ["mean", "lower", "share"])
def test_a_distance_has_the_answers_of_its_negative(stored: xr.DataTree, kind: Any) -> None:
    """One minus SSIM at most 0.2 is SSIM at least 0.8, in answers, intervals and shares without one."""
    ssim = stored["outcomes"]["ssim"]
    mine = xr.DataTree.from_dict(
        {"outcomes": stored["outcomes"].to_dataset().assign(mine=(1 - ssim).assign_attrs(better="lower"))}
    )
    options: dict[str, Any] = {"kind": kind, "share": 0.5, "resamples": 99}
    selection: dict[str, Any] = {"kind": "ablate_block", "length": 5, "resamples": 99}
    own = Criterion(variable="mine", threshold=0.25, better="lower", **options)
    one = first_redundant_step(mine, own, **selection)
    other = first_redundant_step(stored, Criterion(threshold=0.75, **options), **selection)
    for name in ("step", "interval", "never", "at_edge", "tested", "passes"):
        np.testing.assert_array_equal(one[name], other[name])
    turned = stored["outcomes"].to_dataset().assign(mine=(1 - ssim).assign_attrs(better="higher"))
    with pytest.raises(SpecError, match="said in two ways"):
        first_redundant_step(xr.DataTree.from_dict({"outcomes": turned}), own, **selection)


def test_longest_window(stored: xr.DataTree) -> None:
    results = planted(stored, {block(2, 10, 8): 0.5, block(2, 18, 14): 0.7})
    found = longest_window(results, kind="ablate_block")
    assert found["length"].dims == ("group",)
    assert list(zip(found["bottom"].values, found["start"].values, strict=True)) == [(2, 10), (2, 18)]
    # 18 has length 4 too: it is there as the relaxation of 0.
    assert found["tested"].values.tolist() == [[True] * 4 + [False], [True, True, False, True, True]]
    assert found["length"].values.tolist() == [2, 4]
    assert not found["at_edge"].any()
    assert longest_window(results, threshold=0.4, kind="ablate_block")["at_edge"].all()


def test_relaxation(stored: xr.DataTree) -> None:
    labels = {relax: f"ablate_block bottom=2 18-17 {16 - relax}-{15 - relax}" for relax in (2, 4, 6)}
    results = planted(stored, {labels[2]: 0.5})
    asked = functools.partial(relaxation_needed, kind="ablate_block")
    found = asked(results)
    names = ("bottom", "start", "cut", "cuts")
    assert [tuple(int(found[name][row]) for name in names) for row in range(2)] == [(2, 18, 2, 2), (4, 18, 2, 3)]
    assert found["candidate"].values.tolist() == [6, 4, 3, 2, 1, 0]
    assert found["tested"].values.tolist() == [
        [True, True, False, True, False, True],
        [False, False, True, False, True, False],
    ]
    assert found["relax"].values.tolist() == [4, 1]
    assert found["at_edge"].values.tolist() == [False, True]
    assert asked(planted(stored, {}))["relax"].values.tolist() == [0, 1]
    joined = asked(planted(stored, {block(2, 18, 15): 0.5}))
    assert joined["relax"].values.tolist() == [2, 1]
    assert np.isnan(asked(planted(stored, {labels[6]: 0.5}))["relax"].values[0])


def test_no_relaxation_is_of_the_same_kind(tmp_path: Path) -> None:
    """A single window of one half of the guided batch is not the cut-relax-cut without relaxation."""
    cuts = (AblateBlock(bottom=2, window=cut_relax_cut(18, cut=2, relax=relax)) for relax in (2, 4))
    other = AblateBlock(bottom=2, window=cut_relax_cut(18, cut=2, relax=0), branch="cond")
    found = relaxation_needed(write_results(tmp_path / "results.zarr", (*cuts, other)))
    assert found["candidate"].values.tolist() == [4, 2]


def test_bounds_of_a_relaxation_are_in_order(stored: xr.DataTree) -> None:
    spread = np.linspace(0.55, 1.0, 12)
    results = planted(stored, {f"ablate_block bottom=2 18-17 {16 - relax}-{15 - relax}": spread for relax in (2, 4)})
    found = relaxation_needed(results, threshold=0.78, bottom=2, kind="ablate_block")
    assert found["interval"].values[0].tolist() == [0, 6]


# The bootstrap, against a loop


def by_loop(values: np.ndarray, criterion: Criterion, lasting: bool, resamples: int, seed: int) -> list[int]:
    """Index of the answer in every resample, candidate by candidate."""
    columns = np.array(sorted(map(tuple, values.T))).T
    samples = columns.shape[1]
    lower = criterion.statistic(columns) if criterion.kind == "lower" else None
    answers = []
    for drawn in np.random.default_rng(seed).integers(samples, size=(resamples, samples)):
        passes = []
        for cell, row in enumerate(columns):
            again = row[drawn]
            if criterion.kind == "share":
                passes.append(np.mean(again >= criterion.threshold) >= criterion.share)
            elif criterion.kind == "mean":
                passes.append(again.mean() >= criterion.threshold)
            else:
                bound = again.mean() - (row.mean() - lower[cell]) * again.std() / row.std()
                passes.append(bound >= criterion.threshold)
        places = [place for place, passed in enumerate(passes) if passed]
        if lasting:
            places = [place for place in places if all(passes[:place])]
        answers.append(max(places, default=-1))
    return answers


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
@pytest.mark.parametrize("lasting", [True, False])
def test_interval_and_never_are_those_of_a_loop(stored: xr.DataTree, criterion: Criterion, lasting: bool) -> None:
    rng = np.random.default_rng(3)
    drawn = {start: rng.beta(4, 0.8 + start / 8, size=12) for start in (4, 8, 12, 16, 20)}
    results = planted(stored, {block(2, start, start - 2): value for start, value in drawn.items()})
    asked = {"probability": 0.8, "resamples": 299, "seed": 5, "bottom": 2, **SWEEP}
    found = first_redundant_step(results, criterion, lasting=lasting, **asked)
    answers = np.sort(by_loop(np.array([drawn[start] for start in drawn]), criterion, lasting, 299, 5))
    assert found["never"].item() == np.mean(answers == -1)
    steps = np.array([4, 8, 12, 16, 20, np.nan])
    # The smallest value with at least 10 (90) % of the resamples at or below it.
    expected = [steps[answers[int(np.ceil(share * 299)) - 1]] for share in (0.1, 0.9)]
    np.testing.assert_array_equal(found["interval"].values[0], expected)
    assert len(set(answers)) > 2


def test_infinite_psnr(stored: xr.DataTree) -> None:
    data = stored["outcomes"].to_dataset()
    psnr = np.full(data["psnr"].shape, np.inf)
    place = data["intervention"].values.tolist().index(block(2, 8, 6))
    psnr[place, 1:] = np.linspace(15, 25, psnr.shape[1] - 1)
    results = xr.DataTree.from_dict({"outcomes": data.assign(psnr=(data["psnr"].dims, psnr))})
    asked = {"bottom": 2, **SWEEP}
    mean = first_redundant_step(results, Criterion(variable="psnr", threshold=30), lasting=True, **asked)
    assert mean["step"].item() == 20
    # One sample of 12 is infinite: a resample lacks it with probability (11/12)**12, and 8 fails then.
    assert mean["interval"].values[0].tolist() == [4, 20]
    lower = Criterion(variable="psnr", threshold=30, kind="lower", resamples=199)
    assert first_redundant_step(results, lower, **asked)["interval"].values[0].tolist() == [4, 4]


@pytest.mark.parametrize("part", [1, 7, 1 << 22])
def test_weights_do_not_depend_on_how_the_work_is_divided(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr("causalunet.analysis.redundancy._MOST_VALUES", 13 * part)
    weights = np.concatenate(list(resampling_weights(13, 5, resamples=50, seed=2)))
    drawn = np.random.default_rng(2).integers(13, size=(50, 13))
    np.testing.assert_array_equal(weights, [np.bincount(row, minlength=13) for row in drawn])


# Laws

VALUES = arrays.arrays(np.float64, (4, 5), elements=st.floats(0, 1).map(lambda value: round(value, 2)))


def question(criterion: Criterion, *, lasting: bool = True, resamples: int = 49) -> _Question:
    options = {"probability": 0.9, "resamples": resamples, "seed": 0, "lasting": lasting}
    return _Question(axis=_START, names=("bottom",), criterion=criterion, **options)


def ask(values: np.ndarray, criterion: Criterion, **options: Any) -> tuple[float, float, float, float]:
    """Point value, bounds and ``never``, with "none" below every candidate."""
    asked = question(criterion, **options)
    point, interval, never, _ = _answer(asked, np.arange(len(values)), values, criterion.statistic(values))
    return tuple(np.nan_to_num([point, *interval, never], nan=-1))


@given(VALUES, st.sampled_from(["mean", "share"]), st.tuples(st.floats(0, 1), st.floats(0, 1)), st.booleans())
def test_a_higher_threshold_is_never_reached_earlier(
    values: np.ndarray, kind: Any, thresholds: tuple[float, float], lasting: bool
) -> None:
    low, high = sorted(thresholds)
    *easy, easy_never = ask(values, Criterion(threshold=low, kind=kind, share=0.6), lasting=lasting)
    *strict, strict_never = ask(values, Criterion(threshold=high, kind=kind, share=0.6), lasting=lasting)
    assert all(one <= other for one, other in zip(strict, easy, strict=True))
    assert strict_never >= easy_never


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
@settings(max_examples=25)
@given(values=VALUES, rnd=st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(criterion: Criterion, values: np.ndarray, rnd: random.Random) -> None:
    shuffled = values[:, rnd.sample(range(5), 5)]
    assert ask(shuffled, criterion) == ask(values, criterion)
    np.testing.assert_array_equal(canonical_order(shuffled), canonical_order(values))


@settings(max_examples=4)
@given(st.randoms(use_true_random=False))
def test_the_order_of_interventions_does_not_matter(stored: xr.DataTree, rnd: random.Random) -> None:
    data = stored["outcomes"].to_dataset()
    order = rnd.sample(range(data.sizes["intervention"]), data.sizes["intervention"])
    shuffled = xr.DataTree.from_dict({"outcomes": data.isel(intervention=order)})
    options = {"threshold": 0.6, "resamples": 49, "kind": "ablate_block"}
    for function, selection in ((first_redundant_step, SWEEP), (longest_window, {}), (relaxation_needed, {})):
        xr.testing.assert_identical(
            function(shuffled, **{**options, **selection}), function(stored, **{**options, **selection})
        )


# Simulated studies


def study(rng: np.random.Generator, starts: np.ndarray, samples: int) -> np.ndarray:
    """SSIM by start: low for starts before a sample's own turning point, high after it; (start, sample)."""
    turn, depth = 50 + 15 * rng.standard_normal(samples), rng.uniform(0.4, 0.8, samples)
    noise = 0.02 * rng.standard_normal((len(starts), samples))
    return np.clip(0.97 - depth / (1 + np.exp((turn - starts[:, None]) / 6)) + noise, -1, 1)


@pytest.mark.parametrize(
    "criterion", [Criterion(threshold=0.75), Criterion(kind="share", threshold=0.75, share=0.6)], ids=["mean", "share"]
)
def test_coverage(criterion: Criterion) -> None:
    """500 studies of 60 samples: how often the 95 % interval holds the step of the whole population."""
    starts = np.arange(30, 71)
    asked = question(criterion, resamples=299)
    asked = _Question(**{name: getattr(asked, name) for name in _Question.__slots__} | {"probability": 0.95})
    population = criterion.statistic(study(np.random.default_rng(1), starts, 100_000))
    truth = float(starts[asked.reached(population >= criterion.needed)])
    covered = widths = 0.0
    for seed in range(500):
        values = study(np.random.default_rng([7, seed]), starts, 60)
        _, (lower, upper), _, _ = _answer(asked, starts, values, criterion.statistic(values))
        covered += bool(lower <= truth <= upper)
        widths += upper - lower
    assert 0.92 <= covered / 500 <= 0.97
    assert widths / 500 < 15


# Errors


@pytest.mark.parametrize(
    ("function", "options", "told"),
    [
        (first_redundant_step, {"kind": "ablate_block"}, "Select one, such as length="),
        (first_redundant_step, {"by": "depth"}, "group by any of .*bottom"),
        (first_redundant_step, {"by": "start"}, "candidates differ in that"),
        (first_redundant_step, {"kind": "null"}, "all null"),
        (first_redundant_step, {"probability": 95, **SWEEP}, "probability=95"),
        (first_redundant_step, {"resamples": 0, **SWEEP}, "at least 1"),
        (longest_window, {**SWEEP}, r"one each, of the lengths \[3\]"),
        (relaxation_needed, {**SWEEP}, "cut_relax_cut"),
    ],
)
def test_errors_say_what_to_do(stored: xr.DataTree, function: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        function(stored, **options)


def test_unfinished_studies(tmp_path: Path) -> None:
    items = sweep(AblateBlock, bottom=2, start=(12, 4), length=3)
    results = write_results(tmp_path / "results.zarr", items, blocks_done=2)
    with pytest.raises(StoreError, match="8 samples that are whole"):
        first_redundant_step(results)
    assert first_redundant_step(results, allow_incomplete=True).attrs["samples"] == 8
