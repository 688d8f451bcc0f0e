"""Word-level vocabulary of the embedded model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import PromptError

__all__ = ["CONTEXT", "WORDS", "tokenize"]

CONTEXT = 20
"""Tokens per prompt, padding included: room for two objects and a background."""

WORDS = (
    *("a", ",", "on", "at", "in", "the", "background"),
    *("solid", "striped", "checkered"),
    *("red", "green", "blue", "yellow", "magenta", "cyan"),
    *("circle", "square", "triangle", "cross"),
    *("left", "right", "top", "bottom", "centre"),
    *("dark", "light", "gradient"),
)
"""Every word; token 0 is padding and token ``i + 1`` is ``WORDS[i]``. The order is part of the weights."""

_TOKENS = {word: token for token, word in enumerate(WORDS, start=1)}


def tokenize(prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Turn prompts into padded token ids.

    Parameters
    ----------
    prompts : sequence of str
        The empty prompt stands for "no condition" and becomes padding only.

    Returns
    -------
    tokens : ndarray of int, (prompt, token)
    mask : ndarray of bool, (prompt, token)
        True for real tokens.

    Raises
    ------
    PromptError
        A prompt has an unknown word (the known ones are listed) or is longer than `CONTEXT`.
    """
    tokens = np.zeros((len(prompts), CONTEXT), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        words = re.findall(r"[^\s,]+|,", prompt.lower())
        unknown = sorted({word for word in words if word not in _TOKENS})
        if unknown:
            raise PromptError(
                f"Prompt {prompt!r} has words that the model does not know: {', '.join(unknown)}. "
                f"It knows: {' '.join(WORDS)}"
            )
        if len(words) > CONTEXT:
            raise PromptError(f"Prompt {prompt!r} has {len(words)} words; the model reads at most {CONTEXT}.")
        tokens[row, : len(words)] = [_TOKENS[word] for word in words]
    return tokens, tokens > 0
