"""Rendered scenes of the world of ``shapes`` with their prompts as tokens, for the models that are not ``shapes``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from causalunet.models.vocabulary import tokenize
from causalunet.training.denoising import dropped
from causalunet.training.shapes import pictures

__all__ = ["draw_told"]


def draw_told(size: int, rng: np.random.Generator, *, prompt_drop: float = 0.0) -> dict[str, Tensor]:
    """Draw scenes that are not held out.

    Parameters
    ----------
    size : int
        Number of images.
    rng : numpy.random.Generator
    prompt_drop : float
        Share of prompts replaced by the empty one, for classifier-free guidance.

    Returns
    -------
    dict of str to Tensor
        ``images`` in [-1, 1], (image, channel, y, x); ``tokens`` and ``mask``, (image, token).
    """
    images, prompts = pictures(size, rng)
    tokens, mask = tokenize(dropped(prompts, prompt_drop, rng))
    return {"images": torch.from_numpy(images), "tokens": torch.from_numpy(tokens), "mask": torch.from_numpy(mask)}
