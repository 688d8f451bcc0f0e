"""A fill, and a kind of intervention that uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import causalunet as cu
from causalunet.design import Fill, Intervention


@dataclass(frozen=True, slots=True)
class Flip(Fill):
    """The value, left and right exchanged."""

    name: ClassVar[str] = "guests.flip"

    def apply(self, value: Any) -> Any:
        """The value, mirrored."""
        return value.flip(-1)


@dataclass(frozen=True, slots=True)
class FlipSkip(Intervention):
    """Mirror what comes over one skip connection."""

    kind: ClassVar[str] = "guests.flip_skip"
    skip: int
    window: cu.Window

    def edits(self) -> tuple[cu.Edit, ...]:
        """One edit."""
        return (cu.Edit(f"skip.{self.skip}", self.window, Flip()),)
