"""The noise floor: by how much runs differ in which nothing was changed."""

from __future__ import annotations

import xarray as xr

from causalunet.analysis.direction import sign_of
from causalunet.analysis.selection import check_variable, complete_samples, select_interventions
from causalunet.design.outcomes import Better, Outcome
from causalunet.dims import INTERVENTION
from causalunet.errors import StoreError

__all__ = ["noise_floor"]


def noise_floor(
    results: xr.DataTree | xr.Dataset,
    variable: str | Outcome = "ssim",
    *,
    better: Better | None = None,
    allow_incomplete: bool = False,
) -> xr.Dataset:
    """An outcome of the null intervention, which puts every activation back unchanged.

    Effects as small as what is missing here to that of equal images, 1 for SSIM, are rounding.

    Parameters
    ----------
    results : xarray.DataTree or Dataset
        Or their outcomes.
    variable : str or Outcome
        With one number per cell.
    better : {"higher", "lower"}, optional
        As for `effects`.
    allow_incomplete : bool
        As for `curve`.

    Returns
    -------
    xarray.Dataset
        ``worst``, the value that is least alike, and ``mean`` over all samples and null interventions, scalars; the
        attributes ``samples`` and ``interventions`` say of how many samples and of which null interventions.

    Raises
    ------
    SpecError
        There is no such variable, or which of its values are alike is not known.
    StoreError
        The study has no null intervention, or some of its cells failed or were not run yet.
    """
    everything = select_interventions(results, {})
    if "null" not in everything["kind"].values:
        raise StoreError(
            "The study has no null intervention, so its noise floor is not known. "
            "Run it with Null(window=...) among the interventions; causalunet.Study adds one by itself."
        )
    variable = check_variable(everything, variable)
    null = select_interventions(results, {"kind": "null"})
    null = complete_samples(null, variable, allow_incomplete=allow_incomplete)
    values, sign = null[variable].values, sign_of(null[variable], better)
    worst, attrs = sign * (sign * values).min(), {**null[variable].attrs, "better": "higher" if sign > 0 else "lower"}
    return xr.Dataset(
        {"worst": ((), worst, attrs), "mean": ((), values.mean(), attrs)},
        attrs={
            "variable": variable,
            "samples": null.sizes["sample"],
            "interventions": [str(label) for label in null[INTERVENTION].values],
        },
    )
