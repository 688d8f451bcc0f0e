"""How far numbers of a network may differ by rounding alone, by the precision of its weights: before it is measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causalunet.models.tf32 import tf32_allowed

__all__ = ["rounding", "unit_of"]

_LEAST = 1e-4
"""Of the largest number: what batches of other sizes, so other kernels, may do in single precision."""
_PLACES = 10
"""Units in the last place, where weights are of lower precision."""
_TF32 = 2.0**-10
"""Unit in the last place of what a GPU multiplies in, where it is allowed to."""


def rounding(unet: nn.Module, like: Tensor) -> float:
    """How far numbers of a size may differ by rounding alone.

    Parameters
    ----------
    unet : torch.nn.Module
        Whose weights have the precision.
    like : Tensor
        Numbers of that size.
    """
    unit = unit_of(unet)
    if like.is_cuda and tf32_allowed():
        unit = max(unit, _TF32)
    largest = float(like.float().abs().max()) if like.numel() else 0.0
    return max(_LEAST, _PLACES * unit) * max(largest, 1e-6)


def unit_of(network: nn.Module) -> float:
    """Unit in the last place of 1, in the coarsest type among a network's weights; 0 without any."""
    kinds = {value.dtype for value in network.parameters() if value.is_floating_point()}
    return max((torch.finfo(kind).eps for kind in kinds), default=0.0)
