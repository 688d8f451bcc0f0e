"""A sampler that looks back: one file, and nothing of the package was changed for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.design.samplers import Estimate, Sampler, State
from causalunet.schedule import Level


def half_log_snr(level: Level) -> float:
    """Of DPM-Solver, lambda."""
    return 0.5 * math.log(level.alpha_bar / (1 - level.alpha_bar))


@dataclass(frozen=True, slots=True, kw_only=True)
class Multistep(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): the line through the last two estimates of x_0."""

    name: ClassVar[str] = "guests.dpmpp_2m"
    history: ClassVar[int] = 1

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """One step; the first is of first order, and the last is the estimate."""
        x0 = estimates[0].x0
        if to.alpha_bar == 1:
            return x0
        length = half_log_snr(to) - half_log_snr(at)
        line = x0
        if state.past:
            before = state.past[0]
            ratio = (half_log_snr(at) - half_log_snr(before.level)) / length
            line = (1 + 1 / (2 * ratio)) * x0 - 1 / (2 * ratio) * before.x0
        share = math.sqrt((1 - to.alpha_bar) / (1 - at.alpha_bar))
        return share * state.x - math.sqrt(to.alpha_bar) * math.expm1(-length) * line
