"""DPM-Solver++ from earlier steps, of order 1 to 3, without noise and with (Lu et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import shown
from causalunet.design.samplers.arithmetic import checked_order, forgotten_noise, half_log_snr
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level

__all__ = ["DPMMultistep"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class DPMMultistep(Sampler):
    """DPM-Solver++ whose steps look back: one U-Net call each, of order 2 by default (Lu et al. 2022, algorithm 2).

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
        1 (which is DDIM), 2 or 3. The first steps of a run are of lower order, and the step to the image gives the
        last estimate.
    stochastic : bool
        Solve the SDE instead of the ODE (the same, section 5.3): order 1 is DDIM with eta 1.
    official : bool
        With order 3, take half of what the parabola bends, as the authors' code, k-diffusion and diffusers do: its
        second difference lacks a factor of 2, so that the order is 2. With noise diffusers (0.42) has a wrong sign
        there too, which is not followed.

    Notes
    -----
    The estimate of x_0 is taken for a polynomial through this step and those before, in lambda, half of log SNR. What a
    parabola adds up to over the step is exact; a line counts as its value in the middle, the code's "midpoint".
    """

    name: ClassVar[str] = "dpmpp_multistep"
    history: ClassVar[int] = 2

    order: int = 2
    stochastic: bool = False
    official: bool = False

    def __post_init__(self) -> None:
        super(DPMMultistep, self).__post_init__()
        checked_order("DPMMultistep", self.order)
        for name in ("stochastic", "official"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"DPMMultistep got {name}={shown(getattr(self, name))}; it is True or False.")

    @property
    def draws(self) -> bool:
        """Only if it is stochastic."""
        return self.stochastic

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """What the polynomial adds up to."""
        x0 = estimates[0].x0
        if to.alpha_bar == 1:
            return x0
        length = half_log_snr(to) - half_log_snr(at)
        # The SDE forgets twice as fast, and half of it is put back as noise.
        rate = 2 * length if self.stochastic else length
        gone, signal = -math.expm1(-rate), math.sqrt(to.alpha_bar)
        kept = math.sqrt((1 - to.alpha_bar) / (1 - at.alpha_bar)) * math.exp(length - rate)
        line = kept * state.x + signal * gone * x0
        past = state.past[: self.order - 1]
        if not past:
            return line
        first = (half_log_snr(at) - half_log_snr(past[0].level)) / length
        slope = (x0 - past[0].x0) / first
        if len(past) == 1:
            return line + signal * gone / 2 * slope
        second = (half_log_snr(past[0].level) - half_log_snr(past[1].level)) / length
        bend = (slope - (past[0].x0 - past[1].x0) / second) / (first + second)
        of_bend = (1 if self.official else 2) * (0.5 - (rate - gone) / rate**2)
        return line + signal * ((1 - gone / rate) * (slope + first * bend) + of_bend * bend)

    def spread(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> float:
        """What of the noise the SDE has forgotten."""
        return forgotten_noise(at, to)
