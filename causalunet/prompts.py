"""Sets of prompts to sample studies from, and the sample that has none."""

from __future__ import annotations

import operator
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np

from causalunet.errors import SpecError

__all__ = ["NO_PROMPT", "NoPrompt", "imagenet", "imagenet_classes"]


class NoPrompt(str):
    """An open sample: the model is given no condition, so nothing but the noise decides what the image shows.

    Such samples are told apart by their seed: ``prompts=[NO_PROMPT], seeds=range(24)``. They need ``guidance_scale=1``:
    there is no condition to be guided to. To a model it is the empty text, and stored results hold ``""`` as their
    prompt. A type of its own, of which there is one value, tells it from a prompt that is empty by mistake, which
    studies refuse.
    """

    __slots__ = ()

    def __new__(cls) -> NoPrompt:
        """The one value."""
        return NO_PROMPT if "NO_PROMPT" in globals() else super().__new__(cls, "")

    def __repr__(self) -> str:
        return "NO_PROMPT"

    def __reduce__(self) -> tuple[type[NoPrompt], tuple[()]]:
        return NoPrompt, ()


NO_PROMPT: Final = NoPrompt()
"""The one value of `NoPrompt`: a sample without a condition."""


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Names of the 1000 ImageNet classes, one distinct name per class, in the order of the class index.

    Notes
    -----
    Source: the metadata of torchvision's weights; ``causalunet/data/imagenet_classes.txt`` says which.
    """
    text = (files("causalunet") / "data" / "imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


def imagenet(n: int = 100, seed: int = 0, template: str = "{}") -> tuple[str, ...]:
    """Draw ImageNet class names as prompts, without repetition.

    Prasad et al. 2023 sample GLIDE with 100 class names, one image each: ``prompts=imagenet(100)`` and no seeds.

    Parameters
    ----------
    n : int
        Number of prompts, 1 to 1000. Fewer prompts of the same seed are the first of more.
    seed : int
        Seed of the draw, at least 0 and below 2**63.
    template : str
        Where the name goes, such as ``"a photo of: {}"``.

    Returns
    -------
    tuple of str

    Raises
    ------
    SpecError
        ``n`` or ``seed`` is out of range, or the template has no place for the name.

    Examples
    --------
    >>> imagenet(3)
    ('ear', 'beagle', 'motor scooter')
    >>> imagenet(2, seed=1, template="a photo of: {}")
    ('a photo of: airliner', 'a photo of: carousel')
    """
    classes = imagenet_classes()
    count = _integer("n", n, 1, len(classes))
    seed = _integer("seed", seed, 0, 2**63 - 1)
    if not isinstance(template, str) or "{}" not in template:
        raise SpecError(f"The template {template!r} has no place for the class name; write {{}} where it goes.")
    # Raw Philox output is the same on every platform and in every NumPy, which permutation() does not promise.
    order = np.argsort(np.random.Philox(key=[seed, 0]).random_raw(len(classes)), kind="stable")
    return tuple(template.replace("{}", classes[index]) for index in order[:count])


def _integer(name: str, value: Any, least: int, most: int) -> int:
    """Check an argument of a draw; booleans are not counts."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if not least <= number <= most:
        raise SpecError(f"imagenet() got {name}={value!r}; it takes an integer from {least} to {most}.")
    return number
