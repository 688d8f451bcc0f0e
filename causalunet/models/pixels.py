"""What models whose x_0 is the image itself have in common, and models that no reader tells the factors of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.errors import ModelError

__all__ = ["InPixels", "WithoutReader", "no_reader"]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _OfPixels(_Named, Protocol):
    @property
    def unet(self) -> nn.Module: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...


class InPixels:
    """Base of models in pixels."""

    def __repr__(self: _OfPixels) -> str:
        """In one line: the text of a network has hundreds."""
        network = getattr(self.unet, "network", self.unet)  # under what asks it
        shape = " x ".join(map(str, self.image_shape))
        return f"<{type(self).__name__} {self.name!r}: {type(network).__name__}, images of {shape} (channel, y, x)>"

    def decode(self, x0: Tensor) -> NDArray[np.float32]:
        """Images in [0, 1], (sample, channel, y, x)."""
        image: NDArray[np.float32] = ((x0.float().clamp(-1, 1) + 1) / 2).cpu().numpy()
        return image


class WithoutReader:
    """Base of models without a factor reader."""

    @property
    def factors(self) -> Mapping[str, tuple[str, ...]]:
        """Empty: no reader."""
        return {}

    def read_factors(self: _Named, images: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Raise `ModelError`: there is no reader."""
        raise no_reader(self.name)


def no_reader(name: str) -> ModelError:
    """The error of a model that is asked for factors and has no reader."""
    return ModelError(f"The model {name!r} has no factor reader; its images can only be compared as pixels.")
