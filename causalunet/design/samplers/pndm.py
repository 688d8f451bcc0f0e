"""Pseudo numerical methods on manifolds (Liu et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import shown
from causalunet.design.samplers.arithmetic import along_noise, noise_left
from causalunet.design.samplers.base import Estimate, Query, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level, TrainingSchedule

__all__ = ["PNDM"]

_WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Of Adams and Bashforth, the newest noise first."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class PNDM(Sampler):
    """Linear multistep on the noise of four steps, with DDIM's transfer in place of a straight line.

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
    runge_kutta : bool
        Begin with three steps of the pseudo Runge-Kutta method, of four U-Net calls each (F-PNDM of the same, algorithm
        2). Otherwise, as in Stable Diffusion, with one step of two calls and multistep of lower order.

    Notes
    -----
    Liu et al. 2022, equations 11 to 13. A step to the image goes along four noises too, so it gives their image, not
    the last estimate. The middle of a step is (t + s) / 2 and may lie between timesteps; the official code truncates
    it.
    """

    name: ClassVar[str] = "pndm"
    history: ClassVar[int] = 3

    runge_kutta: bool = False

    def __post_init__(self) -> None:
        super(PNDM, self).__post_init__()
        if not isinstance(self.runge_kutta, bool):
            raise SpecError(f"PNDM got runge_kutta={shown(self.runge_kutta)}; it is True or False.")

    def calls(self, at: Level, to: Level, passed: int) -> int:
        """More where there are no earlier steps to look back on."""
        if to.alpha_bar == 1:
            return 1
        return 4 if self.runge_kutta and passed < 3 else 2 if passed == 0 else 1

    def further(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, training: TrainingSchedule
    ) -> Query:
        """In the middle of the step by the first noise and by the second, and at its end."""
        middle = self.runge_kutta and len(estimates) < 3
        end = training.level((at.timestep + to.timestep) / 2) if middle else to
        return Query(along_noise(state.x, noise_left(estimates[-1]), at, end), end)

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Along noises put together."""
        noises = [noise_left(one) for one in estimates]
        if len(noises) == 4:
            first, second, third, fourth = noises
            return along_noise(state.x, (first + 2 * second + 2 * third + fourth) / 6, at, to)
        if len(noises) == 2:
            return along_noise(state.x, (noises[0] + noises[1]) / 2, at, to)
        noises += [noise_left(one) for one in state.past[: self.history]]
        together = 0.0 * noises[0]
        for weight, noise in zip(_WEIGHTS[len(noises) - 1], noises, strict=True):
            together = together + weight * noise
        return along_noise(state.x, together, at, to)
