"""Donors: values of the edited place, or what it is made of, that a fill puts in place or mixes in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from causalunet.calls import clear_calls
from causalunet.design.limits import (
    LARGEST,
    MOST_SAMPLES,
    MOST_STEPS,
    check_text,
    checked_integer,
    is_integer,
    plain_number,
    shown,
)
from causalunet.dims import CHANNEL, ROW, X, Y
from causalunet.errors import PromptError, SpecError
from causalunet.prompts import NoPrompt

__all__ = [
    "Donor",
    "FillContext",
    "OfAnother",
    "OfBaseline",
    "OfMean",
    "OfOthers",
    "OwnBefore",
    "OwnInput",
    "RunOf",
    "named_seed",
]

MOST_DONORS = 10_000
"""Runs of a mean."""


class RunOf(NamedTuple):
    """Which run without intervention stands beside each sample: its own, but for what is said.

    Attributes
    ----------
    prompt : str, optional
        Of that run.
    seed : int, optional
        Likewise: it begins with the noise of that seed.
    sample : int, optional
        It is the run of the study's sample of this number.
    after : int, optional
        It is the run of the sample that comes next in the study's samples, in an order that this seed gives.
    prompt_of : tuple of int, optional
        A seed and a number: of the study's prompts in an order that the seed gives, that one, counted on from the
        first again after the last.
    """

    prompt: str | None = None
    seed: int | None = None
    sample: int | None = None
    after: int | None = None
    prompt_of: tuple[int, int] | None = None


@clear_calls
@dataclass(frozen=True, slots=True)
class OwnBefore:
    """The run's own value at the last step before the window that is called: of a window of steps 50 ... 46, step 51's.

    Of a step of several U-Net calls it is the value of the first, which looks at the state itself; it is put in place
    in all calls of the window's steps.

    Parameters
    ----------
    back : int
        How many such steps further back: 1 is the one before the last. Steps that are skipped do not count, nor do
        those that lie in another window of the same edit. Where the run has had no more, it is the earliest.
    """

    back: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "back", checked_integer("OwnBefore", "back", self.back, most=MOST_STEPS))


@clear_calls
@dataclass(frozen=True, slots=True)
class OfBaseline:
    """The value in a run without intervention, at the same step or at one before it.

    Of a step of several U-Net calls it is the value of the first, which looks at the state itself; it is put in place
    in all calls of that step.

    Parameters
    ----------
    prompt : str, optional
        Of that run; by default each sample's own.
    seed : int, optional
        Likewise.
    sample : int, optional
        Instead of these: the run of the study's sample of this number, counted from 0 along ``study.samples``.
    step : int, optional
        Step of that run; by default that of the call. It cannot be one that comes after it.
    """

    prompt: str | None = None
    seed: int | None = None
    sample: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        prompt, seed = self.prompt, plain_number(self.seed)
        object.__setattr__(self, "seed", seed)
        if seed is not None and (not is_integer(seed) or not 0 <= seed <= LARGEST):
            raise SpecError(f"seed={shown(self.seed)} is no seed of a run; give an integer of at least 0, below 2**63.")
        for name, least, most in (("sample", 0, MOST_SAMPLES - 1), ("step", 1, MOST_STEPS)):
            if getattr(self, name) is not None:
                value = checked_integer("A donor", name, getattr(self, name), least=least, most=most)
                object.__setattr__(self, name, value)
        if self.sample is not None and (prompt, seed) != (None, None):
            raise SpecError(
                f"A donor got sample={self.sample} and a prompt or seed; a sample of the study has both. Leave one out."
            )
        if prompt is None:
            return
        if not isinstance(prompt, str) or isinstance(prompt, NoPrompt) or not prompt.strip():
            raise PromptError(
                f"prompt={shown(prompt)} is no prompt of a run; give words, or None for each sample's own prompt."
            )
        check_text("A donor", "prompt", prompt, kind=PromptError)

    @property
    def runs(self) -> tuple[RunOf, ...]:
        """The one run."""
        return (RunOf(self.prompt, self.seed, self.sample),)


@clear_calls
@dataclass(frozen=True, slots=True)
class OfAnother:
    """The value at the same step in the run of another sample of the study, without intervention.

    Samples stand in an order that depends on the seed and on what each of them is, and each takes the value of the
    next, the last that of the first: a permutation without fixed points. Which sample stands where in the study, and
    which go through the U-Net together, plays no part.

    Parameters
    ----------
    seed : int
        Of the order.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_integer("OfAnother", "seed", self.seed))

    @property
    def runs(self) -> tuple[RunOf, ...]:
        """The one run."""
        return (RunOf(after=self.seed),)

    @property
    def step(self) -> int | None:
        """That of the call."""
        return None


@clear_calls
@dataclass(frozen=True, slots=True)
class OfMean:
    """The mean of the values at the same step over some runs without intervention.

    Parameters
    ----------
    n : int
        Of so many runs, none of which is a sample's own. The k-th begins with noise whose seed is made of ``seed`` and
        k alone.
    seed : int
        Another one takes other runs.
    prompts : {"same"}, optional
        Runs of each sample's own prompt. By default the k-th run is of the k-th prompt of the study, in an order that
        depends on the seed and on the words, and after the last of the first again: every sample has the same mean.
    """

    n: int = 8
    seed: int = 0
    prompts: Literal["same"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", checked_integer("A mean over runs", "n", self.n, least=1, most=MOST_DONORS))
        object.__setattr__(self, "seed", checked_integer("A mean over runs", "seed", self.seed))
        if self.prompts is not None and (not isinstance(self.prompts, str) or self.prompts != "same"):
            raise SpecError(
                f"A mean over runs got prompts={shown(self.prompts)}; it is 'same', of each sample's own prompt, or "
                "None, of the study's prompts in turn."
            )

    @property
    def runs(self) -> tuple[RunOf, ...]:
        """Every run, in an order that does not change."""
        return tuple(
            RunOf(seed=named_seed(self.seed, number), prompt_of=None if self.prompts else (self.seed, number))
            for number in range(self.n)
        )

    @property
    def step(self) -> int | None:
        """That of the call."""
        return None


def named_seed(seed: int, number: int) -> int:
    """A seed of noise that a seed and a number name: the first 63 bits of a SHA-256."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8]) >> 1


@clear_calls
@dataclass(frozen=True, slots=True)
class OwnInput:
    """What the component is given in the same call, of the shape of what it puts out, see ``Component.input``.

    A skip connection has none, nor has a component whose input and output have two shapes.
    """


OfOthers = OfBaseline | OfAnother | OfMean
"""Donors that are runs without intervention."""

Donor = OwnBefore | OfOthers | OwnInput
"""Where a fill takes a value from."""


@clear_calls
@dataclass(frozen=True, slots=True)
class FillContext:
    """Where in a run a fill is put in place.

    Attributes
    ----------
    step : int
        T ... 1.
    timestep : Tensor, (row,)
        Training timestep that the U-Net is told.
    time : Tensor, (row,)
        The same as a share of the training schedule, 0 ... 1.
    donors : tuple of Tensor, (row, channel, y, x)
        One for each of the fill's ``donors``, of the shape and dtype of the value. Others hold them: they are never
        written into.
    dims : tuple of str
        Names of the dimensions of the value, rows first.
    donor_times : tuple of float
        Of each donor, when it was computed: what the U-Net was told, as ``time`` is. Of the component's input it is not
        a number.
    """

    step: int
    timestep: Any
    time: Any
    donors: tuple[Any, ...] = ()
    dims: tuple[str, ...] = (ROW, CHANNEL, Y, X)
    donor_times: tuple[float, ...] = ()
