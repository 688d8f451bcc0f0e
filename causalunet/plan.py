"""From a study to the tree of its runs: what is called at every step, what is shared, what it costs."""

from __future__ import annotations

import html
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from causalunet.bound import BoundStudy
from causalunet.design.anatomy import Anatomy, severed_places
from causalunet.design.fills import Fill
from causalunet.design.interventions import Branch, Edit, Intervention
from causalunet.design.limits import plain, shown
from causalunet.design.samplers import Sampler
from causalunet.design.study import StudySpec
from causalunet.schedule import Schedule

__all__ = [
    "BASELINE",
    "GROUP",
    "Action",
    "Call",
    "Fork",
    "PlacedFill",
    "Plan",
    "RunCost",
    "cost_of_run",
    "make_plan",
]

BASELINE = -1
"""Index of the run without intervention; interventions count from 0."""

GROUP = 128
"""Interventions that go through a block of samples together, and are stored together when they are done, at most."""


class PlacedFill(NamedTuple):
    """One edit as it stands at one step."""

    component: str
    fill: Fill
    branch: Branch


@dataclass(frozen=True, slots=True)
class Action:
    """What is done to one U-Net call.

    Parameters
    ----------
    fills : frozenset of PlacedFill
        Empty for an untouched call.
    dead : frozenset of str
        Components that do not run.
    """

    fills: frozenset[PlacedFill] = frozenset()
    dead: frozenset[str] = frozenset()


class Fork(NamedTuple):
    """Where runs go after a shared call.

    Attributes
    ----------
    target : int
        Step whose x is drawn; ``step - 1`` unless the runs jump. 0 is the image.
    state : int
        Number of the state drawn.
    runs : tuple of int
        Interventions (or ``BASELINE``, -1) that go there.
    """

    target: int
    state: int
    runs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One U-Net call per sample, shared by all runs that are still equal.

    Parameters
    ----------
    step : int
    action : Action
    state : int
        Number of the state x_t that goes in; 0 is the initial noise.
    forks : tuple of Fork
    replays : tuple of int
        Runs whose call is made again from a stored state, to look at it; they go nowhere from here. Beside the baseline
        these are the runs that differ from it only later.
    """

    step: int
    action: Action
    state: int
    forks: tuple[Fork, ...]
    replays: tuple[int, ...] = ()

    @property
    def runs(self) -> tuple[int, ...]:
        """Every run that this call serves."""
        return (*self.replays, *(run for fork in self.forks for run in fork.runs))


@dataclass(frozen=True, repr=False)
class Plan:
    """The tree of runs of a study, and its cost.

    Parameters
    ----------
    bound : BoundStudy
    calls : tuple of Call
        In the order of the steps, T first.
    seconds_per_flop : float, optional
        From a calibration; gives the time estimate.
    group : int
        Interventions that go through a block of samples together.
    part_cells, part_flops : int, float
        Most cells and operations of what is committed together, if it can be cut so far.
    """

    bound: BoundStudy
    calls: tuple[Call, ...]
    seconds_per_flop: float | None = None
    group: int = GROUP
    part_cells: int = 1 << 30
    part_flops: float = math.inf

    @property
    def spec(self) -> StudySpec:
        """The study, with null interventions put on places that the model has."""
        return self.bound.spec

    @property
    def anatomy(self) -> Anatomy:
        """Of the model's U-Net."""
        return self.bound.anatomy

    @property
    def schedule(self) -> Schedule:
        """Of the study's sampler on that model."""
        return self.bound.schedule

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of x_t."""
        return self.bound.image_shape

    @cached_property
    def by_step(self) -> dict[int, dict[Action, list[Call]]]:
        """Calls of every step, grouped by action: one group shares traced calls."""
        grouped: dict[int, dict[Action, list[Call]]] = {}
        for call in self.calls:
            grouped.setdefault(call.step, {}).setdefault(call.action, []).append(call)
        return grouped

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.spec.samples)

    @property
    def unet_calls(self) -> int:
        """U-Net calls over all samples; guidance puts two rows into each."""
        return len(self.calls) * self.samples

    @cached_property
    def calls_by_run(self) -> dict[int, int]:
        """U-Net calls that each run passes through, for one sample."""
        counts: dict[int, int] = defaultdict(int)
        for call in self.calls:
            for run in call.runs:
                counts[run] += 1
        return dict(counts)

    @cached_property
    def flops_by_run(self) -> dict[int, int]:
        """Floating-point operations of each run on its own, for one sample."""
        totals: dict[int, int] = defaultdict(int)
        for call in self.calls:
            for run in call.runs:
                totals[run] += self._flops(call)
        return dict(totals)

    @property
    def naive_calls(self) -> int:
        """U-Net calls if every run started from noise."""
        return sum(self.calls_by_run.values()) * self.samples

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of the whole study."""
        return sum(self._flops(call) for call in self.calls) * self.samples

    @property
    def seconds(self) -> float | None:
        """Estimated time of the U-Net calls, if calibrated."""
        return None if self.seconds_per_flop is None else self.flops * self.seconds_per_flop

    @cached_property
    def stored_bytes(self) -> dict[str, int]:
        """Bytes per group of the results store, without coordinates and what a factor reader adds."""
        record, steps, interventions = self.spec.record, self.schedule.steps, len(self.spec.interventions)
        image, intervened = 4 * math.prod(self.image_shape), interventions if record.of == "all" else 0
        kept = len(record.steps) if record.steps is not None else steps
        recorded, summed = (self.anatomy.select(patterns) for patterns in (record.activations, record.summary))
        activation = np.dtype(record.dtype).itemsize * sum(math.prod(self.anatomy.by_name[n].shape) for n in recorded)
        places = len({edit.component for item in self.spec.interventions for edit in item.edits()})
        per_sample = {
            "baseline": image * (1 + 3 * steps) + 1,
            "outcomes": interventions * (image + 3 * 8 + 1),
            "trajectory": interventions * steps * 2 * 4,
            "activations": kept * (1 + intervened) * activation + (1 + intervened) * len(recorded),
            "activation_summary": len(summed) * (kept * 4 * (3 + 4 * intervened) + 1 + intervened),
            "audit": interventions * steps * places + 2 * 4 + 2 * 8,
        }
        once = {
            "outcomes": interventions * 2 * 8,
            "trajectory": interventions * steps,
            "activations": kept * intervened * len(recorded),
            "activation_summary": kept * intervened * len(summed),
            "audit": interventions * steps * places,
        }
        return {group: self.samples * size + once.get(group, 0) for group, size in per_sample.items()}

    def calibrated(self, seconds_per_flop: float) -> Plan:
        """The same plan with a time estimate."""
        return replace(self, seconds_per_flop=seconds_per_flop)

    def part(self, runs: Iterable[int] | None = None, *, forked: bool = False, replay: Iterable[int] = ()) -> Plan:
        """The plan of some of its runs; arguments as for `make_plan`."""
        made = make_plan(self.bound, runs=runs, forked=forked, replay=replay, group=self.group)
        return replace(made, part_cells=self.part_cells, part_flops=self.part_flops)

    def __str__(self) -> str:
        """A table for people."""
        return "\n".join([self._title, *(f"  {name:13s} {value}" for name, value in self._rows.items())])

    def __repr__(self) -> str:
        """One line; ``print`` shows the table."""
        spec = self.spec
        return (
            f"<Plan of {shown(spec.name)} on {shown(spec.model)}: {self.samples:,} samples x "
            f"{len(spec.interventions):,} interventions, {self.unet_calls:,} U-Net calls; print it for the table>"
        )

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        rows = "".join(
            f'<tr><th style="text-align: left">{html.escape(name)}</th>'
            f'<td style="text-align: left">{html.escape(plain(value))}</td></tr>'
            for name, value in self._rows.items()
        )
        title = html.escape(plain(self._title))
        return f'<table><caption style="text-align: left">{title}</caption><tbody>{rows}</tbody></table>'

    @property
    def _title(self) -> str:
        spec = self.spec
        kinds = Counter(item.kind for item in spec.interventions)
        swept = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        counts = f"{self.samples} samples x {len(spec.interventions)} interventions"
        return f"Study {spec.name!r} on {spec.model}: {counts} ({swept})"

    @property
    def _rows(self) -> dict[str, str]:
        """The table: what a number is called, and what it is."""
        sampler, stored = self.spec.sampler, self.stored_bytes
        by_group = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in stored.items() if size)
        rows = {
            "sampler": f"{sampler.steps} steps, guidance {sampler.guidance_scale:g}",
            "U-Net calls": f"{self.unet_calls:,} shared, {self.naive_calls:,} if each run started from noise "
            f"({self.naive_calls / self.unet_calls:.2f} times fewer)",
            "rows per call": f"{sampler.rows_per_sample}",
            "FLOPs": f"{self.flops:.3g} ({self._dead_share:.1%} saved by not running dead blocks)",
            "stored": f"{sum(stored.values()) / 1e6:,.1f} MB ({by_group})",
        }
        if self.seconds is not None:
            rows["time"] = f"about {_duration(self.seconds)} (calibrated on this machine)"
        return rows

    @property
    def _dead_share(self) -> float:
        return 1 - self.flops / (self.anatomy.flops * self.spec.sampler.rows_per_sample * self.unet_calls)

    def _flops(self, call: Call) -> int:
        return self.anatomy.live_flops(call.action.dead) * self.spec.sampler.rows_per_sample


def make_plan(
    bound: BoundStudy,
    *,
    runs: Iterable[int] | None = None,
    forked: bool = False,
    replay: Iterable[int] = (),
    group: int | None = None,
) -> Plan:
    """Lay out the tree of runs.

    Parameters
    ----------
    bound : BoundStudy
    runs : iterable of int, optional
        Indices of the interventions to run, and ``BASELINE``, -1; by default all of them.
    forked : bool
        Let every run start where it first differs from the baseline, at step s, from the baseline's x_s: a state with
        the number -s, which whoever runs the plan provides.
    replay : iterable of int
        Steps at which the baseline's call is made again, from states numbered likewise.
    group : int, optional
        Interventions that go through a block of samples together; ``GROUP`` unless that is said.

    Returns
    -------
    Plan
        Its study is the one asked for, with null interventions put on places that the model has.

    Raises
    ------
    ComponentError, SpecError
        An intervention or record names what the model does not have, or an edit could never fire.
    """
    bound = _probing(bound)
    spec, anatomy, schedule = bound.spec, bound.anatomy, bound.schedule
    chosen = range(BASELINE, len(spec.interventions)) if runs is None else sorted(set(runs))
    edits = {run: () if run == BASELINE else spec.interventions[run].edits() for run in chosen}
    for run in chosen:
        if run != BASELINE:
            anatomy.check(spec.interventions[run])
    anatomy.select((*spec.record.activations, *spec.record.summary))
    programs = {run: _program(edits[run], anatomy, schedule.steps) for run in chosen}
    baseline = _program((), anatomy, schedule.steps)
    leaves = {
        run: next((step for step in baseline if program.get(step) != baseline[step]), schedule.steps)
        for run, program in programs.items()
    }
    starts = {run: (step, -step) if forked else (schedule.steps, 0) for run, step in leaves.items()}
    group = GROUP if group is None else group
    calls = _grow_tree(programs, schedule.steps, starts, {} if forked else leaves, frozenset(replay), group)
    return Plan(bound, tuple(calls), group=group)


class RunCost(NamedTuple):
    """What a run by itself takes for one sample: U-Net calls, and floating-point operations."""

    unet_calls: int
    flops: int


def cost_of_run(intervention: Intervention | None, sampler: Sampler, anatomy: Anatomy) -> RunCost:
    """Count what one run takes, with an intervention or without; no schedule and no sample is needed for it.

    Raises
    ------
    ComponentError, SpecError
        The intervention names what the model does not have, or an edit could never fire.
    """
    if intervention is not None:
        intervention = anatomy.placed(intervention)
        anatomy.check(intervention)
    program = _program(intervention.edits() if intervention is not None else (), anatomy, sampler.steps)
    flops = sum(anatomy.live_flops(action.dead) for action, _ in program.values())
    return RunCost(len(program), flops * sampler.rows_per_sample)


def _probing(bound: BoundStudy) -> BoundStudy:
    spec = bound.spec
    items = tuple(bound.anatomy.placed(item) for item in spec.interventions)
    same = all(one is other for one, other in zip(items, spec.interventions, strict=True))
    return bound if same else replace(bound, spec=replace(spec, interventions=items))


_Program = dict[int, tuple[Action, int]]
"""Action and target step of every step whose call happens."""


def _program(edits: Sequence[Edit], anatomy: Anatomy, steps: int) -> _Program:
    at: dict[int, list[Edit]] = defaultdict(list)
    for edit in edits:
        for step in edit.window:
            at[step].append(edit)
    skipped = {step for step, present in at.items() if any(edit.component == "unet" for edit in present)}
    called = [step for step in range(steps, 0, -1) if step not in skipped]
    actions: dict[tuple[Edit, ...], Action] = {}
    program = {}
    for step, target in zip(called, [*called[1:], 0], strict=True):
        present = tuple(at[step]) if step in at else ()
        if present not in actions:
            actions[present] = _action(present, anatomy)
        program[step] = (actions[present], target)
    return program


def _action(edits: Iterable[Edit], anatomy: Anatomy) -> Action:
    present = list(edits)
    fills = frozenset(PlacedFill(edit.component, edit.fill, edit.branch) for edit in present)
    return Action(fills, anatomy.dead(severed_places(present)) if present else frozenset())


def _grow_tree(
    programs: dict[int, _Program],
    steps: int,
    starts: dict[int, tuple[int, int]],
    leaves: dict[int, int],
    replay: frozenset[int],
    size: int,
) -> Iterable[Call]:
    """Merge equal prefixes: runs with the same state and action share a call; with the same target also the draw.

    ``starts`` has the step and the state at which each run begins, ``leaves`` the step from which on it shares calls
    with its group of ``size`` only: groups go through a block one after another.
    """
    state_of = {run: state for run, (_, state) in starts.items()}
    waiting: dict[int, list[int]] = defaultdict(list)
    for run, (step, _) in starts.items():
        waiting[step].append(run)
    next_state = 1
    for step in range(steps, 0, -1):
        shared: dict[tuple[int, int, Action], dict[int, list[int]]] = {}
        if step in replay:
            shared[0, -step, Action()] = {}
        for run in sorted(waiting.pop(step, [])):
            action, target = programs[run][step]
            group = run // size if run != BASELINE and step <= leaves.get(run, 0) else 0
            shared.setdefault((group, state_of[run], action), {}).setdefault(target, []).append(run)
        for (_, state, action), targets in shared.items():
            forks = []
            for target, runs in targets.items():
                forks.append(Fork(target, next_state, tuple(runs)))
                state_of.update(dict.fromkeys(runs, next_state))
                waiting[target].extend(runs)
                next_state += 1
            looked_at = step in replay and state == -step and not action.fills
            later = (run for run, (first, _) in starts.items() if first < step) if looked_at else ()
            yield Call(step, action, state, tuple(forks), (BASELINE, *sorted(later)) if looked_at else ())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
