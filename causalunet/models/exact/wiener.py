"""The Wiener filter: the best linear denoiser of any data, from mean and covariance; and its U-Net of two parts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.models.exact.banks import ImageBank
from causalunet.models.exact.gaussian import Fits, Fitting, Gaussian
from causalunet.models.exact.tweedie import AlphaBar, per_row
from causalunet.models.exact.unet import ExactUNet, Part, Picture

__all__ = ["WienerUNet", "wiener_filter"]


def wiener_filter(statistics: Gaussian, alpha_bar: AlphaBar) -> Tensor:
    """W_t = U diag(ab l / (1 - ab + ab l)) U', the part of x_t / sqrt(ab) that a linear denoiser lets through.

    D = W_t x_t / sqrt(ab) + (I - W_t) mu.

    Parameters
    ----------
    statistics : Gaussian
        Of the data.
    alpha_bar : float or Tensor, (row,)

    Returns
    -------
    Tensor, (pixel, pixel), or (row, pixel, pixel)
    """
    share = torch.as_tensor(alpha_bar, dtype=torch.float64, device=statistics.mean.device)[..., None]
    kept = share * statistics.variances / (1 - share + share * statistics.variances)
    return torch.einsum("pk,...k,qk->...pq", statistics.vectors, kept, statistics.vectors)


class _Filter(Picture):
    """W_t x_t / sqrt(ab): what the filter lets through."""

    def pixels(self, x: Tensor, share: Tensor, fits: Fits) -> Tensor:
        return fits.each(lambda fit, rows: _through(x[rows] / per_row(share[rows], x).sqrt(), share[rows], fit))


class _Prior(Picture):
    """(I - W_t) mu: the mean, where the filter lets nothing through."""

    def pixels(self, share: Tensor, fits: Fits) -> Tensor:
        def left(fit: Gaussian, rows: Tensor) -> Tensor:
            mean = fit.mean.expand(len(rows), -1)
            return mean - _through(mean, share[rows], fit)

        return fits.each(left)


def _through(x: Tensor, share: Tensor, fit: Gaussian) -> Tensor:
    """W_t x, (row, pixel), without making the matrix."""
    kept = per_row(share, x).sqrt() * fit.gains(share, x)
    return (kept * (x @ fit.vectors)) @ fit.vectors.T


class WienerUNet(ExactUNet):
    """The best linear denoiser of the images that the condition leaves.

    Its output is that of `GaussianUNet` with all principal components; what can be cut is something else: ``filter``,
    all that comes from x_t, and ``prior``, all that is known without it.

    Parameters
    ----------
    bank : ImageBank
    alpha_bar : ndarray of float64, (timestep,)
    """

    kind = "wiener"

    def __init__(self, bank: ImageBank, alpha_bar: NDArray[np.float64]) -> None:
        super().__init__(bank, alpha_bar)
        self.fitting = Fitting(min(len(bank), self.bank.shape[1]))
        self.filter, self.prior = _Filter(bank.image_shape), _Prior(bank.image_shape)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Side by side."""
        return Part("filter", "decoder", "filter"), Part("prior", "decoder", "prior")

    def estimate(self, x: Tensor, share: Tensor, matches: Tensor) -> Tensor:
        """What is let through and what is known without it."""
        fits: Fits = self.fitting(self.bank, matches)
        x0: Tensor = self.filter(x, share, fits) + self.prior(share, fits)
        return x0
