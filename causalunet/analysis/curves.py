"""Curves: how an outcome depends on when an intervention starts, per sample and on average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from causalunet.analysis.described import TELLING, described, variable_name
from causalunet.analysis.intervals import bootstrap_mean
from causalunet.analysis.selection import check_variable, complete_samples, intervention_columns, select_interventions
from causalunet.design.outcomes import Outcome
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import SpecError
from causalunet.results.meaning.index import StepIndex

__all__ = ["BOUND", "BOUNDS", "curve", "first_reached", "mean_curve"]

BOUND = "bound"
"""Dimension of interval bounds."""
BOUNDS = ("lower", "upper")
"""Labels along `BOUND`."""


def curve(
    results: xr.DataTree,
    variable: str | Outcome = "ssim",
    *,
    by: str = "start",
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Outcomes of one sweep over a coordinate of the interventions, for every sample.

    Parameters
    ----------
    results : xarray.DataTree
    variable : str or Outcome
        Any variable of the outcomes, such as "ssim", "image" or "flops". Read when its values are used.
    by : str
        Coordinate that the curve runs along; "intervention" for any interventions side by side, by their labels.
    allow_incomplete : bool
        Take the samples that were run with all selected interventions, instead of raising an error for the others.
    **selection
        What the interventions have in common, such as ``kind="ablate_block", bottom=2``. Each is a value, a list of
        values, or a slice: a range with both ends included, whichever comes first.

    Returns
    -------
    xarray.Dataset
        ``variable``, (start, sample, ...). ``start`` descends as the run goes, any other ``by`` ascends; interventions
        are in the order in which their labels are given, or in that of the study. What they have in common is a scalar
        coordinate.

    Raises
    ------
    SpecError
        Nothing fits the selection, or more than one sweep does.
    StoreError
        Some of the cells failed or were not run yet.

    Examples
    --------
    >>> curve(results, "psnr", kind="ablate_block", bottom=2)["psnr"].dims
    ('start', 'sample')
    """
    chosen = select_interventions(results, selection)
    variable = check_variable(chosen, variable)
    if by == INTERVENTION:
        chosen = complete_samples(chosen, variable, allow_incomplete=allow_incomplete)
        return _along(chosen[[variable]].isel({INTERVENTION: _as_listed(chosen, selection)}), by)
    _check_one_sweep(chosen, by, selection)
    chosen = complete_samples(chosen, variable, allow_incomplete=allow_incomplete)
    order = np.argsort(chosen[by].values)
    return _along(chosen[[variable]].isel({INTERVENTION: order[::-1] if by == "start" else order}), by)


def mean_curve(
    results: xr.DataTree,
    variable: str | Outcome = "ssim",
    *,
    by: str = "start",
    probability: float | None = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Mean over samples of the outcomes of one sweep, with standard deviation and confidence interval.

    Parameters
    ----------
    results, variable, by, allow_incomplete, **selection
        As for `curve`; the variable has one number per cell.
    probability : float or None
        Coverage of the interval; None leaves the interval out, which one sample alone needs.
    resamples, seed : int
        As for `bootstrap_mean`.

    Returns
    -------
    xarray.Dataset
        ``mean`` and ``sd`` (of the samples, with n - 1), (start,), and ``interval``, (start, bound), whose attributes
        give its kind and probability. The attribute ``samples`` is the number of samples. Where a value is infinite, as
        PSNR is for identical images, so is the mean, and ``sd`` is NaN.

    Raises
    ------
    SpecError, StoreError
        As for `curve`; also if an interval is asked for fewer than two samples.
    """
    variable = variable_name(variable)
    data = curve(results, variable, by=by, allow_incomplete=allow_incomplete, **selection)
    if set(data[variable].dims) != {by, SAMPLE}:
        raise SpecError(
            f"{variable!r} has dimensions {', '.join(map(str, data[variable].dims))}; a mean curve needs one number "
            f"per {by} and {SAMPLE}, as ssim has. curve(...) gives the values themselves."
        )
    values = data[variable].transpose(by, SAMPLE).values.astype(np.float64)
    attrs = {name: data[variable].attrs[name] for name in TELLING if name in data[variable].attrs}
    with np.errstate(invalid="ignore"):  # infinity minus infinity: the SD is then not defined
        sd = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)
    result = xr.Dataset(
        {"mean": (by, values.mean(axis=1), attrs), "sd": (by, sd, attrs)},
        coords=data.drop_dims(SAMPLE).coords,
        attrs={"variable": variable, "samples": values.shape[1]},
    )
    if probability is None:
        return result
    bounds = bootstrap_mean(values, probability=probability, resamples=resamples, seed=seed)
    kind = {"interval_kind": "bootstrap BCa", "probability": probability, "resamples": resamples, "seed": seed}
    result["interval"] = ((by, BOUND), bounds, {**attrs, **kind})
    return result.assign_coords({BOUND: list(BOUNDS)})


def first_reached(mean: xr.DataArray, threshold: float) -> int | None:
    """First entry along a curve, in its order, whose mean is as alike as a threshold; None if no mean is.

    Parameters
    ----------
    mean : xarray.DataArray
        Of one dimension, such as ``mean_curve(...)["mean"]``, of whose attributes ``better`` tells distances apart.
    threshold : float
    """
    sign = described(str(mean.name), mean.attrs).sign
    reached = np.flatnonzero(sign * mean.values >= sign * threshold)
    return int(mean[mean.dims[0]].values[reached[0]]) if len(reached) else None


def _as_listed(chosen: xr.Dataset, selection: Mapping[str, Any]) -> list[int]:
    """Positions in the order of the labels in the selection, if it is a list of labels."""
    positions = list(range(chosen.sizes[INTERVENTION]))
    listed = selection.get(INTERVENTION)
    if listed is None or isinstance(listed, str | slice):
        return positions
    places = {str(label): place for place, label in reversed(list(enumerate(listed)))}
    return sorted(positions, key=lambda position: places[str(chosen[INTERVENTION].values[position])])


def _along(data: xr.Dataset, by: str) -> xr.Dataset:
    """Make a coordinate of the interventions their dimension, and scalars of those that do not vary."""
    common = {
        name: values[0]
        for name, values in intervention_columns(data).items()
        if name != by and len(set(values.tolist())) == 1
    }
    plain = data.drop_indexes([name for name in data.xindexes if data[name].dims == (INTERVENTION,)])
    plain = plain.drop_vars(["digest", "spec"], errors="ignore").swap_dims({INTERVENTION: by}).assign_coords(common)
    plain = plain if by in plain.xindexes else plain.set_xindex(by)
    plain.attrs.clear()
    return StepIndex.of(plain)


def _check_one_sweep(dataset: xr.Dataset, by: str, selection: Mapping[str, Any]) -> None:
    columns = intervention_columns(dataset)
    if by not in columns:
        raise SpecError(f"A curve cannot run along {by!r}; it can along {', '.join(sorted({*columns, INTERVENTION}))}.")
    values, counts = np.unique(columns[by], return_counts=True)
    if counts.max() > 1:
        value = values[counts > 1][0]
        twins = np.flatnonzero(columns[by] == value)
        labels = [str(label) for label in dataset[INTERVENTION].values[twins]]
        differing = _differing({name: column[twins] for name, column in columns.items()}, by)
        raise SpecError(
            f"A curve has one intervention per {by}, and {len(twins)} have {by}={value}: {_some(labels)}. "
            + _advice(differing, labels[0])
        )
    differing = {name: found for name, found in _differing(columns, by).items() if name not in selection}
    if differing and INTERVENTION not in selection:
        raise SpecError(
            f"The interventions selected differ in more than {by}. {_advice(differing, '')} "
            "To have several in one curve, name them: a list is a selection too."
        )


def _differing(columns: Mapping[str, Any], by: str) -> dict[str, list[Any]]:
    found = {name: sorted(set(values.tolist())) for name, values in columns.items() if name != by}
    return {name: values for name, values in found.items() if len(values) > 1}


def _advice(differing: Mapping[str, list[Any]], label: str) -> str:
    if not differing:
        return (
            f"They differ in no other coordinate: take them side by side with by={INTERVENTION!r}, or select one of "
            f"each by its label, such as intervention=[{label!r}, ...]."
        )
    listed = "; ".join(f"{name}: {_some(values)}" for name, values in differing.items())
    name, values = next(iter(differing.items()))
    return f"They differ in {listed}. Select one, such as {name}={values[0]!r}, or take by={INTERVENTION!r}."


def _some(values: list[Any]) -> str:
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
