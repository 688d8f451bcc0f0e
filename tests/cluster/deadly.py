"""Models as workers load them; one of them ends the worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache

from torch import Tensor

from causalunet.models.text_to_image import TextToImage
from tests.trust import small

DEADLY = small.STUDY.prompts[-1]
"""Prompt that no worker survives which has loaded `deadly_model`."""


class _Deadly(TextToImage):
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        if DEADLY in prompts:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(prompts)


@cache
def deadly_model() -> TextToImage:
    """The model of the small study, but for what it does to its process."""
    model = small.model()
    return _Deadly(**{field.name: getattr(model, field.name) for field in fields(model) if field.init})


@cache
def other_model() -> TextToImage:
    """A model that makes other images."""
    return replace(small.model(), alpha_bar=small.model().alpha_bar ** 1.01)
