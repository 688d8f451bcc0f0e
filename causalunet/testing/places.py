"""Every place of a U-Net under edits, traced as in a study: what changes, what must not, and in which rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from causalunet.design import views
from causalunet.design.fills import Bypass, Fill, Identity, Zero
from causalunet.design.site import Site
from causalunet.design.views import Branch
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.call.visits import CallContext
from causalunet.models.base import DiffusionModel
from causalunet.models.rounding import rounding
from causalunet.plan import Action, PlacedFill
from causalunet.testing.rows import Half, Rows, difference

__all__ = ["Places"]

_MOST_NAMED = 4
_NOTHING = 1e-6
"""Of the largest number: what putting a value back may change."""


@dataclass(frozen=True, slots=True)
class _Other(Fill):
    """The value with random numbers of its own size added, in all rows or in one. It has no name: no study uses it."""

    row: int | None = None

    def apply(self, value: Any) -> Any:
        """Other numbers."""
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
        size = float(value.float().square().mean().sqrt())
        other = value + noise * (size or 1.0)
        if self.row is None:
            return other
        kept = value.clone()
        kept[self.row] = other[self.row]
        return kept


class Places:
    """A model's places, to be edited.

    Parameters
    ----------
    model : DiffusionModel
    rows : Rows
        What its U-Net is called with.
    plain : Tensor
        What a plain call gives.
    """

    def __init__(self, model: DiffusionModel, rows: Rows, plain: Tensor) -> None:
        self._anatomy, self._rows, self._plain = model.anatomy, rows, plain
        self._unet = TracedUNet(model.unet, model.anatomy)
        self._rounding = rounding(model.unet, plain)
        self._usual = plain
        self._floor = 0.0

    def traced(self) -> Iterator[str]:
        """Two untouched calls that are traced: as plain ones; what they differ by is the noise floor."""
        self._usual, again = (self._call(Action()) for _ in range(2))
        self._floor = difference(self._usual, again)
        off = difference(self._usual, self._plain)
        if off > self._rounding:
            yield (
                f"traced by nnsight the U-Net gives something else, by {off:.2g}, without any edit. Its forward may "
                "not depend on how its modules are called: no compiled modules, no hooks that count."
            )

    def null(self, places: Sequence[str]) -> Iterator[str]:
        """Values taken out and put back, at all places at once."""
        limit = max(2 * self._floor, _NOTHING * float(self._plain.abs().max()))
        branches: tuple[Branch, ...] = ("both", "cond", "uncond") if self._rows.guided else ("both",)
        for branch in branches:
            off = self._off(branch, places)
            if off <= limit:
                continue
            alone = [place for place in places if self._off(branch, [place]) > limit]
            yield (
                f"{_named(alone or places)}: taking the value out and putting the same back (branch {branch!r}) "
                f"changes the output by {off:.2g}. Something else holds the tensor that the module put out, and it is "
                "changed in place afterwards: let forward go on with what the module returned, and make new tensors."
            )
            return

    def dead(self, places: Sequence[str]) -> Iterator[str]:
        """Zeros, or the component's input, in every place, with and without running what feeds nothing else."""
        wrong: list[str] = []
        ended: dict[str, list[str]] = {}
        tried: list[tuple[str, Fill]] = [(place, Zero()) for place in places]
        tried += [(place, Bypass()) for place in places if place in self._anatomy.passable]
        for place, fill in tried:
            dead = self._anatomy.dead({place}, {place} if fill.takes_input else ())
            if not dead:
                continue
            fills = frozenset([PlacedFill(Site(place), fill)])
            try:
                off = difference(self._call(Action(fills, dead)), self._call(Action(fills)))
            except Exception as error:  # whatever a foreign forward makes of what stands in for a block
                ended.setdefault(_told(error), []).append(place)
                continue
            if off > self._rounding:
                wrong.append(place)
        for told, named in ended.items():
            yield (
                f"{_named(named)}: cut, and with what is dead then not run, the U-Net ends in {told}. What is dead "
                "puts out a stand-in of no rows: let all that changes a tensor's size happen inside blocks."
            )
        if wrong:
            yield (
                f"{_named(wrong)}: cut, the output differs by whether what the anatomy calls dead is run. It is used "
                "somewhere that no edge tells: add that edge."
            )

    def reach(self, places: Sequence[str]) -> Iterator[str]:
        """Other numbers in every place: the output moves, in the rows that were declared only."""
        still: dict[Half, list[str]] = {}
        moved: dict[tuple[Half, tuple[int, ...]], list[str]] = {}
        ended: dict[str, list[str]] = {}
        for place in places:
            for half in self._rows.halves:
                try:
                    rows = self._rows_that_move(place, half)
                except Exception as error:  # whatever a foreign forward makes of other numbers
                    ended.setdefault(_told(error), []).append(place)
                    break
                if elsewhere := tuple(row for row in rows if row not in half.rows):
                    moved.setdefault((half, elsewhere), []).append(place)
                elif rows != half.rows:
                    still.setdefault(half, []).append(place)
        for told, named in ended.items():
            yield f"{_named(named)}: with other numbers there the U-Net ends in {told}."
        yield from self._unmoved(still, places)
        for (half, elsewhere), named in moved.items():
            yield (
                f"{_named(named)}: other numbers in {half.name} change the output in rows "
                f"{', '.join(map(str, elsewhere))}. An edit of one branch would be one of another: let every row keep "
                "its place in the batch, conditional rows first, and let rows not mix."
            )

    def _unmoved(self, still: dict[Half, list[str]], places: Sequence[str]) -> Iterator[str]:
        if all(still.get(half) == list(places) for half in self._rows.halves):
            yield (
                "no place reaches the output: other numbers anywhere leave it as it is. Is the last layer still zero, "
                "as before training? Load weights."
            )
            return
        by_places: dict[tuple[str, ...], list[str]] = {}
        # Attention to nothing but equal values, as of an empty prompt, owes nothing to its queries there.
        nowhere = {place for place in places if all(place in still.get(half, ()) for half in self._rows.halves)}
        for half, named in still.items():
            told = [place for place in named if place in nowhere or place not in self._anatomy.inner_by_name]
            if told:
                by_places.setdefault(tuple(told), []).append(half.name)
        for named_, halves in by_places.items():
            yield (
                f"{_named(named_)}: other numbers in {' as in '.join(halves)} leave the output there as it is. What is "
                "edited there is not used: it is dropped, overwritten in place, or taken from elsewhere. Let forward "
                "go on with what the module returned, or leave the component out of the anatomy."
            )

    def _rows_that_move(self, place: str, half: Half) -> tuple[int, ...]:
        fills = frozenset([PlacedFill(Site(place) @ views.Rows(half.branch), _Other(half.only))])
        output = self._call(Action(fills))
        off = [difference(one, other) for one, other in zip(output, self._usual, strict=True)]
        declared = [row for row in half.rows if off[row] > 2 * self._floor]
        return tuple(sorted({*declared, *(row for row, by in enumerate(off) if by > self._rounding)}))

    def _off(self, branch: Branch, places: Sequence[str]) -> float:
        fills = frozenset(PlacedFill(Site(place) @ views.Rows(branch), Identity()) for place in places)
        return difference(self._call(Action(fills)), self._usual)

    def _call(self, action: Action) -> Tensor:
        context = CallContext(1, 1)  # fills that take what a component is given do not ask where they are
        return self._unet(action, self._rows.fresh(), self._rows.cond_rows, context=context).output.float()


def _named(places: Sequence[str]) -> str:
    more = len(places) - _MOST_NAMED
    return ", ".join(places[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
