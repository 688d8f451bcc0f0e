"""What is kept to trust a run: whether the traced U-Net still is the plain one."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from causalunet.execute.measure.rounding import Said
from causalunet.models.devices import device_of
from causalunet.models.tf32 import exact_float32
from causalunet.plan import Plan

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
    device, level = device_of(plan.bound.model), plan.schedule.level(step)
    found = np.zeros(len(prompts), np.float32)
    with torch.inference_mode(), exact_float32():
        for index, prompt in enumerate(prompts):
            state = torch.from_numpy(x[index : index + 1]).to(device)
            _, plain = Said(plan, [prompt]).of(state, level, [0])
            found[index] = np.abs(plain.cpu().numpy() - eps[index]).max()
    return found
