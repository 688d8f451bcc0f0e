"""Two interventions, or two sweeps, compared sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.contrasts import check_finite, summarised
from causalunet.analysis.curves import BOUND, BOUNDS, curve
from causalunet.analysis.described import variable_name
from causalunet.analysis.intervals import wilson_share
from causalunet.design.outcomes import Outcome
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import SpecError
from causalunet.results.meaning.index import StepIndex

__all__ = ["compare"]

_MOST_LISTED = 10


def compare(
    results: xr.DataTree,
    a: str | Mapping[str, Any],
    b: str | Mapping[str, Any],
    variable: str | Outcome = "ssim",
    *,
    probability: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    allow_incomplete: bool = False,
) -> xr.Dataset:
    """Paired difference a - b between two interventions, or between two sweeps at every start.

    Both have the same prompt and noise in each sample, so that differences vary less than the outcomes themselves.

    Parameters
    ----------
    results : xarray.DataTree
    a, b : str or mapping
        Label of an intervention, or a selection as `curve` takes it. Each names one intervention, or each a sweep;
        sweeps have the same start steps.
    variable : str or Outcome
        With one number per cell.
    probability : float
        Coverage of every interval.
    resamples, seed : int
        Of the bootstrap and of the random sign flips.
    allow_incomplete : bool
        Take the samples that were run with all interventions compared, instead of raising an error for the others.

    Returns
    -------
    xarray.Dataset
        (start,) for sweeps, scalars for two interventions; intervals have ``bound`` besides:

        - ``mean`` of the differences with its BCa bootstrap ``interval``, and their ``sd`` (n - 1);
        - ``effect_size``, Cohen's d_z with Hedges' correction, and the bootstrap-t
          ``effect_size_interval`` of what it estimates;
        - ``share`` of samples in which a is larger than b, and its Wilson ``share_interval``; ties do not count;
        - two-sided ``p`` of the sign-flip test, and ``p_adjusted`` for the false discovery rate along ``start``
          (Benjamini & Hochberg 1995).

        The coordinates ``a`` and ``b`` are the labels of what was compared, and ``start`` is
        that of both, left out where two single ones differ in it. Exchanging a and b changes signs only.

    Raises
    ------
    SpecError
        What is given names no intervention, or several that are no sweep; the starts differ; or a difference is not
        finite, as where PSNR is infinite.
    StoreError
        Some of the cells failed or were not run yet.

    Examples
    --------
    >>> one = compare(results, "ablate_block bottom=2 10-6", "ablate_skip top=2 10-6")
    >>> curves = compare(results, {"bottom": 2}, {"kind": "ablate_skip"})
    >>> curves["mean"].dims
    ('start',)
    """
    variable = variable_name(variable)
    one, other = (_curve(results, side, variable, allow_incomplete) for side in (a, b))
    starts_agree = _check_starts(one, other)
    coords = {"start": one["start"].values, "a": ("start", _labels(one)), "b": ("start", _labels(other))}
    one, other = xr.align(one.drop_vars("start"), other.drop_vars("start"), join="inner", exclude=["start"])
    first, second = (side[variable].transpose("start", SAMPLE).values.astype(np.float64) for side in (one, other))
    check_finite(variable, first, second)
    differences = first - second
    drawn = {"probability": probability, "resamples": resamples, "seed": seed}
    units = one[variable].attrs.get("units", "1")
    result = xr.Dataset(summarised(differences, "start", drawn, units), {**coords, BOUND: list(BOUNDS)})
    result = result.assign(_share(first > second, probability))
    result = result.assign_attrs(variable=variable, samples=differences.shape[1])
    if result.sizes["start"] > 1:
        return StepIndex.of(result)
    return result.isel(start=0) if starts_agree else result.isel(start=0).drop_vars("start")


def _curve(results: xr.DataTree, side: str | Mapping[str, Any], variable: str, allow_incomplete: bool) -> xr.Dataset:
    if not isinstance(side, str | Mapping):
        raise SpecError(
            f"compare got {side!r}; give the label of an intervention, such as 'ablate_block bottom=2 10-6', or a "
            "selection, such as {'kind': 'ablate_block', 'bottom': 2, 'start': 10}."
        )
    selection = {INTERVENTION: side} if isinstance(side, str) else side
    data = curve(results, variable, allow_incomplete=allow_incomplete, **selection)
    if set(data[variable].dims) != {"start", SAMPLE}:
        raise SpecError(
            f"{variable!r} has dimensions {', '.join(map(str, data[variable].dims))}; a comparison needs one number "
            f"per start and {SAMPLE}, as ssim has."
        )
    return data


def _labels(side: xr.Dataset) -> NDArray[Any]:
    """Labels of the interventions, (start,), whether or not they are a scalar by now."""
    labels = np.atleast_1d(side[INTERVENTION].values)
    return np.array([str(label) for label in labels], dtype=object)


def _check_starts(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Raise `SpecError` unless both sides can be paired; say whether their starts are the same."""
    starts = [side["start"].values.tolist() for side in (one, other)]
    if starts[0] == starts[1] or len(starts[0]) == len(starts[1]) == 1:
        return bool(starts[0] == starts[1])
    told = (
        f"{name} names {len(side['start'])} intervention(s), with start {', '.join(map(str, side['start'].values))}: "
        + ", ".join(_labels(side)[:_MOST_LISTED])
        + (", ..." if len(side["start"]) > _MOST_LISTED else "")
        for name, side in (("a", one), ("b", other))
    )
    raise SpecError(
        f"A comparison is of two interventions, or of two sweeps with the same starts. {'; '.join(told)}. "
        "Select one intervention each, or the starts that both have, such as start=[20, 10]."
    )


def _share(larger: NDArray[np.bool_], probability: float) -> dict[str, xr.Variable]:
    counts, samples = larger.sum(axis=1), larger.shape[1]
    bounds = wilson_share(counts, samples, probability=probability)
    kind = {"interval_kind": "Wilson", "probability": probability, "units": "1"}
    return {
        "share": xr.Variable("start", counts / samples, {"long_name": "share of samples with a > b", "units": "1"}),
        "share_interval": xr.Variable(("start", BOUND), bounds, kind),
    }
