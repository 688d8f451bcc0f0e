"""Phases: where the effect of an intervention changes its course over the run.

Intervals: the mean curve of every resample is partitioned anew, and the percentiles of each boundary are taken.
Where 95 % is asked, they cover the boundary of the population's mean curve 94 to 97 % of the time if it is known to
two steps and samples turn each at its own step; 95 to 99 % if it is known to one, as steps are whole; and up to
100 % if noise is large and independent between start steps (simulated, 200 to 500 studies of 20 to 100 samples
each). Adding the sampling error to the fit instead of to the curve gives intervals two thirds as wide, which may
cover as little as 83 %.

The score of k segments over K start steps is BIC with known noise level,

``cost(k) / noise**2 + penalty * (k * c + k - 1) * log(K)``,

where c is the number of coefficients of a segment, 2 or 1, and k - 1 counts the boundaries. ``noise`` is the
standard error of the mean curve, its square averaged over start steps: a phase counts if it explains more than
sampling error would. It is at least 1e-6 of the largest value. A mean curve is rounded where a line model has
corners, so very many samples may show further, short phases there; ``segments=3`` keeps to the paper's.

Sources: Auger & Lawrence 1989, doi:10.1007/BF02458835 (the algorithm); Bai & Perron 1998, doi:10.2307/2998540
(segmented regression); Yao 1988, doi:10.1016/0167-7152(88)90118-6 (the criterion).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.curves import BOUND, BOUNDS, curve
from causalunet.analysis.described import TELLING, variable_name
from causalunet.analysis.resampling import canonical_order, check_resampling, resampling_weights
from causalunet.design.outcomes import Outcome
from causalunet.dims import SAMPLE
from causalunet.errors import SpecError
from causalunet.results.meaning.index import StepIndex

__all__ = ["Model", "breaks_of", "partitions", "phases", "segment_costs"]

Model = Literal["linear", "constant"]
"""What the curve is within a phase."""

_NAMES = ("composition", "transition", "denoising")
_COEFFICIENTS: dict[Model, int] = {"linear": 2, "constant": 1}
_FLOOR = 1e-6  # noise level, relative to the curve's largest value, below which differences are rounding


def phases(
    results: xr.DataTree,
    *,
    variable: str | Outcome = "ssim",
    model: Model = "linear",
    segments: int | None = None,
    penalty: float = 1.0,
    shortest: int | None = None,
    probability: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Phases of a run: change points of an effect curve over start steps, with intervals (the paper's figure 4).

    The mean curve is cut into the segments whose least-squares lines (or levels) leave the smallest sum of squares,
    found exactly by dynamic programming. Neighbouring segments need not meet. Score, intervals: see the module.

    Parameters
    ----------
    results : xarray.DataTree
    variable : str or Outcome
        With one finite number per cell.
    model : {"linear", "constant"}
        Course within a phase. Plateau, ramp, plateau are three linear segments.
    segments : int, optional
        Number of phases. By default that of the smallest score.
    penalty : float
        Factor on the price of a further phase; larger values find fewer.
    shortest : int, optional
        Fewest start steps in a phase; by default 3 for "linear" and 2 for "constant".
    probability, resamples, seed
        Of the intervals: a bootstrap over samples, the number of phases being held at that found.
    allow_incomplete, **selection
        As for `curve`, such as ``kind="skip_steps", length=5``: one sweep over the start.

    Returns
    -------
    xarray.Dataset
        In the order of the run, so from large to small start steps:

        - ``boundary``, (boundary,): the first (largest) start step of every phase but the first;
        - ``interval``, (boundary, bound);
        - ``first``, ``last``, (phase,): first and last start step; ``level``: mean of the curve; ``slope``: its change
          per step along the run, for "linear" only. Three phases are named composition, transition and denoising,
          others "phase 1", "phase 2", ...;
        - ``mean``, ``fit``, (start,): the curve, and the lines or levels put through it;
        - ``cost``, ``score``, (segments,): residual sum of squares and score of the best partition into that many. The
          attribute ``noise`` is the noise level of the score.

    Raises
    ------
    SpecError
        An option is not valid, the curve has too few start steps, there are fewer than two samples, or a value is not
        finite, as PSNR is not for identical images; also as for `curve`.
    StoreError
        As for `curve`.
    """
    length = _shortest(model, shortest)
    _check_options(segments, penalty, probability, resamples)
    variable = variable_name(variable)
    data = curve(results, variable, allow_incomplete=allow_incomplete, **selection)
    values = canonical_order(_checked_values(data, variable, (segments or 2) * length))
    start, mean = data["start"].values, values.mean(axis=1)
    cost, previous = partitions(segment_costs(start, mean, model), len(start) // length, shortest=length)
    noise = _noise(values)
    score = _score(cost, noise, penalty, model, len(start))
    count = segments or int(score.argmin()) + 1
    drawn = _resampled_breaks(start, values, model, count, length, resamples=resamples, seed=seed)
    tails = [(1 - probability) / 2, (1 + probability) / 2]
    bounds = np.quantile(start[drawn], tails, axis=0, method="inverted_cdf").T
    kind = {"interval_kind": "bootstrap percentile", "probability": probability, "resamples": resamples, "seed": seed}
    named = {name: data[variable].attrs[name] for name in TELLING if name in data[variable].attrs}
    found = _described(start, mean, breaks_of(previous, count), model, named)
    found["interval"] = (("boundary", BOUND), bounds, {**kind, "units": "step"})
    found["mean"] = ("start", mean, named)
    found |= {"cost": ("segments", cost), "score": ("segments", score, {"units": "1"})}
    attrs = {"variable": variable, "model": model, "samples": values.shape[1], "penalty": penalty, "noise": noise}
    return _labelled(found, count, data.drop_dims(SAMPLE)).assign_attrs(attrs)


def segment_costs(start: NDArray[Any], curves: NDArray[np.float64], model: Model) -> NDArray[np.float64]:
    """Residual sums of squares of every stretch of a curve.

    Parameters
    ----------
    start : ndarray, (start,)
    curves : ndarray of float64, (..., start)
    model : {"linear", "constant"}
        A least-squares line against ``start``, or a level.

    Returns
    -------
    ndarray of float64, (..., begin, end)
        Of the points ``begin ... end - 1``, both from 0 to the number of points; 0 where there is none.
    """
    x = start - start.mean()
    y = curves - curves.mean(axis=-1, keepdims=True)
    points = np.maximum(_sums(np.ones(len(x))), 1)
    sum_y = _sums(y)
    cost = _sums(y * y) - sum_y**2 / points
    if model == "linear":
        sum_x = _sums(x)
        spread = _sums(x * x) - sum_x**2 / points
        shared = _sums(x * y) - sum_x * sum_y / points
        more = np.triu(np.ones(spread.shape, dtype=np.bool_), k=2)  # a line through one point is its level
        cost -= np.divide(shared**2, spread, where=more, out=np.zeros_like(cost))
    return np.maximum(np.triu(cost), 0)


def partitions(
    costs: NDArray[np.float64], most: int, *, shortest: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cheapest partitions of a curve into 1, 2, ... segments, by dynamic programming.

    Parameters
    ----------
    costs : ndarray of float64, (..., begin, end)
        As `segment_costs` gives them.
    most : int
        Largest number of segments.
    shortest : int
        Fewest points in a segment.

    Returns
    -------
    total : ndarray of float64, (..., segments)
        Cost of the best partition of the whole; infinite if there is none.
    previous : ndarray of int64, (..., segments - 1, end)
        Where the last segment begins, for `breaks_of`; the first of equals.
    """
    places = np.arange(costs.shape[-1])
    allowed = np.where(places - places[:, None] >= shortest, costs, np.inf)
    reached = allowed[..., 0, :]
    totals, previous = [reached[..., -1]], []
    for _ in range(most - 1):
        through = reached[..., None] + allowed
        previous.append(through.argmin(axis=-2))
        reached = through.min(axis=-2)
        totals.append(reached[..., -1])
    empty = np.empty((*costs.shape[:-2], 0, len(places)), dtype=np.int64)
    return np.stack(totals, axis=-1), np.stack(previous, axis=-2) if previous else empty


def breaks_of(previous: NDArray[np.int64], segments: int) -> NDArray[np.int64]:
    """First point of every segment but the first, (..., segments - 1), in the best partition.

    Parameters
    ----------
    previous : ndarray of int64, (..., segments - 1, end)
        As `partitions` gives it.
    segments : int
    """
    breaks = np.empty((*previous.shape[:-2], segments - 1), dtype=np.int64)
    end = np.full((*previous.shape[:-2], 1), previous.shape[-1] - 1)
    for place in reversed(range(segments - 1)):
        end = np.take_along_axis(previous[..., place, :], end, axis=-1)
        breaks[..., place] = end[..., 0]
    return breaks


def _sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over every stretch, (..., point) -> (..., begin, end)."""
    sums = np.concatenate([np.zeros_like(values[..., :1]), values.cumsum(axis=-1)], axis=-1)
    return sums[..., None, :] - sums[..., :, None]


def _noise(values: NDArray[np.float64]) -> float:
    """Standard error of the mean curve, its square averaged over start steps; not less than rounding matters."""
    error = math.sqrt(values.var(axis=1, ddof=1).mean() / values.shape[1])
    return max(error, _FLOOR * float(abs(values).max()))


def _score(cost: NDArray[np.float64], noise: float, penalty: float, model: Model, points: int) -> NDArray[np.float64]:
    count = np.arange(1, len(cost) + 1)
    return cost / (noise**2 or 1) + penalty * (count * _COEFFICIENTS[model] + count - 1) * math.log(points)


def _labelled(found: dict[str, Any], count: int, data: xr.Dataset) -> xr.Dataset:
    """Put labels on boundaries, phases and numbers of segments, beside those of the curve."""
    coords = {
        "boundary": found["first"][1][1:],
        BOUND: list(BOUNDS),
        "phase": list(_NAMES) if count == len(_NAMES) else [f"phase {place + 1}" for place in range(count)],
        "segments": np.arange(1, len(found["cost"][1]) + 1),
    }
    return StepIndex.of(xr.Dataset(found, coords={**data.coords, **coords}))


def _resampled_breaks(
    start: NDArray[Any], values: NDArray[np.float64], model: Model, segments: int, shortest: int, **size: int
) -> NDArray[np.int64]:
    """Breaks in the mean curve of every resample, (resample, boundary); ``size`` as for `resampling_weights`."""
    points, samples = values.shape
    found = []
    for weights in resampling_weights(samples, 4 * points**2, **size):
        costs = segment_costs(start, weights @ values.T / samples, model)
        found.append(breaks_of(partitions(costs, segments, shortest=shortest)[1], segments))
    return np.concatenate(found)


def _described(
    start: NDArray[Any], mean: NDArray[np.float64], breaks: NDArray[np.int64], model: Model, attrs: dict[str, Any]
) -> dict[str, Any]:
    """First and last step, level and slope of every phase, and the fitted curve."""
    parts = [slice(begin, end) for begin, end in zip([0, *breaks], [*breaks, len(start)], strict=True)]
    lines = [np.polyfit(start[part] - start[part].mean(), mean[part], _COEFFICIENTS[model] - 1) for part in parts]
    fit = np.concatenate(
        [np.polyval(line, start[part] - start[part].mean()) for line, part in zip(lines, parts, strict=True)]
    )
    described = {
        "first": ("phase", start[[part.start for part in parts]], {"units": "step"}),
        "last": ("phase", start[[part.stop - 1 for part in parts]], {"units": "step"}),
        "level": ("phase", np.array([line[-1] for line in lines]), attrs),
        "fit": ("start", fit, attrs),
    }
    if model == "linear":
        slope = np.array([-line[0] for line in lines])
        described["slope"] = ("phase", slope, {"long_name": "change per step, along the run"})
    return described


def _shortest(model: Model, shortest: int | None) -> int:
    if model not in _COEFFICIENTS:
        raise SpecError(f"phases got model={model!r}; it has {', '.join(map(repr, _COEFFICIENTS))}.")
    fewest = _COEFFICIENTS[model]
    if shortest is None:
        return fewest + 1
    if shortest < fewest:
        raise SpecError(f"phases got shortest={shortest!r}; a {model} phase needs at least {fewest} start steps.")
    return shortest


def _check_options(segments: int | None, penalty: float, probability: float, resamples: int) -> None:
    if segments is not None and segments < 1:
        raise SpecError(f"phases got segments={segments!r}; give at least 1, or None to have the number found.")
    if not (math.isfinite(penalty) and penalty > 0):
        raise SpecError(f"phases got penalty={penalty!r}; it must be a positive number, such as 1.")
    check_resampling(probability, resamples)


def _checked_values(data: xr.Dataset, variable: str, needed: int) -> NDArray[np.float64]:
    """Outcomes of a curve, (start, sample), finite and enough of them."""
    if set(data[variable].dims) != {"start", SAMPLE}:
        raise SpecError(f"{variable!r} has more than one number per cell; phases take one, as ssim has.")
    values = data[variable].transpose("start", SAMPLE).values.astype(np.float64)
    points, samples = values.shape
    if points < needed:
        raise SpecError(f"The curve has {points} start steps; as many phases as asked need at least {needed}.")
    if samples < 2:
        raise SpecError("Phases were asked of 1 sample; the noise level needs at least 2. Run more prompts or seeds.")
    wrong = ~np.isfinite(values).all(axis=1)
    if wrong.any():
        raise SpecError(
            f"{variable} is not finite at {wrong.sum()} of {points} start steps, the first at "
            f"start={data['start'].values[wrong][0]}. Take ssim or mse, or select other starts, as start=slice(20, 90)."
        )
    return values
