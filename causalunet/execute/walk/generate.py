"""Images of one run, without or with an intervention, through the same code as every study."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from causalunet.design.interventions import Intervention
from causalunet.design.samplers import DDPM, Sampler
from causalunet.design.starts import Start
from causalunet.design.study import one_run
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.call.visits import UNetCaller
from causalunet.execute.planning import plan_run
from causalunet.execute.walk.batches import micro_batch_size, places_asked
from causalunet.execute.walk.decoding import Decoding
from causalunet.execute.walk.images import KeptImages
from causalunet.execute.walk.lockstep import Block, run_block
from causalunet.execute.walk.memory import budget_of
from causalunet.models.base import DiffusionModel, load_model
from causalunet.models.checking import check_model
from causalunet.models.tf32 import exact_float32
from causalunet.plan import Plan

__all__ = ["draw", "generate"]

_BLOCK = 50  # samples whose states are held at once


def generate(
    prompts: Iterable[str],
    seeds: Iterable[int] | None = None,
    *,
    starts: Start | Iterable[Start] | None = None,
    model: str | DiffusionModel = "shapes",
    sampler: Sampler | None = None,
    intervention: Intervention | None = None,
    traced: bool = True,
    memory: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Sample images of one run: what a study calls its baseline, or one of its interventions.

    Parameters
    ----------
    prompts : iterable of str
        `causalunet.NO_PROMPT` for a sample without a condition.
    seeds : iterable of int, optional
        Paired with prompts as in `causalunet.Study`.
    starts : iterable of Start, optional
        Instead of seeds, as in `causalunet.Study`.
    model : str or DiffusionModel
    sampler : Sampler, optional
        By default 100 steps at guidance 3.
    intervention : Intervention, optional
        By default none.
    traced : bool
        Call the U-Net through nnsight, as studies do; otherwise install the cuts in its modules and call it plainly.
    memory : int, optional
        Budget in bytes for the activations of a call, on the device of the model; by default half of what is free
        there, and on a CPU 1 GiB at the most.
    advance : callable, optional
        Told the number of samples after every U-Net call.

    Returns
    -------
    ndarray of float32, (sample, channel, y, x)
        In [0, 1].

    Raises
    ------
    PromptError, ComponentError, SpecError
        What the model cannot do is told before anything runs.
    """
    loaded = load_model(model) if isinstance(model, str) else model
    check_model(loaded)
    plan = plan_run(one_run(prompts, seeds, sampler or DDPM(), intervention, starts=starts).bind(loaded))
    with exact_float32():
        return draw(plan, traced=traced, memory=memory, advance=advance)


def draw(
    plan: Plan, *, traced: bool, memory: int | None, advance: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """Sample the images of a plan of one run.

    Parameters
    ----------
    plan : Plan
        From `plan_run`.
    traced, memory, advance
        As for `generate`.

    Returns
    -------
    ndarray of float32, (sample, channel, y, x)
        In [0, 1].
    """
    budget = budget_of(memory, plan.bound.model)
    micro_batch = micro_batch_size(plan.anatomy, budget, plan.spec.sampler.rows_per_sample, places_asked(plan))
    decode = Decoding(plan.bound.model, budget)
    samples, images = plan.spec.samples, list[NDArray[np.float32]]()
    with _caller(plan.bound.model, traced=traced) as unet:
        for start in range(0, len(samples), _BLOCK):
            part = samples[start : start + _BLOCK]
            block = Block(start, tuple(item.prompt for item in part), tuple(item.start for item in part))
            kept = KeptImages(decode)
            run_block(unet, plan, block, micro_batch=micro_batch, observer=kept, advance=advance)
            images += kept.images.values()
    return np.concatenate(images)


def _caller(model: DiffusionModel, *, traced: bool) -> AbstractContextManager[UNetCaller]:
    if traced:
        return nullcontext(TracedUNet(model.unet, model.anatomy))
    return InstalledUNet(model.unet, model.anatomy)
