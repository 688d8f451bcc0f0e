"""Rows that a model is called with, and how far two outputs differ."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from causalunet.design.views import Branch

__all__ = ["Half", "Rows", "difference"]


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
