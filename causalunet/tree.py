"""The tree of runs: what every run does by itself, and which U-Net calls are shared while runs are still equal.

A run does one thing for many steps, and most runs do what another does for many steps too. So nothing here is listed
step by step: a run's program is a few `Span`, the tree is a few `Stretch` for every run, and single calls are made of
them only where they are run. Planning takes work in proportion to runs and stretches, not to their steps.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NewType

from causalunet.programs import Action, Program

__all__ = [
    "BASELINE",
    "Call",
    "Fork",
    "RunId",
    "StateId",
    "Stretch",
    "calls_of",
    "grow",
    "run_ids",
    "widths_of",
]

RunId = NewType("RunId", int)
"""Which run: interventions count from 0, `BASELINE` is -1, and below it are runs that are made for their values."""

StateId = NewType("StateId", int)
"""Which state of a plan: 0 is the initial noise, -s the baseline's stored x_s, above 0 are those that calls draw, and
below -T are those that runs made for their values begin with."""

BASELINE = RunId(-1)
"""Index of the run without intervention; interventions count from 0."""


def run_ids(numbers: Iterable[int]) -> list[RunId]:
    """Runs that were asked for by number, ascending, each once."""
    return [RunId(number) for number in sorted(set(numbers))]


class Fork(NamedTuple):
    """Where runs go after a shared call.

    Attributes
    ----------
    target : int
        Step whose x is drawn; ``step - 1`` unless the runs jump. 0 is the image.
    state : StateId
        Number of the state drawn.
    runs : tuple of RunId
        Interventions (or ``BASELINE``, -1) that go there.
    calls : int
        U-Net calls of the step on the way there: the shared one, and those that some samplers make after it, which look
        where it goes.
    later : tuple of Action
        What is done to these, see ``Action``.
    """

    target: int
    state: StateId
    runs: tuple[RunId, ...]
    calls: int = 1
    later: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One U-Net call per sample, shared by all runs that are still equal, and what follows it within the step.

    Some samplers call the U-Net several times a step. Where these further calls look depends on where the step goes, so
    they belong to its forks; the edits of the action are made in each of them, unless the fork says what is.

    Parameters
    ----------
    step : int
    action : Action
    state : int
        Number of the state x_t that goes in; 0 is the initial noise.
    forks : tuple of Fork
    replays : tuple of int
        Runs whose call is made again from a stored state, to look at it; they go nowhere from here. Beside the baseline
        these are the runs that differ from it only later. A run that is made for its values ends with such a call.
    """

    step: int
    action: Action
    state: StateId
    forks: tuple[Fork, ...]
    replays: tuple[RunId, ...] = ()

    @property
    def runs(self) -> tuple[RunId, ...]:
        """Every run that this call serves."""
        return (*self.replays, *(run for fork in self.forks for run in fork.runs))

    @property
    def source(self) -> int:
        """0 for calls of the samples themselves; others, from 1 on, have prompts or seeds of their own."""
        return max(0, BASELINE - self.runs[0])

    @property
    def unet_calls(self) -> int:
        """U-Net calls per sample: the shared one and the further ones of every fork."""
        return 1 + sum(fork.calls - 1 for fork in self.forks)

    def at(self, fork: Fork, stage: int) -> Action:
        """What is done to one call of the step on the way of a fork, counted from 0."""
        return replace(self.action, later=fork.later).at(stage) if fork.later else self.action

    @property
    def actions(self) -> list[Action]:
        """What is done to every U-Net call: the shared one, then the further ones of each fork."""
        return [self.action, *(self.at(fork, stage) for fork in self.forks for stage in range(1, fork.calls))]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps ``start`` to ``stop`` of runs that do the same for as long: each but the last leads to the next.

    Parameters
    ----------
    start, stop : int
    action : Action
    state : int
        What the first call starts from: 0 is the initial noise, below 0 are stored states, above are those that some
        stretch ends in. Only these have numbers here; within a stretch there is one for every call.
    runs : tuple of int
        Ascending; none where a call is only replayed.
    ends : tuple of Fork
        Where the runs go after the last call.
    replays : tuple of int
        Of the first call, as for `Call`.
    """

    start: int
    stop: int
    action: Action
    state: StateId
    runs: tuple[RunId, ...]
    ends: tuple[Fork, ...]
    replays: tuple[RunId, ...] = ()

    def __len__(self) -> int:
        return self.start - self.stop + 1


def grow(
    programs: Mapping[RunId, Program],
    starts: Mapping[RunId, tuple[int, StateId]],
    group_of: Callable[[RunId, int], int],
    replay: Collection[int] = (),
) -> Iterator[Stretch]:
    """Merge equal prefixes: runs with the same state and action share a call; with the same target also the draw.

    Parameters
    ----------
    programs : mapping
        By run, ascending.
    starts : mapping
        Step and state at which each run begins; a span of its program begins there.
    group_of : callable
        Group of a run at a step: groups go through a block one after another, and share no call.
    replay : collection of int
        Steps at which the baseline's call is made again from the state with the number ``-step``.
    """
    # Runs wait at the step that they go to, in the state that they come with; those that wait in one state are still
    # equal. A state is written by one stretch, so equal numbers mean equal histories, whatever was done on the way.
    place = {
        run: next(index for index, span in enumerate(programs[run]) if span.start <= starts[run][0]) for run in programs
    }
    waiting: dict[int, dict[StateId, list[RunId]]] = defaultdict(dict)
    for run, (step, state) in starts.items():
        waiting[step].setdefault(state, []).append(run)
    drawn = StateId(0)
    for step in range(max((*replay, *waiting), default=0), 0, -1):
        looked_at = step in replay
        for state, runs in waiting.pop(step, {}).items():
            # Equal actions, and so equal donors: that is enough for a run's own values, since runs in one state have
            # made the same calls so far.
            shared: dict[tuple[int, Action], list[RunId]] = {}
            for run in runs:
                shared.setdefault((group_of(run, step), programs[run][place[run]].action.first), []).append(run)
            for (_, action), members in shared.items():
                replays: tuple[RunId, ...] = ()
                # A run that begins here by a jump makes the baseline's call anyway: it is looked at there.
                if looked_at and state == -step and not action.fills:
                    replays, looked_at = _replayed(step, starts), False
                stop, targets = _onward(members, programs, place, step)
                ends = []
                # Runs that are made for their values end with the last one that is wanted, and go nowhere.
                for (target, later), going in targets.items() if members[0] >= BASELINE else ():
                    drawn = StateId(drawn + 1)
                    ends.append(Fork(target, drawn, tuple(going), later=later))
                    waiting[target][drawn] = going
                yield Stretch(step, stop, action, state, tuple(members), tuple(ends), replays)
        if looked_at:
            yield Stretch(step, step, Action(), StateId(-step), (), (), _replayed(step, starts))


def _onward(
    runs: Sequence[RunId], programs: Mapping[RunId, Program], place: dict[RunId, int], step: int
) -> tuple[int, dict[tuple[int, tuple[Action, ...]], list[RunId]]]:
    """Until which step runs stay together, and where they go from there; at the end of a span a run enters its next.

    A way is a step to go to, and what is done to the further calls of the last one.
    """
    spans = [programs[run][place[run]] for run in runs]
    # Steps descend: the first that one of them leaves the others after, or this one if they part within it.
    stop = step if len({span.action.later for span in spans}) > 1 else max(span.stop for span in spans)
    targets: dict[tuple[int, tuple[Action, ...]], list[RunId]] = {}
    for run, span in zip(runs, spans, strict=True):
        target = stop - 1
        if span.stop == stop:  # others go on in their span, and meet those that enter one of the same action again
            place[run] += 1
            program = programs[run]
            target = program[place[run]].start if place[run] < len(program) else 0
        targets.setdefault((target, span.action.later), []).append(run)
    return stop, targets


def _replayed(step: int, starts: Mapping[RunId, tuple[int, StateId]]) -> tuple[RunId, ...]:
    return (BASELINE, *sorted(run for run, (first, _) in starts.items() if first < step))


def calls_of(
    stretches: Iterable[Stretch], calls_at: Callable[[RunId, int], int] = lambda run, step: 1
) -> Iterator[Call]:
    """Single calls, in the order of the steps, T first; at one step in the order of their first runs.

    Parameters
    ----------
    stretches : iterable of Stretch
    calls_at : callable
        U-Net calls of a run at a step.
    """
    arriving: dict[int, list[Stretch]] = defaultdict(list)
    for stretch in stretches:
        arriving[stretch.start].append(stretch)
    drawn: dict[StateId, StateId] = {}  # number of a state by the one that it has among stretches
    going: list[tuple[Stretch, StateId]] = []
    number = StateId(0)
    for step in range(max(arriving, default=0), 0, -1):
        fresh = arriving.pop(step, [])
        if fresh:
            going += ((stretch, drawn.get(stretch.state, stretch.state)) for stretch in fresh)
            going.sort(key=lambda entry: _order(entry[0], step))
        onward: list[tuple[Stretch, StateId]] = []
        for stretch, state in going:
            replays = stretch.replays if step == stretch.start else ()
            if step > stretch.stop:
                number = StateId(number + 1)
                onward.append((stretch, number))
                later = stretch.ends[0].later if stretch.ends else ()
                onto = Fork(step - 1, number, stretch.runs, calls_at(stretch.runs[0], step), later)
                yield Call(step, stretch.action, state, (onto,), replays)
                continue
            forks = []
            for end in stretch.ends:
                number = StateId(number + 1)
                drawn[end.state] = number
                forks.append(end._replace(state=number, calls=calls_at(end.runs[0], step)))
            # A call without forks would serve nobody: the run that is made for its values is noted as looked at.
            ended = replays if forks else (*replays, *stretch.runs)
            yield Call(step, stretch.action, state, tuple(forks), ended)
        # What is replayed stands first at its own step only; everything else keeps its order from step to step.
        if any(stretch.replays for stretch in fresh):
            onward.sort(key=lambda entry: _order(entry[0], step - 1))
        going = onward


def _order(stretch: Stretch, step: int) -> tuple[int, int]:
    """Of calls at one step: what is replayed, the baseline, runs made for their values, the others by their first."""
    if stretch.replays and step == stretch.start:
        return 0, 0
    first = stretch.runs[0]
    return (1, 0) if first == BASELINE else (2, -first) if first < BASELINE else (3, first)


def widths_of(stretches: Iterable[Stretch]) -> Iterator[tuple[int, int]]:
    """How many calls steps have: (number of neighbouring steps, calls of each), of steps that have any."""
    changes: dict[int, int] = defaultdict(int)
    for stretch in stretches:
        changes[stretch.start] += 1
        changes[stretch.stop - 1] -= 1
    width = 0
    for step, after in itertools.pairwise(sorted(changes, reverse=True)):
        width += changes[step]
        if width:
            yield step - after, width
