"""Two views: every second place along a dimension, and the dark squares of a checkerboard, which are no block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from causalunet.design import Axes, View


@dataclass(frozen=True, slots=True)
class EverySecond(View):
    """Every second channel."""

    name: ClassVar[str] = "guests.every_second"
    dims: ClassVar[tuple[str, ...]] = ("channel",)
    first: int = 0

    def selected(self, axes: Axes) -> Mapping[str, slice]:
        """Which channels."""
        return {"channel": slice(self.first, None, 2)}


@dataclass(frozen=True, slots=True)
class Checkerboard(View):
    """Pixels of which row and column have an even sum; a part has them in one column."""

    name: ClassVar[str] = "guests.checkerboard"
    dims: ClassVar[tuple[str, ...]] = ("y", "x")

    def get(self, value: Any, axes: Axes) -> Any:
        """Those pixels, (row, channel, pixel, 1)."""
        return value[..., torch.from_numpy(self.mask(axes)[0, 0])].unsqueeze(-1)

    def put(self, value: Any, part: Any, axes: Axes) -> Any:
        """Others stay."""
        changed = value.clone()
        changed[..., torch.from_numpy(self.mask(axes)[0, 0])] = part.squeeze(-1)
        return changed

    def mask(self, axes: Axes) -> NDArray[np.bool_]:
        """Alike in all rows and channels."""
        y, x = np.ogrid[: axes.size("y"), : axes.size("x")]
        board: NDArray[np.bool_] = ((y + x) % 2 == 0)[None, None]
        return board
