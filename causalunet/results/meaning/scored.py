"""Between an outcome and what a store says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from causalunet.design.limits import shown
from causalunet.design.outcomes import OUTCOMES, Outcome
from causalunet.design.outcomes.dims import brought_by
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import PluginError
from causalunet.results.meaning.declaration import OUTCOMES as GROUP
from causalunet.results.meaning.declaration import DeclaredOutcome
from causalunet.results.meaning.schema import Variable

__all__ = ["KnownOutcome", "declared_outcome", "known_outcome"]


class KnownOutcome(NamedTuple):
    """An outcome, and what the store says of it."""

    outcome: Outcome
    declared: DeclaredOutcome


def declared_outcome(
    outcome: Outcome, image_shape: tuple[int, ...], factors: Mapping[str, Sequence[str]]
) -> DeclaredOutcome:
    """What a store is to say of an outcome.

    Parameters
    ----------
    outcome : Outcome
    image_shape : tuple of int
        (channel, y, x)
    factors : mapping of str to sequence of str
        Values of every factor that the model reads.

    Raises
    ------
    SpecError
        It has variables along a dimension that nothing brings.
    """
    variables = tuple(
        Variable(
            group=GROUP,
            name=one.name,
            dims=(INTERVENTION, SAMPLE, *one.dims),
            dtype=one.dtype,
            meaning=one.meaning,
            units=one.units,
            range=one.limits,
            better=one.better,
            infinite=outcome.infinite,
            outcome=outcome.variable,
        )
        for one in outcome.variables
    )
    return DeclaredOutcome(
        name=outcome.variable,
        variables=variables,
        definition=outcome.definition,
        digest=outcome.digest,
        written=outcome.to_json(),
        brings=tuple(brought_by([outcome], image_shape, factors).values()),
    )


def known_outcome(declared: DeclaredOutcome) -> Outcome:
    """The outcome that a store says was measured, as it is defined in this process.

    Raises
    ------
    PluginError
        There is none, or it is not the same.
    """
    told = f"the outcome {shown(declared.name)}"
    if declared.written.get("name") not in OUTCOMES:
        raise PluginError(told)
    try:
        outcome = Outcome.from_json(declared.written)
        digest = outcome.digest
    except Exception as error:  # whatever a class of somebody else's raises; a missing file of weights too
        raise PluginError(f"{told} ({type(error).__name__}: {error!s:.300})") from error
    if digest != declared.digest:
        raise PluginError(f"{told} as it is defined here (its digest is {digest}, and was {declared.digest})")
    return outcome
