"""Images of x_0, decoded as many at a time as a memory budget allows."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.execute.walk.batches import MicroBatch, out_of_memory
from causalunet.models.base import DiffusionModel

__all__ = ["Decoding", "images_at_once"]

_TENSORS = 8
"""As large as the largest that a decoder puts out, alive around it: as of a block of a U-Net."""


def images_at_once(model: DiffusionModel, budget: int) -> int:
    """How many images a model decodes together within a budget; one at the least.

    Parameters
    ----------
    model : DiffusionModel
        May say by an attribute ``decoder_values`` how many numbers the largest tensor has that its decoder makes of one
        image; else that is the image.
    budget : int
        Bytes.
    """
    shape = getattr(model, "picture_shape", model.image_shape)
    largest = max(int(getattr(model, "decoder_values", 0)), math.prod(shape))
    return max(1, budget // (4 * _TENSORS * largest))


class Decoding:
    """Decodes x_0 of a model in parts that fit a budget; in smaller ones once memory ran out.

    Parameters
    ----------
    model : DiffusionModel
    budget : int
        Bytes, on the model's device.
    """

    def __init__(self, model: DiffusionModel, budget: int) -> None:
        self._model, self._together = model, MicroBatch(images_at_once(model, budget))

    def __call__(self, x0: Tensor) -> NDArray[np.float32]:
        """Images in [0, 1], (sample, channel, y, x).

        Parameters
        ----------
        x0 : Tensor, (sample, channel, y, x)

        Raises
        ------
        MemoryExhaustedError
            Not even one image could be decoded.
        """
        images, start = list[NDArray[np.float32]](), 0
        while start < len(x0):
            rows = slice(start, start + self._together.samples)
            try:
                with torch.inference_mode():
                    images.append(self._model.decode(x0[rows]))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._together.halve(error)
                continue
            start = rows.stop
        return np.concatenate(images)
