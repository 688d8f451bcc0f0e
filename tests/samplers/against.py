"""Samplers of the package, and the schedulers of diffusers with the options that equal them: one table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import diffusers
import torch
from diffusers.schedulers import scheduling_ddpm as ddpm
from diffusers.schedulers import scheduling_dpmsolver_singlestep as singlestep
from diffusers.schedulers import scheduling_euler_ancestral_discrete as euler_ancestral
from diffusers.schedulers import scheduling_lcm as lcm
from torch import Tensor

import causalunet as cu
from causalunet.design import Exponential, Given, Karras, Leading, Linspace, Sampler, Spacing
from causalunet.design.samplers import (
    DEIS,
    LCM,
    PNDM,
    DPMMultistep,
    DPMSinglestep,
    DPMSolverV3,
    Euler,
    EulerAncestral,
    Heun,
    UniPC,
)
from causalunet.schedule import Level, TrainingSchedule, linear_alpha_bar
from tests.samplers.walks import Denoise

TRAINING = TrainingSchedule(linear_alpha_bar())
LEADING = Leading()
BY_STEPS: dict[int, Spacing] = {5: Karras(), 10: Linspace(last=False), 20: Exponential()}
"""Of samplers that ask anywhere: between timesteps too."""

Follow = Callable[[Any, Denoise, Sequence[Level], Tensor, Sequence[Tensor]], list[Tensor]]
"""Go along levels, the image last, by a scheduler: what it says of x after every U-Net call."""


def spaced(scheduler: Any, asked: Sequence[Level]) -> None:
    """Ask at levels that are written down, in double precision."""
    scheduler.set_timesteps(len(asked))
    scheduler.timesteps = torch.tensor([level.timestep for level in asked], dtype=torch.float64)
    # DEIS and UniPC of diffusers have no step, or not always, to where there is no noise at all.
    finite = isinstance(scheduler, diffusers.DEISMultistepScheduler | diffusers.UniPCMultistepScheduler)
    last = 1e-12 if finite else 0.0
    scheduler.sigmas = torch.tensor([*(level.sigma for level in asked), last], dtype=torch.float64)
    scheduler.set_begin_index(0)


def with_sigmas(
    scheduler: Any, denoise: Denoise, levels: Sequence[Level], x: Tensor, noises: Sequence[Tensor]
) -> list[Tensor]:
    """Schedulers that hold x and read sigmas; of lower order at the end, where log sigma is not finite."""
    spaced(scheduler, levels[:-1])
    found = []
    for passed, (level, noise) in enumerate(zip(levels[:-1], noises, strict=True)):
        if passed == len(levels) - 2:
            scheduler.lower_order_nums = 0
        given = {"variance_noise": noise} if "sde" in str(scheduler.config.get("algorithm_type")) else {}
        x = scheduler.step(denoise(x, level)[1], scheduler.timesteps[passed], x, **given).prev_sample.double()
        found.append(x)
    return found


def with_z(
    scheduler: Any, denoise: Denoise, levels: Sequence[Level], x: Tensor, noises: Sequence[Tensor]
) -> list[Tensor]:
    """Schedulers that hold z = x / sqrt(alpha_bar)."""
    twice = isinstance(scheduler, diffusers.HeunDiscreteScheduler)
    asked = [levels[0], *(level for level in levels[1:-1] for _ in range(2 if twice else 1))]
    spaced(scheduler, asked)
    scheduler.is_scale_input_called = True
    found, z = list[Tensor](), x / math.sqrt(levels[0].alpha_bar)
    for passed, level in enumerate(asked):
        step = passed // 2 if twice else passed
        with mock.patch.object(euler_ancestral, "randn_tensor", lambda *_, n=noises[step], **__: n):
            eps = denoise(z * math.sqrt(level.alpha_bar), level)[1]
            z = scheduler.step(eps, scheduler.timesteps[passed], z).prev_sample
        found.append(z * math.sqrt(levels[step + 1].alpha_bar))
    return found


def with_timesteps(
    scheduler: Any, denoise: Denoise, levels: Sequence[Level], x: Tensor, noises: Sequence[Tensor]
) -> list[Tensor]:
    """Schedulers that read alpha_bar at whole timesteps."""
    scheduler.set_timesteps(len(levels) - 1)
    found = []
    for passed, timestep in enumerate(scheduler.timesteps.tolist()):
        noise = noises[min(passed, len(noises) - 1)]
        with (
            mock.patch.object(ddpm, "randn_tensor", lambda *_, n=noise, **__: n),
            mock.patch.object(lcm, "randn_tensor", lambda *_, n=noise, **__: n),
        ):
            x = scheduler.step(denoise(x, TRAINING.level(timestep))[1], timestep, x).prev_sample
        found.append(x)
    return found


def with_orders(
    scheduler: Any, denoise: Denoise, levels: Sequence[Level], x: Tensor, noises: Sequence[Tensor]
) -> list[Tensor]:
    """Single-step solvers: each call of a step is a step of theirs, at a level between."""
    order, asked = scheduler.config.solver_order, list[Level]()
    for at, to in itertools.pairwise(levels[:-1]):
        between = [at.log_snr + (to.log_snr - at.log_snr) * share / order for share in range(1, order)]
        asked += [at, *map(TRAINING.level_of, between)]
    asked.append(levels[-2])
    spaced(scheduler, asked)
    scheduler.order_list = [*range(1, order + 1)] * (len(levels) - 2) + [1]
    found = []
    for passed, (level, timestep) in enumerate(zip(asked, scheduler.timesteps, strict=True)):
        step, stage = divmod(passed, order)
        # The last call of a step ends it, the earlier ones end where the next one looks.
        ends = stage == order - 1 or passed == len(asked) - 1
        noise = noises[step] if ends else further_noise(noises, step, stage + 1)
        with mock.patch.object(singlestep, "randn_tensor", lambda *_, n=noise, **__: n):
            x = scheduler.step(denoise(x, level)[1], timestep, x).prev_sample
        found.append(x)
    return found


def further_noise(noises: Sequence[Tensor], step: int, stage: int) -> Tensor:
    """Noise of a step's further calls: what was drawn, turned round, which is other noise."""
    return torch.roll(noises[step], stage, -1).flip(-2)


@dataclass(frozen=True)
class Case:
    """A sampler and its like.

    Parameters
    ----------
    sampler : callable
        Of its fields.
    scheduler : str
        Class of diffusers.
    options : dict
        Which make it equal.
    follow : callable
    calls : callable
        U-Net calls by steps.
    spacing : callable
        By steps.
    """

    sampler: Callable[..., Sampler]
    scheduler: str
    options: dict[str, Any]
    follow: Follow
    calls: Callable[[int], int] = lambda steps: steps
    spacing: Callable[[int], Spacing] = field(default=lambda steps: BY_STEPS[steps])

    def made(self, steps: int) -> Sampler:
        """Of so many steps."""
        return self.sampler(steps=steps, guidance_scale=1, spacing=self.spacing(steps))

    def theirs(self) -> Any:
        """The scheduler of diffusers."""
        kind = getattr(diffusers, self.scheduler)
        made = kind(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **self.options)
        made.alphas_cumprod = torch.from_numpy(TRAINING.alpha_bar)  # of double precision
        return made


def leading(steps: int) -> Spacing:
    return LEADING


def consistency(steps: int) -> Spacing:
    """Of every twentieth timestep, as evenly as they go."""
    return Given(timesteps=tuple(999 - 20 * (place * 50 // steps) for place in range(steps)))


def fixed(make: Callable[..., Sampler], **fields: Any) -> Callable[..., Sampler]:
    return lambda **others: make(**{**fields, **others})


MULTISTEP = {"lower_order_final": False, "final_sigmas_type": "zero", "solver_type": "midpoint"}
SDE = {**MULTISTEP, "algorithm_type": "sde-dpmsolver++"}
SINGLE = {"lower_order_final": True, "final_sigmas_type": "zero", "solver_type": "midpoint"}
PLAIN = {"clip_sample": False, "timestep_spacing": "leading"}

CASES: dict[str, Case] = {
    "Euler": Case(Euler, "EulerDiscreteScheduler", {}, with_z),
    "EulerAncestral": Case(EulerAncestral, "EulerAncestralDiscreteScheduler", {}, with_z),
    "Heun": Case(Heun, "HeunDiscreteScheduler", {}, with_z, lambda steps: 2 * steps - 1),
    **{
        f"DPMMultistep({order})": Case(
            fixed(DPMMultistep, order=order, official=order == 3),
            "DPMSolverMultistepScheduler",
            {**MULTISTEP, "solver_order": order},
            with_sigmas,
        )
        for order in (1, 2, 3)
    },
    **{
        f"DPMMultistep({order}, stochastic)": Case(
            fixed(DPMMultistep, order=order, stochastic=True),
            "DPMSolverMultistepScheduler",
            {**SDE, "solver_order": order},
            with_sigmas,
        )
        for order in (1, 2)
    },
    **{
        f"DPMSinglestep({order})": Case(
            fixed(DPMSinglestep, order=order),
            "DPMSolverSinglestepScheduler",
            {**SINGLE, "solver_order": order},
            with_orders,
            lambda steps, order=order: order * (steps - 1) + 1,  # type: ignore[misc]
        )
        for order in (1, 2, 3)
    },
    **{
        f"DPMSinglestep({order}, stochastic)": Case(
            fixed(DPMSinglestep, order=order, stochastic=True),
            "DPMSolverSinglestepScheduler",
            {**SINGLE, "solver_order": order, "algorithm_type": "sde-dpmsolver++"},
            with_orders,
            lambda steps, order=order: order * (steps - 1) + 1,  # type: ignore[misc]
        )
        for order in (1, 2, 3)
    },
    **{
        f"UniPC({order}, {variant})": Case(
            fixed(UniPC, order=order, variant=variant),
            "UniPCMultistepScheduler",
            {
                "solver_order": order,
                "solver_type": variant,
                "lower_order_final": False,
                "final_sigmas_type": "zero",
            },
            with_sigmas,
        )
        for order, variant in ((1, "bh2"), (2, "bh2"), (2, "bh1"), (3, "bh2"))
    },
    **{
        f"DEIS({order})": Case(
            fixed(DEIS, order=order),
            "DEISMultistepScheduler",
            {"solver_order": order, "lower_order_final": False},
            with_sigmas,
        )
        for order in (1, 2, 3)
    },
    **{
        f"DPMSolverV3({order}, without statistics)": Case(
            fixed(DPMSolverV3, order=order, corrector=False),
            "DPMSolverMultistepScheduler",
            {**MULTISTEP, "solver_order": order, "solver_type": "heun"},
            with_sigmas,
        )
        for order in (1, 2)
    },
    "PNDM": Case(
        PNDM,
        "PNDMScheduler",
        {"skip_prk_steps": True, "set_alpha_to_one": True},
        with_timesteps,
        lambda steps: steps + 1,
        leading,
    ),
    "PNDM(runge_kutta)": Case(
        fixed(PNDM, runge_kutta=True),
        "PNDMScheduler",
        {"set_alpha_to_one": True},
        with_timesteps,
        lambda steps: steps + 9,
        leading,
    ),
    "LCM": Case(LCM, "LCMScheduler", {"clip_sample": False}, with_timesteps, spacing=consistency),
    "DDIM": Case(cu.DDIM, "DDIMScheduler", {**PLAIN, "set_alpha_to_one": True}, with_timesteps, spacing=leading),
    "DDPM(small)": Case(
        fixed(cu.DDPM, variance="small"),
        "DDPMScheduler",
        {**PLAIN, "variance_type": "fixed_small"},
        with_timesteps,
        spacing=leading,
    ),
    "DDPM(large)": Case(
        fixed(cu.DDPM, variance="large"),
        "DDPMScheduler",
        {**PLAIN, "variance_type": "fixed_large"},
        with_timesteps,
        spacing=leading,
    ),
}
