"""What runs cost: U-Net calls and floating-point operations, of stretches of the tree and of runs by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.design.anatomy import Anatomy
from causalunet.design.interventions import Intervention
from causalunet.design.samplers import Sampler
from causalunet.design.stages import check_stages
from causalunet.programs import Action, calls_by_step, program_maker
from causalunet.schedule import Schedule
from causalunet.sources import sources_of
from causalunet.tree import RunId, Stretch

__all__ = ["RunCost", "StretchCost", "cost_of_run", "cost_of_stretch"]


class RunCost(NamedTuple):
    """What a run by itself takes for one sample: U-Net calls, and floating-point operations."""

    unet_calls: int
    flops: int


class StretchCost(NamedTuple):
    """What a stretch takes for one sample and one row of a call.

    Attributes
    ----------
    shared : RunCost
        Of all its runs together: everything up to the first call of its last step.
    apart : tuple of (tuple of RunId, RunCost)
        The further calls of its last step, of the runs that go one way; without an entry where there are none.
    """

    shared: RunCost
    apart: tuple[tuple[tuple[RunId, ...], RunCost], ...] = ()

    @property
    def whole(self) -> RunCost:
        """Of all that is called."""
        costs = [self.shared, *(cost for _, cost in self.apart)]
        return RunCost(sum(one.unet_calls for one in costs), sum(one.flops for one in costs))


def cost_of_stretch(
    stretch: Stretch, anatomy: Anatomy, steps: int, calls: Mapping[RunId, NDArray[np.uint8]] | None
) -> StretchCost:
    """Count what a stretch takes, without listing its calls.

    Parameters
    ----------
    stretch : Stretch
    anatomy : Anatomy
    steps : int
        Of the study's runs.
    calls : mapping of RunId to ndarray, optional
        U-Net calls of every run at each step, T first; None where every step takes one.
    """
    if calls is None or not stretch.runs:
        return StretchCost(RunCost(len(stretch), anatomy.live_flops(stretch.action.dead) * len(stretch)))
    last = steps - stretch.stop
    # Runs that stay together for more than a step are edited alike in all calls of it.
    action = replace(stretch.action, later=stretch.ends[0].later) if stretch.ends else stretch.action
    through = _cost(action, calls[stretch.runs[0]][steps - stretch.start : last], anatomy)
    shared = RunCost(through.unet_calls + 1, through.flops + anatomy.live_flops(stretch.action.dead))
    ends = ((end, calls[end.runs[0]][last : last + 1]) for end in stretch.ends)
    return StretchCost(
        shared,
        tuple((end.runs, _cost(replace(action, later=end.later), made, anatomy, first=1)) for end, made in ends),
    )


def _cost(action: Action, made: NDArray[Any], anatomy: Anatomy, *, first: int = 0) -> RunCost:
    """Of steps under one action that take so many calls each, without the first ones of each."""
    often = [int((made > stage).sum()) for stage in range(first, int(made.max(initial=0)))]
    flops = [anatomy.live_flops(action.at(stage).dead) * n for stage, n in enumerate(often, first)]
    return RunCost(sum(often), sum(flops))


def cost_of_run(intervention: Intervention | None, sampler: Sampler, anatomy: Anatomy, schedule: Schedule) -> RunCost:
    """Count what one run takes, with an intervention or without; no sample is needed for it.

    Raises
    ------
    ComponentError, SpecError
        The intervention names what the model does not have, or an edit could never fire.
    """
    if intervention is not None:
        intervention = intervention.placed(anatomy)
        anatomy.check(intervention)
    edits = intervention.edits() if intervention is not None else ()
    program = program_maker(anatomy, schedule.steps)(edits)
    made, steps = calls_by_step(program, sampler, schedule), schedule.steps
    check_stages(intervention.label if intervention is not None else "", edits, made, sampler.name)
    spent = [_cost(span.action, made[steps - span.start : steps - span.stop + 1], anatomy) for span in program]
    # By itself it also takes the runs that it has values from.
    others = [steps - lowest + 1 for lowest in sources_of({RunId(0): program}, forked=False).lowest.values()]
    calls = int(made.sum()) + sum(others)
    return RunCost(calls, (sum(one.flops for one in spent) + anatomy.flops * sum(others)) * sampler.rows_per_sample)
