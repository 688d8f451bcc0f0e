"""Paired differences: effect size and sign-flip test, on plain arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalunet.analysis.intervals import check_bootstrap, varies
from causalunet.analysis.resampling import resampling_weights

__all__ = ["effect_size", "effect_size_interval", "sign_flip"]

_MOST_CELLS = 128  # of which all resamples are held at once: 10 MB with 9999
_MOST_VALUES = 1 << 22  # of flipped signs at once: 32 MB
_LEAST_ERROR = 0.25  # of a resample, in that of the sample
_ROUNDING = 1e-12  # relative difference below which two means of flipped signs are equal

_Array = NDArray[np.float64]


def effect_size(differences: ArrayLike) -> NDArray[np.float64]:
    """Cohen's d_z, the mean over the standard deviation, with Hedges' correction for few samples.

    Parameters
    ----------
    differences : array_like, (..., sample)
        At least two samples.

    Returns
    -------
    ndarray of float64, (...)
        0 where all differences are 0, infinite where they are constant otherwise. With two samples it is not corrected.

    Raises
    ------
    SpecError
        There are fewer than two samples, or a value is not finite.

    Notes
    -----
    Sources: Cohen 1988, section 2.3.5; Hedges 1981, doi:10.3102/10769986006002107.
    """
    array = _checked(differences)
    cells = np.sort(array.reshape(-1, array.shape[-1]), axis=-1)
    return (_hedges(cells.shape[-1]) * _ratio(_angle(cells.mean(axis=1), _spread(cells)))).reshape(array.shape[:-1])


def effect_size_interval(
    differences: ArrayLike, *, probability: float = 0.95, resamples: int = 9999, seed: int = 0
) -> NDArray[np.float64]:
    """Bootstrap-t interval of mean over standard deviation, which `effect_size` estimates.

    Parameters
    ----------
    differences : array_like, (..., sample)
        At least two samples. Their order makes no difference.
    probability : float
    resamples : int
    seed : int

    Returns
    -------
    ndarray of float64, (..., bound)

    Raises
    ------
    SpecError
        As for `effect_size`, or the probability is not between 0 and 1.

    Notes
    -----
    - What is bootstrapped is the angle whose tangent is mean over standard deviation: it is finite for every resample.
      Its standard error is that without assumptions on the distribution, and in no resample less than a quarter of
      that of the sample, so that a few samples which differ from many equal ones do not make the interval endless.
    - With 100 samples the 95 % interval covers 93 % to 95 % of the time for normal and beta-distributed values, and
      92 % to 94 % where differences are exponential (simulated); BCa bounds 92 % to 94 % and 89 % to 92 %, bounds by
      noncentral t anything from 82 % to 99 %.

    Source: Efron & Tibshirani 1993, section 12.5 and 12.6.
    """
    array = _checked(differences)
    check_bootstrap(array, probability, resamples)
    cells = np.sort(array.reshape(-1, array.shape[-1]), axis=-1)
    bounds = np.repeat(_angle(cells.mean(axis=1), _spread(cells))[:, None], 2, axis=1)
    varied = np.flatnonzero(varies(cells[:, 0], cells[:, -1]))
    for part in range(0, len(varied), _MOST_CELLS):
        chosen = varied[part : part + _MOST_CELLS]
        bounds[chosen] = _student_angle(cells[chosen], probability, resamples, seed)
    return _ratio(bounds).reshape(*array.shape[:-1], 2)


def sign_flip(differences: ArrayLike, *, resamples: int = 9999, seed: int = 0) -> NDArray[np.float64]:
    """Two-sided p value of the hypothesis that differences are symmetric about 0, by flipping their signs.

    Parameters
    ----------
    differences : array_like, (..., sample)
    resamples : int
        Number of random flips; all 2**n are taken where there are no more than that. The smallest p value is
        1 / (resamples + 1) with random flips, 2 / 2**n with all.
    seed : int

    Returns
    -------
    ndarray of float64, (...)
        1 where all differences are 0.

    Raises
    ------
    SpecError
        As for `effect_size`.

    Notes
    -----
    The statistic is the mean. Equal to ``scipy.stats.permutation_test(..., permutation_type="samples")`` where all
    flips are taken. Source: Fisher 1935, section 21; Phipson & Smyth 2010, doi:10.2202/1544-6115.1585.
    """
    array = _checked(differences)
    check_bootstrap(array, 0.95, resamples)
    samples = array.shape[-1]
    # Sorted by size, so that neither the order of the samples nor the direction of the differences matters.
    sizes = np.sort(abs(array.reshape(-1, samples)), axis=-1)
    observed = abs(array.reshape(-1, samples).sum(axis=1)) * (1 - _ROUNDING) - _ROUNDING * sizes[:, -1]
    every = samples < 63 and 2**samples <= resamples
    flips = 2**samples if every else resamples
    rng, reached = np.random.default_rng(seed), np.zeros(len(sizes))
    part = max(1, _MOST_VALUES // max(samples, len(sizes)))
    for done in range(0, flips, part):
        rows = min(part, flips - done)
        drawn = (np.arange(done, done + rows)[:, None] >> np.arange(samples)) & 1 if every else None
        signs = 2.0 * (rng.integers(2, size=(rows, samples)) if drawn is None else drawn) - 1
        reached += (abs(signs @ sizes.T) >= observed).sum(axis=0)
    p = reached / flips if every else (reached + 1) / (flips + 1)
    return p.reshape(array.shape[:-1])


def _checked(differences: ArrayLike) -> _Array:
    array = np.asarray(differences, dtype=np.float64)
    check_bootstrap(np.where(np.isinf(array), np.nan, array), 0.95, 1)
    return array


def _spread(cells: _Array) -> _Array:
    """Standard deviation with n, 0 for constant cells; samples ascend."""
    return np.where(varies(cells[:, 0], cells[:, -1]), cells.std(axis=1), 0)


def _angle(mean: _Array, spread: _Array) -> _Array:
    return np.arctan2(mean, spread)


def _ratio(angle: _Array) -> _Array:
    """Mean over standard deviation, infinite where there is no deviation."""
    vertical = abs(angle) > np.pi / 2 - _ROUNDING
    return np.where(vertical, np.copysign(np.inf, angle), np.tan(angle))


def _hedges(samples: int) -> float:
    """Hedges' correction, and from the standard deviation with n to that with n - 1."""
    from scipy.special import gammaln

    freedom = samples - 1
    scale = np.sqrt(freedom / samples)
    if freedom == 1:  # d_z has no mean then that could be corrected
        return float(scale)
    return float(scale * np.sqrt(2 / freedom) * np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)))


def _student_angle(cells: _Array, probability: float, resamples: int, seed: int) -> _Array:
    """Bootstrap-t bounds of the angle, (cell, bound), for cells that vary."""
    count, samples = cells.shape
    mean, spread = cells.mean(axis=1), cells.std(axis=1)
    z = (cells - mean[:, None]) / spread[:, None]
    powers = np.concatenate([z**power for power in (1, 2, 3, 4)]).T
    angle = _angle(mean, spread)
    error = _angle_error(angle, (z**3).mean(axis=1), (z**4).mean(axis=1), samples)
    smallest = np.maximum(_LEAST_ERROR * error, np.finfo(np.float64).tiny)
    drawn = []
    for weights in resampling_weights(samples, 4 * count, resamples=resamples, seed=seed):
        first, *others = np.split(weights @ powers / samples, 4, axis=1)
        again, skewness, kurtosis = _central(first, *others)
        angles = _angle(_nearly_zero(first + mean / spread), again)
        errors = _angle_error(angles, skewness, kurtosis, samples)
        drawn.append((angles - angle) / np.maximum(errors, smallest))
    levels = [(1 + probability) / 2, (1 - probability) / 2]
    bounds = angle - np.quantile(np.concatenate(drawn), levels, axis=0) * error
    return np.clip(bounds, -np.pi / 2, np.pi / 2).T


def _nearly_zero(mean: _Array) -> _Array:
    """Clear what rounding leaves of a resample that is 0 throughout, whose angle would be a right one."""
    return np.where(abs(mean) > _ROUNDING, mean, 0)


def _angle_error(angle: _Array, skewness: _Array, kurtosis: _Array, samples: int) -> _Array:
    """Standard error of the angle from its empirical influence, whatever the distribution."""
    cosine, sine = np.cos(angle), np.sin(angle)
    variance = cosine**4 - cosine**3 * sine * skewness + cosine**2 * sine**2 * (kurtosis - 1) / 4
    return np.sqrt(np.maximum(variance, 0) / samples)


def _central(first: _Array, second: _Array, third: _Array, fourth: _Array) -> tuple[_Array, _Array, _Array]:
    """Standard deviation (with n), skewness and kurtosis from raw moments; 0, 0 and 1 where constant."""
    variance = second - first**2
    constant = variance <= _ROUNDING
    scale = np.sqrt(np.where(constant, 1, variance))
    skewness = (third - 3 * first * second + 2 * first**3) / scale**3
    kurtosis = (fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / scale**4
    return np.where(constant, 0, scale), np.where(constant, 0, skewness), np.where(constant, 1, kurtosis)
