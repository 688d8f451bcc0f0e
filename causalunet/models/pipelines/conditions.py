"""What prompts become in pipelines of diffusers: nothing, a class, or the states of text encoders."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.words import Spelling
from causalunet.errors import CausalUNetWarning
from causalunet.models.labels import Prepare

__all__ = ["Conditions", "JointTexts", "Labels", "LowerTexts", "MaskedTexts", "PooledTexts", "Texts", "TwoTexts"]

_IF_TOKENS = 77
"""That DeepFloyd IF reads: its pipeline has the number in its code."""


class Conditions(Protocol):
    """What a network is told of prompts."""

    @property
    def words(self) -> str:
        """What prompts are, in words."""
        ...

    def check(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that cannot be read."""
        ...

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """What prompts become before any network sees them, one row per prompt."""
        ...

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """What the network is told, one row per prompt."""
        ...


@dataclass(frozen=True)
class Labels:
    """Class names and indices, or mere names of samples.

    Parameters
    ----------
    prepare : callable
        From `causalunet.models.labels.label_reader`.
    """

    prepare: Prepare

    @property
    def words(self) -> str:
        """What prompts are, in words."""
        return "class names or indices; of a network without classes any text"

    def check(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that name no class."""
        self.prepare(prompts)

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Labels, (prompt,)."""
        return self.prepare(prompts)

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """Labels, (prompt,)."""
        return tuple(torch.from_numpy(part).to(device) for part in self.prepare(prompts))


@dataclass(frozen=True)
class Texts:
    """States of a text encoder, as the pipeline's own ``encode_prompt`` makes them.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline

    Attributes
    ----------
    pooled : int, optional
        Which argument of the network is a pooled state, where there is one.
    """

    pipe: Any
    pooled: ClassVar[int | None] = None

    @property
    def words(self) -> str:
        """What prompts are, in words."""
        return f"text of up to {' and '.join(str(length) for _, length in self.readers)} tokens"

    @property
    def readers(self) -> tuple[tuple[Any, int], ...]:
        """Of every text encoder the tokenizer, and how many tokens it reads."""
        return ((self.pipe.tokenizer, self.pipe.tokenizer.model_max_length),)

    @property
    def placed_readers(self) -> tuple[tuple[Any, int, int], ...]:
        """Of every tokenizer whose tokens the network attends to, how many it reads, and the number of its first."""
        return tuple((tokenizer, most, 0) for tokenizer, most in self.readers)

    def read(self, prompt: str) -> str:
        """What the tokenizer is given of a prompt."""
        return prompt

    def spelled(self, prompt: str) -> tuple[Spelling, ...]:
        """Which part of a prompt each token is of; nothing where a tokenizer does not tell."""
        text, found = self.read(prompt), []
        for tokenizer, most, first in self.placed_readers:
            if not getattr(tokenizer, "is_fast", False):
                return ()
            spans = tokenizer(text, truncation=True, max_length=most, return_offsets_mapping=True).offset_mapping
            found.append(Spelling(text, tuple((first + i, *span) for i, span in enumerate(spans) if span[1] > span[0])))
        return tuple(found)

    def check(self, prompts: Sequence[str]) -> None:
        """Warn of prompts that are longer than what the text encoder reads: their end says nothing."""
        for tokenizer, most in self.readers:
            long = [prompt for prompt in prompts if len(tokenizer(prompt).input_ids) > most]
            if long:
                warnings.warn(
                    f"{len(long)} of {len(prompts)} prompts have more tokens than the {most} that the text encoder "
                    f"reads; what is beyond is cut off, as in {long[0]!r:.80}.",
                    CausalUNetWarning,
                    stacklevel=3,
                )

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Of every tokenizer, (prompt, token), padded and cut to the length that its encoder reads."""
        return tuple(
            np.asarray(tokenizer(list(prompts), padding="max_length", truncation=True, max_length=most).input_ids)
            for tokenizer, most in self.readers
        )

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """States, (prompt, token, width)."""
        with torch.inference_mode():
            return (self.pipe.encode_prompt(list(prompts), device, 1, False)[0],)


class MaskedTexts(Texts):
    """States of a text encoder and which of them are of words: of PixArt."""

    @property
    def readers(self) -> tuple[tuple[Any, int], ...]:
        """Its tokenizer, and the length that its ``encode_prompt`` has by default."""
        return ((self.pipe.tokenizer, _length_of(self.pipe)),)

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """States, (prompt, token, width), and their mask, (prompt, token)."""
        with torch.inference_mode():
            states, mask, _, _ = self.pipe.encode_prompt(
                list(prompts), do_classifier_free_guidance=False, device=device
            )
        return states, mask


class TwoTexts(Texts):
    """States of two text encoders side by side, and a pooled one: of Stable Diffusion XL."""

    pooled: ClassVar[int | None] = 3

    @property
    def readers(self) -> tuple[tuple[Any, int], ...]:
        """Of both."""
        there = (one for one in (self.pipe.tokenizer, self.pipe.tokenizer_2) if one is not None)
        return tuple((one, one.model_max_length) for one in there)

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """States, (prompt, token, width), and the pooled state, (prompt, width).

        Of the empty prompt zeros, if the pipeline says so (``force_zeros_for_empty_prompt``).
        """
        with torch.inference_mode():
            states, _, pooled, _ = self.pipe.encode_prompt(
                list(prompts), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        if self.pipe.config.force_zeros_for_empty_prompt:
            told = torch.tensor([bool(prompt) for prompt in prompts], device=device)
            states, pooled = states * told[:, None, None], pooled * told[:, None]
        return states, pooled


class LowerTexts(Texts):
    """States of a text encoder of what a pipeline makes of texts first, lower case: of DeepFloyd IF."""

    @property
    def readers(self) -> tuple[tuple[Any, int], ...]:
        """Its tokenizer, and the length that the pipeline was trained with."""
        return ((self.pipe.tokenizer, _IF_TOKENS),)

    def read(self, prompt: str) -> str:
        """Lower case."""
        return prompt.lower().strip()

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """States, (prompt, token, width)."""
        with torch.inference_mode():
            return (self.pipe.encode_prompt(list(prompts), do_classifier_free_guidance=False, device=device)[0],)


class JointTexts(Texts):
    """States of two text encoders side by side, then of a third, and a pooled one: of Stable Diffusion 3.

    Without the third there are zeros, as in the pipeline.
    """

    pooled: ClassVar[int | None] = 3

    @property
    def readers(self) -> tuple[tuple[Any, int], ...]:
        """Of all that are there; the first two read as many tokens as the first tokenizer has."""
        pipe = self.pipe
        most = pipe.tokenizer.model_max_length
        third = () if pipe.text_encoder_3 is None else ((pipe.tokenizer_3, _length_of(pipe)),)
        return ((pipe.tokenizer, most), (pipe.tokenizer_2, most), *third)

    @property
    def placed_readers(self) -> tuple[tuple[Any, int, int], ...]:
        """Tokens of the third come after those of the first two."""
        first, second, *third = self.readers
        return ((*first, 0), (*second, 0), *((*one, first[1]) for one in third))

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """States, (prompt, token, width), and the pooled state, (prompt, width)."""
        said = list(prompts)
        with torch.inference_mode():
            states, _, pooled, _ = self.pipe.encode_prompt(
                said, said, said, device=device, do_classifier_free_guidance=False
            )
        return states, pooled


class PooledTexts(Texts):
    """States of a text encoder, and a pooled one of another: of Flux."""

    pooled: ClassVar[int | None] = 3

    @property
    def readers(self) -> tuple[tuple[Any, int], ...]:
        """Of both."""
        first = self.pipe.tokenizer
        return ((first, first.model_max_length), (self.pipe.tokenizer_2, _length_of(self.pipe)))

    @property
    def placed_readers(self) -> tuple[tuple[Any, int, int], ...]:
        """Of the second: the first gives the pooled state."""
        return ((*self.readers[1], 0),)

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """States, (prompt, token, width), and the pooled state, (prompt, width)."""
        with torch.inference_mode():
            states, pooled, _ = self.pipe.encode_prompt(list(prompts), list(prompts), device=device)
        return states, pooled


def _length_of(pipe: Any) -> int:
    """How many tokens a pipeline lets its T5 encoder read, unless it is told otherwise."""
    return int(inspect.signature(pipe.encode_prompt).parameters["max_sequence_length"].default)
