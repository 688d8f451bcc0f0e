"""From a bound study to a plan: checked, laid out, rehearsed."""

from __future__ import annotations

from collections.abc import Iterable

from causalunet.bound import BoundStudy
from causalunet.design.outcomes.measuring import rehearse_outcomes
from causalunet.models.checking import check_samples, rehearse
from causalunet.plan import BASELINE, Plan, make_plan

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
    plan = make_plan(bound, runs=runs)
    rehearse(bound.model, bound.spec)
    factors = bound.model.factors
    read_factors = bound.model.read_factors if factors else None
    rehearse_outcomes(bound.spec.outcomes, bound.image_shape, bound.spec.sampler.steps, read_factors, factors)
    return plan


def plan_run(bound: BoundStudy) -> Plan:
    """Plan the run of a study of one, see ``causalunet.design.study.one_run``; errors as for `plan_study`."""
    return plan_study(bound, runs=(BASELINE,) if not bound.spec.interventions else (0,))
