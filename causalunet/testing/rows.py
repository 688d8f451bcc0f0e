"""Rows that a model is called with, and how far two outputs may differ by rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from causalunet.design.views import Branch
from causalunet.models.tf32 import tf32_allowed

__all__ = ["Half", "Rows", "difference", "rounding"]

_LEAST = 1e-4
"""Of the largest number: what batches of other sizes, so other kernels, may do in single precision."""
_PLACES = 10
"""Units in the last place, where weights are of lower precision."""
_TF32 = 2.0**-10
"""Unit in the last place of what a GPU multiplies in, where it is allowed to."""


@dataclass(frozen=True, slots=True)
class Half:
    """Rows that are edited while others are not.

    Attributes
    ----------
    name : str
        What messages call them.
    rows : tuple of int
    branch : {"both", "cond", "uncond"}
        Of the edit.
    only : int, optional
        The one row that the fill itself changes; all by default.
    """

    name: str
    rows: tuple[int, ...]
    branch: Branch
    only: int | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """What a U-Net is called with: two samples.

    Parameters
    ----------
    arguments : tuple of Tensor
        Two rows; under guidance four, conditional rows first.
    guided : bool
    """

    arguments: tuple[Tensor, ...]
    guided: bool

    @property
    def cond_rows(self) -> int:
        """Number of conditional rows."""
        return 2

    @property
    def halves(self) -> tuple[Half, ...]:
        """The two halves under guidance, else the two rows."""
        if self.guided:
            return (
                Half("the conditional rows (0 and 1)", (0, 1), "cond"),
                Half("the unconditional rows (2 and 3)", (2, 3), "uncond"),
            )
        return Half("row 0", (0,), "both", 0), Half("row 1", (1,), "both", 1)

    def fresh(self) -> tuple[Tensor, ...]:
        """Arguments of a call; copies, since a U-Net may change what it is given."""
        return tuple(part.clone() for part in self.arguments)


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference of two tensors; infinite if it is not a number."""
    if one.shape != other.shape:
        return float("inf")
    if not one.numel():
        return 0.0
    off = float((one.float() - other.float()).abs().max())
    return off if off == off else float("inf")  # noqa: PLR0124 - only what is no number differs from itself


def rounding(unet: nn.Module, like: Tensor) -> float:
    """How far numbers of a size may differ by rounding alone.

    Parameters
    ----------
    unet : torch.nn.Module
        Whose weights have the precision.
    like : Tensor
        Numbers of that size.
    """
    kinds = {value.dtype for value in unet.parameters() if value.is_floating_point()}
    unit = max((torch.finfo(kind).eps for kind in kinds), default=0.0)
    if like.is_cuda and tf32_allowed():
        unit = max(unit, _TF32)
    largest = float(like.float().abs().max()) if like.numel() else 0.0
    return max(_LEAST, _PLACES * unit) * max(largest, 1e-6)
