"""Rank correlations, windows until a cut is redundant, and agreement of two sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from causalunet.analysis import (
    agreement,
    depth_trend,
    first_redundant_step,
    rank_correlation,
    redundancy_trend,
    windows_until_redundant,
)
from causalunet.design import AblateBlock, AblateSkip, sweep
from causalunet.errors import SpecError
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results

DEPTHS = (2, 4)
STARTS = range(20, 0, -2)


def test_rank_correlations_are_those_of_scipy_with_ties_and_infinities() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(5, size=(40, 9)).astype(float), rng.integers(4, size=(40, 9)).astype(float)
    one[0, :2], other[1, 3] = np.inf, -np.inf
    expected = [scipy.stats.kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(rank_correlation(one, other), expected, atol=1e-12)
    np.testing.assert_allclose(rank_correlation(one[3], other), rank_correlation(np.tile(one[3], (40, 1)), other))
    assert float(rank_correlation(np.ones(4), np.arange(4))) == 0
    assert float(rank_correlation([1], [2])) == 0


@pytest.mark.parametrize("wrong", [np.arange(3), np.array([0, 1, 2, np.nan]), np.array(1.0)])
def test_what_has_no_rank_is_told(wrong: np.ndarray) -> None:
    with pytest.raises(SpecError, match=r"same cells|no rank"):
        rank_correlation(np.arange(4), wrong)


def test_windows_until_redundant_are_those_of_first_redundant_step(tmp_path: Path) -> None:
    tree = write_results(tmp_path / "s.zarr", sweep(AblateBlock, bottom=DEPTHS, start=STARTS, length=2), samples=5)
    rng = np.random.default_rng(3)
    kinds = tree["outcomes"]["kind"].values == "ablate_block"
    for shift in (0.1, 0.3, 0.6):
        rising = np.tile(np.linspace(0, 0.5, len(STARTS)) + shift, len(DEPTHS))[:, None]
        padded = np.ones(tree["outcomes"]["ssim"].shape)
        padded[kinds] = np.clip(rising + rng.uniform(-0.2, 0.3, (len(rising), 5)), 0, 1)
        results = altered(tree, ssim=padded)
        found = first_redundant_step(results, threshold=0.8, kind="ablate_block", resamples=20)["step"].values
        expected = [len(STARTS) if np.isnan(step) else list(STARTS).index(int(step)) for step in found]
        mean = results["outcomes"]["ssim"].values[kinds].mean(axis=1).reshape(2, -1)
        assert windows_until_redundant(mean, threshold=0.8).tolist() == expected


def test_trends_have_their_ends() -> None:
    depths = np.arange(6)
    mean = np.where(np.arange(8) >= depths[:, None], 0.9, 0.5)
    both = np.stack([mean, mean[::-1], np.ones_like(mean)])
    np.testing.assert_allclose(depth_trend(both, depths, threshold=0.8), [1, -1, 0])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    cuts = (
        *sweep(AblateBlock, bottom=(1, 2, 4, 6), start=STARTS, length=2),
        *sweep(AblateBlock, bottom=6, start=STARTS, length=1),
        *sweep(AblateBlock, bottom=(2, 4), start=(19, 9), length=4),
        *sweep(AblateBlock, bottom=6, start=(19, 8), length=4),
        *sweep(AblateSkip, top=2, start=STARTS, length=2),
    )
    return write_results(tmp_path_factory.mktemp("trend") / "swept.zarr", cuts, samples=12)


def trended(swept: xr.DataTree, later: dict[int, int], noise: float = 0.0) -> xr.DataTree:
    """Cuts of two steps are redundant from a start on, by depth; what they cost is noisy."""
    outcomes = swept["outcomes"].to_dataset()
    rng = np.random.default_rng(0)
    ssim = np.ones(outcomes["ssim"].shape)
    for row, (kind, depth, start, length) in enumerate(
        zip(*(outcomes[name].values.tolist() for name in ("kind", "bottom", "start", "length")), strict=True)
    ):
        if kind == "ablate_block" and length == 2:
            ssim[row] = (0.9 if start <= later[depth] else 0.7) + rng.normal(0, noise, ssim.shape[1])
    return altered(swept, ssim=ssim, mse=1 - ssim)


SWEPT = {"kind": "ablate_block", "length": 2}


@pytest.mark.parametrize("later", [{1: 20, 2: 16, 4: 10, 6: 4}, {1: 4, 2: 10, 4: 10, 6: 20}, {1: 8, 2: 0, 4: 8, 6: 12}])
def test_a_trend_of_depth_is_kendalls_of_first_redundant_steps(swept: xr.DataTree, later: dict[int, int]) -> None:
    found = redundancy_trend(trended(swept, later), **SWEPT)
    assert found["bottom"].values.tolist() == [1, 2, 4, 6]
    assert found["windows"].values.tolist() == [(20 - start) // 2 for start in later.values()]
    expected = scipy.stats.kendalltau([1, 2, 4, 6], [-start for start in later.values()]).statistic
    assert float(found["tau"]) == pytest.approx(expected)
    np.testing.assert_allclose(found["interval"], expected)  # all samples alike
    assert found.attrs["samples"] == 12
    smaller = redundancy_trend(trended(swept, later), "mse", threshold=0.2, **SWEPT)
    xr.testing.assert_allclose(smaller, found)


def test_where_samples_disagree_the_interval_is_wide(swept: xr.DataTree) -> None:
    clear = redundancy_trend(trended(swept, {1: 20, 2: 16, 4: 10, 6: 4}, noise=0.1), **SWEPT)
    unclear = redundancy_trend(trended(swept, dict.fromkeys((1, 2, 4, 6), 10), noise=0.3), **SWEPT)
    assert float(clear["interval"][0]) > 0
    low, high = unclear["interval"].values
    assert low < 0 < high
    xr.testing.assert_identical(clear, redundancy_trend(trended(swept, {1: 20, 2: 16, 4: 10, 6: 4}, 0.1), **SWEPT))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"kind": "ablate_block", "length": 1}, r"several values of bottom; the interventions selected have \[6\]"),
        ({"kind": "ablate_block", "length": 4}, r"bottom=4 at \[19, 9\]; bottom=6 at \[19, 8\]\. Select"),
        ({"kind": "ablate_block", "length": 2, "by": "deep"}, "not told apart by deep; group by any of bottom,"),
        ({"kind": "ablate_block"}, "length"),
    ],
)
def test_sweeps_that_have_no_trend_are_told(swept: xr.DataTree, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        redundancy_trend(swept, **asked)


def test_agreement_is_of_means_and_draws_samples() -> None:
    rng = np.random.default_rng(0)
    noisy = rng.uniform(size=(3, 8, 6))
    exact = agreement(noisy, noisy, paired=True)
    assert float(exact["tau"]) == pytest.approx(1)
    np.testing.assert_allclose(exact["interval"], 1)
    assert float(agreement(noisy, noisy)["interval"][0]) < 0.9  # drawn apart, order is lost
    assert float(agreement(noisy, -noisy, paired=True)["tau"]) == pytest.approx(-1)
    other = rng.uniform(size=(3, 8, 9))
    found = agreement(noisy, other)
    expected = scipy.stats.kendalltau(noisy.mean(-1).ravel(), other.mean(-1).ravel()).statistic
    assert float(found["tau"]) == pytest.approx(expected)
    low, high = found["interval"].values
    assert low < 0 < high
    with pytest.raises(SpecError, match="cells and samples"):
        agreement(noisy, other, paired=True)
    with pytest.raises(SpecError, match="cells have"):
        agreement(noisy, other[:2])


@pytest.mark.thorough
def test_intervals_of_agreement_cover_the_tau_of_the_population() -> None:
    """Cells that lie apart, so that noise alone does not reorder them much."""
    rng, covered = np.random.default_rng(1), 0
    true = np.linspace(0, 1, 12)
    other = true[[1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]]
    population = float(rank_correlation(true, other))
    for _ in range(100):
        one, two = (each[:, None] + 0.05 * rng.normal(size=(12, 30)) for each in (true, other))
        low, high = agreement(one, two, resamples=200)["interval"].values
        covered += low <= population <= high
    assert covered >= 93
