"""Where donors come from: runs made for their values, calls made again, and how long values are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from causalunet.design.donors import RunOf
from causalunet.programs import Action, Origin, Program, Span, leaves_baseline
from causalunet.tree import BASELINE, RunId, StateId

__all__ = ["Kept", "Sources", "begins_from", "kept_values", "most_kept", "sources_of"]


@dataclass(frozen=True)
class Sources:
    """What the runs of a plan need of others.

    Parameters
    ----------
    runs : mapping of RunOf to RunId
        Which run each one without intervention is that values are taken from: `BASELINE`, or a number below it of a run
        that is made for nothing else.
    lowest : mapping of RunId to int
        Step of the last call of every such run.
    replay : frozenset of int
        Steps at which the baseline's call is made again, since the runs begin from its stored states.
    """

    runs: Mapping[RunOf, RunId] = field(default_factory=dict)
    lowest: Mapping[RunId, int] = field(default_factory=dict)
    replay: frozenset[int] = frozenset()

    def programs(self, steps: int) -> dict[RunId, Program]:
        """What the runs do that are made for their values."""
        return {run: (Span(steps, lowest, Action()),) for run, lowest in self.lowest.items()}

    def others(self) -> list[RunOf]:
        """The runs that are made for their values, `BASELINE` - 1 first."""
        made = {run: other for other, run in self.runs.items() if run != BASELINE}
        return [made[run] for run in sorted(made, reverse=True)]


def sources_of(programs: Mapping[RunId, Program], *, forked: bool) -> Sources:
    """Find what runs need of others.

    Parameters
    ----------
    programs : mapping
    forked : bool
        The runs begin where they first differ from the baseline, from its stored states.
    """
    runs: dict[RunOf, RunId] = {}
    lowest: dict[RunId, int] = {}
    replay: set[int] = set()
    for program in programs.values():
        for span, origin in _origins(program):
            if origin.own and forked and origin.step > leaves_baseline(program):
                replay.add(origin.step)
            for other in origin.runs:
                if other == RunOf() and (forked or BASELINE in programs):
                    runs[other] = BASELINE
                    replay.update(_steps(span, origin) if forked else ())
                else:
                    made = runs.setdefault(other, RunId(BASELINE - 1 - len(lowest)))
                    last = origin.step or span.stop
                    lowest[made] = min(last, lowest.get(made, last))
    return Sources(runs, lowest, frozenset(replay))


def begins_from(source: int, steps: int) -> StateId:
    """Number of the state that a run begins from which is made for its values: below those of stored states.

    Parameters
    ----------
    source : int
        1 for the first such run.
    steps : int
        Of the study's runs.
    """
    return StateId(-steps - source)


class Kept(NamedTuple):
    """A value that is kept for later calls: of which run, step and place; of several runs, their mean."""

    runs: tuple[RunId, ...]
    step: int
    place: str


def kept_values(programs: Mapping[RunId, Program], sources: Sources) -> dict[Kept, int]:
    """Values that are kept, each with the step of the last call that needs it."""
    last: dict[Kept, int] = {}
    for run, program in programs.items():
        for span in program:
            for placed in span.action.every_fill:
                for origin in placed.donors:
                    runs = (run,) if origin.own else tuple(sources.runs[other] for other in origin.runs)
                    for step in _steps(span, origin):
                        kept, until = Kept(runs, step, placed.site.component), span.stop if origin.step else step
                        last[kept] = min(until, last.get(kept, until))
    return last


def _steps(span: Span, origin: Origin) -> Sequence[int]:
    """Steps of which values are taken in a span."""
    return (origin.step,) if origin.step else range(span.start, span.stop - 1, -1)


def most_kept(last: Mapping[Kept, int], sizes: Mapping[str, int]) -> int:
    """The most that is kept at one step, in the unit of the sizes, which are given by place."""
    changes: dict[int, int] = defaultdict(int)
    for kept, step in last.items():
        changes[kept.step] += sizes[kept.place]
        changes[step - 1] -= sizes[kept.place]
    most = now = 0
    for step in sorted(changes, reverse=True):
        now += changes[step]
        most = max(most, now)
    return most


def _origins(program: Program) -> Iterator[tuple[Span, Origin]]:
    return ((span, origin) for span in program for placed in span.action.every_fill for origin in placed.donors)
