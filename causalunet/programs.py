"""What every run does by itself: a few spans of steps, each with what is done to the U-Net calls of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.design.anatomy import Anatomy
from causalunet.design.donors import OfOthers, OwnBefore, OwnInput, RunOf
from causalunet.design.fills import Fill
from causalunet.design.interventions import Edit
from causalunet.design.samplers import Sampler
from causalunet.design.site import Site
from causalunet.design.stages import in_stage, stages_of
from causalunet.design.windows import joined, overlaid
from causalunet.errors import SpecError
from causalunet.schedule import Schedule

__all__ = [
    "Action",
    "Departure",
    "Origin",
    "PlacedFill",
    "Program",
    "Span",
    "calls_by_step",
    "departures",
    "leaves_baseline",
    "program_maker",
]


class Origin(NamedTuple):
    """Where a donor's value comes from.

    Attributes
    ----------
    own : bool
        Whether it is the run's own; otherwise that of runs without intervention.
    step : int
        Of the value; 0 for that of the call.
    runs : tuple of RunOf
        Those other runs; of several it is the mean.
    """

    own: bool
    step: int = 0
    runs: tuple[RunOf, ...] = ()


class PlacedFill(NamedTuple):
    """One edit as it stands at one step, with where its donors of other calls come from."""

    site: Site
    fill: Fill
    donors: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """What is done to one U-Net call.

    Parameters
    ----------
    fills : frozenset of PlacedFill
        Empty for an untouched call.
    dead : frozenset of str
        Components that do not run.
    later : tuple of Action
        What is done to the further calls of a step of several, if that is something else; the last one stands for all
        that follow it.
    """

    fills: frozenset[PlacedFill] = frozenset()
    dead: frozenset[str] = frozenset()
    later: tuple[Action, ...] = ()

    @property
    def first(self) -> Action:
        """What is done to the first call of a step."""
        return replace(self, later=()) if self.later else self

    def at(self, stage: int) -> Action:
        """What is done to one call of a step, counted from 0."""
        return self.later[min(stage, len(self.later)) - 1] if self.later and stage else self.first

    @property
    def every_fill(self) -> Iterator[PlacedFill]:
        """Of all calls of a step."""
        return (placed for action in (self, *self.later) for placed in action.fills)


class Span(NamedTuple):
    """Steps ``start ... stop`` of a run, all called under one action; steps between two spans are not called."""

    start: int
    stop: int
    action: Action

    @property
    def steps(self) -> int:
        """Number of its steps."""
        return self.start - self.stop + 1


Program = tuple[Span, ...]
"""What a run does by itself, in the order of the run."""


def program_maker(anatomy: Anatomy, steps: int) -> Callable[[Sequence[Edit]], Program]:
    """Make what turns edits into a program; interventions of one sweep share their few actions."""
    untouched = Action()
    actions: dict[tuple[frozenset[PlacedFill], ...], Action] = {}

    def action_of(present: Sequence[Edit], step: int, edits: Sequence[Edit]) -> Action:
        # Donors are resolved before actions are compared: two runs that hold values of different steps do not share.
        by_stage = [in_stage(present, stage) for stage in stages_of(present)]
        fills = tuple(
            frozenset(PlacedFill(edit.site, edit.fill, tuple(_origins(edit, step, edits, steps))) for edit in there)
            for there in by_stage
        )
        if fills not in actions:
            dead = [
                anatomy.dead(anatomy.severed(there), anatomy.passed(there)) if there else frozenset[str]()
                for there in by_stage
            ]
            first, *later = map(Action, fills, dead)
            actions[fills] = replace(first, later=tuple(later))
        return actions[fills]

    def program_of(edits: Sequence[Edit]) -> Program:
        spans: list[Span] = []
        step = steps
        for start, stop, held in overlaid([edit.window for edit in edits]):
            present = [edits[index] for index in held]
            if start < step:
                spans.append(Span(step, start + 1, untouched))
            # A skipped step is no span: it is the gap that the next span's start leaves.
            if not any(edit.component == "unet" for edit in present):
                spans.append(Span(start, stop, action_of(present, start, edits)))
            step = stop - 1
        if step:
            spans.append(Span(step, 1, untouched))
        _check_donors(spans, anatomy)
        # Runs may begin where they leave the baseline, and `grow` lets them begin where a span does.
        return _cut(spans, leaves_baseline(spans))

    return program_of


def calls_by_step(program: Program, sampler: Sampler, schedule: Schedule) -> NDArray[np.uint8]:
    """U-Net calls that a run makes by itself at each step, T first; 0 at those that it skips."""
    steps = schedule.steps
    found = np.zeros(steps, np.uint8)
    for span in program:
        found[steps - span.start : steps - span.stop + 1] = 1
    if sampler.several:
        called = [*(steps - np.flatnonzero(found)).tolist(), 0]
        found[found > 0] = sampler.calls_along([schedule.level(step) for step in called])
    return found


def _origins(edit: Edit, step: int, edits: Sequence[Edit], steps: int) -> Iterator[Origin]:
    """Of an edit at some step: where its fill's donors come from, but for those of the call itself."""
    for donor in edit.fill.donors:
        if isinstance(donor, OwnBefore):
            yield Origin(True, _step_before(donor.back, edit, step, edits, steps))
        elif not isinstance(donor, OwnInput):
            yield Origin(False, _step_of(donor, edit, steps), donor.runs)


def _step_of(donor: OfOthers, edit: Edit, steps: int) -> int:
    """At which step a value of another run is taken; 0 for that of the call."""
    if donor.step is None:
        return 0
    if donor.step > steps:
        raise SpecError(
            f"{edit.component} is to get what another run has at step {donor.step}; runs begin at step {steps}."
        )
    if donor.step < edit.window.start:
        raise SpecError(
            f"{edit.component} is to get at step {edit.window.start} what another run has at step {donor.step}, which "
            "comes after it: runs go side by side. Let the window begin there or later, or take an earlier step."
        )
    return donor.step


def _step_before(back: int, edit: Edit, step: int, edits: Sequence[Edit], steps: int) -> int:
    """From which step a fill that is put in place at some step has the run's own value."""
    # One content, one meaning: windows that follow each other are one, in whichever parts of a composition they stand.
    own = edit.site, edit.fill, edit.window.stage
    absent = joined(
        other.window
        for other in edits
        if (other.site, other.fill, other.window.stage) == own or other.component == "unet"
    )
    # The step before the window may be skipped, and the one before that again: go up until there is a call.
    before = next(part.start for part in absent if part.stop <= step <= part.start) + 1
    for _ in range(back):
        further = next((part.start + 1 for part in absent if part.stop == before + 1), before + 1)
        if further > steps:
            break
        before = further
    return before


def _check_donors(program: Sequence[Span], anatomy: Anatomy) -> None:
    """Raise `SpecError` where a run is to hold a value of a call in which there is none."""
    for placed in (placed for span in program for placed in span.action.every_fill):
        for origin in (origin for origin in placed.donors if origin.own):
            action = next(span.action for span in program if span.start >= origin.step >= span.stop)
            component = placed.site.component
            place = anatomy.owner(component)
            inside = component in anatomy.inner_by_name
            # What a dead place puts out is not computed, unless a fill makes it there; what is inside is not at all.
            if place in action.dead and (inside or all(other.site.component != place for other in action.fills)):
                raise SpecError(
                    f"{component} is to be held from step {origin.step} on, and does not run there: another edit makes "
                    f"{place} dead. Let the window begin where there is something to hold, or leave that edit out."
                )


def leaves_baseline(program: Sequence[Span]) -> int:
    """Step of the first call that the baseline does not make, or not to go where it goes; the first if all are its."""
    for span, target in _with_targets(program):
        # Of a jump it is the step above it: that call is the baseline's, but the state that is drawn after it is not.
        if span.action.fills or span.action.later:
            return span.start
        if target != span.stop - 1:
            return span.stop
    return program[0].start


class Departure(NamedTuple):
    """A step at which a run does something else than the baseline: what it does, and the step that it goes to."""

    step: int
    action: Action
    target: int

    @property
    def jumps(self) -> bool:
        """Whether steps are skipped after it."""
        return self.target != self.step - 1


def departures(program: Program) -> Iterator[Departure]:
    """All steps at which a run does something else than the baseline, in the order of the run."""
    for span, target in _with_targets(program):
        for step in range(span.start, span.stop - 1, -1):
            found = Departure(step, span.action, target if step == span.stop else step - 1)
            if found.jumps or any(found.action.every_fill):
                yield found


def _cut(program: Iterable[Span], step: int) -> Program:
    """The same program with a span that begins at a step, from where runs may start."""
    spans: list[Span] = []
    for span in program:
        if span.start > step >= span.stop:
            spans += [span._replace(stop=step + 1), span._replace(start=step)]
        else:
            spans.append(span)
    return tuple(spans)


def _with_targets(program: Sequence[Span]) -> Iterator[tuple[Span, int]]:
    """Spans with the step that their last call leads to."""
    starts = [span.start for span in program[1:]]
    return zip(program, [*starts, 0], strict=True)
