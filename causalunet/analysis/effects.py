"""Every intervention's effect: what is left of the image, how surely, and what the run saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.bands import mean_above, simultaneous_band
from causalunet.analysis.curves import BOUND, BOUNDS
from causalunet.analysis.described import described, variable_name
from causalunet.analysis.direction import sign_of
from causalunet.analysis.intervals import bootstrap_mean, wilson_share
from causalunet.analysis.noise import noise_floor
from causalunet.analysis.selection import (
    at_labels,
    check_variable,
    complete_samples,
    labelled,
    outcomes,
    select_interventions,
)
from causalunet.analysis.sweeps import sweeps
from causalunet.design.outcomes import Better, Outcome
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import SpecError

__all__ = ["Family", "effects"]

Family = Literal["sweep", "study"]
"""Interventions that a band and adjusted p values are joint over."""

_Array = NDArray[np.float64]


def effects(
    results: xr.DataTree,
    variable: str | Outcome = "ssim",
    *,
    threshold: float | None = None,
    better: Better | None = None,
    probability: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
    family: Family = "sweep",
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Distribution over samples, test of non-inferiority and cost of every intervention.

    Parameters
    ----------
    results : xarray.DataTree
    variable : str or Outcome
        With one number per cell: "ssim", "psnr", or any that the results hold. Of an outcome with a number for each
        label of a dimension of its own, say which: ``effects(results, "colour_distance", colour="red")``.
    threshold : float, optional
        In the variable's unit; by default that of the outcome, which SSIM has: 0.8, the paper's. Values at least as
        large count as alike; of distances, values at most as large.
    better : {"higher", "lower"}, optional
        Values that mean more alike. Needed for a variable of your own, unless its attribute ``better`` says it.
    probability, resamples, seed
        As for `bootstrap_mean`; the band as a whole has the same coverage.
    quantiles : sequence of float
        Probabilities of the quantiles over samples, each within [0, 1].
    family : {"sweep", "study"}
        What the band and ``p_adjusted`` are joint over: a sweep over the start, or all. Nulls are tested apart.
    allow_incomplete, **selection
        As for `curve`, but of several sweeps. Families hold only what is selected: to look at some starts of a sweep,
        select the sweep here and the starts from what is returned.

    Returns
    -------
    xarray.Dataset
        Along ``intervention``, with its coordinates and ``family``, the family's name:

        - ``mean``, ``sd`` (n - 1), ``quantiles`` (..., quantile), ``worst`` and ``worst_sample`` (the first, of equal
          ones);
        - ``interval`` of the mean (..., bound), BCa bootstrap; ``band`` (..., bound), see `simultaneous_band`;
        - ``share`` of alike samples and its Wilson ``share_interval`` (..., bound);
        - ``p``, of the hypothesis that the mean is not beyond the threshold, see `mean_above`, and ``p_adjusted`` for
          the false discovery rate in the family (Benjamini & Hochberg 1995);
        - ``unet_calls`` per sample; ``unet_calls_saved`` and ``flops_saved`` as shares of the baseline run's own, NaN
          if the study has no null intervention, which costs as much as the baseline.

        ``noise_floor``, a scalar, is the value of the null interventions that is least alike, NaN if there is none. The
        attributes say ``variable``, ``threshold``, ``better``, ``family`` and the number of ``samples``. Infinite
        values, as PSNR has for identical images, make mean, upper bounds and higher quantiles infinite and ``sd`` NaN.

    Raises
    ------
    SpecError
        Nothing fits the selection, the variable has not one number per cell, no known direction or threshold, or there
        are fewer than two samples.
    StoreError
        Some of the cells failed or were not run yet.

    Examples
    --------
    >>> effects(results)["band"].sel(kind="ablate_block", bottom=2).dims
    ('intervention', 'bound')
    """
    _check(family, quantiles)
    own, variable = described(variable).threshold, variable_name(variable)
    everything, selection = at_labels(outcomes(results), selection)
    chosen = _complete(everything, variable, selection, allow_incomplete)
    sign, threshold = sign_of(chosen[variable], better), _threshold(variable, threshold, own)
    names = _families(everything, chosen, family)
    drawn = {"probability": probability, "resamples": resamples, "seed": seed}
    result = _cost(everything, chosen).assign(_measured(chosen[variable], names, sign, threshold, quantiles, drawn))
    result["noise_floor"] = _noise_floor(everything, variable, better, allow_incomplete)
    coords = {"family": (INTERVENTION, names), "quantile": list(map(float, quantiles)), BOUND: list(BOUNDS)}
    attrs = {"variable": variable, "threshold": threshold, "family": family, "samples": chosen.sizes[SAMPLE]}
    return result.assign_coords(coords).assign_attrs(attrs, better="higher" if sign > 0 else "lower")


def _measured(
    cells: xr.DataArray,
    names: NDArray[Any],
    sign: int,
    threshold: float,
    quantiles: Sequence[float],
    drawn: Mapping[str, Any],
) -> dict[str, xr.Variable]:
    values = cells.transpose(INTERVENTION, SAMPLE).values.astype(np.float64)
    found = _means(values, names, drawn) | _extremes(values, sign, quantiles, cells[SAMPLE])
    for name in ("mean", "sd", "interval", "band", "quantiles", "worst"):
        found[name].attrs["units"] = cells.attrs.get("units", "1")
    return found | _against(values, names, sign, threshold, drawn["probability"])


def _complete(
    everything: xr.Dataset, variable: str, selection: Mapping[str, Any], allow_incomplete: bool
) -> xr.Dataset:
    chosen = select_interventions(everything, selection)
    check_variable(chosen, variable)
    if set(chosen[variable].dims) != {INTERVENTION, SAMPLE}:
        own = [dim for dim in labelled(chosen) if dim in chosen[variable].dims]
        say = "".join(f" Say which {dim}: {dim}={str(chosen[dim].values[0])!r}, for one." for dim in own)
        raise SpecError(
            f"{variable!r} has dimensions {', '.join(map(str, chosen[variable].dims))}; effects need one number per "
            f"{INTERVENTION} and {SAMPLE}, as ssim has. curve(...) gives the values themselves.{say}"
        )
    return complete_samples(chosen, variable, allow_incomplete=allow_incomplete)


def _threshold(variable: str, given: float | None, own: float | None) -> float:
    threshold = own if given is None else given
    if threshold is None:
        raise SpecError(
            f"Which values of {variable!r} count as alike is not known. Say threshold=..., in its unit; only outcomes "
            "with a threshold of their own, as SSIM has, need none."
        )
    return threshold


def _check(family: str, quantiles: Sequence[float]) -> None:
    if family not in get_args(Family):
        raise SpecError(f"family={family!r} is not one of {', '.join(get_args(Family))}.")
    wrong = [quantile for quantile in quantiles if not 0 <= quantile <= 1]
    if wrong:
        raise SpecError(f"quantiles={quantiles!r} has {wrong[0]!r}, which is not within [0, 1]; the median is 0.5.")


def _families(everything: xr.Dataset, chosen: xr.Dataset, family: Family) -> NDArray[Any]:
    """Name of every chosen intervention's family, (intervention,)."""
    member = {
        label: "study" if family == "study" else name
        for name, sweep in sweeps(everything).items()
        for label in sweep[INTERVENTION]
    }
    labels = [str(label) for label in chosen[INTERVENTION].values]
    return np.array([member.get(label, label) for label in labels], dtype=object)


def _by_family(values: _Array, names: NDArray[Any], function: Callable[[_Array], _Array]) -> _Array:
    """Apply a function to the rows of one family at a time."""
    rows = [np.flatnonzero(names == name) for name in dict.fromkeys(names)]
    parts = np.concatenate([function(values[part]) for part in rows])
    return parts[np.argsort(np.concatenate(rows))]


def _cost(everything: xr.Dataset, chosen: xr.Dataset) -> xr.Dataset:
    """U-Net calls, and what is saved of the baseline's cost, which that of a null intervention equals."""
    result = chosen[["unet_calls"]].load()
    result.attrs.clear()
    null = np.flatnonzero(everything["kind"].values == "null")
    for name, cost in {"unet_calls_saved": "unet_calls", "flops_saved": "flops"}.items():
        baseline = everything[cost].values[null[0]] if len(null) else np.nan
        attrs = {"long_name": f"share of the baseline run's {cost} that is saved", "units": "1"}
        result[name] = (INTERVENTION, 1 - chosen[cost].values / baseline, attrs)
    return result


def _means(values: _Array, names: NDArray[Any], drawn: Mapping[str, Any]) -> dict[str, xr.Variable]:
    with np.errstate(invalid="ignore"):  # infinity minus infinity: the SD is then not defined
        sd = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)
    band = _by_family(values, names, lambda cells: simultaneous_band(cells, **drawn))
    return {
        "mean": xr.Variable(INTERVENTION, values.mean(axis=1)),
        "sd": xr.Variable(INTERVENTION, sd),
        "interval": _bounds(bootstrap_mean(values, **drawn), "bootstrap BCa", **drawn),
        "band": _bounds(band, "simultaneous, max-t bootstrap", **drawn),
    }


def _extremes(values: _Array, sign: int, quantiles: Sequence[float], samples: xr.DataArray) -> dict[str, xr.Variable]:
    worst = (sign * values).argmin(axis=1)
    return {
        "quantiles": xr.Variable((INTERVENTION, "quantile"), _quantiles(values, quantiles)),
        "worst": xr.Variable(INTERVENTION, values[np.arange(len(values)), worst]),
        "worst_sample": xr.Variable(INTERVENTION, samples.values[worst]),
    }


def _quantiles(values: _Array, quantiles: Sequence[float]) -> _Array:
    """Quantiles over samples, (intervention, quantile), infinite where interpolated with an infinite value."""
    finite = np.isfinite(values)
    beyond = np.finfo(np.float64).max / 4  # its differences to finite values do not overflow
    found = np.quantile(np.where(finite, values, beyond), list(quantiles), axis=1).T.reshape(len(values), -1)
    largest = np.where(finite, values, -np.inf).max(axis=1)
    return np.where(found > np.where(finite.all(axis=1), np.inf, largest)[:, None], np.inf, found)


def _against(
    values: _Array, names: NDArray[Any], sign: int, threshold: float, probability: float
) -> dict[str, xr.Variable]:
    """Share of samples at least as alike as the threshold, and p values that the mean is."""
    from scipy.stats import false_discovery_control

    samples = values.shape[1]
    counts = (sign * values >= sign * threshold).sum(axis=1)
    p = mean_above(sign * values, sign * threshold)
    told = f"{'at most' if sign < 0 else 'at least'} {threshold:g}"
    kind = {"long_name": f"share of samples of {told}", "units": "1", "threshold": threshold}
    test = {"units": "1", "threshold": threshold}
    return {
        "share": xr.Variable(INTERVENTION, counts / samples, kind),
        "share_interval": _bounds(
            wilson_share(counts, samples, probability=probability), "Wilson", probability=probability, units="1"
        ),
        "p": xr.Variable(INTERVENTION, p, {"long_name": "p value, one-sided", **test}),
        "p_adjusted": xr.Variable(
            INTERVENTION,
            _by_family(p, names, false_discovery_control),
            {"long_name": "p value, adjusted for the false discovery rate", **test},
        ),
    }


def _bounds(bounds: _Array, interval_kind: str, **attrs: Any) -> xr.Variable:
    return xr.Variable((INTERVENTION, BOUND), bounds, {"interval_kind": interval_kind, **attrs})


def _noise_floor(everything: xr.Dataset, variable: str, better: Better | None, allow_incomplete: bool) -> xr.DataArray:
    if "null" not in everything["kind"].values:
        return xr.DataArray(np.nan, attrs=everything[variable].attrs)
    return noise_floor(everything, variable, better=better, allow_incomplete=allow_incomplete)["worst"]
