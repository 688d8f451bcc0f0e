"""Wall time of an intervened run against the uncut one, in interleaved repeats, beside FLOP and kernel shares."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.utils._python_dispatch import TorchDispatchMode

from causalunet.bound import BoundStudy
from causalunet.design.interventions import Composition, Intervention
from causalunet.design.limits import is_integer, plain_number
from causalunet.design.words import words_of
from causalunet.errors import SpecError
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.visits import CallContext
from causalunet.execute.planning import plan_run
from causalunet.execute.walk.generate import draw
from causalunet.models.checking import encoded
from causalunet.models.devices import device_of
from causalunet.models.given import as_put_in
from causalunet.models.tf32 import tf32_allowed
from causalunet.plan import Action, Plan
from causalunet.programs import Origin

__all__ = ["count_kernels", "shortcut_arms", "time_arms"]

_NOT_KERNELS = ("aten::empty", "aten::detach", "aten::_to_copy", "aten::lift_fresh")
_QUARTILES = (0.25, 0.75)
_COUNTED = 2  # samples per call while kernels are counted; the count does not depend on it


def time_arms(arms: Mapping[str, BoundStudy], *, repeats: int, traced: bool, memory: int | None) -> xr.Dataset:
    """Time interventions against the uncut run: as `causalunet.time_shortcut`, with any arms.

    Parameters
    ----------
    arms : mapping of str to BoundStudy
        Each of one run, as made by ``causalunet.design.study.one_run``, on one model; the first is the baseline.
    repeats, traced, memory
        As for `causalunet.time_shortcut`.

    Returns
    -------
    xarray.Dataset
        Along ``arm``, as for `causalunet.time_shortcut`.
    """
    repeats = plain_number(repeats)
    if not is_integer(repeats) or repeats < 1:
        raise SpecError(f"repeats={repeats!r} asked; give an integer of at least 1.")
    names, plans = list(arms), [plan_run(bound) for bound in arms.values()]
    bound, samples, sampler = plans[0].bound, plans[0].samples, plans[0].spec.sampler
    kernels = np.array(_kernels(plans, min(samples, _COUNTED)))
    flops = np.array([plan.flops / plan.samples for plan in plans])
    seconds, largest = np.empty((len(arms), repeats)), _Largest()
    for repeat in range(-1, repeats):
        for position in range(len(names)):
            row = (position + repeat) % len(names)
            started = time.perf_counter()
            draw(plans[row], traced=traced, memory=memory, advance=largest.note)
            if repeat >= 0:
                seconds[row, repeat] = time.perf_counter() - started
    saved = 1 - seconds / seconds[0]
    share = {"units": "1"}
    spread = np.quantile(saved, _QUARTILES, axis=1).T
    return xr.Dataset(
        {
            "seconds": (("arm", "repeat"), seconds, {"units": "s", "long_name": "wall time"}),
            "saved": (
                "arm",
                np.median(saved, axis=1),
                {**share, "long_name": "share of time saved, median of repeats"},
            ),
            "spread": (("arm", "bound"), spread, {**share, "interval_kind": "quartiles of repeats"}),
            "flops_saved": ("arm", 1 - flops / flops[0], {**share, "long_name": "share of FLOPs saved"}),
            "kernels_saved": ("arm", 1 - kernels / kernels[0], {**share, "long_name": "share of kernels saved"}),
            "unet_calls": ("arm", [plan.calls_per_sample for plan in plans], share),
        },
        coords={"arm": names, "repeat": np.arange(repeats), "bound": ["lower", "upper"]},
        attrs={
            "samples": samples,
            "samples_per_call": largest.samples,
            "steps": sampler.steps,
            "guidance_scale": sampler.guidance_scale,
            "rows_per_sample": sampler.rows_per_sample,
            "model": bound.model.name,
            "device": _device_name(bound),
            "threads": torch.get_num_threads(),
            "tf32": tf32_allowed(),
            "dtype": str(next(bound.model.unet.parameters()).dtype).removeprefix("torch."),
            "calls": "traced by nnsight" if traced else "plain",
            "baseline": f"{names[0]}: same sampler, text encoded once per prompt in every arm",
        },
    )


def shortcut_arms(intervention: Intervention) -> dict[str, Intervention | None]:
    """The uncut run, the cuts alone, the skipped steps alone, and the whole."""
    edits = intervention.edits()
    jumps = [edit for edit in edits if edit.component == "unet"]
    cuts = [edit for edit in edits if edit.component != "unet"]
    arms: dict[str, Intervention | None] = {"uncut": None}
    for name, part in (("cuts", cuts), ("steps", jumps)):
        if part:
            arms[name] = part[0] if len(part) == 1 else Composition(tuple(part))
    return {**arms, "shortcut": intervention}


def count_kernels(bound: BoundStudy, action: Action, samples: int) -> int:
    """Count the operations on tensors of one U-Net call, views left out.

    Parameters
    ----------
    bound : BoundStudy
        Whose first prompt all rows have.
    action : Action
    samples : int
        In the call; guidance doubles the rows.
    """
    model, rows = bound.model, samples * bound.spec.sampler.rows_per_sample
    context = tuple(part.expand(rows, *part.shape[1:]) for part in encoded(model, bound.spec.prompts[:1]))
    device = device_of(model)
    x, _ = as_put_in(model, torch.zeros(rows, *model.image_shape, device=device), 0)
    arguments = (x, torch.zeros(rows, device=device), *context)
    with torch.inference_mode(False), torch.no_grad(), InstalledUNet(model.unet, model.anatomy) as unet:
        counter = _Kernels()
        plain = tuple(part.clone() for part in arguments)
        with counter:
            unet(action, plain, samples, context=_any_donors(bound, action, plain[0]))
    return counter.count


def _any_donors(bound: BoundStudy, action: Action, x: torch.Tensor) -> CallContext:
    """Values that fills take from other calls, of the right shapes; what they are plays no part."""
    anatomy, donors = bound.anatomy, dict[tuple[str, Origin], torch.Tensor]()
    for placed in action.fills:
        place = placed.site.component
        value = x.new_zeros(len(x), *anatomy.described(place).shape)
        donors |= {(place, origin): value for origin in placed.donors}
    times = {origin: float(number) for number, (_, origin) in enumerate(donors, 1)}
    prompt, words = bound.spec.prompts[0], {words_of(placed.site.view) for placed in action.fills} - {()}
    tokens = {named: [bound.tokens[prompt, named]] * len(x) for named in words}
    return CallContext(1, len(bound.model.alpha_bar), donors, times, tokens=tokens)


class _Largest:
    """The most samples that went into one U-Net call."""

    def __init__(self) -> None:
        self.samples = 0

    def note(self, samples: int) -> None:
        self.samples = max(self.samples, samples)


class _Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if not func.is_view and not name.startswith(_NOT_KERNELS):
            self.count += 1
        return func(*args, **(kwargs or {}))


def _kernels(plans: Iterable[Plan], samples: int) -> list[int]:
    counts: dict[Action, int] = {}
    totals = []
    for plan in plans:
        times = Counter(action for call in plan.calls for action in call.actions)
        for action in times:
            if action not in counts:
                counts[action] = count_kernels(plan.bound, action, samples)
        totals.append(sum(counts[action] * n for action, n in times.items()))
    return totals


def _device_name(bound: BoundStudy) -> str:
    device = device_of(bound.model)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
