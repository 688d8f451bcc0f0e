"""Results of a study of which some cells failed and others are missing, and what is left of them by hand."""

from __future__ import annotations

import numpy as np
import xarray as xr

from causalunet.results.meaning.schema import COMPLETE, FAILED, MISSING

_REASON = "the U-Net's prediction at step 4 is not finite"


def with_gaps(results: xr.DataTree) -> xr.DataTree:
    """Let sample 0 fail with its baseline, 1 after it, leave out sample 2 after its baseline and 3 with it.

    What is whole is then the same for every selection of interventions. Numbers of these cells become what a store has
    there: NaN, and 0 where the type has no NaN.
    """
    outcomes, baseline = results["outcomes"].to_dataset().copy(), results["baseline"].to_dataset().copy()
    status = np.full(outcomes["status"].shape, COMPLETE)
    status[:, :4] = FAILED, FAILED, MISSING, MISSING
    runs = np.full(baseline["status"].shape, COMPLETE)
    runs[[0, 3]] = FAILED, MISSING
    reasons = np.where(status == FAILED, _REASON, "").astype(object)
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=results.attrs),
            "outcomes": _emptied(outcomes, status).assign(failure=(outcomes["status"].dims, reasons)),
            "baseline": _emptied(baseline, runs),
            **{name: group.to_dataset() for name, group in results.children.items() if name not in _REPLACED},
        }
    )


_REPLACED = ("outcomes", "baseline")


def _emptied(data: xr.Dataset, status: np.ndarray) -> xr.Dataset:
    """Numbers of complete cells, with the status."""
    data = data.assign(status=(data["status"].dims, status.astype(np.int8), data["status"].attrs))
    complete = data["status"] == COMPLETE
    for name in set(data.data_vars) - {"status", "failure"}:
        one = data[name]
        if set(complete.dims) <= set(one.dims):
            fill = np.nan if one.dtype.kind == "f" else np.zeros((), one.dtype)
            data[name] = one.where(complete, fill).transpose(*one.dims).astype(one.dtype).assign_attrs(one.attrs)
    return data


def without_gaps(results: xr.DataTree) -> xr.DataTree:
    """Only the samples of which everything is complete; of the baseline all that were run."""
    outcomes, baseline = results["outcomes"].to_dataset(), results["baseline"].to_dataset()
    whole = (outcomes["status"] == COMPLETE).all("intervention").values
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=results.attrs),
            "outcomes": outcomes.isel(sample=whole),
            "baseline": baseline.isel(sample=(baseline["status"] == COMPLETE).values),
            **{name: group.to_dataset() for name, group in results.children.items() if name not in _REPLACED},
        }
    )
