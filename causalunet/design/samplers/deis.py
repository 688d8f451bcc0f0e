"""DEIS, exponential integrators with a polynomial of the noise (Zhang & Chen 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.samplers.arithmetic import checked_order, noise_left
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.schedule import Level

__all__ = ["DEIS"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class DEIS(Sampler):
    """Steps along a polynomial of the noise through this step and those before, in log sigma.

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
        1 (which is DDIM), 2 or 3: how many steps the polynomial goes through. The first steps of a run are of lower
        order, and the step to the image gives the last estimate.

    Notes
    -----
    Zhang & Chen 2023, section 3.3, "log rho": z = x / sqrt(alpha_bar) moves along the noise over sigma, the ratio of
    noise to signal, and the polynomial's integral is exact.
    """

    name: ClassVar[str] = "deis"
    history: ClassVar[int] = 2

    order: int = 3

    def __post_init__(self) -> None:
        super(DEIS, self).__post_init__()
        checked_order("DEIS", self.order)

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Along what the polynomial adds up to."""
        if to.alpha_bar == 1:
            return estimates[0].x0
        known = (estimates[0], *state.past[: self.order - 1])
        logs = [math.log(one.level.sigma) for one in known]
        z = state.x / math.sqrt(at.alpha_bar)
        for place, one in enumerate(known):
            others = [log for other, log in enumerate(logs) if other != place]
            scale = math.prod(logs[place] - other for other in others)
            z = z + (_integral(to.sigma, others) - _integral(at.sigma, others)) / scale * noise_left(one)
        return math.sqrt(to.alpha_bar) * z


def _integral(sigma: float, roots: list[float]) -> float:
    """Antiderivative over sigma of the product of (log sigma - root), of at most two roots."""
    log = math.log(sigma)
    if not roots:
        return sigma
    if len(roots) == 1:
        return sigma * (log - 1 - roots[0])
    one, other = roots
    return sigma * (log**2 - 2 * log + 2 - (one + other) * (log - 1) + one * other)
