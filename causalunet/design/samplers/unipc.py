"""UniPC, a predictor and a corrector of any order (Zhao et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from causalunet.calls import clear_calls
from causalunet.design.limits import shown
from causalunet.design.samplers.arithmetic import checked_order, half_log_snr
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level

__all__ = ["UniPC"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class UniPC(Sampler):
    """Predict the next state by earlier steps, and correct it by what the U-Net says there, with the same call.

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
        Of the predictor: 1, 2 or 3; the corrector makes it one more. The first steps of a run are of lower order, and
        the step to the image gives the last estimate.
    variant : str
        ``"bh2"`` or ``"bh1"``: the function B(h) of the same, section 3.

    Notes
    -----
    Zhao et al. 2023, algorithms 1 and 2, for the estimate of x_0. The state x_t is the predicted one, at which the
    U-Net is asked; a step begins by correcting it. What was predicted is taken off again and what corrects it put in
    its place: both go on from the same corrected state, so that needs not to be kept.
    """

    name: ClassVar[str] = "unipc"
    history: ClassVar[int] = 3

    order: int = 2
    variant: str = "bh2"

    def __post_init__(self) -> None:
        super(UniPC, self).__post_init__()
        checked_order("UniPC", self.order)
        if self.variant not in ("bh1", "bh2"):
            raise SpecError(f"UniPC got variant={shown(self.variant)}; it is 'bh1' or 'bh2'.")

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Correct the state, and predict the next."""
        now = estimates[0]
        if to.alpha_bar == 1:
            return now.x0
        x = state.x
        if state.past:
            before = state.past[: self.order]
            predicted = self._bent(before, at, ())
            x = x + math.sqrt(at.alpha_bar) * (self._bent(before, at, (now,)) - predicted)
        length = half_log_snr(to) - half_log_snr(at)
        kept = math.sqrt((1 - to.alpha_bar) / (1 - at.alpha_bar))
        line = kept * x - math.sqrt(to.alpha_bar) * math.expm1(-length) * now.x0
        return line + math.sqrt(to.alpha_bar) * self._bent((now, *state.past)[: self.order], to, ())

    def _bent(self, known: Sequence[Estimate], to: Level, reached: Sequence[Estimate]) -> Any:
        """What differences of the estimate add over a step, by those known and by that where it ends, if any."""
        base, *others = known
        begin = half_log_snr(base.level)
        length = half_log_snr(to) - begin
        places = [(half_log_snr(one.level) - begin) / length for one in (*others, *reached)]
        size = -length if self.variant == "bh1" else math.expm1(-length)
        weights = _weights(places, length, size)
        found = 0.0 * base.x0
        for weight, place, one in zip(weights, places, (*others, *reached), strict=True):
            found = found - size * weight / place * (one.x0 - base.x0)
        return found


def _weights(places: Sequence[float], length: float, size: float) -> list[float]:
    """Solve equation 5 of Zhao et al. 2023 for the weights of differences at places, in lengths of the step."""
    if len(places) == 1:  # which is of its order with any weight, and the code takes this one
        return [0.5]
    right, rest, factorial = [], math.expm1(-length) / -length - 1, 1
    for power in range(1, len(places) + 1):
        right.append(rest * factorial / size)
        factorial *= power + 1
        rest = rest / -length - 1 / factorial
    powers = np.vander(np.asarray(places), increasing=True).T
    return [float(weight) for weight in np.linalg.solve(powers, np.asarray(right))]
