"""A short measurement of the U-Net's speed on this machine, for the time estimate of a plan."""

from __future__ import annotations

import time

import torch

from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.walk.batches import mean_batch_size, micro_batch_size, places_asked
from causalunet.execute.walk.memory import budget_of
from causalunet.models.checking import encoded
from causalunet.models.devices import device_of
from causalunet.models.given import as_put_in
from causalunet.models.tf32 import exact_float32
from causalunet.plan import Action, Plan

__all__ = ["calibrate"]


def calibrate(plan: Plan, memory: int | None = None, repeats: int = 2) -> float:
    """Seconds per floating-point operation of an untouched call of the mean batch size that a run would use.

    Parameters
    ----------
    plan : Plan
    memory : int, optional
        Budget in bytes, as for `causalunet.Study.run`.
    repeats : int
        Timed calls after one to warm up; the fastest counts.
    """
    model = plan.bound.model
    budget = budget_of(memory, model)
    rows_per_sample = plan.spec.sampler.rows_per_sample
    most = micro_batch_size(model.anatomy, budget, rows_per_sample, places_asked(plan))
    rows = mean_batch_size(plan, budget, most) * rows_per_sample
    unet = TracedUNet(model.unet, model.anatomy)
    context = tuple(part.expand(rows, *part.shape[1:]) for part in encoded(model, plan.spec.prompts[:1]))
    device = device_of(model)
    x, _ = as_put_in(model, torch.zeros(rows, *model.image_shape, device=device), 0)
    timesteps = torch.zeros(rows, device=device)
    elapsed = []
    with torch.inference_mode(), exact_float32():
        for _ in range(1 + repeats):
            started = time.perf_counter()
            unet(Action(), (x, timesteps, *context), rows).output.sum().item()
            elapsed.append(time.perf_counter() - started)
    return min(elapsed[1:]) / (rows * model.anatomy.flops)
