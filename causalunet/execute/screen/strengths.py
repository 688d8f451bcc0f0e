"""Fills by nothing of another fill: what a change of their strength would do is found by going back through a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from causalunet.design.anatomy import Anatomy
from causalunet.design.donors import Donor, FillContext
from causalunet.design.fills import Fill
from causalunet.design.words import words_of
from causalunet.errors import SpecError
from causalunet.programs import Action, PlacedFill

__all__ = ["Strength", "by_strength", "check_differentiable", "reaching"]

_OTHERWISE = "Screen with method='one_step'."


@dataclass(frozen=True, eq=False)
class Strength(Fill):
    """The value itself, and of a fill's change of it nothing: the change times a strength, which is 0.

    Parameters
    ----------
    fill : Fill

    Attributes
    ----------
    rows : list of Tensor, (row,)
        Strengths, one of each row that the fill was put into.
    """

    fill: Fill
    rows: list[Tensor] = field(default_factory=list)

    # Each has rows of its own, so none is another one, also of the same fill.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def donors(self) -> tuple[Donor, ...]:
        """Those of the fill."""
        return self.fill.donors

    def put(self, value: Any, context: FillContext) -> Any:
        """The value, with a strength that can be differentiated by."""
        with torch.no_grad():
            change = self.fill.put(value, context) - value
        strength = value.new_zeros(len(value)).requires_grad_(torch.is_grad_enabled())
        self.rows.append(strength)
        return value + strength.reshape(-1, *[1] * (value.dim() - 1)) * change


def by_strength(placed: PlacedFill) -> PlacedFill:
    """The same place with the strength of its fill."""
    return placed._replace(fill=Strength(placed.fill))


def reaching(action: Action, anatomy: Anatomy) -> list[PlacedFill]:
    """Fills of an action that something alive is told of.

    Of a chain of blocks that are all cut it is the last one: what the others do, they do through it.
    """

    def met(place: str) -> bool:
        if place in anatomy.by_name and place in action.dead:
            return any(target not in action.dead for target in anatomy.consumers(place))
        return anatomy.owner(place) not in action.dead

    return [placed for placed in action.fills if met(placed.site.component)]


def check_differentiable(label: str, placed: PlacedFill, anatomy: Anatomy) -> None:
    """See that the change by a fill is known in the call itself, and that the place is a module's own.

    Raises
    ------
    SpecError
        The fill takes values of other calls; the place is one of maps or logits, which no module computes; or tokens
        are named by words, which are others in every row.
    """
    place, fill = placed.site.component, placed.fill
    if placed.donors:
        raise SpecError(
            f"{label}: a gradient is taken within one call, and {fill.name!r} puts values of other calls into {place}. "
            f"{_OTHERWISE}"
        )
    inner = anatomy.inner_by_name.get(place)
    if inner is not None and inner.attention is not None:
        raise SpecError(f"{label}: no module computes {place}, so no gradient goes back to it. {_OTHERWISE}")
    if words_of(placed.site.view):
        raise SpecError(
            f"{label}: tokens of {place} are named by words, and are others in each sample; a gradient takes their "
            f"numbers. Name them by number, or: {_OTHERWISE}"
        )
