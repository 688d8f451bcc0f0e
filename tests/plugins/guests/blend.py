"""A fill with a donor: one file, and nothing of the package was changed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.design import Fill, FillContext, OwnBefore
from causalunet.design.donors import Donor


@dataclass(frozen=True, slots=True)
class Blend(Fill):
    """The mean of the value and of what the run had there before the window."""

    name: ClassVar[str] = "guests.blend"

    @property
    def donors(self) -> tuple[Donor, ...]:
        """The run's own value before the window."""
        return (OwnBefore(),)

    def put(self, value: Any, context: FillContext) -> Any:
        """Halfway between."""
        return (value + context.donors[0]) / 2
