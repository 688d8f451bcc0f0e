"""Word-level vocabularies of the embedded models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from causalunet.design.words import Spelling
from causalunet.errors import PromptError

__all__ = ["CONTEXT", "SCENES_VOCABULARY", "WORDS", "Vocabulary", "tokenize"]

_WORD = re.compile(r"[^\s,]+|,")

CONTEXT = 20
"""Tokens per prompt of `shapes`, padding included: room for two objects and a background."""

WORDS = (
    *("a", ",", "on", "at", "in", "the", "background"),
    *("solid", "striped", "checkered"),
    *("red", "green", "blue", "yellow", "magenta", "cyan"),
    *("circle", "square", "triangle", "cross"),
    *("left", "right", "top", "bottom", "centre"),
    *("dark", "light", "gradient"),
)
"""Every word of `shapes`; token 0 is padding and token ``i + 1`` is ``WORDS[i]``. The order is part of the weights."""


@dataclass(frozen=True)
class Vocabulary:
    """Words that a model knows, and how many of them it reads.

    Parameters
    ----------
    words : tuple of str
        Token 0 is padding and token ``i + 1`` is ``words[i]``. The order is part of the weights.
    context : int
        Tokens per prompt, padding included.
    """

    words: tuple[str, ...]
    context: int
    _tokens: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tokens", {word: token for token, word in enumerate(self.words, start=1)})

    def __call__(self, prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
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
            A prompt has an unknown word (the known ones are listed) or is longer than the context.
        """
        tokens = np.zeros((len(prompts), self.context), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            words = _WORD.findall(prompt.lower())
            unknown = sorted({word for word in words if word not in self._tokens})
            if unknown:
                raise PromptError(
                    f"Prompt {prompt!r} has words that the model does not know: {', '.join(unknown)}. "
                    f"It knows: {' '.join(self.words)}"
                )
            if len(words) > self.context:
                raise PromptError(f"Prompt {prompt!r} has {len(words)} words; the model reads at most {self.context}.")
            tokens[row, : len(words)] = [self._tokens[word] for word in words]
        return tokens, tokens > 0

    def spelled(self, prompt: str) -> tuple[Spelling, ...]:
        """Which word of a prompt each token is.

        Parameters
        ----------
        prompt : str
        """
        spans = (one.span() for one in _WORD.finditer(prompt))
        return (Spelling(prompt, tuple((number, *span) for number, span in enumerate(spans))),)


tokenize = Vocabulary(WORDS, CONTEXT)
"""Of `shapes`."""

SCENES_VOCABULARY = Vocabulary(
    (
        *("a", "two", "some", "something", "and", "above", "below", "left", "right", "of"),
        *("solid", "striped", "checkered"),
        *("red", "green", "blue", "yellow", "magenta", "cyan"),
        *("circle", "square", "triangle", "cross", "shape"),
        *("circles", "squares", "triangles", "crosses", "shapes"),
    ),
    16,
)
"""Of `scenes`; the longest prompt has ten words."""
