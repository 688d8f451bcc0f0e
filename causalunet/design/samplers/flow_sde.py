"""The stochastic differential equation of interpolants and flows: a velocity, and Langevin dynamics of any strength."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import is_number, shown
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.design.samplers.flow import along_straight, size_of, velocity
from causalunet.errors import SpecError
from causalunet.schedule import Level

__all__ = ["FlowSDE"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSDE(Sampler):
    """Steps of Euler and Maruyama on dx = (b + e s) ds + sqrt(2 e) dW along straight paths, s = 1 - t.

    b is the velocity towards the image, s(x) the score. Whatever e is, the states at a time are distributed alike: e
    says how much of them is drawn anew on the way.

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
    diffusion : float
        The e, of at least 0, in units of data of variance 1. With 0 it is `Euler` of a flow.

    Notes
    -----
    The forward equation of Albergo, Boffi & Vanden-Eijnden 2023 (arXiv 2303.08797) for constant e. The score is the
    noise that a model predicts, by its share: -eps / noise. The last step goes to the image by the velocity alone.

    As of every explicit method, a step of length h is stable along a direction in which x_t has variance v where e h is
    below 2 v. Of data without noise v is t^2 near the image: there e has to be small, or steps short.
    """

    name: ClassVar[str] = "flow_sde"
    from_noise: ClassVar[bool] = True

    diffusion: float = 1.0

    def __post_init__(self) -> None:
        super(FlowSDE, self).__post_init__()
        if not is_number(self.diffusion) or self.diffusion < 0:
            raise SpecError(
                f"FlowSDE got diffusion={shown(self.diffusion)}; it must be a finite number of at least 0 (no noise)."
            )
        object.__setattr__(self, "diffusion", float(self.diffusion) + 0.0)

    @property
    def draws(self) -> bool:
        """Only where ``diffusion`` is above 0."""
        return self.diffusion > 0

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Along the velocity, and up the score."""
        estimate = estimates[0]
        if to.alpha_bar == 1:
            return estimate.x0
        # As the path is straight: the score of x whose signal and noise add up to 1.
        up = self.diffusion * size_of(at) / math.sqrt(1 - at.alpha_bar) * estimate.eps
        return along_straight(state.x, velocity(estimate) + up, at, to)

    def spread(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> float:
        """sqrt(2 e h), of x at the scale of the later level."""
        times = [math.sqrt(1 - level.alpha_bar) / size_of(level) for level in (at, to)]
        return size_of(to) * math.sqrt(2 * self.diffusion * (times[0] - times[1]))
