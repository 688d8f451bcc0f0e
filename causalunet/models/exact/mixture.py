"""Images from a mixture of low-rank Gaussians: its density, its denoiser, their moments; and its U-Net of experts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.errors import ModelError
from causalunet.models.exact.banks import ImageBank
from causalunet.models.exact.gaussian import Gaussian, fitted
from causalunet.models.exact.optimal import Weights, centred
from causalunet.models.exact.tweedie import AlphaBar
from causalunet.models.exact.unet import ExactUNet, Part, Picture

__all__ = ["Mixture", "MixtureUNet", "parted"]


class Mixture(NamedTuple):
    """A Gaussian drawn from several, then an image from it.

    Attributes
    ----------
    log_weights : Tensor, (..., class)
        Logarithm of the probability of each; minus infinity of those that are left out.
    classes : Gaussian
        With the dimension ``class`` before ``pixel``.

    Notes
    -----
    With means of zero and l = 1, the mixture of low-rank Gaussians of Wang et al. 2024 (arXiv 2409.02426).
    """

    log_weights: Tensor
    classes: Gaussian

    def log_evidence(self, x: Tensor, alpha_bar: AlphaBar) -> Tensor:
        """Log p(x_t, class), (row, class).

        Parameters
        ----------
        x : Tensor, (row, pixel)
        alpha_bar : float or Tensor, (row,)
        """
        return self.log_weights + self.classes.log_density(x[:, None], alpha_bar)

    def log_density(self, x: Tensor, alpha_bar: AlphaBar) -> Tensor:
        """Log p(x_t), (row,), as for `log_evidence`."""
        return self.log_evidence(x, alpha_bar).logsumexp(-1)

    def denoise(self, x: Tensor, alpha_bar: AlphaBar) -> Tensor:
        """E[x_0 | x_t], (row, pixel), as for `log_evidence`."""
        weights = self.log_evidence(x, alpha_bar).softmax(-1)
        return torch.einsum("rc,rcp->rp", weights, self.classes.denoise(x[:, None], alpha_bar))

    def moments(self, alpha_bar: float) -> tuple[Tensor, Tensor]:
        """Mean and covariance of x_t, (pixel,) and (pixel, pixel); of a mixture that is the same for all rows."""
        weights = self.log_weights.softmax(-1)
        mean = weights @ self.classes.mean
        off = self.classes.mean - mean
        covariance = torch.einsum("c,cpq->pq", weights, self.classes.covariance)
        covariance = covariance + torch.einsum("c,cp,cq->pq", weights, off, off)
        noise = (1 - alpha_bar) * torch.eye(len(mean), dtype=mean.dtype)
        return math.sqrt(alpha_bar) * mean, alpha_bar * covariance + noise


class _Evidence(nn.Module):
    """Log p(x_t | class) as channels of one pixel; 0 for the best that is possible."""

    def forward(self, x: Tensor, share: Tensor, classes: Gaussian, log_weights: Tensor) -> Tensor:
        seen = classes.log_density(x[:, None], share)
        return centred(seen, log_weights.isfinite())[:, :, None, None].float()


class _Expert(Picture):
    """What one class adds to the estimate: its own, times its weight.

    Parameters
    ----------
    image_shape : tuple of int
        (channel, y, x).
    number : int
        Of the class.
    """

    def __init__(self, image_shape: tuple[int, int, int], number: int) -> None:
        super().__init__(image_shape)
        self.number = number

    def pixels(self, weights: Tensor, x: Tensor, share: Tensor, classes: Gaussian) -> Tensor:
        own = Gaussian(*(part[self.number] for part in classes))
        return weights[:, self.number, 0] * own.denoise(x, share)


class MixtureUNet(ExactUNet):
    """E[x_0 | x_t] of a mixture of low-rank Gaussians, one for each class of images.

    Components are ``evidence`` (how well each class fits, a channel for each), ``weights`` (their probabilities), and
    ``expert.0``, ``expert.1`` ... that each add the estimate of a class by its weight.

    Parameters
    ----------
    bank : ImageBank
    alpha_bar : ndarray of float64, (timestep,)
    classes : sequence of str
        Prompts, such as the values of a factor; every image of the bank matches one of them. A condition says how
        probable the classes are: as often as they are found among the images that it leaves.
    rank : int
        Number of principal components of a class.
    """

    kind = "mixture"
    membership: Tensor

    def __init__(self, bank: ImageBank, alpha_bar: NDArray[np.float64], classes: Sequence[str], rank: int) -> None:
        super().__init__(bank, alpha_bar)
        self.register_buffer("membership", torch.from_numpy(parted(bank, classes)))
        fits = [fitted(self.bank[own], rank) for own in self.membership]
        for name, parts in zip(Gaussian._fields, zip(*fits, strict=True), strict=True):
            self.register_buffer(f"class_{name}", torch.stack(parts))
        self.evidence, self.weights = _Evidence(), Weights()
        self.experts = nn.ModuleList([_Expert(bank.image_shape, number) for number in range(len(fits))])

    @property
    def classes(self) -> Gaussian:
        """Their Gaussians, with the dimension ``class`` first."""
        return Gaussian(*(self.get_buffer(f"class_{name}") for name in Gaussian._fields))

    @property
    def parts(self) -> tuple[Part, ...]:
        """Evidence, weights, and experts."""
        names = [f"expert.{number}" for number in range(len(self.experts))]
        experts = [Part(name, "decoder", f"experts.{number}") for number, name in enumerate(names)]
        ahead = (
            Part("evidence", "encoder", "evidence", "weights"),
            Part("weights", "bottleneck", "weights", " ".join(names)),
        )
        return (*ahead, *experts)

    def log_weights(self, matches: Tensor) -> Tensor:
        """Logarithm of the probability of each class once a condition is known, (row, class)."""
        counts = matches.double() @ self.membership.double().T
        return (counts / counts.sum(dim=1, keepdim=True)).log()

    def estimate(self, x: Tensor, share: Tensor, matches: Tensor) -> Tensor:
        """Estimates of the classes by their probabilities."""
        classes, log_weights = self.classes, self.log_weights(matches)
        weights = self.weights(self.evidence(x, share, classes, log_weights), log_weights)
        x0: Tensor = sum(expert(weights, x, share, classes) for expert in self.experts)
        return x0


def parted(bank: ImageBank, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Images of every class, (class, image).

    Raises
    ------
    PromptError, ModelError
        A class is not one of the bank, or an image matches none or several.
    """
    found = bank.matches(classes)
    several = found.sum(axis=0)
    if (several != 1).any():
        wrong = int(np.flatnonzero(several != 1)[0])
        raise ModelError(
            f"The classes {', '.join(classes)} do not part the bank: an image labelled {bank.labels[wrong]!r} matches "
            f"{several[wrong]} of them. Name classes of which every image matches one, such as the values of a factor."
        )
    return found
