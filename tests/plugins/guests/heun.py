"""A sampler whose steps take two calls: one file, and nothing of the package was changed for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.design.samplers import Estimate, Query, Sampler, State
from causalunet.schedule import Level, TrainingSchedule


def noise_ratio(level: Level) -> float:
    """Noise over signal: sigma of Karras et al."""
    return math.sqrt((1 - level.alpha_bar) / level.alpha_bar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heun(Sampler):
    """Heun's method on the probability-flow ODE (Karras et al. 2022, algorithm 1).

    In z = x / sqrt(alpha_bar) the ODE is dz = e dsigma, where e = (z - x0) / sigma is the noise that the estimate
    leaves. The second call is where Euler's step ends; a step to the image, where nothing can be asked, has none.
    """

    name: ClassVar[str] = "guests.heun"

    def calls(self, at: Level, to: Level, passed: int) -> int:
        """Two, but for the last step."""
        return 1 if to.alpha_bar == 1 else 2

    def further(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, training: TrainingSchedule
    ) -> Query:
        """Where Euler's step ends."""
        return Query(self._line(state, self._slope(estimates[0]), at, to), to)

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Along the mean of both slopes."""
        if to.alpha_bar == 1:
            return estimates[0].x0
        first, second = map(self._slope, estimates)
        return self._line(state, (first + second) / 2, at, to)

    @staticmethod
    def _slope(estimate: Estimate) -> Any:
        return (estimate.x / math.sqrt(estimate.level.alpha_bar) - estimate.x0) / noise_ratio(estimate.level)

    @staticmethod
    def _line(state: State, slope: Any, at: Level, to: Level) -> Any:
        z = state.x / math.sqrt(at.alpha_bar) + (noise_ratio(to) - noise_ratio(at)) * slope
        return math.sqrt(to.alpha_bar) * z
