"""What every exact denoiser shares: a share of signal per row, and what follows from D(x, t) = E[x_0 | x_t]."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["AlphaBar", "per_row", "score_of"]

AlphaBar = float | Tensor
"""Share of signal variance: one for all rows, or (row,)."""


def per_row(alpha_bar: AlphaBar, x: Tensor) -> Tensor:
    """Share of signal as float64, to be broadcast over the dimensions of x that follow the first.

    Parameters
    ----------
    alpha_bar : float or Tensor, (row,)
    x : Tensor, (row, ...)
    """
    share = torch.as_tensor(alpha_bar, dtype=torch.float64, device=x.device)
    return share.reshape(-1, *[1] * (x.ndim - 1)) if share.ndim else share


def score_of(denoised: Tensor, x: Tensor, alpha_bar: AlphaBar) -> Tensor:
    """Gradient of log p(x_t): (sqrt(ab) D - x_t) / (1 - ab), Tweedie's formula turned round.

    Parameters
    ----------
    denoised, x : Tensor, (row, ...)
    alpha_bar : float or Tensor, (row,)
    """
    share = per_row(alpha_bar, x)
    return (share.sqrt() * denoised - x) / (1 - share)
