"""Rendered scenes of the world of ``shapes`` with their prompts as tokens, for the models that are not ``shapes``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from causalunet.models.vocabulary import tokenize
from causalunet.scenes import render
from causalunet.training.shapes import training_scenes

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
    scenes = training_scenes()
    chosen = [scenes[index] for index in rng.integers(len(scenes), size=size)]
    images = render(chosen, rng)
    kept = rng.random(size) >= prompt_drop
    tokens, mask = tokenize([scene.prompt if keep else "" for scene, keep in zip(chosen, kept, strict=True)])
    return {"images": torch.from_numpy(images), "tokens": torch.from_numpy(tokens), "mask": torch.from_numpy(mask)}
