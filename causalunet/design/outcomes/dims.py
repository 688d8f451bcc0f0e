"""Dimensions that outcomes bring: several numbers of one image, such as one for each colour channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from causalunet.design.limits import COORDINATE_NAME, shown
from causalunet.dims import CHANNEL, DIMS, FACTOR, LATENTS, STEP, X, Y
from causalunet.errors import SpecError

if TYPE_CHECKING:
    from causalunet.design.outcomes.base import Outcome

__all__ = ["MOST_LABELS", "OutcomeDim", "brought_by", "sizes_along"]

MOST_LABELS = 1_000
"""Of a dimension that an outcome brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeDim:
    """A dimension that an outcome brings, with a name for each of its entries.

    Parameters
    ----------
    name : str
        Such as "colour". Outcomes may share one, with the same labels.
    labels : tuple of str
        Of the entries, in their order; results are selected by them.
    meaning : str
        Of the dimension, in a few words.
    """

    name: str
    labels: tuple[str, ...]
    meaning: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not COORDINATE_NAME.fullmatch(self.name):
            raise SpecError(f"OutcomeDim got name={shown(self.name)}; take letters, digits and underscores.")
        if self.name in {*DIMS, *LATENTS} and self.name != FACTOR:
            raise SpecError(
                f"OutcomeDim got name={self.name!r}, a dimension that stores have: variables may lie along it, and it "
                "need not be brought."
            )
        labels = tuple(self.labels) if isinstance(self.labels, Sequence) and not isinstance(self.labels, str) else ()
        if not 0 < len({*map(str, labels)}) == len(labels) <= MOST_LABELS or not all(
            isinstance(label, str) for label in labels
        ):
            raise SpecError(
                f"OutcomeDim got labels={shown(self.labels)} for {self.name!r}; give a text for each entry, each once, "
                f"at most {MOST_LABELS:,}."
            )
        object.__setattr__(self, "labels", labels)


def brought_by(
    outcomes: Iterable[Outcome], image_shape: tuple[int, ...], factors: Mapping[str, Sequence[str]]
) -> dict[str, OutcomeDim]:
    """Every dimension that outcomes bring, by name.

    Parameters
    ----------
    outcomes : iterable of Outcome
    image_shape : tuple of int
        (channel, y, x)
    factors : mapping of str to sequence of str
        Values of every factor that the model reads; empty for models without a reader.

    Raises
    ------
    SpecError
        Two bring one dimension with other labels, or an outcome has variables along one that nothing brings.
    """
    found: dict[str, OutcomeDim] = {}
    for outcome in outcomes:
        for one in _asked(outcome, image_shape, factors):
            known = found.setdefault(one.name, one)
            if known.labels != one.labels:
                raise SpecError(
                    f"The outcome {outcome.name!r} brings the dimension {one.name!r} with the labels "
                    f"{shown(one.labels)}, and another outcome with {shown(known.labels)}. Give it a name of its own."
                )
        known_dims = {*DIMS, *found} - ({FACTOR} - {*found})
        if lacking := [dim for one in outcome.variables for dim in one.dims if dim not in known_dims]:
            raise SpecError(
                f"The outcome {outcome.name!r} has variables along {lacking[0]!r}, which no store has. Let brings() "
                "give it with its labels, or leave it out."
            )
    return found


def _asked(
    outcome: Outcome, image_shape: tuple[int, ...], factors: Mapping[str, Sequence[str]]
) -> tuple[OutcomeDim, ...]:
    try:
        brought = tuple(outcome.brings(image_shape, factors))
    except (SpecError, MemoryError):
        raise
    except Exception as error:  # of a class of somebody else's
        raise SpecError(
            f"The outcome {outcome.name!r} cannot say what dimensions it brings: brings() ended in "
            f"{type(error).__name__}: {error!s:.200}."
        ) from error
    if strange := [one for one in brought if not isinstance(one, OutcomeDim)]:
        raise SpecError(f"The outcome {outcome.name!r} brings {shown(strange[0])}; brings() gives OutcomeDims.")
    return brought


def sizes_along(brought: Iterable[OutcomeDim], image_shape: tuple[int, ...], steps: int) -> dict[str, int]:
    """Length of every dimension that variables of outcomes can have beyond intervention and sample."""
    known = dict(zip((CHANNEL, Y, X), image_shape, strict=True)) | {STEP: steps}
    return known | {one.name: len(one.labels) for one in brought}
