"""Images of stored latents, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import xarray as xr

from causalunet.design.limits import shown
from causalunet.dims import SAMPLE, STEP
from causalunet.errors import ModelError, SpecError
from causalunet.results.meaning.schema import COMPLETE
from causalunet.study import chosen_model

if TYPE_CHECKING:
    from causalunet.models.base import DiffusionModel

__all__ = ["decode_x0"]


def decode_x0(
    results: xr.DataTree,
    *,
    steps: Iterable[int] | None = None,
    samples: Iterable[int] | None = None,
    model: DiffusionModel | None = None,
    memory: int | None = None,
) -> xr.DataArray:
    """Decode what the baseline took x_0 for at each step, without a U-Net call.

    Stores of models of latents hold ``baseline/x0_hat`` as latents. What they show is decoded when it is asked for,
    since images of all steps would be many times as large as everything else that is stored.

    Parameters
    ----------
    results : xarray.DataTree
        From `causalunet.open_results`.
    steps : iterable of int, optional
        Those to decode; all by default.
    samples : iterable of int, optional
        By their place in the study; all by default.
    model : DiffusionModel, optional
        That made the results, instead of the registered one.
    memory : int, optional
        Budget in bytes, as for `causalunet.Study.run`: as many images as fit are decoded together.

    Returns
    -------
    xarray.DataArray of float32, (sample, step, channel, y, x)
        Images in [0, 1].

    Raises
    ------
    ModelError
        The model is not the one that made the results.
    SpecError
        A step or sample is not stored, or its baseline is not complete.
    """
    loaded = chosen_model(model, results.attrs["study"]["model"])
    made_by = results.attrs.get("model_fingerprint")
    if loaded.fingerprint != made_by:
        raise ModelError(
            f"The results were made by a model of fingerprint {made_by}, and {loaded.name!r} has {loaded.fingerprint}: "
            "another decoder would show other images. Give the model that made them, model=..."
        )
    baseline = results["baseline"].to_dataset()
    labels = {
        dim: baseline[dim].to_numpy() if some is None else list(some)
        for dim, some in ((STEP, steps), (SAMPLE, samples))
    }
    for dim, some in labels.items():
        there = baseline[dim].to_numpy().tolist()
        if strange := [one for one in some if one not in there]:
            raise SpecError(
                f"decode_x0 got the {dim} {shown(strange[0])}; the results have {min(there)} to {max(there)}. Give "
                f"{dim}s among them."
            )
    if (baseline["status"].sel({SAMPLE: labels[SAMPLE]}) != COMPLETE).any():
        raise SpecError("decode_x0 got samples whose baseline is not complete; give samples= of those that are.")
    from causalunet.execute.measure.decoded import decoded

    return decoded(baseline["x0_hat"].sel(labels), loaded, memory=memory)
