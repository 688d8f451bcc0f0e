"""The analytic local denoiser: every pixel by a softmax over the bank, of what fits around it; and its U-Net.

Lukoianov et al. 2025, arXiv 2509.09672: neighbourhoods are those that the Wiener filter of the data looks at.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.models.exact.banks import ImageBank
from causalunet.models.exact.gaussian import Gaussian, fitted
from causalunet.models.exact.optimal import Weights, centred
from causalunet.models.exact.unet import ExactUNet, Part, Picture
from causalunet.models.exact.wiener import wiener_filter

__all__ = ["LocalUNet", "denoise", "logits", "mask_of"]

_NO_DIAGONAL = 1e-6
_MOST_KEPT = 128
"""Levels of noise whose masks are kept."""


def mask_of(statistics: Gaussian, alpha_bar: float, threshold: float = 0.02) -> Tensor:
    """Which pixels n are looked at for an output pixel m, (n, m), as 0 and 1.

    Parameters
    ----------
    statistics : Gaussian
        Of the data.
    alpha_bar : float
    threshold : float
        Of the largest entry of W_t, each of whose rows was divided by its diagonal; 0 takes all pixels in.

    Notes
    -----
    Lukoianov et al. 2025, arXiv 2509.09672: equal to their code, which divides and indexes by n.
    """
    through = wiener_filter(statistics, alpha_bar)
    diagonal = through.diagonal()
    ratio = (through / torch.where(diagonal.abs() < _NO_DIAGONAL, 1.0, diagonal)[:, None]).abs()
    return (ratio >= threshold * ratio.max()).to(through.dtype)


def logits(x: Tensor, bank: Tensor, alpha_bar: float, mask: Tensor) -> Tensor:
    """As `optimal.logits`, for every output pixel m by the pixels that it looks at, (row, image, m).

    Parameters
    ----------
    x : Tensor, (row, pixel)
    bank : Tensor, (image, pixel)
    alpha_bar : float
    mask : Tensor, (pixel, m)
        From `mask_of`.
    """
    met = torch.einsum("rn,in,nm->rim", x, bank, mask)
    return (math.sqrt(alpha_bar) * met - alpha_bar / 2 * (bank.square() @ mask)) / (1 - alpha_bar)


def denoise(
    x: Tensor,
    bank: Tensor,
    alpha_bar: float,
    mask: Tensor,
    log_weights: Tensor | None = None,
    *,
    batch: int | None = None,
) -> Tensor:
    """Mean of the bank's images pixel by pixel, weighted by how well they fit x_t around that pixel, (row, pixel).

    Parameters
    ----------
    x : Tensor, (row, pixel)
    bank : Tensor, (image, pixel)
    alpha_bar : float
    mask : Tensor, (pixel, pixel)
        From `mask_of`. All ones: the optimal denoiser.
    log_weights : Tensor, (row, image), optional
        As for `optimal.denoise`.
    batch : int, optional
        The official code's way: it reads the data in batches of so many images, and averages the softmax of each. What
        comes out depends on the batch then; by default there is one softmax over all, as in the equation.
    """
    seen = logits(x, bank, alpha_bar, mask)
    if log_weights is not None:
        seen = seen + log_weights[:, :, None]
    size = len(bank) if batch is None else batch
    batches = zip(seen.split(size, dim=1), bank.split(size), strict=True)
    means = [torch.einsum("rim,im->rm", some.softmax(1), images) for some, images in batches]
    return torch.stack(means).mean(dim=0)


class _Logits(nn.Module):
    """How well every image fits x_t around every pixel, (row, image * channel, y, x); 0 for the best that is possible.

    Parameters
    ----------
    image_shape : tuple of int
        (channel, y, x).
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image_shape = image_shape

    def forward(
        self, x: Tensor, mask: Callable[[float], Tensor], bank: Tensor, share: Tensor, matches: Tensor
    ) -> Tensor:
        found = torch.cat(
            [logits(row[None], bank, float(own), mask(float(own))) for row, own in zip(x, share, strict=True)]
        )
        return centred(found, matches).unflatten(2, self.image_shape).flatten(1, 2).float()


class _Weights(Weights):
    """Softmax over the images at every pixel, (row, image * channel, y, x)."""

    def forward(self, seen: Tensor, log_weights: Tensor) -> Tensor:
        by_image = seen.unflatten(1, (log_weights.shape[1], -1))
        return super().forward(by_image, log_weights).flatten(1, 2)


class _Average(Picture):
    """Mean of the images by their weights at every pixel."""

    def pixels(self, weights: Tensor, bank: Tensor) -> Tensor:
        by_image = weights.double().unflatten(1, (len(bank), -1)).flatten(2)
        return (by_image * bank).sum(dim=1)


class LocalUNet(ExactUNet):
    """The analytic local denoiser of the images that the condition leaves; what is near is so for the whole bank.

    Components are those of `OptimalUNet`, with a logit and a weight of every image at every pixel and channel.

    Parameters
    ----------
    bank : ImageBank
    alpha_bar : ndarray of float64, (timestep,)
    threshold : float
        As for `mask_of`.
    """

    kind = "local"

    def __init__(self, bank: ImageBank, alpha_bar: NDArray[np.float64], threshold: float = 0.02) -> None:
        super().__init__(bank, alpha_bar)
        self.threshold = threshold
        self.statistics = fitted(self.bank, min(len(bank), self.bank.shape[1]))
        self.logits, self.weights = _Logits(bank.image_shape), _Weights()
        self.average = _Average(bank.image_shape)
        self._masks: dict[float, Tensor] = {}

    @property
    def parts(self) -> tuple[Part, ...]:
        """One after the other."""
        return (
            Part("logits", "encoder", "logits", "weights"),
            Part("weights", "bottleneck", "weights", "average"),
            Part("average", "decoder", "average"),
        )

    def mask(self, share: float) -> Tensor:
        """Which pixels are looked at, as `mask_of`; made once for a share of signal."""
        if share not in self._masks:
            if len(self._masks) >= _MOST_KEPT:
                self._masks.pop(next(iter(self._masks)))
            self._masks[share] = mask_of(self.statistics, share, self.threshold)
        return self._masks[share]

    def estimate(self, x: Tensor, share: Tensor, matches: Tensor) -> Tensor:
        """Mean of the images at every pixel by how well they fit around it."""
        weights = self.weights(self.logits(x, self.mask, self.bank, share, matches), matches.double().log())
        found: Tensor = self.average(weights, self.bank)
        return found
