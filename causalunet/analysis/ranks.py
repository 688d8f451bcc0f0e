"""Orders: whether two studies rank effects alike, and whether deeper cuts become redundant later."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from causalunet.analysis.criteria import Criterion, frontier
from causalunet.analysis.curves import BOUND, BOUNDS, curve
from causalunet.analysis.direction import sign_of
from causalunet.analysis.intervals import check_bootstrap
from causalunet.analysis.redundancy import acting_cells
from causalunet.analysis.resampling import interval_of, resampled_means
from causalunet.dims import SAMPLE
from causalunet.errors import SpecError

__all__ = ["agreement", "depth_trend", "rank_correlation", "redundancy_trend", "windows_until_redundant"]

_Array = NDArray[np.float64]


def rank_correlation(first: ArrayLike, second: ArrayLike) -> _Array:
    """Kendall's tau-b over the last axis, with ties.

    Parameters
    ----------
    first, second : array_like, (..., cell)
        Other axes are broadcast.

    Returns
    -------
    ndarray of float64, (...)
        From -1 to 1; 0 where one of the two is the same throughout, so that there is no order to agree with.

    Raises
    ------
    SpecError
        They have other numbers of cells, or a value is NaN.

    Notes
    -----
    Equal to ``scipy.stats.kendalltau`` where that is a number. Source: Kendall 1945, doi:10.1093/biomet/33.3.239.

    Examples
    --------
    >>> float(rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]).round(3))
    0.667
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not one.ndim or not other.ndim or one.shape[-1] != other.shape[-1]:
        raise SpecError(
            f"Ranks of {one.shape} and of {other.shape} were asked; the last axis has to be the same cells."
        )
    if np.isnan(one).any() or np.isnan(other).any():
        raise SpecError("A value is NaN and has no rank; leave its cell out on both sides.")
    # Pair by pair, as all pairs of all resamples at once are large.
    total, of_one, of_other = 0.0, 0.0, 0.0
    for apart in range(1, one.shape[-1]):
        # Signs by comparison: differences of infinite values are none.
        a, b = (
            (each[..., apart:] > each[..., :-apart]) * 1.0 - (each[..., apart:] < each[..., :-apart])
            for each in (one, other)
        )
        total = total + (a * b).sum(axis=-1)
        of_one, of_other = of_one + (a * a).sum(axis=-1), of_other + (b * b).sum(axis=-1)
    pairs = np.sqrt(np.asarray(of_one) * of_other)
    return np.divide(total, pairs, where=pairs > 0, out=np.zeros_like(pairs))


def agreement(
    first: ArrayLike,
    second: ArrayLike,
    *,
    paired: bool = False,
    probability: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Whether two sweeps rank their interventions alike: tau-b of mean outcomes, with its interval.

    Parameters
    ----------
    first, second : array_like, (..., sample)
        Outcomes of the same interventions, or of what stands for the same, such as ``curve(...)["ssim"].values``.
    paired : bool
        Both are of the same samples, which a resample then draws alike. Of two models samples are others.
    probability, resamples, seed
        Of the interval: a bootstrap over samples.

    Returns
    -------
    xarray.Dataset
        ``tau``, and ``interval``, (bound,), by percentiles.

    Raises
    ------
    SpecError
        Cells differ, samples do where they are paired, there are fewer than two, or a value is NaN.

    Notes
    -----
    Sampling error of means lowers tau, and resamples add to it: the interval may lie below the tau. That of a sweep
    with itself, unpaired, says how much agreement noise leaves to be found.
    """
    one, other = (np.asarray(each, dtype=np.float64) for each in (first, second))
    if one.shape[:-1] != other.shape[:-1] or (paired and one.shape != other.shape):
        alike = "and samples " if paired else ""
        raise SpecError(f"Outcomes of {one.shape} and of {other.shape} were given; cells {alike}have to be the same.")
    for each in (one, other):
        check_bootstrap(each, probability, resamples)
    if paired:
        means, drawn = resampled_means(np.stack([one, other]), resamples=resamples, seed=seed)
        two, of_resamples = means, (drawn[:, 0], drawn[:, 1])
    else:
        found = [resampled_means(each, resamples=resamples, seed=seed + at) for at, each in enumerate((one, other))]
        two, of_resamples = np.stack([each[0] for each in found]), (found[0][1], found[1][1])
    tau = rank_correlation(two[0].ravel(), two[1].ravel())
    taus = rank_correlation(*(each.reshape(resamples, -1) for each in of_resamples))
    return _told(tau, taus, probability=probability, resamples=resamples, seed=seed)


def _told(tau: _Array, taus: _Array, *, probability: float, resamples: int, seed: int) -> xr.Dataset:
    kind = {"interval_kind": "bootstrap percentile", "probability": probability, "resamples": resamples, "seed": seed}
    return xr.Dataset(
        {"tau": ((), tau), "interval": (BOUND, interval_of(taus, probability), kind)}, coords={BOUND: list(BOUNDS)}
    )


def windows_until_redundant(mean: ArrayLike, *, threshold: float) -> NDArray[np.int64]:
    """Count the windows of a run that have to be over until a cut has no visible effect any more.

    Parameters
    ----------
    mean : array_like, (..., start)
        Mean similarity, starts as the run goes.
    threshold : float
        From which on a cut counts as redundant, there and at every later start.

    Returns
    -------
    ndarray of int64, (...)
        0 where it always is; as many as there are starts, where it never is.

    Examples
    --------
    >>> windows_until_redundant([0.5, 0.9, 0.7, 0.8, 0.9], threshold=0.8).tolist()
    3
    """
    passes = np.asarray(mean, dtype=np.float64)[..., ::-1] >= threshold
    return np.asarray(passes.shape[-1] - 1 - frontier(passes))


def depth_trend(mean: ArrayLike, depths: ArrayLike, *, threshold: float) -> _Array:
    """Tau-b of depth and `windows_until_redundant`: 1 if the deeper the cut, the later it is redundant.

    Parameters
    ----------
    mean : array_like, (..., depth, start)
        Mean similarity, starts as the run goes.
    depths : array_like, (depth,)
    threshold : float

    Returns
    -------
    ndarray of float64, (...)
        0 where all depths become redundant at once.
    """
    return rank_correlation(depths, windows_until_redundant(mean, threshold=threshold))


def redundancy_trend(
    results: xr.DataTree,
    variable: str = "ssim",
    *,
    threshold: float = 0.8,
    by: str = "bottom",
    probability: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Test whether deeper cuts become redundant later: `depth_trend` of a sweep, with its interval.

    Parameters
    ----------
    results : xarray.DataTree
    variable : str
        An outcome of which larger or smaller values are known to mean more alike.
    threshold : float
        Of its mean, at and beyond which a cut counts as redundant, there and at every later start.
    by : str
        Coordinate of depth; all depths have to be tested at the same starts.
    probability, resamples, seed
        Of the interval: a bootstrap over samples, the same ones for all depths and starts.
    allow_incomplete, **selection
        As for `curve`, such as ``kind="ablate_block", length=5``. Null interventions are left out.

    Returns
    -------
    xarray.Dataset
        ``tau``, from -1 to 1; ``interval``, (bound,), by percentiles; and ``windows``, (``by``): how many windows of
        the run have to be over until a cut is redundant, as many as there are starts where it never is.

    Raises
    ------
    SpecError
        Nothing fits the selection, there is one depth only, or depths have other starts than each other.
    StoreError
        Some of the cells failed or were not run yet.

    Notes
    -----
    With few depths tau has few values, of which the interval takes two: of three depths -1, -0.82, -0.33, 0, 0.33, 0.82
    and 1. An interval that has 0 in it shows no trend.

    Examples
    --------
    >>> found = redundancy_trend(results, threshold=0.9, kind="ablate_block", length=5)
    >>> tau, interval = found["tau"], found["interval"]
    """
    criterion = Criterion(variable=variable, threshold=threshold)
    chosen = acting_cells(results, criterion, [by], selection, allow_incomplete=allow_incomplete)
    depths = np.unique(chosen[by].values)
    if len(depths) < 2:
        raise SpecError(f"A trend needs several values of {by}; the interventions selected have {depths.tolist()}.")
    of_depths = [
        curve(xr.DataTree.from_dict({"outcomes": chosen}), variable, **{**selection, by: depth})[variable]
        for depth in depths.tolist()
    ]
    starts = [one["start"].values.tolist() for one in of_depths]
    if any(tested != starts[0] for tested in starts):
        told = "; ".join(f"{by}={depth} at {tested}" for depth, tested in zip(depths, starts, strict=True))
        raise SpecError(f"A trend needs the same starts at every depth, and tested were {told}. Select start=[...].")
    values = np.stack([one.transpose("start", SAMPLE).values for one in of_depths]).astype(np.float64)
    check_bootstrap(values, probability, resamples)
    sign = sign_of(chosen[variable])
    means, drawn = resampled_means(sign * values, resamples=resamples, seed=seed)
    tau, taus = (depth_trend(one, depths, threshold=sign * threshold) for one in (means, drawn))
    found = _told(tau, taus, probability=probability, resamples=resamples, seed=seed)
    windows = windows_until_redundant(means, threshold=sign * threshold)
    return found.assign_coords({by: depths}).assign(windows=(by, windows)).assign_attrs(samples=values.shape[-1])
