"""An outcome with a number for each colour channel: one file, and nothing of the package was changed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from causalunet.design.outcomes import Outcome, OutcomeContext, OutcomeDim, OutcomeVariable


@dataclass(frozen=True, slots=True)
class ColourDistance(Outcome):
    """Mean absolute difference to the baseline image in each colour channel."""

    name: ClassVar[str] = "guests.colour_distance"
    title: ClassVar[str] = "colour distance"
    definition: ClassVar[str] = "Mean over pixels of the absolute difference of two images, of each channel by itself."
    labels: tuple[str, ...] = ("red", "green", "blue")

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))

    @property
    def variables(self) -> tuple[OutcomeVariable, ...]:
        """One, along colours."""
        one = OutcomeVariable(
            name="colour_distance",
            meaning="mean absolute difference of a channel to the baseline image's",
            definition=self.definition,
            better="lower",
            dims=("colour",),
            dtype="float32",
            limits=(0.0, 1.0),
        )
        return (one,)

    @property
    def variable(self) -> str:
        """Without the name of the package."""
        return "colour_distance"

    def brings(self, image_shape: Any, factors: Any) -> tuple[OutcomeDim, ...]:
        """Colours, by name."""
        return (OutcomeDim(name="colour", labels=self.labels, meaning="channel of an image, by its colour"),)

    def measure(self, images: Any, baseline: Any, context: OutcomeContext) -> Any:
        """One number per image and channel."""
        return np.abs(images - baseline).mean(axis=(-1, -2))
