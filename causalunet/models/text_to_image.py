"""A text-conditional U-Net in OpenAI's layout, with its tokenizer and schedule, as a `DiffusionModel`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.anatomy import Anatomy
from causalunet.design.words import Spelling, spelled_by
from causalunet.models.checkpoints import fingerprint
from causalunet.models.factor_reader import FactorReader
from causalunet.models.openai_anatomy import read_anatomy
from causalunet.models.openai_layout import TextUNet
from causalunet.models.pixels import InPixels, MayRead
from causalunet.prediction import LEARNED, Prediction

if TYPE_CHECKING:  # pyright takes a cached property for none of a protocol's properties
    from builtins import property as cached_property
else:
    from functools import cached_property

__all__ = ["TextToImage", "Tokenize"]

Tokenize = Callable[[Sequence[str]], tuple[NDArray[np.int64], NDArray[np.bool_]]]
"""Prompts to (tokens, mask), both (prompt, token)."""


@dataclass(frozen=True, repr=False)
class TextToImage(MayRead, InPixels):
    """A pixel-space text-to-image model.

    Parameters
    ----------
    name : str
    unet : TextUNet
        In evaluation mode.
    tokenize : callable
        Prompts to padded tokens and mask.
    alpha_bar : ndarray of float64, (timestep,)
        Training schedule.
    clip : bool
        Whether the estimate of x_0 is clipped to [-1, 1].
    reader : FactorReader, optional
        Tells what an image shows.
    prediction : Prediction
        What the U-Net puts out.
    """

    name: str
    unet: TextUNet
    tokenize: Tokenize
    alpha_bar: NDArray[np.float64]
    clip: bool = True
    reader: FactorReader | None = None
    prediction: Prediction = LEARNED

    @cached_property
    def anatomy(self) -> Anatomy:
        """Read off the U-Net at first use."""
        return read_anatomy(self.unet)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights."""
        return fingerprint(self.unet)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of an image."""
        config = self.unet.config
        return (config.in_channels, config.image_size, config.image_size)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that the vocabulary does not cover."""
        self.tokenize(prompts)

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What the text transformer is given: tokens and mask, both (prompt, token)."""
        return self.tokenize(prompts)

    def spelled(self, prompt: str) -> Sequence[Spelling]:
        """Which part of a prompt each token is of; nothing of a tokenizer that does not tell."""
        return spelled_by(self.tokenize, prompt)

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Run the text transformer once for every prompt.

        Returns
        -------
        pooled : Tensor, (prompt, 4 * model_channels)
        sequence : Tensor, (prompt, width, context)
        """
        tokens, mask = self.tokens(prompts)
        device = self.unet.positional_embedding.device
        with torch.inference_mode():
            return tuple(self.unet.encode_text(torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)))
