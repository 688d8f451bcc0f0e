"""Whether a model takes the timesteps at which a sampler asks: some take whole ones only."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from causalunet.design.study import StudySpec
from causalunet.errors import SpecError
from causalunet.models.alone import alone
from causalunet.models.base import DiffusionModel
from causalunet.models.checking import context_of
from causalunet.models.demands import call_unet
from causalunet.models.devices import device_of
from causalunet.models.tf32 import exact_float32

__all__ = ["check_timesteps"]

_ROUNDING = 0.01
"""As a share of what a whole timestep makes: of a U-Net that does tell times apart, it is their distance, or so."""


def check_timesteps(model: DiffusionModel, spec: StudySpec, timesteps: Iterable[float]) -> None:
    """Check that a model can be asked between two timesteps, where a study does so.

    Parameters
    ----------
    model : DiffusionModel
        May say that its U-Net takes whole timesteps only by an attribute ``whole_timesteps`` that is True. Of one that
        does not say so the U-Net is called at such a timestep and at both whole ones beside it.
    spec : StudySpec
        Gives sampler and prompts.
    timesteps : iterable of float
        At which the study asks.

    Raises
    ------
    SpecError
        It takes whole timesteps only.
    """
    between = [time for time in timesteps if not float(time).is_integer()]
    if not between:
        return
    time = between[0]
    if getattr(model, "whole_timesteps", False):
        told = f"The model {model.name!r} takes whole timesteps only"
    elif rounded := _rounds(model, spec, math.floor(time)):
        told = f"The U-Net of the model {model.name!r} takes whole timesteps only ({rounded})"
    else:
        return
    raise SpecError(
        f"{told}, and the sampler {spec.sampler.name!r} asks between them, at {time:g} among others. Give it a spacing "
        "of whole timesteps, such as Linspace() or Karras(whole=True), or a sampler that asks at its steps only."
    )


def _rounds(model: DiffusionModel, spec: StudySpec, below: int) -> str:
    """Which whole timestep a U-Net takes that in the middle of two for; empty if it tells them apart."""
    device, middle, beside = device_of(model), below + 0.5, (below, below + 1)
    context = context_of(model, spec.encoded_prompts, 1)
    x = torch.randn(1, *model.image_shape, generator=torch.Generator().manual_seed(0)).to(device)
    with alone(model.unet), exact_float32(), torch.inference_mode():
        first, found, second = (
            call_unet(model, (x, torch.full((1,), float(one), device=device), *context)).float()
            for one in (beside[0], middle, beside[1])
        )
    # Equal calls are not equal to the last bit. Where it does not tell the time at all, nothing is below that.
    near = _ROUNDING * float((second - first).abs().max())
    away = zip(beside, (float((found - said).abs().max()) for said in (first, second)), strict=True)
    return next((f"it says the same at {middle:g} as at {one}" for one, distance in away if distance < near), "")
