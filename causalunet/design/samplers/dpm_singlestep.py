"""DPM-Solver++ within a step, of order 1 to 3, without noise and with (Lu et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import shown
from causalunet.design.samplers.arithmetic import checked_order, forgotten_noise, half_log_snr
from causalunet.design.samplers.base import Estimate, Query, Sampler, State
from causalunet.errors import SpecError
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
    stochastic : bool
        Solve the SDE instead of the ODE. What a further call is given has noise too, drawn for it alone, as in
        diffusers: each call sees as much noise as its level has. A path of the SDE has one noise along all of a step;
        the variance at the end is therefore good to the first order only.

    Notes
    -----
    Order 3 as in Lu et al. 2022 ("DPM-Solver"), algorithm 2, for the estimate of x_0. Libraries count the calls as
    steps: 20 of theirs are 10 of these at order 2.
    """

    name: ClassVar[str] = "dpmpp_singlestep"

    order: int = 2
    stochastic: bool = False

    def __post_init__(self) -> None:
        super(DPMSinglestep, self).__post_init__()
        checked_order("DPMSinglestep", self.order)
        if not isinstance(self.stochastic, bool):
            raise SpecError(f"DPMSinglestep got stochastic={shown(self.stochastic)}; it is True or False.")

    @property
    def draws(self) -> bool:
        """Only if it is stochastic."""
        return self.stochastic

    def calls(self, at: Level, to: Level, passed: int) -> int:
        """As many as its order, but for the step to the image."""
        return 1 if to.alpha_bar == 1 else self.order

    def further(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, training: TrainingSchedule
    ) -> Query:
        """After another equal part of the step."""
        begin, end = at.log_snr, to.log_snr
        level = training.level_of(begin + (end - begin) * len(estimates) / self.order)
        return Query(self._solved(state.x, estimates, at, level), level)

    def further_spread(self, estimates: tuple[Estimate, ...], at: Level, level: Level) -> float:
        """As of a step that ends there."""
        return forgotten_noise(at, level)

    def spread(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> float:
        """What of the noise the SDE has forgotten."""
        return forgotten_noise(at, to)

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """By all calls of the step."""
        return estimates[0].x0 if to.alpha_bar == 1 else self._solved(state.x, estimates, at, to)

    def _solved(self, x: Any, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Go to a level by the first estimate and the slope to the last, which that order needs and no more."""
        length = half_log_snr(to) - half_log_snr(at)
        # The SDE forgets twice as fast, and half of it is put back as noise.
        rate = 2 * length if self.stochastic else length
        gone, signal = -math.expm1(-rate), math.sqrt(to.alpha_bar)
        kept = math.sqrt((1 - to.alpha_bar) / (1 - at.alpha_bar)) * math.exp(length - rate)
        line = kept * x + signal * gone * estimates[0].x0
        if len(estimates) == 1:
            return line
        last = estimates[-1]
        slope = (last.x0 - estimates[0].x0) / ((half_log_snr(last.level) - half_log_snr(at)) / length)
        return line + signal * (gone / 2 if len(estimates) == 2 else 1 - gone / rate) * slope
