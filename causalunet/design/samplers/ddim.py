"""Denoising diffusion implicit models (Song, Meng & Ermon 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import is_number, shown
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level

__all__ = ["DDIM"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class DDIM(Sampler):
    """Deterministic steps, or partly random ones, on spaced timesteps, with classifier-free guidance.

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
        Share of noise, 0 (none: the seed is in the first state only) to 1 (as much as the posterior of DDPM has).
    noise : str, optional
        ``"predicted"``: put back the noise as the network predicted it, even where the estimate of x_0 was clipped, as
        diffusers does. By default that which leads from the estimate to x_t.

    Notes
    -----
    Song et al. 2021, equations 12 and 16. The noise that is put back is that which leads from the estimate of x_0 to
    x_t, as in OpenAI's code: where the estimate was clipped it is not what the network predicted. A variance that the
    network predicts is not used. A jump goes straight to the later step, as on a schedule without those between.
    """

    name: ClassVar[str] = "ddim"
    from_noise: ClassVar[bool] = True

    eta: float = 0.0
    noise: str | None = None

    def __post_init__(self) -> None:
        super(DDIM, self).__post_init__()
        if self.noise not in (None, "predicted"):
            raise SpecError(f"DDIM got noise={shown(self.noise)}; it is 'predicted', or None: that of the estimate.")
        if not is_number(self.eta) or not 0 <= self.eta <= 1:
            raise SpecError(f"DDIM got eta={shown(self.eta)}; it must be a number from 0 (no noise) to 1.")
        object.__setattr__(self, "eta", float(self.eta) + 0.0)

    @property
    def draws(self) -> bool:
        """Only where eta is above 0."""
        return self.eta > 0

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """The estimate with so much of its own noise as belongs to the later step, less what is drawn anew."""
        x0 = estimates[0].x0
        noise = estimates[0].eps if self.noise else self._left(state.x, x0, at)
        left = max(1 - to.alpha_bar - self._sigma(at, to) ** 2, 0.0)
        return math.sqrt(to.alpha_bar) * x0 + math.sqrt(left) * noise

    @staticmethod
    def _left(x: Any, x0: Any, at: Level) -> Any:
        return (x - math.sqrt(at.alpha_bar) * x0) / math.sqrt(1 - at.alpha_bar)

    def spread(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> float:
        """Sigma of equation 16."""
        return self._sigma(at, to)

    def _sigma(self, at: Level, to: Level) -> float:
        posterior = (1 - to.alpha_bar) / (1 - at.alpha_bar) * (1 - at.alpha_bar / to.alpha_bar)
        return self.eta * math.sqrt(posterior)
