"""A start of somebody else's: one file, and nothing of the package was changed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet.design.starts import Noise, Start


@dataclass(frozen=True, slots=True)
class Mirrored(Start):
    """Antithetic noise: that of the seed, with the opposite sign."""

    name: ClassVar[str] = "guests.mirrored"

    def state(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """As far from the mean, on the other side."""
        return -Noise(self.seed).state(shape)
