"""Wall time of an intervened run against the uncut one, in interleaved repeats, beside FLOP and kernel shares."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.utils._python_dispatch import TorchDispatchMode

from causalunet.design.interventions import Composition, Edit, Intervention, Null
from causalunet.design.study import DDPM, StudySpec
from causalunet.design.windows import Window
from causalunet.errors import SpecError
from causalunet.execute.generate import generate
from causalunet.execute.installed import InstalledUNet
from causalunet.models.base import DiffusionModel
from causalunet.plan import BASELINE, Action, Plan, make_plan
from causalunet.schedule import Schedule

__all__ = ["count_kernels", "time_arms"]

_NOT_KERNELS = ("aten::empty", "aten::detach", "aten::_to_copy", "aten::lift_fresh")
_QUARTILES = (0.25, 0.75)


def time_arms(
    intervention: Intervention,
    model: DiffusionModel,
    sampler: DDPM,
    prompts: tuple[str, ...],
    seeds: tuple[int, ...] | None,
    *,
    repeats: int,
    traced: bool,
    memory: int,
) -> xr.Dataset:
    """Time an intervention, its cuts alone and its skipped steps alone, against the uncut run.

    Parameters and result are those of `causalunet.time_shortcut`.
    """
    if repeats < 1:
        raise SpecError(f"{repeats} repeats asked; give at least 1.")
    arms = _arms(intervention)
    plans = {name: _plan(arm, model, sampler, prompts, seeds) for name, arm in arms.items()}
    samples = plans["uncut"].samples
    kernels = _kernels(plans, model, samples)
    seconds = np.empty((len(arms), repeats))
    names = list(arms)
    for repeat in range(-1, repeats):
        for position in range(len(names)):
            name = names[(position + repeat) % len(names)]
            started = time.perf_counter()
            generate(
                prompts,
                seeds,
                model=model,
                sampler=sampler,
                intervention=arms[name],
                traced=traced,
                memory=memory,
            )
            if repeat >= 0:
                seconds[names.index(name), repeat] = time.perf_counter() - started
    flops = {name: _run_flops(plan) for name, plan in plans.items()}
    saved = 1 - seconds / seconds[0]
    median = np.median(saved, axis=1)
    steps = float(median[names.index("steps")]) if "steps" in names else 0.0
    share = {"units": "1"}
    return xr.Dataset(
        {
            "seconds": (("arm", "repeat"), seconds, {"units": "s", "long_name": "wall time"}),
            "saved": ("arm", median, {**share, "long_name": "share of the uncut run's time saved, median"}),
            "spread": (
                ("arm", "bound"),
                np.quantile(saved, _QUARTILES, axis=1).T,
                {**share, "interval_kind": "quartiles"},
            ),
            "flops_saved": ("arm", [1 - flops[name] / flops["uncut"] for name in names], share),
            "kernels_saved": ("arm", [1 - kernels[name] / kernels["uncut"] for name in names], share),
            "unet_calls": ("arm", [_only_run(plan)[1] for plan in plans.values()], share),
            "saved_by_steps": ((), steps, share),
            "saved_by_cuts": ((), float(median[names.index("shortcut")]) - steps, share),
        },
        coords={"arm": names, "repeat": np.arange(repeats), "bound": ["lower", "upper"]},
        attrs={
            "samples": samples,
            "rows_per_call": samples * sampler.rows_per_sample,
            "steps": sampler.steps,
            "guidance_scale": sampler.guidance_scale,
            "model": model.name,
            "device": _device_name(model),
            "threads": torch.get_num_threads(),
            "dtype": str(next(model.unet.parameters()).dtype).removeprefix("torch."),
            "calls": "traced by nnsight" if traced else "plain",
            "baseline": "the uncut run of the same sampler, text encoded once per prompt in every arm",
        },
    )


def count_kernels(model: DiffusionModel, action: Action, samples: int, rows_per_sample: int) -> int:
    """Count the operations on tensors of one U-Net call, views left out.

    Parameters
    ----------
    model : DiffusionModel
    action : Action
    samples, rows_per_sample : int
        Batch of the call.
    """
    rows = samples * rows_per_sample
    context = tuple(part.expand(rows, *part.shape[1:]) for part in model.encode([""]))
    device = context[0].device if context else next(model.unet.parameters()).device
    arguments = (torch.zeros(rows, *model.image_shape, device=device), torch.zeros(rows, device=device), *context)
    with torch.inference_mode(False), torch.no_grad(), InstalledUNet(model.unet, model.anatomy) as unet:
        counter = _Kernels()
        plain = tuple(part.clone() for part in arguments)
        with counter:
            unet(action, plain, samples)
    return counter.count


class _Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if not func.is_view and not name.startswith(_NOT_KERNELS):
            self.count += 1
        return func(*args, **(kwargs or {}))


def _arms(intervention: Intervention) -> dict[str, Intervention | None]:
    """The uncut run, the cuts alone, the skipped steps alone, and the whole."""
    edits = intervention.edits()
    jumps = [edit for edit in edits if edit.component == "unet"]
    cuts = [edit for edit in edits if edit.component != "unet"]
    arms: dict[str, Intervention | None] = {"uncut": None}
    for name, part in (("cuts", cuts), ("steps", jumps)):
        if part:
            arms[name] = _together(part)
    return {**arms, "shortcut": intervention}


def _together(edits: Sequence[Edit]) -> Intervention:
    return edits[0] if len(edits) == 1 else Composition(tuple(edits))


def _plan(
    arm: Intervention | None,
    model: DiffusionModel,
    sampler: DDPM,
    prompts: tuple[str, ...],
    seeds: tuple[int, ...] | None,
) -> Plan:
    spec = StudySpec(
        name="time",
        prompts=prompts,
        seeds=seeds,
        sampler=sampler,
        interventions=(arm or Null(window=Window(1, 1)),),
    )
    schedule = Schedule.spaced(model.alpha_bar, sampler.steps)
    return make_plan(spec, model.anatomy, schedule, model.image_shape, runs=(BASELINE if arm is None else 0,))


def _only_run(plan: Plan) -> tuple[int, int]:
    """The one run of a plan, and its U-Net calls."""
    ((run, calls),) = plan.calls_by_run.items()
    return run, calls


def _run_flops(plan: Plan) -> int:
    return plan.flops_by_run[_only_run(plan)[0]]


def _kernels(plans: dict[str, Plan], model: DiffusionModel, samples: int) -> dict[str, int]:
    counts: dict[Action, int] = {}
    totals = {}
    for name, plan in plans.items():
        times = Counter(call.action for call in plan.calls)
        for action in times:
            if action not in counts:
                counts[action] = count_kernels(model, action, samples, plan.spec.sampler.rows_per_sample)
        totals[name] = sum(counts[action] * n for action, n in times.items())
    return totals


def _device_name(model: DiffusionModel) -> str:
    device = next(model.unet.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
