"""The noise floor: by how much runs differ in which nothing was changed."""

from __future__ import annotations

import xarray as xr

from causalunet.analysis.selection import complete_samples, select_interventions
from causalunet.dims import INTERVENTION
from causalunet.errors import StoreError

__all__ = ["noise_floor"]


def noise_floor(results: xr.DataTree, *, allow_incomplete: bool = False) -> xr.Dataset:
    """SSIM to the baseline of the null intervention, which puts every activation back unchanged.

    Effects as small as what is missing to 1 here are rounding.

    Parameters
    ----------
    results : xarray.DataTree
    allow_incomplete : bool
        As for `curve`.

    Returns
    -------
    xarray.Dataset
        ``min`` and ``mean`` over all samples and null interventions, scalars; the attributes ``samples`` and
        ``interventions`` say of how many samples and of which null interventions.

    Raises
    ------
    StoreError
        The study has no null intervention, or some of its cells failed or were not run yet.
    """
    everything = select_interventions(results, {})
    if "null" not in everything["kind"].values:
        raise StoreError(
            "The study has no null intervention, so its noise floor is not known. "
            "Run it with Null(window=...) among the interventions; causalunet.Study adds one by itself."
        )
    null = complete_samples(select_interventions(results, {"kind": "null"}), allow_incomplete=allow_incomplete)
    ssim = null["ssim"]
    return xr.Dataset(
        {"min": ((), ssim.values.min(), ssim.attrs), "mean": ((), ssim.values.mean(), ssim.attrs)},
        attrs={
            "variable": "ssim",
            "samples": null.sizes["sample"],
            "interventions": [str(label) for label in null[INTERVENTION].values],
        },
    )
