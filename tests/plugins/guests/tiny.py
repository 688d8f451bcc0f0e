"""A model: the embedded one under another name."""

from __future__ import annotations

from dataclasses import replace

from causalunet.models import load_shapes
from causalunet.models.text_to_image import TextToImage


def load_tiny(device: str = "cpu") -> TextToImage:
    """Load it."""
    return replace(load_shapes(device=device), name="guests.tiny")
