"""What a U-Net call rounds off where nothing is changed, measured on the model at hand and where it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from causalunet.design.starts import Noise, first_states
from causalunet.execute.call.guided import guided
from causalunet.execute.call.visits import UNetCaller
from causalunet.execute.walk.images import KeptImages
from causalunet.execute.walk.lockstep import Block, run_block
from causalunet.models.alone import alone
from causalunet.models.checking import told
from causalunet.models.devices import device_of
from causalunet.models.given import given_images
from causalunet.models.tf32 import exact_float32, tf32_allowed
from causalunet.plan import BASELINE, Plan
from causalunet.prediction import prediction_of, training_of
from causalunet.schedule import Level
from causalunet.stepping import Stepping

__all__ = ["Said", "computed_on", "rounding_of", "rounding_of_runs"]

_ROWS = 3
"""Samples that are called alone, together, and together in another order."""
_MEASURED: WeakKeyDictionary[nn.Module, dict[Any, dict[str, Any]]] = WeakKeyDictionary()
"""What was measured in this process, by U-Net."""


class Said:
    """Plain calls of a plan's U-Net, as a run makes them, but without any trace.

    Parameters
    ----------
    plan : Plan
    prompts : sequence of str
        One per sample.
    """

    def __init__(self, plan: Plan, prompts: Sequence[str]) -> None:
        self._model, self._guidance = plan.bound.model, plan.spec.sampler.guided_by
        self._prediction = prediction_of(self._model)
        self._stepping = Stepping(plan.spec.sampler, training_of(self._model), self._prediction)
        self._told = told(self._model, self._guidance, prompts)
        self.given = given_images(self._model, self._told[self._guidance.conditional])

    def of(self, x: Tensor, level: Level, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Estimate of x_0 and guided prediction of noise of some samples in one call, (sample, channel, y, x).

        Parameters
        ----------
        x : Tensor, (sample, channel, y, x)
            States of all samples.
        level : Level
        samples : sequence of int
            Those in the call, in its order.
        """
        some = torch.tensor(list(samples), device=x.device)
        state, branches = x[some], len(self._told)
        context = [torch.cat([part[some] for part in parts]) for parts in zip(*self._told, strict=True)]
        timesteps = torch.full((branches * len(some),), level.timestep, device=x.device)
        put_in = self._stepping.put_in(state, level) * level.scale
        with alone(self._model.unet):
            output = self._model.unet(torch.cat([put_in] * branches), timesteps, *context).float()
        given = None if self.given is None else self.given[some]
        value, _ = guided(output, self._guidance, self._prediction)
        x0, eps = self._stepping.estimated(value, state, level, given)
        return x0.clamp(-1, 1) if self._model.clip else x0, eps

    def begun(self, level: Level) -> Tensor:
        """States of pure noise, of seeds that count from 0."""
        number = len(self._told[0][0]) if self._told[0] else _ROWS
        noise = torch.from_numpy(first_states([Noise(seed) for seed in range(number)], self._model.image_shape))
        begun: Tensor = self._stepping.first(noise.to(device_of(self._model)), level, self.given)
        return begun

    def noised(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """States that estimates and noise make up at a level."""
        image, of_given, noise = self._stepping.process.weights(level.alpha_bar)
        shift = 0.0 if self.given is None else of_given * self.given
        return (image * x0 + shift + noise * eps) / level.scale


def computed_on(model: Any) -> dict[str, Any]:
    """Where and in what a model computes: device, its name, types of the weights, and TF32, which studies switch off.

    Returns
    -------
    dict
        ``device``, ``device_name``, ``dtypes`` (sorted), ``tf32``, whether float32 is rounded to TF32 in studies, and
        ``tf32_outside``, whether PyTorch is told to do so beside them.
    """
    device = device_of(model)
    kinds = {str(value.dtype).removeprefix("torch.") for value in model.unet.parameters() if value.is_floating_point()}
    outside = tf32_allowed()
    with exact_float32():
        inside = tf32_allowed()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": device.type,
        "device_name": name,
        "dtypes": sorted(kinds) or ["float32"],
        "tf32": inside and device.type == "cuda",
        "tf32_outside": outside,
    }


def rounding_of(plan: Plan) -> dict[str, Any]:
    """Measure what a call differs by if its batch is another: what null interventions differ by, before runs add to it.

    Some samples are called one by one, together, and together in reverse, at the first and at the last step. A U-Net is
    measured once in a process for every kind of call.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    dict
        As of `computed_on`, and ``call``, the largest root mean square over a sample of what the guided prediction of
        noise differs by, in standard deviations of noise; ``largest``, its largest number.
    """
    model, schedule = plan.bound.model, plan.schedule
    told = computed_on(model)
    levels = [schedule.level(step) for step in dict.fromkeys((schedule.steps, 1))]
    key = (told["device_name"], *told["dtypes"], str(plan.spec.sampler.guided_by.to_json()), *levels, model.image_shape)
    known = _MEASURED.setdefault(model.unet, {})
    if key not in known:
        prompts = [sample.prompt for sample in plan.spec.samples[:_ROWS]]
        with torch.inference_mode(), exact_float32():
            known[key] = _measured(Said(plan, [prompts[row % len(prompts)] for row in range(_ROWS)]), levels)
    return {**told, **known[key]}


def _measured(said: Said, levels: Sequence[Level]) -> dict[str, Any]:
    rows = list(range(_ROWS))
    x = said.begun(levels[0])
    call = largest = 0.0
    for place, level in enumerate(levels):
        x0, eps = said.of(x, level, rows)
        turned = said.of(x, level, rows[::-1])[1].flip(0)
        singly = torch.cat([said.of(x, level, [row])[1] for row in rows])
        for one, other in ((singly, eps), (turned, eps), (turned, singly)):
            off = one - other
            call = max(call, float(off.square().mean(dim=(1, 2, 3)).sqrt().max()))
            largest = max(largest, float(off.abs().max()))
        if place + 1 < len(levels):
            x = said.noised(x0, eps, levels[place + 1])
    return {"call": call, "largest": largest}


def rounding_of_runs(plan: Plan, unet: UNetCaller, samples: Sequence[int]) -> float | None:
    """Measure what whole runs in which nothing is changed differ by in their images, if their batches are others.

    Parameters
    ----------
    plan : Plan
    unet : UNetCaller
    samples : sequence of int
        Positions of samples whose runs are made, `_ROWS` of them at the most.

    Returns
    -------
    float or None
        Largest difference of an image in [0, 1]. None where equal runs differ as well: that is no rounding.
    """
    chosen = [plan.spec.samples[number] for number in samples][:_ROWS]
    some = [chosen[row % len(chosen)] for row in range(_ROWS)]
    block = Block(0, tuple(one.prompt for one in some), tuple(one.start for one in some))
    part = plan.part((BASELINE,))
    images, decode = [], plan.bound.model.decode
    for together in (_ROWS, _ROWS, 1):
        kept = KeptImages(decode)
        with exact_float32():
            run_block(unet, part, block, micro_batch=together, observer=kept)
        images.append(kept.images[BASELINE])
    first, again, singly = images
    return None if not np.array_equal(first, again) else float(np.abs(first - singly).max())
