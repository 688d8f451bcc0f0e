"""Paired comparisons against scipy called directly, and their laws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from causalunet.analysis.compare import compare
from causalunet.analysis.paired import effect_size, effect_size_interval, sign_flip
from causalunet.analysis.sweeps import sweeps
from causalunet.design import AblateBlock, AblateSkip, Window, sweep
from causalunet.errors import SpecError, StoreError
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results

INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 4), start=(5, 20, 10), length=3),
    AblateSkip(2, Window(9, 5)),
)
TWO, FOUR = ({"kind": "ablate_block", "bottom": bottom} for bottom in (2, 4))
# Eighths add up without rounding, so that ties are ties for scipy as well.
DIFFERENCES = arrays.arrays(np.float64, (2, 6), elements=st.floats(-1, 1).map(lambda value: round(value * 8) / 8))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return write_results(tmp_path_factory.mktemp("compare") / "results.zarr", INTERVENTIONS)


def values_of(results: xr.DataTree, label: str, variable: str = "ssim") -> np.ndarray:
    outcomes = results["outcomes"]
    return outcomes[variable].values[outcomes["intervention"].values.tolist().index(label)]


def test_two_interventions(results: xr.DataTree) -> None:
    labels = "ablate_block bottom=2 10-8", "ablate_skip top=2 9-5"
    data = compare(results, *labels, probability=0.9, resamples=999, seed=3)
    first, second = (values_of(results, label) for label in labels)
    differences = first - second
    assert float(data["mean"]) == pytest.approx(differences.mean())
    assert float(data["sd"]) == pytest.approx(differences.std(ddof=1))
    # Degrees of freedom 11: Hedges' correction is gamma(5.5) / (sqrt(5.5) gamma(5)).
    correction = math.gamma(5.5) / (math.sqrt(5.5) * math.gamma(5))
    assert float(data["effect_size"]) == pytest.approx(correction * differences.mean() / differences.std(ddof=1))
    assert float(data["share"]) == np.mean(first > second)
    wilson = proportion_confint(int(sum(first > second)), 12, alpha=0.1, method="wilson")
    np.testing.assert_allclose(data["share_interval"], wilson, atol=1e-12)
    near = scipy.stats.bootstrap((differences,), np.mean, confidence_level=0.9, rng=1).confidence_interval
    np.testing.assert_allclose(data["interval"], near, atol=0.05 * differences.std())
    assert (str(data["a"].values), str(data["b"].values)) == labels
    assert "start" not in data.coords
    assert data.attrs == {"variable": "ssim", "samples": 12}
    assert data["effect_size_interval"].attrs["probability"] == 0.9


def test_sweeps_are_paired_by_start(results: xr.DataTree) -> None:
    data = compare(results, TWO, FOUR, resamples=999)
    assert data["start"].values.tolist() == [20, 10, 5]
    for start, window in ((20, "20-18"), (10, "10-8"), (5, "5-3")):
        labels = [f"ablate_block bottom={bottom} {window}" for bottom in (2, 4)]
        alone = compare(results, *labels, resamples=999)
        assert int(alone["start"]) == start
        for name in data.drop_vars("p_adjusted").data_vars:
            np.testing.assert_allclose(data[name].sel(start=start), alone[name], rtol=1e-9)
        assert data["a"].sel(start=start).item() == labels[0]
    np.testing.assert_allclose(data["p_adjusted"], multipletests(data["p"], method="fdr_bh")[1])
    names = sweeps(results)
    by_name = compare(results, names["ablate_block bottom=2"], names["ablate_block bottom=4"], resamples=999)
    xr.testing.assert_identical(by_name, data)


@given(DIFFERENCES)
@settings(max_examples=10)
def test_p_with_every_flip_is_scipys(values: np.ndarray) -> None:
    expected = [
        scipy.stats.permutation_test((row,), np.mean, permutation_type="samples", n_resamples=10**6).pvalue
        for row in values
    ]
    np.testing.assert_allclose(sign_flip(values), expected, rtol=1e-12)


def test_p_with_random_flips_is_near_that_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal([[0.2], [0.5], [1.0]], 1.0, size=(3, 12))
    every, some = sign_flip(values, resamples=4096), sign_flip(values, resamples=4095)
    assert not np.array_equal(every, some)
    np.testing.assert_allclose(some, every, atol=0.03)
    monkeypatch.setattr("causalunet.analysis.paired._MOST_VALUES", 100)
    np.testing.assert_array_equal(sign_flip(values, resamples=4095), some)
    np.testing.assert_array_equal(sign_flip(values, resamples=4096), every)
    assert sign_flip(np.ones(40), resamples=999) == 1 / 1000


def angle_and_error(values: np.ndarray) -> tuple[float, float]:
    """Of mean over standard deviation, the error as that of the mean of its influence function."""
    angle = math.atan2(values.mean(), values.std())
    z = (values - values.mean()) / values.std()
    influence = z - math.tan(angle) * (z**2 - 1) / 2
    return angle, math.cos(angle) ** 2 * influence.std() / math.sqrt(len(values))


def test_interval_of_the_effect_size_by_loop() -> None:
    values = np.sort(np.random.default_rng(0).gamma(3.0, size=(3, 40)) - [[3.2], [2.0], [5.0]])
    bounds = effect_size_interval(values, probability=0.9, resamples=300, seed=2)
    for row, (lower, upper) in zip(values, bounds, strict=True):
        angle, error = angle_and_error(row)
        drawn = []
        for index in np.random.default_rng(2).integers(40, size=(300, 40)):
            again, its_error = angle_and_error(row[index])
            drawn.append((again - angle) / max(its_error, error / 4))
        expected = [math.tan(angle - np.quantile(drawn, level) * error) for level in (0.95, 0.05)]
        assert (lower, upper) == pytest.approx(expected, rel=1e-9)


def test_one_sample_that_differs_leaves_the_effect_size_bounded() -> None:
    values = np.zeros(100)
    values[4] = -0.3
    lower, upper = effect_size_interval(values)
    assert -1 < lower < effect_size(values) < upper < 1


def test_equal_and_constant_differences(results: xr.DataTree) -> None:
    values = results["outcomes"]["ssim"].values.copy()
    values[:3] = [[0.7], [0.5], [0.9]]  # bottom=2, starts 5, 20, 10
    values[3:6] = [[0.7], [0.6], [0.4]]
    data = compare(altered(results, ssim=values), TWO, FOUR, resamples=199).sel(start=[5, 20, 10])
    for name in ("mean", "interval"):
        np.testing.assert_allclose(data[name].values.T, np.broadcast_to([0, -0.1, 0.5], data[name].T.shape), atol=1e-15)
    assert data["effect_size"].values.tolist() == [0, -np.inf, np.inf]
    assert data["effect_size_interval"].values.tolist() == [[0, 0], [-np.inf] * 2, [np.inf] * 2]
    assert data["share"].values.tolist() == [0, 0, 1]
    assert data["p"].values[0] == 1
    assert (data["p"].values[1:] < 0.01).all()


@given(DIFFERENCES)
def test_effect_sizes_of_any_finite_values(values: np.ndarray) -> None:
    bounds = effect_size_interval(values, resamples=99)
    assert not np.isnan(bounds).any()
    assert (bounds[:, 0] <= bounds[:, 1]).all()
    np.testing.assert_allclose(effect_size(values * 8), effect_size(values), rtol=1e-9)
    np.testing.assert_array_equal(effect_size_interval(values[:, ::-1], resamples=99), bounds)


@pytest.mark.parametrize("pair", [[1.0, 2.0], [-1.0, 1.0], [0.0, 0.0], [3.0, 3.0]])
def test_two_samples_are_enough(pair: list[float]) -> None:
    bounds = effect_size_interval(pair, resamples=99)
    assert bounds[0] <= bounds[1]
    assert not np.isnan(effect_size(pair))


@given(arrays.arrays(np.float64, (2, 12), elements=st.floats(0, 1).map(lambda value: round(value, 2))))
def test_exchanging_a_and_b_changes_signs_only(results: xr.DataTree, values: np.ndarray) -> None:
    ssim = results["outcomes"]["ssim"].values.copy()
    ssim[:2] = values
    tree = altered(results, ssim=ssim)
    labels = [str(label) for label in tree["outcomes"]["intervention"].values[:2]]
    one, other = (compare(tree, *pair, resamples=99) for pair in (labels, labels[::-1]))
    for name in ("mean", "effect_size"):
        np.testing.assert_allclose(one[name], -other[name], atol=1e-15)
    for name in ("interval", "effect_size_interval"):
        np.testing.assert_allclose(one[name], -other[name][::-1], rtol=1e-9, atol=1e-15)
    for name in ("sd", "p", "p_adjusted"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12)
    ties = np.mean(values[0] == values[1])
    assert float(one["share"]) + float(other["share"]) + ties == pytest.approx(1)


def test_order_of_samples_makes_no_difference(results: xr.DataTree, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(12).tolist()
    permuted = write_results(tmp_path / "results.zarr", INTERVENTIONS, order=order)
    one, other = (compare(tree, TWO, FOUR, resamples=199) for tree in (results, permuted))
    xr.testing.assert_allclose(one, other)


def test_shifting_a_shifts_the_interval(results: xr.DataTree) -> None:
    values = results["outcomes"]["ssim"].values.copy()
    values[0] += 0.25
    label, other = "ablate_block bottom=2 5-3", "ablate_block bottom=4 10-8"
    plain, moved = (compare(tree, label, other, resamples=199) for tree in (results, altered(results, ssim=values)))
    np.testing.assert_allclose(moved["interval"], plain["interval"] + 0.25)
    np.testing.assert_allclose(moved["sd"], plain["sd"])


def test_incomplete_cells(tmp_path: Path) -> None:
    partial = write_results(tmp_path / "results.zarr", INTERVENTIONS, blocks_done=2)
    with pytest.raises(StoreError, match="not run yet"):
        compare(partial, TWO, FOUR)
    assert compare(partial, TWO, FOUR, allow_incomplete=True, resamples=99).attrs["samples"] == 8
    status = partial["outcomes"]["status"].values.copy()
    status[0, :3] = 0  # an intervention of a only
    uneven = altered(partial, status=status)
    data = compare(uneven, TWO, FOUR, allow_incomplete=True, resamples=99)
    assert data.attrs["samples"] == 5
    differences = [values_of(uneven, f"ablate_block bottom={bottom} 20-18")[3:8].mean() for bottom in (2, 4)]
    assert float(data["mean"].sel(start=20)) == pytest.approx(differences[0] - differences[1])


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("ablate_blok", TWO, r"No intervention has .*'ablate_block bottom=2 10-8'"),
        (TWO, {"kind": "ablate_block"}, r"2 have start=5: ablate_block bottom=2 5-3, ablate_block bottom=4 5-3"),
        (TWO, {**FOUR, "start": [20, 10]}, r"b names 2 intervention\(s\), with start 20, 10: ablate_block bottom=4"),
        (TWO, "ablate_skip top=2 9-5", r"a names 3 .*ablate_block bottom=2 20-18.* b names 1 .*ablate_skip top=2 9-5"),
        (3, TWO, "compare got 3; give the label"),
    ],
)
def test_errors_of_selection(results: xr.DataTree, a: Any, b: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        compare(results, a, b)


def test_errors_of_values(results: xr.DataTree) -> None:
    with pytest.raises(SpecError, match=r"12 of 24 values of 'psnr' are not finite.* compare by 'mse' or 'ssim'"):
        compare(results, "null 20-16", "ablate_skip top=2 9-5", "psnr")
    with pytest.raises(SpecError, match="'image' has dimensions"):
        compare(results, TWO, FOUR, "image")
    for function in (effect_size, effect_size_interval, sign_flip):
        with pytest.raises(SpecError, match="1 of 3 values are NaN"):
            function([1.0, np.inf, 0.0])
