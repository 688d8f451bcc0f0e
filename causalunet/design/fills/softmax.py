"""Fills of what a softmax is taken of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.fills.base import Fill
from causalunet.design.views.base import Axes, View
from causalunet.dims import TOKEN
from causalunet.errors import ComponentError

__all__ = ["Exclude"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Exclude(Fill):
    """Minus infinity at logits of attention: the tokens are left out, and the others share what they had.

    ``Edit(Site("up.3.cross.logits") @ Tokens("red"), window, Exclude())`` is attention without these tokens. `Zero` at
    maps takes their share away and gives it to no other.
    """

    name: ClassVar[str] = "exclude"
    dims: ClassVar[tuple[str, ...]] = (TOKEN,)

    def check(self, axes: Axes, owner: str) -> None:
        """The place is logits of attention."""
        super(Exclude, self).check(axes, owner)
        if not owner.endswith(".logits"):
            raise ComponentError(
                f"Exclude puts minus infinity in place of {owner}, which no softmax is taken of: all that follows "
                "would be no numbers. Exclude tokens at logits of attention, such as "
                "up.3.cross.logits; put Zero() elsewhere."
            )

    def check_part(self, view: View, axes: Axes, owner: str) -> None:
        """Some token is left to every query."""
        if view.mask(axes).all(axis=axes.position(TOKEN)).any():
            raise ComponentError(
                f"Exclude would leave no token of {owner} to attend to. Name some of its {axes.size(TOKEN)}: "
                f'Site("{owner}") @ Tokens(3).'
            )

    def apply(self, value: Any) -> Any:
        """Minus infinity everywhere."""
        return value.new_full(value.shape, -math.inf)
