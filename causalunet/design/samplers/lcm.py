"""Multistep sampling of latent consistency models (Luo et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import is_number, shown
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.design.spacings import Spacing, Trailing
from causalunet.errors import SpecError
from causalunet.schedule import Level

__all__ = ["LCM"]

_DATA = 0.5
"""Standard deviation of the data, in the boundary condition."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class LCM(Sampler):
    """Estimate the image, and put fresh noise of the next level on it, again and again.

    Parameters
    ----------
    steps : int
        Number of denoising steps T, in equal strides from the noisiest timestep (`Trailing`) unless spaced otherwise.
    guidance_scale : float
        Weight of the conditional over the unconditional prediction; 1 means no guidance and one row per call.
    guidance : Guidance, optional
        Another way to guide than by that scale.
    spacing : Spacing, optional
        At which timesteps the steps lie.
    timestep_scaling : float
        What a timestep is multiplied by in the boundary condition, by which the estimate at timestep 0 is x itself.

    Notes
    -----
    Luo et al. 2023, algorithm 3, with c_skip and c_out of the official code. The step to the image gives the last
    estimate; the official code applies the boundary condition there too, which moves it by 1e-6 at timestep 50.
    """

    name: ClassVar[str] = "lcm"
    usual_spacing: ClassVar[Spacing] = Trailing()

    timestep_scaling: float = 10.0

    def __post_init__(self) -> None:
        super(LCM, self).__post_init__()
        if not is_number(self.timestep_scaling) or self.timestep_scaling <= 0:
            raise SpecError(
                f"LCM got timestep_scaling={shown(self.timestep_scaling)}; it must be a finite number above 0."
            )
        object.__setattr__(self, "timestep_scaling", float(self.timestep_scaling))

    @property
    def draws(self) -> bool:
        """It does."""
        return True

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """The image that the next level's noise is put on."""
        if to.alpha_bar == 1:
            return estimates[0].x0
        time = at.timestep * self.timestep_scaling
        skip, out = _DATA**2 / (time**2 + _DATA**2), time / math.sqrt(time**2 + _DATA**2)
        return math.sqrt(to.alpha_bar) * (out * estimates[0].x0 + skip * state.x)

    def spread(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> float:
        """All noise is new."""
        return math.sqrt(1 - to.alpha_bar)
