"""Outcomes: what is measured of intervened images. Values with a name, a unit, a direction and a definition."""

from causalunet.design.outcomes.base import (
    OUTCOMES,
    Better,
    Outcome,
    OutcomeContext,
    OutcomeVariable,
    chosen_outcome,
    outcome_named,
)
from causalunet.design.outcomes.factors import FactorReading
from causalunet.design.outcomes.similarity import MSE, PSNR, SSIM, HistogramDistance, MultiScaleSSIM
from causalunet.design.outcomes.steps import EstimateDistance, NoiseDistance

__all__ = [
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
    "OutcomeVariable",
    "chosen_outcome",
    "outcome_named",
    "usual_outcomes",
]


def usual_outcomes(*, factors: bool) -> tuple[Outcome, ...]:
    """What a study measures that names no outcomes of its own: SSIM, PSNR, MSE, and factors if its model reads any."""
    return (SSIM(), PSNR(), MSE(), *((FactorReading(),) if factors else ()))
