"""Outcomes: what is measured of intervened images. Values with a name, a unit, a direction and a definition."""

from collections.abc import Iterable

from causalunet.design.outcomes.base import (
    OUTCOMES,
    Better,
    Outcome,
    OutcomeContext,
    OutcomeVariable,
    chosen_outcome,
    outcome_named,
)
from causalunet.design.outcomes.dims import OutcomeDim
from causalunet.design.outcomes.factors import FactorReading
from causalunet.design.outcomes.similarity import MSE, PSNR, SSIM, HistogramDistance, MultiScaleSSIM
from causalunet.design.outcomes.steps import EstimateDistance, NoiseDistance, StepDistance
from causalunet.errors import SpecError

__all__ = [
    "MOST_OUTCOMES",
    "MSE",
    "OUTCOMES",
    "PSNR",
    "SSIM",
    "Better",
    "EstimateDistance",
    "FactorReading",
    "HistogramDistance",
    "MultiScaleSSIM",
    "NoiseDistance",
    "Outcome",
    "OutcomeContext",
    "OutcomeDim",
    "OutcomeVariable",
    "StepDistance",
    "chosen_outcome",
    "outcome_named",
    "own_outcomes",
    "usual_outcomes",
]

MOST_OUTCOMES = 100
"""Of a study's own."""

_RESERVED = ("image", "status", "failure", "unet_calls", "flops")


def usual_outcomes(*, factors: bool) -> tuple[Outcome, ...]:
    """What a study measures that names no outcomes of its own: SSIM, PSNR, MSE, and factors if its model reads any."""
    return (SSIM(), PSNR(), MSE(), *((FactorReading(),) if factors else ()))


def own_outcomes(given: str | Outcome | Iterable[str | Outcome]) -> tuple[Outcome, ...]:
    """Outcomes of a study's own: those given, by name or themselves, without those that every study has.

    Raises
    ------
    SpecError
        One is none, two have a variable in common, or one has a variable of every study.
    """
    several = (given,) if isinstance(given, str | Outcome) else tuple(given)
    usual = usual_outcomes(factors=True)
    chosen = tuple(one for one in map(chosen_outcome, several) if one not in usual)
    if len(chosen) > MOST_OUTCOMES:
        raise SpecError(f"The study has {len(chosen)} outcomes; it can have {MOST_OUTCOMES}.")
    taken = dict.fromkeys(_RESERVED, "every store")
    taken |= {one.name: f"the outcome {other.name!r}" for other in usual for one in other.variables}
    for outcome in chosen:
        for one in outcome.variables:
            if one.name in taken:
                raise SpecError(
                    f"The outcome {outcome.name!r} has the variable {one.name!r}, which is that of {taken[one.name]} "
                    "too. Give it once, or let its class say another name by the property variable."
                )
            taken[one.name] = f"the outcome {outcome.name!r}"
    return chosen
