"""From a study and a model to a plan: bound, checked, laid out, rehearsed."""

from __future__ import annotations

from collections.abc import Iterable

from causalunet.bound import bind
from causalunet.design.interventions import Intervention
from causalunet.design.samplers import Sampler
from causalunet.design.study import StudySpec, one_run
from causalunet.models.base import DiffusionModel
from causalunet.models.checking import check_samples, rehearse
from causalunet.plan import BASELINE, Plan, make_plan

__all__ = ["plan_run", "plan_study"]


def plan_study(spec: StudySpec, model: DiffusionModel, *, runs: Iterable[int] | None = None) -> Plan:
    """Plan a study on a model, and see that the model can run it.

    Parameters
    ----------
    spec : StudySpec
    model : DiffusionModel
    runs : iterable of int, optional
        As for `make_plan`.

    Raises
    ------
    PromptError, ComponentError, SpecError, ModelError
        What the model cannot do is told here, before anything is run.
    """
    bound = bind(spec, model)
    check_samples(model, spec)
    plan = make_plan(bound, runs=runs)
    rehearse(model, spec)
    return plan


def plan_run(
    model: DiffusionModel,
    sampler: Sampler,
    prompts: Iterable[str],
    seeds: Iterable[int] | None,
    intervention: Intervention | None,
) -> tuple[Plan, int]:
    """Plan a run alone, without the baseline and without a null intervention; errors as for `plan_study`.

    Returns
    -------
    Plan
    int
        Number of the run in it.
    """
    run = BASELINE if intervention is None else 0
    return plan_study(one_run(prompts, seeds, sampler, intervention), model, runs=(run,)), run
