"""From a bound study to a plan: checked, laid out, rehearsed."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from causalunet.bound import BoundStudy
from causalunet.design.outcomes.measuring import rehearse_outcomes
from causalunet.design.samplers import Estimate, State
from causalunet.execute.under_process import check_process
from causalunet.models.checking import check_samples, rehearse
from causalunet.models.timesteps import check_timesteps
from causalunet.plan import BASELINE, Plan, make_plan
from causalunet.prediction import prediction_of, training_of
from causalunet.schedule import Level
from causalunet.stepping import Stepping

__all__ = ["plan_run", "plan_study"]


def plan_study(bound: BoundStudy, *, runs: Iterable[int] | None = None) -> Plan:
    """Plan a study on its model, and see that the model can run it.

    Parameters
    ----------
    bound : BoundStudy
    runs : iterable of int, optional
        As for `make_plan`.

    Raises
    ------
    PromptError, ComponentError, SpecError, ModelError
        What the model cannot do is told here, before anything is run.
    """
    check_samples(bound.model, bound.spec)
    bound.spec.sampler.check_model(bound.model, bound.schedule)
    check_process(bound)
    plan = make_plan(bound, runs=runs)
    rehearse(bound.model, plan.spec)
    check_timesteps(bound.model, bound.spec, _asked_at(plan))
    factors = bound.model.factors
    read_factors = bound.model.read_factors if factors else None
    rehearse_outcomes(bound.spec.outcomes, bound.picture_shape, bound.spec.sampler.steps, read_factors, factors)
    return plan


def _asked_at(plan: Plan) -> list[float]:
    """Timesteps at which the calls of a plan ask, those of a step's further calls too."""
    sampler, schedule = plan.spec.sampler, plan.schedule
    asked = [float(time) for time in schedule.timesteps]
    ways = {(call.step, fork.target, fork.calls) for call in plan.calls for fork in call.forks if fork.calls > 1}
    stepping = Stepping(sampler, training_of(plan.bound.model), prediction_of(plan.bound.model))

    def nothing(level: Level) -> Estimate:
        # Where a call asks does not hang on what the earlier ones said, or it could not be planned.
        zero = torch.zeros(1, *plan.image_shape)
        return Estimate(zero, zero, None, zero, level)

    for step, target, calls in sorted(ways):
        at, to = schedule.level(step), schedule.level(target)
        last = min(step + sampler.history, schedule.steps)
        past = tuple(nothing(schedule.level(earlier)) for earlier in range(step + 1, last + 1))
        said = [nothing(at)]
        while len(said) < calls:
            given = torch.zeros(1, *plan.image_shape)
            query = stepping.further(State(said[0].x, past), tuple(said), at, to, given)
            asked.append(query.level.timestep)
            said.append(nothing(query.level))
    return asked


def plan_run(bound: BoundStudy) -> Plan:
    """Plan the run of a study of one, see ``causalunet.design.study.one_run``; errors as for `plan_study`."""
    return plan_study(bound, runs=(BASELINE,) if not bound.spec.interventions else (0,))
