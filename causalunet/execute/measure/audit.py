"""What is kept to trust a run: whether the traced U-Net still is the plain one."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from causalunet.execute.call.guided import guided
from causalunet.models.alone import alone
from causalunet.models.checking import encoded
from causalunet.models.devices import device_of
from causalunet.models.given import given_images
from causalunet.models.tf32 import exact_float32
from causalunet.plan import Plan
from causalunet.prediction import prediction_of, training_of
from causalunet.stepping import Stepping

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
    model, guidance = plan.bound.model, plan.spec.sampler.guided_by
    device, prediction, level = device_of(model), prediction_of(model), plan.schedule.level(step)
    stepping = Stepping(plan.spec.sampler, training_of(model), prediction)
    found = np.zeros(len(prompts), np.float32)
    with torch.inference_mode(), exact_float32():
        for index, prompt in enumerate(prompts):
            state = torch.from_numpy(x[index : index + 1]).to(device)
            told = [encoded(model, [said]) for said in guidance.prompts(prompt)]
            context = [torch.cat(parts) for parts in zip(*told, strict=True)]
            timesteps = torch.full((len(told),), level.timestep, device=device)
            put_in = stepping.put_in(state, level) * level.scale
            with alone(model.unet):
                output = model.unet(torch.cat([put_in] * len(told)), timesteps, *context).float()
            given = given_images(model, told[guidance.conditional])
            _, plain = stepping.estimated(guided(output, guidance, prediction)[0], state, level, given)
            found[index] = np.abs(plain.cpu().numpy() - eps[index]).max()
    return found
