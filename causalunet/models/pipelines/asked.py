"""A pipeline that is to be made a model, and what was said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from causalunet.errors import ModelError

__all__ = ["Asked", "Size", "size_of_network"]

Size = tuple[int, int]
"""Along y and x."""


class Asked(NamedTuple):
    """A pipeline, and what was said of it."""

    pipe: Any
    name: str
    size: Size | None
    classes: Sequence[str] | None
    null_class: int | None
    told_guidance: float | None
    given: Any = None

    def require(self, *parts: str) -> None:
        """Raise `ModelError` unless the pipeline has parts that other classes may lack."""
        missing = [name for name in parts if getattr(self.pipe, name, None) is None]
        if missing:
            raise ModelError(
                f"This {type(self.pipe).__name__} has no {' and no '.join(missing)}; load it with all its parts."
            )

    def refuse_given(self) -> None:
        """Raise `ModelError` if an image is given that the network is not told."""
        if self.given is not None:
            raise ModelError(f"The network of a {type(self.pipe).__name__} is told no image; leave given out.")

    def refuse_classes(self) -> None:
        """Raise `ModelError` if something is said of classes."""
        if self.classes is not None or self.null_class is not None:
            raise ModelError(f"A {type(self.pipe).__name__} has no classes.")

    def refuse_guidance(self) -> None:
        """Raise `ModelError` if something is said of a guidance that the network is told."""
        if self.told_guidance is not None:
            raise ModelError(f"The network of this {type(self.pipe).__name__} is told no guidance scale.")


def size_of_network(unet: Any) -> Size:
    """Size that a network was made for, in its own pixels."""
    size = unet.config.sample_size
    if size is None:
        raise ModelError(f"This {type(unet).__name__} does not say for which size it was made; give image_size.")
    return (size, size) if isinstance(size, int) else (size[0], size[1])
