"""Byte-pair tokens of a prompt, padded as GLIDE's text transformer takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import PromptError
from causalunet.models.text_to_image import Tokenize

__all__ = ["padded"]


def padded(encoder: Any, context: int) -> Tokenize:
    """Make a `Tokenize` of a byte-pair encoder.

    Parameters
    ----------
    encoder : object
        With ``encode(text) -> list of int`` and ``n_vocab``, as the encoder of GLIDE's own package. Its last
        token pads.
    context : int
        Tokens per prompt, padding included.

    Returns
    -------
    callable
        Prompts to (tokens, mask), both (prompt, context). The empty prompt becomes padding only. Raises `PromptError`
        for a prompt of more tokens than fit, which GLIDE's own package would cut short without a word.
    """
    padding = encoder.n_vocab - 1

    def tokenize(prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        tokens = np.full((len(prompts), context), padding, dtype=np.int64)
        mask = np.zeros((len(prompts), context), dtype=np.bool_)
        for row, prompt in enumerate(prompts):
            found = encoder.encode(prompt)
            if len(found) > context:
                raise PromptError(f"Prompt {prompt!r} has {len(found)} tokens; the model reads at most {context}.")
            tokens[row, : len(found)] = found
            mask[row, : len(found)] = True
        return tokens, mask

    return tokenize
