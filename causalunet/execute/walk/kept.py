"""Values that some calls leave for others: kept until the last call that takes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from causalunet.execute.call.visits import CallContext
from causalunet.plan import Action, Call, Plan
from causalunet.programs import Origin
from causalunet.sources import Kept
from causalunet.tree import RunId

__all__ = ["KeptValues", "Piece"]


class Piece(NamedTuple):
    """Samples of a call that go through the U-Net in some rows of a batch."""

    call: Call
    of_call: slice
    of_batch: slice


_Value = tuple[Tensor, ...]
"""A value for every sample of a block, (sample, channel, y, x), in each branch of the guidance."""


class KeptValues:
    """What is kept of one block.

    A value is noted for every run that needs it and shares the call, so that it is found by the run that takes it, and
    is stored once.

    Parameters
    ----------
    plan : Plan
    samples : int
        In the block.
    timesteps : int
        Length of the training schedule.
    """

    def __init__(self, plan: Plan, samples: int, timesteps: int) -> None:
        self._samples, self._timesteps = samples, timesteps
        self._run_of, self._branches = plan.sources.runs, plan.spec.sampler.rows_per_sample
        # Whole values in every branch, whatever view and branch of them an edit takes: those are laid over them then.
        self._wanted: dict[tuple[RunId, int], list[str]] = defaultdict(list)
        self._until: dict[int, list[Kept]] = defaultdict(list)
        for kept, last in plan.kept.items():
            self._wanted[kept.run, kept.step].append(kept.place)
            self._until[last].append(kept)
        self._values: dict[Kept, _Value] = {}

    def places(self, call: Call) -> tuple[str, ...]:
        """Places whose value is kept of a call."""
        if not self._wanted:
            return ()
        wanted = (place for run in call.runs for place in self._wanted.get((run, call.step), ()))
        return tuple(dict.fromkeys(wanted))

    def note(self, piece: Piece, values: Mapping[str, Tensor], cond_rows: int) -> None:
        """Keep what a batch gave of some samples of a call, rows branch by branch."""
        call, of_call, of_batch = piece
        for place in self.places(call):
            value = values[place]
            # Runs that share this call may part before they take the value: each finds the tensor by its own number.
            keys = [Kept(run, call.step, place) for run in call.runs if place in self._wanted[run, call.step]]
            if keys[0] not in self._values:  # batches bring the samples of a call piece by piece, in any sizes
                blank = [value.new_empty(self._samples, *value.shape[1:]) for _ in range(self._branches)]
                self._values |= dict.fromkeys(keys, tuple(blank))
            for branch, kept in enumerate(self._values[keys[0]]):
                first = branch * cond_rows
                kept[of_call] = value[first + of_batch.start : first + of_batch.stop]

    def context(self, action: Action, pieces: Sequence[Piece]) -> CallContext:
        """What the fills of a call under an action are told and given, with the rows of its batch."""
        step = pieces[0].call.step
        needed = {(placed.site.component, origin) for placed in action.fills for origin in placed.donors}
        donors = {(place, origin): self._rows(place, origin, pieces) for place, origin in needed}
        return CallContext(step, self._timesteps, donors)

    def drop(self, step: int) -> None:
        """Forget what no call below a step takes."""
        # After the step, not after the call: other calls of the same step, of runs that have parted, may take it too.
        for kept in self._until.pop(step, ()):
            del self._values[kept]

    def _rows(self, place: str, origin: Origin, pieces: Sequence[Piece]) -> Tensor:
        found: list[tuple[_Value, slice]] = []
        for call, of_call, _ in pieces:
            step = origin.step if origin.own else call.step
            # Any run of the call does: with one state and one action they had the same call at the donor's step.
            run = call.runs[0] if origin.own else self._run_of[origin]
            found.append((self._values[Kept(run, step, place)], of_call))
        # Rows of a batch are branch by branch, and within a branch piece by piece.
        return torch.cat([value[branch][of_call] for branch in range(self._branches) for value, of_call in found])
