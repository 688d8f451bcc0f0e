"""Means and intervals of several sweeps side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from causalunet.analysis.curves import BOUND, BOUNDS, mean_curve
from causalunet.analysis.described import variable_name
from causalunet.analysis.sweeps import named_selections
from causalunet.design.outcomes import Outcome
from causalunet.results.meaning.index import StepIndex

__all__ = ["summary_table"]


def summary_table(
    results: xr.DataTree,
    selections: Mapping[str, Any] | None = None,
    *,
    variable: str | Outcome = "ssim",
    probability: float = 0.95,
    allow_incomplete: bool = False,
) -> xr.Dataset:
    """Mean with confidence interval of several sweeps, by start step.

    Parameters
    ----------
    results : xarray.DataTree
    selections : mapping, optional
        Names to selections as `curve` takes them, such as ``{"blocks": {"kind": "ablate_block", "bottom": 2}}``. By
        default every sweep of the study.
    variable : str or Outcome
        With one number per cell.
    probability : float
        Coverage of the intervals.
    allow_incomplete : bool
        As for `curve`.

    Returns
    -------
    xarray.Dataset
        ``mean``, (selection, start), ``interval``, (selection, start, bound), and ``samples``, (selection, start): the
        number of samples, 0 where a selection has no intervention with that start. Mean and interval are NaN there.

    Raises
    ------
    SpecError, StoreError
        As for `mean_curve`.
    """
    variable = variable_name(variable)
    curves = {
        name: mean_curve(results, variable, probability=probability, allow_incomplete=allow_incomplete, **selection)
        for name, selection in named_selections(results, selections).items()
    }
    starts = np.array(sorted({int(start) for one in curves.values() for start in one["start"].values}, reverse=True))
    mean = np.full((len(curves), len(starts)), np.nan)
    interval = np.full((*mean.shape, len(BOUNDS)), np.nan)
    samples = np.zeros(mean.shape, dtype=np.int64)
    for row, one in enumerate(curves.values()):
        columns = np.flatnonzero(np.isin(starts, one["start"].values))
        mean[row, columns] = one["mean"].values
        interval[row, columns] = one["interval"].values
        samples[row, columns] = one.attrs["samples"]
    dims, first = ("selection", "start"), next(iter(curves.values()))
    table = xr.Dataset(
        {
            "mean": (dims, mean, first["mean"].attrs),
            "interval": ((*dims, BOUND), interval, first["interval"].attrs),
            "samples": (dims, samples, {"long_name": "number of samples", "units": "1"}),
        },
        coords={"selection": list(curves), "start": starts, BOUND: list(BOUNDS)},
        attrs={"variable": variable},
    )
    return StepIndex.of(table)
