"""What several samplers are made of: ways of writing a noise level, and steps along a straight line.

Everything takes tensors and NumPy's arrays alike.
"""

from __future__ import annotations

import math
from typing import Any

from causalunet.design.limits import shown
from causalunet.design.samplers.base import Estimate
from causalunet.errors import SpecError
from causalunet.schedule import Level

__all__ = ["along_noise", "along_slope", "checked_order", "forgotten_noise", "half_log_snr", "noise_left", "slope"]


def half_log_snr(level: Level) -> float:
    """Lambda of DPM-Solver (Lu et al. 2022): logarithm of signal over noise, which is infinite at the image."""
    return level.log_snr / 2


def forgotten_noise(at: Level, to: Level) -> float:
    """Standard deviation of the noise that the SDE of Lu et al. 2022, section 5.3, forgets and draws anew on a way."""
    length = half_log_snr(to) - half_log_snr(at)
    return math.sqrt((1 - to.alpha_bar) * -math.expm1(-2 * length))


def noise_left(estimate: Estimate) -> Any:
    """The noise that leads from an estimate of x_0 to what the U-Net was given.

    Where the estimate was clipped it is not what the network predicted.
    """
    share = estimate.level.alpha_bar
    return (estimate.x - math.sqrt(share) * estimate.x0) / math.sqrt(1 - share)


def along_noise(x: Any, noise: Any, at: Level, to: Level) -> Any:
    """Go to another noise level as if all of the noise were known: DDIM's step, phi of Liu et al. 2022, equation 11.

    Parameters
    ----------
    x, noise : Tensor, (sample, channel, y, x)
    at, to : Level
        From where to where; the image too.
    """
    signal = math.sqrt(to.alpha_bar / at.alpha_bar)
    return signal * x + (math.sqrt(1 - to.alpha_bar) - signal * math.sqrt(1 - at.alpha_bar)) * noise


def slope(estimate: Estimate) -> Any:
    """Of z = x / sqrt(alpha_bar) over sigma, the ratio of noise to signal (Karras et al. 2022, equation 3)."""
    return (estimate.x / math.sqrt(estimate.level.alpha_bar) - estimate.x0) / estimate.level.sigma


def along_slope(x: Any, slope: Any, at: Level, to: Level) -> Any:
    """Go along a straight line of z over sigma.

    Parameters
    ----------
    x, slope : Tensor, (sample, channel, y, x)
    at, to : Level
        From where to where; the image too.
    """
    z = x / math.sqrt(at.alpha_bar) + (to.sigma - at.sigma) * slope
    return math.sqrt(to.alpha_bar) * z


def checked_order(kind: str, order: Any) -> None:
    """Raise `SpecError` unless an order is 1, 2 or 3."""
    if isinstance(order, bool) or order not in (1, 2, 3):
        raise SpecError(f"{kind} got order={shown(order)}; it is 1, 2 or 3.")
