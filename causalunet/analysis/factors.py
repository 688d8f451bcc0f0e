"""Which factors of a scene, such as colour and shape, an intervention changes."""

from __future__ import annotations

from typing import Any

import xarray as xr

from causalunet.analysis.curves import BOUND, BOUNDS, curve
from causalunet.analysis.intervals import wilson_share
from causalunet.analysis.selection import outcomes
from causalunet.dims import SAMPLE
from causalunet.errors import StoreError

__all__ = ["factor_changes"]


def factor_changes(
    results: xr.DataTree,
    *,
    by: str = "start",
    probability: float = 0.95,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Share of samples in whose image another value of a factor is read than in the baseline image.

    Parameters
    ----------
    results : xarray.DataTree
    by, allow_incomplete, **selection
        As for `curve`.
    probability : float
        Coverage of the interval.

    Returns
    -------
    xarray.Dataset
        ``share``, (start, factor), and its Wilson ``interval``, (start, factor, bound). The attribute ``samples`` is
        the number of samples.

    Raises
    ------
    StoreError
        The study's model reads no factors, or some of the cells were not run yet.
    SpecError
        As for `curve`.
    """
    if "factor_changed" not in outcomes(results).data_vars:
        raise StoreError(
            "The results hold no factors: the study's model has no factor reader. The embedded model 'shapes' has one; "
            "for other models compare images by ssim or psnr, as mean_curve does."
        )
    data = curve(results, "factor_changed", by=by, allow_incomplete=allow_incomplete, **selection)
    changed = data["factor_changed"].transpose(by, "factor", SAMPLE)
    samples = data.sizes[SAMPLE]
    counts = changed.values.sum(axis=-1)
    dims = (by, "factor")
    kind = {"interval_kind": "Wilson", "probability": probability, "units": "1"}
    return xr.Dataset(
        {
            "share": (dims, counts / samples, {"long_name": "share of samples with another value", "units": "1"}),
            "interval": ((*dims, BOUND), wilson_share(counts, samples, probability=probability), kind),
        },
        coords={**data.drop_dims(SAMPLE).coords, "factor": data["factor"], BOUND: list(BOUNDS)},
        attrs={"variable": "factor_changed", "samples": samples},
    )
