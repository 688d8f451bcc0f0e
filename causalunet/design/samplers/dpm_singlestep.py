"""DPM-Solver++ within a step, of order 1 to 3 (Lu et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.samplers.arithmetic import checked_order, half_log_snr
from causalunet.design.samplers.base import Estimate, Query, Sampler, State
from causalunet.schedule import Level, TrainingSchedule

__all__ = ["DPMSinglestep"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class DPMSinglestep(Sampler):
    """DPM-Solver++ whose steps look between: as many U-Net calls each as its order (Lu et al. 2022, algorithm 1).

    The further calls of a step are at equal parts of it in lambda, half of log SNR, and so between timesteps. The step
    to the image takes one call.

    Parameters
    ----------
    steps : int
        Number of denoising steps T, spread over the training timesteps.
    guidance_scale : float
        Weight of the conditional over the unconditional prediction; 1 means no guidance and one row per call.
    guidance : Guidance, optional
        Another way to guide than by that scale.
    spacing : Spacing, optional
        At which timesteps the steps lie.
    order : int
        1 (which is DDIM), 2 or 3.

    Notes
    -----
    Order 3 as in Lu et al. 2022 ("DPM-Solver"), algorithm 2, for the estimate of x_0. Libraries count the calls as
    steps: 20 of theirs are 10 of these at order 2.
    """

    name: ClassVar[str] = "dpmpp_singlestep"

    order: int = 2

    def __post_init__(self) -> None:
        super(DPMSinglestep, self).__post_init__()
        checked_order("DPMSinglestep", self.order)

    def calls(self, at: Level, to: Level, passed: int) -> int:
        """As many as its order, but for the step to the image."""
        return 1 if to.alpha_bar == 1 else self.order

    def further(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, training: TrainingSchedule
    ) -> Query:
        """After another equal part of the step."""
        begin, end = at.log_snr, to.log_snr
        level = training.level_of(begin + (end - begin) * len(estimates) / self.order)
        return Query(_solved(state.x, estimates, at, level), level)

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """By all calls of the step."""
        return estimates[0].x0 if to.alpha_bar == 1 else _solved(state.x, estimates, at, to)


def _solved(x: Any, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
    """Go to a level by the first estimate and the slope to the last, which that order needs and no more."""
    length = half_log_snr(to) - half_log_snr(at)
    gone, signal = -math.expm1(-length), math.sqrt(to.alpha_bar)
    line = math.sqrt((1 - to.alpha_bar) / (1 - at.alpha_bar)) * x + signal * gone * estimates[0].x0
    if len(estimates) == 1:
        return line
    last = estimates[-1]
    slope = (last.x0 - estimates[0].x0) / ((half_log_snr(last.level) - half_log_snr(at)) / length)
    return line + signal * (gone / 2 if len(estimates) == 2 else 1 - gone / length) * slope
