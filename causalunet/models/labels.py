"""Prompts of models that read no text: class names, class indices, or mere names of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.limits import check_ordered, is_integer
from causalunet.errors import ModelError, PromptError

__all__ = ["NO_LABEL", "Prepare", "label_reader"]

Prepare = Callable[[Sequence[str]], tuple[NDArray[Any], ...]]
"""Prompts to what a model encodes, one row per prompt; raises `PromptError`."""

NO_LABEL = -1
"""Label of the empty prompt, which no class of these models stands for."""


def label_reader(count: int | None, classes: Sequence[str] | None, null: int | None = None) -> Prepare:
    """Make the reader of a model's prompts.

    Parameters
    ----------
    count : int, optional
        Number of classes; None for a model without, whose prompts may say anything.
    classes : sequence of str, optional
        Name of every class; that of the one which stands for "no class" may be left out.
    null : int, optional
        The class that stands for "no class", and so for the empty prompt.

    Raises
    ------
    ModelError
        There are not as many names as classes, or no such class.
    SpecError
        The names are a set, which has no order.
    """
    check_ordered("A model", "classes", classes)
    if null is not None and (not is_integer(null) or not 0 <= null < (count or 0)):
        raise ModelError(
            f"null_class={null!r} is no class of this U-Net, which has "
            f"{f'classes 0 to {count - 1}' if count else 'none'}. Give the index of the class that stands for none."
        )
    numbers = [number for number in range(count or 0) if number != null]
    if classes is not None and len(classes) == (count or 0) and null is not None:
        classes = [classes[number] for number in numbers]
    if classes is not None and len(classes) != len(numbers):
        raise ModelError(f"{len(classes)} class names were given; this U-Net has {len(numbers) or 'no'} classes.")
    if count is None:
        return lambda prompts: (np.array([0 if prompt else NO_LABEL for prompt in prompts], dtype=np.int64),)
    indices = {str(number): number for number in numbers}
    named = dict(zip(classes or (), numbers, strict=False))
    doubled = {name for name, n in Counter(classes or ()).items() if n > 1}

    def label(prompt: str) -> int:
        if not prompt:
            return NO_LABEL if null is None else null
        if prompt == str(null) and prompt not in named:
            raise PromptError(f"Class {prompt} stands for no class. Give causalunet.NO_PROMPT for samples without one.")
        if prompt in doubled:
            raise PromptError(f"{prompt!r} names more than one class. Give the index of the one that you mean.")
        if prompt not in named and prompt not in indices:
            known = f"a class name, such as {classes[0]!r}, or " if classes else ""
            raise PromptError(
                f"The model has no class {prompt!r}. A prompt is {known}an index, '{numbers[0]}' to '{numbers[-1]}'."
            )
        return named[prompt] if prompt in named else indices[prompt]

    return lambda prompts: (np.array([label(prompt) for prompt in prompts], dtype=np.int64),)
