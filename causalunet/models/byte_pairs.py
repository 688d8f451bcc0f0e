"""Byte-pair tokens of a prompt, padded as GLIDE's text transformer takes them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.words import Spelling
from causalunet.errors import PromptError

__all__ = ["padded"]


def padded(encoder: Any, context: int) -> BytePairs:
    """Make a `causalunet.models.text_to_image.Tokenize` of a byte-pair encoder.

    Parameters
    ----------
    encoder : object
        With ``encode(text) -> list of int`` and ``n_vocab``, as the encoder of GLIDE's own package. Its last
        token pads. With ``decode(tokens) -> str``, as that has it, words name tokens.
    context : int
        Tokens per prompt, padding included.

    Returns
    -------
    callable
        Prompts to (tokens, mask), both (prompt, context). The empty prompt becomes padding only. Raises `PromptError`
        for a prompt of more tokens than fit, which GLIDE's own package would cut short without a word.
    """
    return BytePairs(encoder, context)


@dataclass(frozen=True)
class BytePairs:
    """Prompts to padded tokens, see `padded`."""

    encoder: Any
    context: int

    def __call__(self, prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Tokens and mask of prompts."""
        tokens = np.full((len(prompts), self.context), self.encoder.n_vocab - 1, dtype=np.int64)
        mask = np.zeros((len(prompts), self.context), dtype=np.bool_)
        for row, prompt in enumerate(prompts):
            found = self.encoder.encode(prompt)
            if len(found) > self.context:
                raise PromptError(f"Prompt {prompt!r} has {len(found)} tokens; the model reads at most {self.context}.")
            tokens[row, : len(found)] = found
            mask[row, : len(found)] = True
        return tokens, mask

    def spelled(self, prompt: str) -> tuple[Spelling, ...]:
        """Which part of a prompt each token is of; nothing of an encoder that does not decode."""
        if not hasattr(self.encoder, "decode"):
            return ()
        tokens = self.encoder.encode(prompt)
        # one after the other: a letter may be several tokens, none of which is text by itself
        ends = [len(self.encoder.decode(tokens[:count])) for count in range(len(tokens) + 1)]
        spans = enumerate(itertools.pairwise(ends))
        return (Spelling(self.encoder.decode(tokens), tuple((number, *span) for number, span in spans)),)
