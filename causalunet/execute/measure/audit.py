"""What is kept to trust a run: whether the traced U-Net still is the plain one."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.models.alone import alone
from causalunet.models.checking import encoded
from causalunet.models.devices import device_of
from causalunet.plan import Plan
from causalunet.sampler import guide

__all__ = ["drift"]


def drift(
    plan: Plan, prompts: tuple[str, ...], step: int, x: NDArray[np.float32], eps: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Call the U-Net plainly, without any trace, where its traced prediction is known.

    Traces that left something behind in the modules, changed weights and a stored baseline of another machine show as
    a difference beyond rounding.

    Parameters
    ----------
    plan : Plan
    prompts : tuple of str
        One per sample.
    step : int
        Of the call.
    x, eps : ndarray, (sample, channel, y, x)
        State that went in and guided prediction that came out.

    Returns
    -------
    ndarray of float32, (sample,)
        Largest absolute difference of eps.
    """
    model, scale = plan.bound.model, plan.spec.sampler.guidance_scale
    device = device_of(model)
    found = np.zeros(len(prompts), np.float32)
    with torch.inference_mode():
        empty = encoded(model, [""]) if scale != 1.0 else ()
        for index, prompt in enumerate(prompts):
            state = torch.from_numpy(x[index : index + 1]).to(device)
            context: tuple[Tensor, ...] = encoded(model, [prompt])
            if scale != 1.0:
                state = torch.cat([state, state])
                context = tuple(torch.cat(pair) for pair in zip(context, empty, strict=True))
            timesteps = torch.full((len(state),), float(plan.schedule.timestep(step)), device=device)
            with alone(model.unet):
                plain = guide(model.unet(state, timesteps, *context).float(), scale).eps
            found[index] = np.abs(plain.cpu().numpy() - eps[index]).max()
    return found
