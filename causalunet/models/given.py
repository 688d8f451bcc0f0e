"""What a U-Net is given under the process of its model: states of its size, and the image that they are shifted by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from causalunet.errors import ModelError
from causalunet.prediction import process_of
from causalunet.stepping import shrunk

__all__ = ["as_put_in", "given_images", "shifting_images"]


def as_put_in(model: Any, x: Tensor, timestep: int) -> tuple[Tensor, int]:
    """Bring a state to the size that the U-Net takes, and say at which timestep.

    Parameters
    ----------
    model : DiffusionModel
    x : Tensor, (row, channel, y, x)
        Of full size.
    timestep : int
        At which it is to be asked; 0 if its process resizes states, where it says images of full size.
    """
    process = process_of(model)
    if not process.resized:
        return x, timestep
    return shrunk(x, process.halvings(float(model.alpha_bar[0]))), 0


def given_images(model: Any, context: Sequence[Tensor]) -> Tensor | None:
    """Ask a model for the given image u of its rows; None where its process is not shifted.

    Parameters
    ----------
    model : DiffusionModel
        Whose method ``given(*context)`` makes images, (row, channel, y, x), of what its prompts were encoded to.
    context : sequence of Tensor
        What ``encode()`` gave of the prompts of the rows.

    Raises
    ------
    ModelError
        The process is shifted, and the model says nothing of the image, or gives something else than one of each row.
    """
    return shifting_images(model, context) if process_of(model).shifted else None


def shifting_images(model: Any, context: Sequence[Tensor]) -> Tensor:
    """As `given_images`, of a model whose process is shifted."""
    process = process_of(model)
    if not callable(give := getattr(model, "given", None)):
        raise ModelError(
            f"The model {model.name!r} has the process {str(process)!r}, whose states are shifted by a given image, "
            "and no method given(*context) that makes it of what encode() gave."
        )
    found: Any = give(*context)
    shape = (len(context[0]) if context else 1, *model.image_shape)
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ModelError(f"The model {model.name!r}: given() gave {got}; it has to give an image of each row, {shape}.")
    return found.to(torch.float32)
