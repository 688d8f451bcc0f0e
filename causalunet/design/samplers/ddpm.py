"""Ancestral sampling with spaced steps and learned variance (Ho et al. 2020; Nichol & Dhariwal 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import shown
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level

__all__ = ["DDPM"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class DDPM(Sampler):
    """Ancestral sampling with spaced steps, learned variance and classifier-free guidance.

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
    variance : str, optional
        ``"small"``, that of the posterior, or ``"large"``, beta of the transition, whatever the model predicts (Ho et
        al. 2020, section 3.2); by default that which the model predicts, and of models that predict none the small one.

    Notes
    -----
    Equation 3 of Prasad et al. 2023 for the next step, equation 4 (a jump) for any later one: beta and both variance
    bounds are those of the transition actually made, so a run that skips steps is a run on the schedule without them.
    Variance: Nichol & Dhariwal 2021, equation 15; of models that predict none the posterior's (Ho et al. 2020, section
    3.2, the smaller of their two). Guidance as in Nichol et al. 2022, section 2.3.
    """

    name: ClassVar[str] = "ddpm"
    from_noise: ClassVar[bool] = True

    variance: str | None = None

    def __post_init__(self) -> None:
        super(DDPM, self).__post_init__()
        if self.variance not in (None, "small", "large"):
            raise SpecError(f"DDPM got variance={shown(self.variance)}; it is 'small', 'large', or None: the model's.")

    @property
    def draws(self) -> bool:
        """It does."""
        return True

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Mean of q(x_to | x_at, x0)."""
        beta = 1 - at.alpha_bar / to.alpha_bar
        from_x0 = beta * math.sqrt(to.alpha_bar) / (1 - at.alpha_bar)
        from_x = (1 - to.alpha_bar) * math.sqrt(1 - beta) / (1 - at.alpha_bar)
        return from_x0 * estimates[0].x0 + from_x * state.x

    def spread(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Standard deviation that the network chooses between the posterior's and that of the transition."""
        beta = 1 - at.alpha_bar / to.alpha_bar
        if self.variance == "large":
            return math.sqrt(beta)
        if self.variance == "small" or estimates[0].fraction is None:
            return math.sqrt(beta * (1 - to.alpha_bar) / (1 - at.alpha_bar))
        upper = math.log(beta)
        lower = math.log(beta * (1 - to.alpha_bar) / (1 - at.alpha_bar))
        share = (estimates[0].fraction + 1) / 2
        return (0.5 * (share * upper + (1 - share) * lower)).exp()
