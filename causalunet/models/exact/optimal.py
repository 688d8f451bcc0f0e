"""Images from a finite bank: the optimal denoiser, a softmax over the bank; and its U-Net, an attention in parts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.models.exact.banks import ImageBank
from causalunet.models.exact.tweedie import AlphaBar, per_row
from causalunet.models.exact.unet import ExactUNet, Part, Picture

__all__ = ["OptimalUNet", "Weights", "centred", "denoise", "log_density", "logits"]


def logits(x: Tensor, bank: Tensor, alpha_bar: AlphaBar) -> Tensor:
    """Log p(x_t | image) but for what all images share, (row, image): (sqrt(ab) x.x_i - ab |x_i|^2 / 2) / (1 - ab).

    Parameters
    ----------
    x : Tensor, (row, pixel)
    bank : Tensor, (image, pixel)
    alpha_bar : float or Tensor, (row,)
    """
    share = per_row(alpha_bar, x)
    return (share.sqrt() * (x @ bank.T) - share * bank.square().sum(-1) / 2) / (1 - share)


def denoise(x: Tensor, bank: Tensor, alpha_bar: AlphaBar, log_weights: Tensor | None = None) -> Tensor:
    """E[x_0 | x_t] over a finite set of images, (row, pixel): their mean, weighted by a softmax.

    Parameters
    ----------
    x : Tensor, (row, pixel)
    bank : Tensor, (image, pixel)
    alpha_bar : float or Tensor, (row,)
    log_weights : Tensor, (row, image), optional
        Of the images before anything is seen; minus infinity leaves one out. Equal by default.
    """
    seen = logits(x, bank, alpha_bar)
    return (seen if log_weights is None else seen + log_weights).softmax(-1) @ bank


def log_density(x: Tensor, bank: Tensor, alpha_bar: AlphaBar, log_weights: Tensor) -> Tensor:
    """Log p(x_t), (row,), of images with weights that sum to 1, as for `denoise`."""
    share = per_row(alpha_bar, x)
    pixels = x.shape[-1]
    shared = (
        -(x.square().sum(-1) / (1 - share.squeeze(-1)) + pixels * (2 * math.pi * (1 - share.squeeze(-1))).log()) / 2
    )
    return (logits(x, bank, alpha_bar) + log_weights).logsumexp(-1) + shared


def centred(seen: Tensor, possible: Tensor) -> Tensor:
    """Logits less the largest of those that are possible; near that one float32 is then as good as float64.

    Parameters
    ----------
    seen : Tensor, (row, image, ...)
    possible : Tensor of bool, (row, image)
    """
    wide = possible.reshape(*possible.shape, *[1] * (seen.ndim - possible.ndim))
    return seen - seen.masked_fill(~wide, -math.inf).amax(dim=1, keepdim=True)


class Weights(nn.Module):
    """Softmax over dimension 1, of what is possible."""

    def forward(self, seen: Tensor, log_weights: Tensor) -> Tensor:
        """Weights of logits, (row, image, ...); log_weights are (row, image)."""
        wide = log_weights.reshape(*log_weights.shape, *[1] * (seen.ndim - log_weights.ndim))
        return (seen.double() + wide).softmax(1).float()


class _Logits(nn.Module):
    """How well every image of the bank fits x_t, as channels of one pixel; 0 for the best that is possible."""

    def forward(self, x: Tensor, bank: Tensor, share: Tensor, matches: Tensor) -> Tensor:
        return centred(logits(x, bank, share), matches)[:, :, None, None].float()


class _Average(Picture):
    """Mean of the images by their weights."""

    def pixels(self, weights: Tensor, bank: Tensor) -> Tensor:
        return weights[:, :, 0, 0].double() @ bank


class OptimalUNet(ExactUNet):
    """E[x_0 | x_t] of images that are drawn from those of a bank that the condition leaves.

    Components are ``logits`` (a channel for every image), ``weights`` (their softmax), ``average``.
    """

    kind = "optimal"

    def __init__(self, bank: ImageBank, alpha_bar: NDArray[np.float64]) -> None:
        super().__init__(bank, alpha_bar)
        self.logits, self.weights, self.average = _Logits(), Weights(), _Average(bank.image_shape)

    @property
    def parts(self) -> tuple[Part, ...]:
        """One after the other."""
        return (
            Part("logits", "encoder", "logits", "weights"),
            Part("weights", "bottleneck", "weights", "average"),
            Part("average", "decoder", "average"),
        )

    def estimate(self, x: Tensor, share: Tensor, matches: Tensor) -> Tensor:
        """Mean of the images by how well they fit."""
        weights = self.weights(self.logits(x, self.bank, share, matches), matches.double().log())
        found: Tensor = self.average(weights, self.bank)
        return found
