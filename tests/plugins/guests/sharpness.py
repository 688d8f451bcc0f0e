"""An outcome: one file, and nothing of the package was changed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from causalunet.design.outcomes import Outcome, OutcomeContext


@dataclass(frozen=True, slots=True)
class EdgeLoss(Outcome):
    """How much weaker, or stronger, edges are than in the baseline image, in parts of those of the baseline."""

    name: ClassVar[str] = "guests.edge_loss"
    title: ClassVar[str] = "edge loss"
    meaning: ClassVar[str] = "relative change of the mean absolute gradient"
    definition: ClassVar[str] = (
        "Absolute difference of the mean absolute gradients along x and y of the two images, over that of the baseline."
    )
    better: ClassVar[Any] = "lower"
    limits: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    least: float = 1e-3

    def measure(self, images: Any, baseline: Any, context: OutcomeContext) -> Any:
        """One number per image."""
        of_runs, of_baseline = (self._gradient(value) for value in (images, baseline))
        return np.abs(of_runs - of_baseline) / np.maximum(of_baseline, self.least)

    def _gradient(self, images: Any) -> Any:
        along = (np.abs(np.diff(images, axis=axis)).mean(axis=(-3, -2, -1), dtype=np.float64) for axis in (-1, -2))
        return sum(along)
