"""Simulated studies with known answers: every 95 % interval covers them between 92 and 97 times in 100.

Each data set has 100 samples. The standard error of a share of 2000 data sets is half of one in a hundred.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from causalunet.analysis.bands import mean_above, simultaneous_band
from causalunet.analysis.intervals import bootstrap_mean, wilson_share
from causalunet.analysis.paired import effect_size_interval, sign_flip

DATASETS, SAMPLES, RESAMPLES = 2000, 100, 999

Draw = Callable[..., np.ndarray]


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0.8, 0.1, size=shape)


def beta(a: float, b: float) -> Draw:
    return lambda rng, *shape: rng.beta(a, b, size=shape)


MEANS = {
    "normal": (normal, 0.8),
    "beta(8, 2)": (beta(8, 2), 0.8),
    "beta(20, 1)": (beta(20, 1), 20 / 21),
    "beta(2, 6)": (beta(2, 6), 0.25),
}


def covered(bounds: np.ndarray, truth: float) -> float:
    return float(np.mean((bounds[..., 0] <= truth) & (truth <= bounds[..., 1])))


@pytest.mark.parametrize("name", MEANS)
def test_mean(name: str) -> None:
    draw, truth = MEANS[name]
    values = draw(np.random.default_rng(0), DATASETS, SAMPLES)
    assert 0.92 <= covered(bootstrap_mean(values, resamples=RESAMPLES), truth) <= 0.97


@pytest.mark.parametrize("truth", [0.3, 0.5, 0.8, 0.9])
def test_share(truth: float) -> None:
    counts = np.random.default_rng(0).binomial(SAMPLES, truth, size=DATASETS)
    assert 0.92 <= covered(wilson_share(counts, SAMPLES), truth) <= 0.97


def paired(rng: np.random.Generator, draw: Draw, a: tuple[float, ...], b: tuple[float, ...]) -> np.ndarray:
    """Differences of two outcomes that share half of what moves them: the noise of the sample."""
    common = beta(5, 2)(rng, DATASETS, SAMPLES)
    first, second = (getattr(rng, draw)(*shape, size=common.shape) for shape in (a, b))
    return (common + first) / 2 - (common + second) / 2


def beta_moments(a: float, b: float) -> tuple[float, float]:
    return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))


PAIRS = {
    "equal normals": ("normal", (0.8, 0.1), (0.8, 0.1), 0.0, 0.02),
    "normals": ("normal", (0.8, 0.1), (0.7, 0.1), 0.1, 0.02),
    "betas": ("beta", (20, 1), (6, 2), None, None),
    "equal betas": ("beta", (8, 2), (8, 2), None, None),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", PAIRS)
def test_paired_difference_and_effect_size(name: str) -> None:
    draw, a, b, mean, variance = PAIRS[name]
    if mean is None:
        (mean_a, variance_a), (mean_b, variance_b) = beta_moments(*a), beta_moments(*b)
        mean, variance = mean_a - mean_b, variance_a + variance_b
    differences = paired(np.random.default_rng(0), draw, a, b)
    assert 0.92 <= covered(bootstrap_mean(differences, resamples=RESAMPLES), mean / 2) <= 0.97
    size = effect_size_interval(differences, resamples=RESAMPLES)
    assert 0.92 <= covered(size, mean / np.sqrt(variance)) <= 0.97


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["normal", "beta(8, 2)", "beta(20, 1)"])
def test_simultaneous_band(name: str) -> None:
    # Neighbouring starts correlate by 0.9; the copula keeps every start's distribution exact.
    starts, rng = 20, np.random.default_rng(0)
    grid = np.linspace(0, 1, 10001)
    inverse = {
        "normal": scipy.stats.norm(0.8, 0.1).ppf(np.clip(grid, 1e-9, 1 - 1e-9)),
        "beta(8, 2)": scipy.stats.beta(8, 2).ppf(grid),
        "beta(20, 1)": scipy.stats.beta(20, 1).ppf(grid),
    }[name]
    truth = MEANS[name][1]
    joint, pointwise = [], []
    for _ in range(500):
        z = rng.normal(size=(starts, SAMPLES))
        for start in range(1, starts):
            z[start] = 0.9 * z[start - 1] + np.sqrt(0.19) * z[start]
        values = np.interp(scipy.stats.norm.cdf(z), grid, inverse)
        band = simultaneous_band(values, resamples=RESAMPLES)
        joint.append(((band[:, 0] <= truth) & (truth <= band[:, 1])).all())
        student = scipy.stats.ttest_1samp(values, truth, axis=1).pvalue
        pointwise.append((student >= 0.05).all())
    assert 0.92 <= np.mean(joint) <= 0.97
    assert np.mean(pointwise) < 0.8  # so a band that is not joint would have been found out


@pytest.mark.parametrize("name", MEANS)
def test_non_inferiority_errs_one_time_in_twenty(name: str) -> None:
    draw, truth = MEANS[name]
    values = draw(np.random.default_rng(0), 4000, SAMPLES)
    assert 0.04 <= np.mean(mean_above(values, truth) < 0.05) <= 0.06


def test_students_t_would_err_more_often_on_ssim() -> None:
    values = beta(20, 1)(np.random.default_rng(0), 4000, SAMPLES)
    student = scipy.stats.ttest_1samp(values, 20 / 21, axis=1, alternative="greater").pvalue
    assert np.mean(student < 0.05) > 0.065


def test_sign_flips_err_one_time_in_twenty() -> None:
    differences = paired(np.random.default_rng(0), "beta", (8, 2), (8, 2))
    p = sign_flip(differences, resamples=RESAMPLES)
    assert 0.03 <= np.mean(p < 0.05) <= 0.07
