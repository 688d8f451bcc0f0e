"""Images of what a run took x_0 for, step by step: decoded of stored latents when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from causalunet.dims import CHANNEL, SAMPLE, STEP, X, Y
from causalunet.execute.walk.decoding import Decoding
from causalunet.execute.walk.memory import budget_of
from causalunet.models.base import DiffusionModel
from causalunet.models.devices import device_of
from causalunet.models.tf32 import exact_float32

__all__ = ["decoded"]


def decoded(x0_hat: xr.DataArray, model: DiffusionModel, *, memory: int | None = None) -> xr.DataArray:
    """Decode stored estimates of x_0, one step of all samples after the other.

    Parameters
    ----------
    x0_hat : DataArray, (sample, step, ...)
        Of a baseline.
    model : DiffusionModel
        That they are of.
    memory : int, optional
        Budget in bytes, as for `causalunet.Study.run`.

    Returns
    -------
    DataArray of float32, (sample, step, channel, y, x)
        Images in [0, 1].
    """
    decode, device = Decoding(model, budget_of(memory, model)), device_of(model)
    shape: Sequence[int] = getattr(model, "picture_shape", model.image_shape)
    images = np.empty((x0_hat.sizes[SAMPLE], x0_hat.sizes[STEP], *shape), np.float32)
    with exact_float32():
        for position in range(x0_hat.sizes[STEP]):
            latents = x0_hat.isel({STEP: position}).to_numpy().astype(np.float32)
            images[:, position] = decode(torch.from_numpy(latents).to(device))
    along = {name: one for name, one in x0_hat.coords.items() if {*one.dims} <= {SAMPLE, STEP}}
    told = {"long_name": "image of the estimate of x_0 made at the step", "units": "[0, 1]"}
    return xr.DataArray(images, dims=(SAMPLE, STEP, CHANNEL, Y, X), coords=along, name="x0_image", attrs=told)
