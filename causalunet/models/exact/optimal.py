"""Images from a finite bank: the optimal denoiser, a softmax over the bank; and its U-Net, an attention in parts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.models.exact.banks import ImageBank
from causalunet.models.exact.tweedie import AlphaBar, per_row
from causalunet.models.exact.unet import ExactUNet, Part, Picture, wide
from causalunet.process import Process
from causalunet.stepping import frame_of, grown, shrunk

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


def logits_by_coordinate(x: Tensor, bank: Tensor, share: Tensor) -> Tensor:
    """As `logits`, of coordinates with a share of signal variance each, (row, coordinate)."""
    return (share.sqrt() / (1 - share) * x) @ bank.T - (share / (1 - share)) @ bank.square().T / 2


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
        found = logits(x, bank, share) if share.ndim == 1 else logits_by_coordinate(x, bank, share)
        return centred(found, matches)[:, :, None, None].float()


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

    def knows(self, process: Process) -> bool:
        """Coordinates with noise of their own are as good as pixels: the basis is orthonormal."""
        return not process.shifted

    def forward(self, x: Tensor, timesteps: Tensor, matches: Tensor) -> Tensor:
        """E[x_0 | x_t], or what a resized process has the U-Net say."""
        if not self.process.split:
            return super().forward(x, timesteps, matches)
        levels, size = self.levels(timesteps), self.image_shape[1:]
        halved = self.process.halvings(levels[0].alpha_bar)
        frame = frame_of(self.process, *size)
        shares = np.stack([frame.shares(level) for level in levels])
        scale = wide(x, [level.scale for level in levels])[:, None, None, None]
        turned = frame.coordinates(grown(x.double() / scale, halved)).flatten(1)
        bank = frame.coordinates(self.bank.unflatten(1, self.image_shape)).flatten(1)
        share = wide(x, shares).repeat(1, self.image_shape[0])
        weights = self.weights(self.logits(turned, bank, share, matches), matches.double().log())
        return shrunk(self.average(weights, self.bank), max(halved - 1, 0))

    def estimate(self, x: Tensor, share: Tensor, matches: Tensor) -> Tensor:
        """Mean of the images by how well they fit."""
        weights = self.weights(self.logits(x, self.bank, share, matches), matches.double().log())
        found: Tensor = self.average(weights, self.bank)
        return found
