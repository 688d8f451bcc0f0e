"""Outcomes: what is measured of intervened images. Values with a name, a unit, a direction and a definition."""

from causalunet.design.outcomes.base import (
    OUTCOMES,
    Better,
    Outcome,
    OutcomeContext,
    OutcomeVariable,
    outcome_named,
)
from causalunet.design.outcomes.factors import FactorReading
from causalunet.design.outcomes.similarity import MSE, PSNR, SSIM

__all__ = [
    "MSE",
    "OUTCOMES",
    "PSNR",
    "SSIM",
    "Better",
    "FactorReading",
    "Outcome",
    "OutcomeContext",
    "OutcomeVariable",
    "outcome_named",
    "usual_outcomes",
]


def usual_outcomes(*, factors: bool) -> tuple[Outcome, ...]:
    """What a study measures that names no outcomes of its own: SSIM, PSNR, MSE, and factors if its model reads any."""
    return (SSIM(), PSNR(), MSE(), *((FactorReading(),) if factors else ()))
