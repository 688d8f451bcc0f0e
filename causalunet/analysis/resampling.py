"""Bootstrap resamples that do not depend on the order of the samples, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import SpecError

__all__ = [
    "canonical_order",
    "check_probability",
    "check_resampling",
    "interval_of",
    "resampled_means",
    "resampling_weights",
]

_MOST_VALUES = 1 << 20  # at once: 8 MB


def canonical_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples sorted by their values, so that a seeded bootstrap does not depend on the order they came in.

    Parameters
    ----------
    values : ndarray, (cell, sample)

    Returns
    -------
    ndarray, (cell, sample)
        Samples stay whole.
    """
    # Contiguous, because the rounding of sums depends on the order in memory too.
    return np.ascontiguousarray(values[:, np.lexsort(values[::-1])])


def check_probability(probability: float) -> None:
    """Raise `SpecError` unless this can be the coverage of an interval."""
    if not 0 < probability < 1:
        raise SpecError(f"probability={probability!r} is not between 0 and 1; give for instance 0.95.")


def check_resampling(probability: float, resamples: int) -> None:
    """Raise `SpecError` unless these can describe a bootstrap interval."""
    check_probability(probability)
    if resamples < 1:
        raise SpecError(f"{resamples} bootstrap resamples asked; give at least 1, and for publication some thousands.")


def resampling_weights(samples: int, cells: int, *, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Draw bootstrap resamples as weights, part by part so that memory stays bounded.

    Parameters
    ----------
    samples : int
    cells : int
        Numbers that the caller makes of every resample.
    resamples, seed : int

    Yields
    ------
    ndarray of float64, (resample, sample)
        How often each sample is drawn; every row sums to ``samples``. The rows of all parts together do not depend on
        how they are divided.
    """
    rng = np.random.default_rng(seed)
    part = max(1, _MOST_VALUES // max(samples, cells))
    for done in range(0, resamples, part):
        drawn = rng.integers(samples, size=(min(part, resamples - done), samples))
        drawn += samples * np.arange(len(drawn))[:, None]
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def resampled_means(
    values: NDArray[np.floating], *, resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over samples, and those of every resample, which draws the same samples for all cells.

    Parameters
    ----------
    values : ndarray, (..., sample)
    resamples, seed : int
        The order of the samples makes no difference.

    Returns
    -------
    means : ndarray of float64, (...)
    drawn : ndarray of float64, (resample, ...)
    """
    *shape, samples = values.shape
    cells = canonical_order(values.reshape(-1, samples).astype(np.float64))
    parts = [
        weights @ cells.T / samples
        for weights in resampling_weights(samples, len(cells), resamples=resamples, seed=seed)
    ]
    return cells.mean(axis=1).reshape(shape), np.concatenate(parts).reshape(-1, *shape)


def interval_of(drawn: NDArray[Any], probability: float = 0.95) -> NDArray[Any]:
    """Percentile interval of a statistic: bounds that occur among the resamples, such as steps that were tested.

    Parameters
    ----------
    drawn : ndarray, (resample, ...)
    probability : float

    Returns
    -------
    ndarray, (..., bound)
    """
    tails = [(1 - probability) / 2, (1 + probability) / 2]
    return np.moveaxis(np.quantile(drawn, tails, axis=0, method="inverted_cdf"), 0, -1)
