"""Euler's method, without noise and with (Karras et al. 2022; Song et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import is_number, shown
from causalunet.design.samplers.arithmetic import noise_left, slope
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level

__all__ = ["Euler", "EulerAncestral"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Euler(Sampler):
    """Euler's method on the probability-flow ODE, of first order (Karras et al. 2022, algorithm 1 without line 6).

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

    Notes
    -----
    In z = x / sqrt(alpha_bar), over sigma, the ratio of noise to signal. It is DDIM with eta 0 in other words, and
    Euler's method in t of the velocity, where noise turns into images along straight paths (flow matching).
    """

    name: ClassVar[str] = "euler"
    from_noise: ClassVar[bool] = True

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Along the slope where the step begins."""
        x0 = estimates[0].x0
        if to.alpha_bar == 1:
            return x0
        # z + (to.sigma - at.sigma) slope, written so that it holds where sigma is infinite.
        return math.sqrt(to.alpha_bar) * x0 + math.sqrt(1 - to.alpha_bar) * noise_left(estimates[0])


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class EulerAncestral(Sampler):
    """Euler's method to below the next noise level, and noise back up to it (k-diffusion's ``sample_euler_ancestral``).

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
    eta : float
        Share of noise, above 0 to 1 (as much as the posterior of DDPM has).

    Notes
    -----
    It is DDIM with the same eta in other words. Without noise it is `Euler`.
    """

    name: ClassVar[str] = "euler_ancestral"

    eta: float = 1.0

    def __post_init__(self) -> None:
        super(EulerAncestral, self).__post_init__()
        if not is_number(self.eta) or not 0 < self.eta <= 1:
            raise SpecError(
                f"EulerAncestral got eta={shown(self.eta)}; it must be a number above 0, up to 1. Euler draws no noise."
            )
        object.__setattr__(self, "eta", float(self.eta))

    @property
    def draws(self) -> bool:
        """It does."""
        return True

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Along the slope, to where the noise that is added leads up to the next level."""
        if to.alpha_bar == 1:
            return estimates[0].x0
        down = math.sqrt(to.sigma**2 - self._up(at, to) ** 2)
        z = state.x / math.sqrt(at.alpha_bar) + (down - at.sigma) * slope(estimates[0])
        return math.sqrt(to.alpha_bar) * z

    def spread(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> float:
        """Of x, not of z."""
        return math.sqrt(to.alpha_bar) * self._up(at, to)

    def _up(self, at: Level, to: Level) -> float:
        """Noise to be added, as a ratio to signal."""
        return self.eta * to.sigma * math.sqrt(1 - (to.sigma / at.sigma) ** 2)
