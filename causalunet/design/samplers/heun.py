"""Heun's method, without noise and with (Karras et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import is_number, shown
from causalunet.design.samplers.arithmetic import along_slope, slope
from causalunet.design.samplers.base import Estimate, Query, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level, TrainingSchedule

__all__ = ["EDM", "Heun"]

_MOST_CHURN = math.sqrt(2) - 1


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Heun(Sampler):
    """Heun's method on the probability-flow ODE, of second order (Karras et al. 2022, algorithm 1).

    A step takes two U-Net calls, the second where Euler's step ends; the step to the image takes one.

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
    """

    name: ClassVar[str] = "heun"

    def calls(self, at: Level, to: Level, passed: int) -> int:
        """Two, but for the step to the image."""
        return 1 if to.alpha_bar == 1 else 2

    def further(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, training: TrainingSchedule
    ) -> Query:
        """Where Euler's step ends."""
        return Query(self._along(state.x, self._slope(estimates[0]), at, to), to)

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Along the mean of both slopes."""
        if to.alpha_bar == 1:
            return estimates[0].x0
        first, second = map(self._slope, estimates)
        return self._along(state.x, (first + second) / 2, at, to)

    # In which kind of time the lines are straight.
    _slope = staticmethod(slope)
    _along = staticmethod(along_slope)


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class EDM(Sampler):
    """Heun's method with churn: noise is added, and more of it removed (Karras et al. 2022, algorithm 2).

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
    churn : float
        S_churn, above 0: the noise of a step is raised by the share gamma = min(churn / steps, sqrt(2) - 1).
    sigma_min, sigma_max : float
        S_tmin and S_tmax: noise is added only where a level that it leads up from has a ratio of noise to signal
        within.
    noise : float
        S_noise, above 0: what the noise added is multiplied by.

    Notes
    -----
    Algorithm 2 raises t_i to t^_i = (1 + gamma) t_i and asks the U-Net there. Here the levels of the run are those at
    which the U-Net is asked, so they are the t^_i, and a step ends with the noise that algorithm 2 begins its next step
    with: from t^_i by Heun's method to t_(i+1) = t^_(i+1) / (1 + gamma), and up to t^_(i+1). The first state is noise
    of its own level. So x_t in stores is what the U-Net was given, and it is the same algorithm with its t^_i spaced
    instead of its t_i. A level from sigma_min to (1 + gamma) sigma_min, which is no t^_i of algorithm 2, gets no noise.
    """

    name: ClassVar[str] = "edm"

    churn: float = 40.0
    sigma_min: float = 0.05
    sigma_max: float = 50.0
    noise: float = 1.003

    def __post_init__(self) -> None:
        super(EDM, self).__post_init__()
        for name in ("churn", "sigma_min", "sigma_max", "noise"):
            value = getattr(self, name)
            if not is_number(value) or value <= 0:
                raise SpecError(f"EDM got {name}={shown(value)}; it must be a finite number above 0.")
            object.__setattr__(self, name, float(value))
        if self.sigma_min > self.sigma_max:
            raise SpecError(f"EDM got sigma_min={self.sigma_min:g} above sigma_max={self.sigma_max:g}.")

    @property
    def draws(self) -> bool:
        """It does."""
        return True

    def calls(self, at: Level, to: Level, passed: int) -> int:
        """Two, but for the step to the image."""
        return 1 if to.alpha_bar == 1 else 2

    def further(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, training: TrainingSchedule
    ) -> Query:
        """Where Euler's step ends: below the next level, by the noise that is added afterwards."""
        down = self._down(to)
        end = to if down == to.sigma else training.level_of(-2 * math.log(down))
        return Query(along_slope(state.x, slope(estimates[0]), at, end), end)

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Along the mean of both slopes, to below the next level."""
        if to.alpha_bar == 1:
            return estimates[0].x0
        first, second = map(slope, estimates)
        z = state.x / math.sqrt(at.alpha_bar) + (estimates[1].level.sigma - at.sigma) * (first + second) / 2
        return math.sqrt(to.alpha_bar) * z

    def spread(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> float:
        """Of x, not of z; 0 outside the levels at which noise is added."""
        return self.noise * math.sqrt(to.alpha_bar * (to.sigma**2 - self._down(to) ** 2))

    def _down(self, to: Level) -> float:
        """Ratio of noise to signal from which noise leads up to a level."""
        down = to.sigma / (1 + min(self.churn / self.steps, _MOST_CHURN))
        return down if self.sigma_min <= down <= self.sigma_max else to.sigma
