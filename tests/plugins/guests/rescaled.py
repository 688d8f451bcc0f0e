"""Guidance of somebody else's: one file, and nothing of the package was changed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.design.guidance import Guidance


@dataclass(frozen=True, slots=True)
class Rescaled(Guidance):
    """Classifier-free guidance that keeps the conditional prediction's spread (Lin et al. 2024, equation 16)."""

    name: ClassVar[str] = "guests.rescaled"

    scale: float = 3.0
    share: float = 0.7

    def combine(self, predictions: Sequence[Any]) -> Any:
        """Weigh the branches, and take back a share of how much farther the sum spreads."""
        cond, uncond = predictions
        guided = uncond + self.scale * (cond - uncond)
        ratio = cond.std(dim=(1, 2, 3), keepdim=True) / guided.std(dim=(1, 2, 3), keepdim=True)
        return (self.share * ratio + 1 - self.share) * guided
