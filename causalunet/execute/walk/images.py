"""An observer that keeps images, for runs of which nothing else is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.samplers import Estimate
from causalunet.plan import Call

__all__ = ["KeptImages"]


class KeptImages:
    """Observer of one block that keeps the image of every run.

    Parameters
    ----------
    decode : callable
        x_0 to images, such as a `Decoding`.
    predicted : callable, optional
        Told call, x_t and the estimate of x_0 at the first U-Net call of every step.

    Attributes
    ----------
    images : dict of int to ndarray of float32, (sample, channel, y, x)
        By run.
    """

    def __init__(
        self,
        decode: Callable[[Tensor], NDArray[np.float32]],
        predicted: Callable[[Call, Tensor, Tensor], None] | None = None,
    ) -> None:
        self._decode, self._predicted = decode, predicted
        self.images: dict[int, NDArray[np.float32]] = {}

    def wants(self, call: Call) -> tuple[str, ...]:
        """Nothing is recorded."""
        return ()

    def activations(self, call: Call, rows: slice, values: dict[str, Tensor]) -> None:
        """Nothing is recorded."""

    def fired(self, call: Call, rows: slice, places: Mapping[str, int]) -> None:
        """Nothing is recorded."""

    def predicted(self, call: Call, stage: int, estimate: Estimate) -> None:
        """Hand on state and estimate, of the first call of each step."""
        if self._predicted is not None and not stage:
            self._predicted(call, estimate.x, estimate.x0)

    def finished(self, run: int, x0: Tensor) -> None:
        """Keep a run's image."""
        self.images[run] = self._decode(x0)
