"""What a U-Net call says about x_t: guidance, and the estimate of x_0."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

__all__ = ["Prediction", "estimate_x0", "guide"]


class Prediction(NamedTuple):
    """What a U-Net call says about a batch of x_t.

    Attributes
    ----------
    eps : Tensor, (sample, channel, y, x)
        Noise, guided.
    fraction : Tensor, (sample, channel, y, x)
        Place of the log variance between its bounds, -1 ... 1.
    """

    eps: Tensor
    fraction: Tensor


def guide(output: Tensor, scale: float) -> Prediction:
    """Split a U-Net's output and apply classifier-free guidance.

    Parameters
    ----------
    output : Tensor, (branch * sample, 2 * channel, y, x)
        Conditional rows first, then unconditional rows; conditional rows only if ``scale`` is 1.
    scale : float
        eps = uncond + scale (cond - uncond).

    Notes
    -----
    The variance is that of the conditional half, as in GLIDE's own sampler (Nichol et al. 2022).
    """
    if scale == 1.0:
        eps, fraction = output.chunk(2, dim=1)
        return Prediction(eps, fraction)
    cond, uncond = output.chunk(2, dim=0)
    eps, fraction = cond.chunk(2, dim=1)
    eps_uncond, _ = uncond.chunk(2, dim=1)
    return Prediction(eps_uncond + scale * (eps - eps_uncond), fraction)


def estimate_x0(x: Tensor, eps: Tensor, alpha_bar: float, *, clip: bool) -> Tensor:
    """Estimate of the image: (x_t - sqrt(1 - ab) eps) / sqrt(ab), clipped to [-1, 1] for pixel models."""
    estimate = math.sqrt(1 / alpha_bar) * x - math.sqrt(1 / alpha_bar - 1) * eps
    return estimate.clamp(-1, 1) if clip else estimate
