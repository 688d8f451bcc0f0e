"""GLIDE at its full size with random weights, none of them zero: no two outputs are equal for a trivial reason."""

from __future__ import annotations

import torch

from causalunet.models.byte_pairs import padded
from causalunet.models.glide import GLIDE_CONFIG
from causalunet.models.openai_layout import TextUNet
from tests.models.stand_ins import randomised


class Letters:
    """An encoder with the interface of GLIDE's: one token per character."""

    n_vocab = GLIDE_CONFIG.text.vocabulary

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


TOKENIZE = padded(Letters(), GLIDE_CONFIG.text.context)


def random_glide() -> TextUNet:
    """1.5 GB."""
    with torch.device("meta"):
        unet = TextUNet(GLIDE_CONFIG)
    unet = unet.to_empty(device="cpu").eval().requires_grad_(False)
    with torch.no_grad():
        randomised(unet)
    return unet
