"""The diffusion mathematics of one step: guidance, the estimate of x_0, the posterior with learned variance, jumps."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Prediction", "estimate_x0", "guide", "posterior_step"]


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


def posterior_step(
    x: Tensor, x0: Tensor, fraction: Tensor, noise: Tensor, *, alpha_bar: float, alpha_bar_next: float
) -> Tensor:
    """Draw x at a later step from q(x_next | x_t, x0) with learned variance.

    Parameters
    ----------
    x, x0, fraction, noise : Tensor, (sample, channel, y, x)
        The current x_t, the estimate of x_0, the variance fraction, and standard normal noise.
    alpha_bar, alpha_bar_next : float
        At this step and at the step that is gone to. ``alpha_bar_next = 1`` goes to the image: x0 itself.

    Returns
    -------
    Tensor, (sample, channel, y, x)

    Notes
    -----
    Equation 3 for the next step, equation 4 (a jump) for any later one: beta and both variance bounds are those of the
    transition actually made, so a run that skips steps is a run on the schedule without them. Variance: Nichol &
    Dhariwal 2021, equation 15.
    """
    beta = 1 - alpha_bar / alpha_bar_next
    from_x0 = beta * math.sqrt(alpha_bar_next) / (1 - alpha_bar)
    from_x = (1 - alpha_bar_next) * math.sqrt(1 - beta) / (1 - alpha_bar)
    mean = from_x0 * x0 + from_x * x
    if alpha_bar_next == 1.0:
        return mean
    upper = math.log(beta)
    lower = math.log(beta * (1 - alpha_bar_next) / (1 - alpha_bar))
    share = (fraction + 1) / 2
    log_variance = share * upper + (1 - share) * lower
    return mean + torch.exp(0.5 * log_variance) * noise
