"""Images from a Gaussian: its density, its denoiser, their moments; and its U-Net, a branch for some components each.

x_t = sqrt(ab) x_0 + sqrt(1 - ab) e with x_0 from N(mu, U L U'). Everything is float64; leading dimensions broadcast, so
that rows may have a Gaussian each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.models.exact.banks import ImageBank
from causalunet.models.exact.tweedie import AlphaBar, per_row
from causalunet.models.exact.unet import ExactUNet, Part, Picture

__all__ = ["Fits", "Fitting", "Gaussian", "GaussianUNet", "fitted"]

_NOTHING = 1e-12
"""Of the largest variance: what rounding leaves where there is none."""
_MOST_KEPT = 64
"""Conditions whose Gaussians are kept."""


class Gaussian(NamedTuple):
    """N(mu, U L U') by its principal components; there is no variance off them.

    Attributes
    ----------
    mean : Tensor, (..., pixel)
    vectors : Tensor, (..., pixel, component)
        U, orthonormal columns.
    variances : Tensor, (..., component)
        The diagonal of L.

    Notes
    -----
    x_t is N(sqrt(ab) mu, ab U L U' + (1 - ab) I), and E[x_0 | x_t] = mu + U diag(sqrt(ab) l / (1 - ab + ab l)) U'
    (x_t - sqrt(ab) mu): the Wiener filter, as in Wang & Vastola 2023 (arXiv 2303.02490).
    """

    mean: Tensor
    vectors: Tensor
    variances: Tensor

    @property
    def covariance(self) -> Tensor:
        """U L U', (..., pixel, pixel)."""
        return torch.einsum("...pk,...k,...qk->...pq", self.vectors, self.variances, self.vectors)

    def coefficients(self, x: Tensor, alpha_bar: AlphaBar) -> Tensor:
        """Coordinates of x_t along the principal components, from the mean of x_t, (..., component)."""
        return torch.einsum("...p,...pk->...k", x - per_row(alpha_bar, x).sqrt() * self.mean, self.vectors)

    def gains(self, alpha_bar: AlphaBar, like: Tensor) -> Tensor:
        """What coordinates of x_t are multiplied by to be those of E[x_0 | x_t], (..., component).

        Parameters
        ----------
        alpha_bar : float or Tensor, (row,)
        like : Tensor, (row, ...)
            Of as many dimensions as x_t.
        """
        share = per_row(alpha_bar, like)
        return share.sqrt() * self.variances / (1 - share + share * self.variances)

    def denoise(self, x: Tensor, alpha_bar: AlphaBar) -> Tensor:
        """E[x_0 | x_t].

        Parameters
        ----------
        x : Tensor, (row, ..., pixel)
        alpha_bar : float or Tensor, (row,)
        """
        shrunk = self.gains(alpha_bar, x) * self.coefficients(x, alpha_bar)
        return self.mean + torch.einsum("...k,...pk->...p", shrunk, self.vectors)

    def slopes(self, alpha_bar: AlphaBar) -> Tensor:
        """How E[x_0 | x_t] goes with x_t, number by number: the diagonal of its Jacobian, which no x_t changes.

        Parameters
        ----------
        alpha_bar : float or Tensor, (row,)

        Returns
        -------
        Tensor, (..., pixel)
        """
        gains = self.gains(alpha_bar, self.mean[None])
        return torch.einsum("...pk,...k->...p", self.vectors.square(), gains)

    def log_density(self, x: Tensor, alpha_bar: AlphaBar) -> Tensor:
        """Log p(x_t), (row, ...); ab is below 1, or the density is one of a subspace.

        Parameters
        ----------
        x : Tensor, (row, ..., pixel)
        alpha_bar : float or Tensor, (row,)
        """
        share = per_row(alpha_bar, x)
        off = x - share.sqrt() * self.mean
        along = torch.einsum("...p,...pk->...k", off, self.vectors)
        spread = 1 - share + share * self.variances
        rest, noise = off.square().sum(-1) - along.square().sum(-1), (1 - share).squeeze(-1)
        of_rest = rest / noise + (x.shape[-1] - self.variances.shape[-1]) * noise.log()
        of_components = (along.square() / spread + spread.log()).sum(-1)
        return -0.5 * (of_components + of_rest + x.shape[-1] * math.log(2 * math.pi))

    def posterior_covariance(self, alpha_bar: float) -> Tensor:
        """Cov[x_0 | x_t], (..., pixel, pixel), the same for every x_t: U diag(l (1 - ab) / (1 - ab + ab l)) U'."""
        left = self.variances * (1 - alpha_bar) / (1 - alpha_bar + alpha_bar * self.variances)
        return self._replace(variances=left).covariance


def fitted(images: Tensor, rank: int | None = None) -> Gaussian:
    """Make the Gaussian with the mean of some images and their covariance, or that of their first components.

    Parameters
    ----------
    images : Tensor, (image, pixel)
        Each as probable as the others; the covariance is divided by their number.
    rank : int, optional
        Number of principal components that are kept, the largest first; padded with variances of zero where there are
        fewer. By default as many as there are pixels.
    """
    data = images.double()
    pixels = data.shape[1]
    kept = pixels if rank is None else min(rank, pixels)
    mean = data.mean(dim=0)
    _, scales, rows = torch.linalg.svd(data - mean, full_matrices=kept > min(data.shape))
    variances = data.new_zeros(len(rows))
    variances[: len(scales)] = scales.square() / len(data)
    variances = torch.where(variances > _NOTHING * variances.max(), variances, 0.0)
    vectors = rows[:kept].T.contiguous()
    return Gaussian(mean, _signed(vectors), variances[:kept].contiguous())


def _signed(vectors: Tensor) -> Tensor:
    """Let the largest entry of every column be positive: libraries differ in signs, and results are not to."""
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0)


class Fits(NamedTuple):
    """The Gaussians of a call: one for every condition, and which is each row's.

    Attributes
    ----------
    gaussians : list of Gaussian
    rows : list of Tensor
        Numbers of the rows that have it.
    """

    gaussians: list[Gaussian]
    rows: list[Tensor]

    def each(self, function: Callable[[Gaussian, Tensor], Tensor]) -> Tensor:
        """Let a function of a Gaussian and the numbers of its rows make those rows, (row, ...)."""
        made = [function(gaussian, rows) for gaussian, rows in zip(self.gaussians, self.rows, strict=True)]
        return torch.cat(made)[torch.cat(self.rows).argsort()]


class Fitting(nn.Module):
    """Makes the Gaussian of what a condition leaves of a bank, once for a condition.

    Parameters
    ----------
    rank : int, optional
        As for `fitted`.
    """

    def __init__(self, rank: int | None) -> None:
        super().__init__()
        self.rank = rank
        self._kept: dict[bytes, Gaussian] = {}

    def forward(self, bank: Tensor, matches: Tensor) -> Fits:
        """Fit every condition.

        Parameters
        ----------
        bank : Tensor, (image, pixel)
        matches : Tensor of bool, (row, image)
        """
        conditions, of_row = matches.unique(dim=0, return_inverse=True)
        rows = [(of_row == number).nonzero()[:, 0] for number in range(len(conditions))]
        return Fits([self._fit(bank, condition) for condition in conditions], rows)

    def _fit(self, bank: Tensor, condition: Tensor) -> Gaussian:
        key = condition.cpu().numpy().tobytes()
        if key not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = fitted(bank[condition], self.rank)
        return self._kept[key]


class _Mean(Picture):
    """The mean of the images, whatever x_t is."""

    def pixels(self, fits: Fits) -> Tensor:
        return fits.each(lambda fit, rows: fit.mean.expand(len(rows), -1))


class _Coefficients(nn.Module):
    """Coordinates of x_t along the principal components, as channels of one pixel."""

    def forward(self, x: Tensor, share: Tensor, fits: Fits) -> Tensor:
        found = fits.each(lambda fit, rows: fit.coefficients(x[rows], share[rows]))
        return found[:, :, None, None].float()


class _Branch(Picture):
    """What some neighbouring principal components add to the estimate.

    Parameters
    ----------
    image_shape : tuple of int
        (channel, y, x).
    first, stop : int
        Of the components.
    """

    def __init__(self, image_shape: tuple[int, int, int], first: int, stop: int) -> None:
        super().__init__(image_shape)
        self.some = slice(first, stop)

    def pixels(self, coefficients: Tensor, share: Tensor, fits: Fits) -> Tensor:
        def added(fit: Gaussian, rows: Tensor) -> Tensor:
            shrunk = fit.gains(share[rows], coefficients[rows, :, 0, 0])[:, self.some]
            return (shrunk * coefficients[rows, self.some, 0, 0]) @ fit.vectors[:, self.some].T

        return fits.each(added)


class GaussianUNet(ExactUNet):
    """E[x_0 | x_t] of the Gaussian with the mean and the covariance of the images that the condition leaves.

    Components are ``mean``, ``coefficients`` (a channel for every principal component, in the order of their
    variances), and branches ``pc.0``, ``pc.1`` ... that each add the part of some principal components.

    Parameters
    ----------
    bank : ImageBank
    alpha_bar : ndarray of float64, (timestep,)
    groups : sequence of int
        Number of principal components of each branch, from the largest variance on; what lies beyond them is left out.
    """

    kind = "gaussian"

    def __init__(self, bank: ImageBank, alpha_bar: NDArray[np.float64], groups: Sequence[int]) -> None:
        super().__init__(bank, alpha_bar)
        self.groups = tuple(groups)
        ends = itertools.accumulate(self.groups, initial=0)
        self.fitting = Fitting(sum(self.groups))
        self.mean, self.coefficients = _Mean(bank.image_shape), _Coefficients()
        self.branches = nn.ModuleList([_Branch(bank.image_shape, *some) for some in itertools.pairwise(ends)])

    @property
    def answers(self) -> dict[str, tuple[int, ...]]:
        """Principal components that each of its own adds to the estimate, or that are gone with it."""
        ends = list(itertools.accumulate(self.groups, initial=0))
        of_branches = [tuple(range(*some)) for some in itertools.pairwise(ends)]
        named = {f"pc.{number}": some for number, some in enumerate(of_branches)}
        return {"coefficients": tuple(range(ends[-1])), **named}

    @property
    def parts(self) -> tuple[Part, ...]:
        """The mean, the coefficients, and the branches."""
        names = [f"pc.{number}" for number in range(len(self.branches))]
        branches = [Part(name, "decoder", f"branches.{number}") for number, name in enumerate(names)]
        ahead = Part("mean", "encoder", "mean"), Part("coefficients", "encoder", "coefficients", " ".join(names))
        return (*ahead, *branches)

    def estimate(self, x: Tensor, share: Tensor, matches: Tensor) -> Tensor:
        """The mean and what the branches add to it."""
        fits: Fits = self.fitting(self.bank, matches)
        x0: Tensor = self.mean(fits)
        coefficients = self.coefficients(x, share, fits)
        for branch in self.branches:
            x0 = x0 + branch(coefficients, share, fits)
        return x0
