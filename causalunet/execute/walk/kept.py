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
    is stored once. Of a mean over runs the sum is kept, whatever their number.

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
        self._wanted: dict[tuple[RunId, int], list[Kept]] = defaultdict(list)
        self._until: dict[int, list[Kept]] = defaultdict(list)
        for kept, last in plan.kept.items():
            for run in kept.runs:
                self._wanted[run, kept.step].append(kept)
            self._until[last].append(kept)
        self._values: dict[Kept, _Value] = {}
        self._levels = plan.schedule.level

    def places(self, call: Call) -> tuple[str, ...]:
        """Places whose value is kept of a call."""
        if not self._wanted:
            return ()
        return tuple(dict.fromkeys(kept.place for run in call.runs for kept in self._wanted.get((run, call.step), ())))

    def note(self, piece: Piece, values: Mapping[str, Tensor], cond_rows: int) -> None:
        """Keep what a batch gave of some samples of a call, rows branch by branch."""
        call, of_call, of_batch = piece
        wanted = [kept for run in call.runs for kept in self._wanted.get((run, call.step), ())]
        for place in self.places(call):
            value = values[place]
            there = [kept for kept in wanted if kept.place == place]
            # Runs that share this call may part before they take the value: each finds the tensor by its own number.
            alone = [kept for kept in there if len(kept.runs) == 1]
            means = [[kept] for kept in there if len(kept.runs) > 1]
            for keys in (alone, *means) if alone else means:
                if keys[0] not in self._values:  # batches bring the samples of a call piece by piece, in any sizes
                    self._values |= dict.fromkeys(keys, self._blank(value, summed=len(keys[0].runs) > 1))
                for branch, kept in enumerate(self._values[keys[0]]):
                    first = branch * cond_rows
                    came = value[first + of_batch.start : first + of_batch.stop]
                    kept[of_call] = came if len(keys[0].runs) == 1 else kept[of_call] + came

    def _blank(self, value: Tensor, *, summed: bool) -> _Value:
        # A sum over many runs in half precision would lose the last of them.
        dtype = torch.promote_types(value.dtype, torch.float32) if summed else value.dtype
        return tuple(value.new_zeros(self._samples, *value.shape[1:], dtype=dtype) for _ in range(self._branches))

    def context(self, action: Action, pieces: Sequence[Piece]) -> CallContext:
        """What the fills of a call under an action are told and given, with the rows of its batch."""
        step = pieces[0].call.step
        needed = {(placed.site.component, origin) for placed in action.fills for origin in placed.donors}
        donors = {(place, origin): self._rows(place, origin, pieces) for place, origin in needed}
        times = {origin: self._levels(origin.step or step).timestep for _, origin in needed}
        return CallContext(step, self._timesteps, donors, times)

    def drop(self, step: int) -> None:
        """Forget what no call below a step takes."""
        # After the step, not after the call: other calls of the same step, of runs that have parted, may take it too.
        for kept in self._until.pop(step, ()):
            del self._values[kept]

    def _rows(self, place: str, origin: Origin, pieces: Sequence[Piece]) -> Tensor:
        found: list[tuple[_Value, slice]] = []
        for call, of_call, _ in pieces:
            # Any run of the call does: with one state and one action they had the same call at the donor's step.
            runs = (call.runs[0],) if origin.own else tuple(self._run_of[other] for other in origin.runs)
            found.append((self._values[Kept(runs, origin.step or call.step, place)], of_call))
        # Rows of a batch are branch by branch, and within a branch piece by piece.
        rows = torch.cat([value[branch][of_call] for branch in range(self._branches) for value, of_call in found])
        return rows if len(origin.runs) < 2 else rows / len(origin.runs)
