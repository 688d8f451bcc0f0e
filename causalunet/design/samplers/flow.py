"""Heun's method along straight paths from noise to image (flow matching)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.samplers.arithmetic import noise_left
from causalunet.design.samplers.base import Estimate
from causalunet.design.samplers.heun import Heun
from causalunet.schedule import Level

__all__ = ["FlowHeun", "along_straight", "size_of", "velocity"]


def velocity(estimate: Estimate) -> Any:
    """Of x over t along a straight path, eps - x_0, with the noise that leads from the estimate of x_0 to x."""
    return noise_left(estimate) - estimate.x0


def size_of(level: Level) -> float:
    """Of x, where its signal and its noise would add up to 1."""
    return math.sqrt(level.alpha_bar) + math.sqrt(1 - level.alpha_bar)


def along_straight(x: Any, slope: Any, at: Level, to: Level) -> Any:
    """Go along a straight line in t = noise / (signal + noise).

    Parameters
    ----------
    x, slope : Tensor, (sample, channel, y, x)
    at, to : Level
        From where to where; the image too.
    """
    before, after = (math.sqrt(1 - level.alpha_bar) / size_of(level) for level in (at, to))
    return size_of(to) * (x / size_of(at) + (after - before) * slope)


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowHeun(Heun):
    """Heun's method in t of the velocity eps - x_0, of second order.

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

    Notes
    -----
    Of a model that was trained by flow matching, (1 - t) x_0 + t eps, it is Heun's method as it stands (Lipman et al.
    2023; diffusers' ``FlowMatchHeunDiscreteScheduler``). Any other process is brought to that form by t = sigma / (1 +
    sigma). `Heun` takes the same steps in sigma, which is infinite where there is noise alone; of first order both are
    `Euler`.
    """

    name: ClassVar[str] = "flow_heun"
    from_noise: ClassVar[bool] = True

    _slope = staticmethod(velocity)
    _along = staticmethod(along_straight)
