"""Fills that act on a subspace of channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from causalunet.calls import clear_calls, hold
from causalunet.design.donors import FillContext
from causalunet.design.fills.base import Fill, exact
from causalunet.design.limits import shown
from causalunet.design.views.base import Axes
from causalunet.dims import CHANNEL
from causalunet.errors import ComponentError, SpecError

__all__ = ["Project"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Project(Fill):
    """The value projected onto, or off, the span of some directions of its channels, at every place of the rest.

    Parameters
    ----------
    directions : sequence of float, or of sequences of float
        One direction or several, of as many numbers as there are channels; neither orthogonal nor of unit length.
    keep : {"off", "onto"}
        ``off`` takes the span away (directional ablation), ``onto`` leaves nothing else.
    """

    name: ClassVar[str] = "project"
    dims: ClassVar[tuple[str, ...]] = (CHANNEL,)
    directions: tuple[tuple[float, ...], ...]
    keep: Literal["off", "onto"]

    def __init__(self, directions: Iterable[Any], keep: Literal["off", "onto"] = "off") -> None:
        hold(self, directions=directions, keep=keep)

    def __post_init__(self) -> None:
        try:
            found = np.atleast_2d(np.asarray(self.directions, dtype=np.float64))
        except (TypeError, ValueError):
            found = np.zeros((0, 0))
        if found.ndim != 2 or not found.size or not np.isfinite(found).all():
            raise SpecError(
                f"Project got directions={shown(self.directions)}; give finite numbers, one for each channel, of one "
                "direction or of several of one length."
            )
        if np.linalg.matrix_rank(found) < len(found):
            raise SpecError(
                f"The {len(found)} directions of Project span {np.linalg.matrix_rank(found)} dimensions; leave out "
                "those that follow from the others."
            )
        if not isinstance(self.keep, str) or self.keep not in ("off", "onto"):
            raise SpecError(f"Project got keep={shown(self.keep)}; it is 'off' or 'onto'.")
        object.__setattr__(self, "directions", tuple(tuple(map(float, row)) for row in found))

    def check(self, axes: Axes, owner: str) -> None:
        """A value has channels, at least as many as the directions have numbers; a view may show so many of more."""
        super(Project, self).check(axes, owner)
        if axes.size(CHANNEL) < len(self.directions[0]):
            raise ComponentError(
                f"Project has directions of {len(self.directions[0])} numbers, and {owner} has {axes.size(CHANNEL)} "
                "channels."
            )

    def put(self, value: Any, context: FillContext) -> Any:
        """The value off the span, or its part in it."""
        axis, size = context.dims.index(CHANNEL), len(self.directions[0])
        if value.shape[axis] != size:
            raise SpecError(
                f"Project has directions of {size} numbers, and what it is put in place of has {value.shape[axis]} "
                f"channels: view so many of them, such as Channels(range({size}))."
            )
        basis, _ = np.linalg.qr(np.array(self.directions).T)
        precise = exact(value)
        within = precise.movedim(axis, -1) @ precise.new_tensor(basis @ basis.T)
        part = within.movedim(-1, axis)
        return (part if self.keep == "onto" else precise - part).to(value.dtype).contiguous()
