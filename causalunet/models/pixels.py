"""What models whose x_0 is the image itself have in common, and models with a factor reader or without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.errors import ModelError

if TYPE_CHECKING:
    from causalunet.models.factor_reader import FactorReader

__all__ = ["InPixels", "MayRead", "WithoutReader"]


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
        raise _no_reader(self.name)


class _Reading(_Named, Protocol):
    @property
    def reader(self) -> FactorReader | None: ...


class MayRead:
    """Base of models with the field ``reader``, a factor reader or None."""

    @property
    def factors(self: _Reading) -> Mapping[str, tuple[str, ...]]:
        """What the reader tells apart; empty without a reader."""
        return {} if self.reader is None else dict(self.reader.config.factors)

    def read_factors(self: _Reading, images: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Index and probability of the likeliest value of every factor, both (sample, factor)."""
        if self.reader is None:
            raise _no_reader(self.name)
        return self.reader.likeliest(images)


def _no_reader(name: str) -> ModelError:
    return ModelError(f"The model {name!r} has no factor reader; its images can only be compared as pixels.")
