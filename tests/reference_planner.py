"""Planning as plain as can be: a dictionary of every step of every run, and all runs sorted anew at every step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from causalunet.bound import BoundStudy
from causalunet.design import Edit
from causalunet.design.anatomy import Anatomy
from causalunet.plan import BASELINE, Action, Call, Fork, PlacedFill

_Program = dict[int, tuple[tuple[Action, ...], int, int]]
"""Actions, target step and number of U-Net calls of every step that is taken."""


def planned(
    bound: BoundStudy, runs: Iterable[int], *, group: int, forked: bool = False, replay: Iterable[int] = ()
) -> list[Call]:
    """The calls of `causalunet.plan.make_plan`."""
    spec, steps = bound.spec, bound.schedule.steps
    edits = {run: () if run == BASELINE else spec.interventions[run].edits() for run in sorted(set(runs))}
    programs = {run: _program(edits[run], bound) for run in edits}
    baseline = _program((), bound)
    leaves = {
        run: next((step for step in baseline if program.get(step) != baseline[step]), steps)
        for run, program in programs.items()
    }
    starts = {run: (step, -step) if forked else (steps, 0) for run, step in leaves.items()}
    return list(_grow_tree(programs, steps, starts, {} if forked else leaves, frozenset(replay), group))


def _program(edits: Sequence[Edit], bound: BoundStudy) -> _Program:
    at: dict[int, list[Edit]] = defaultdict(list)
    for edit in edits:
        for step in edit.window:
            at[step].append(edit)
    skipped = {step for step, present in at.items() if any(edit.component == "unet" for edit in present)}
    called = [step for step in range(bound.schedule.steps, 0, -1) if step not in skipped]
    level, sampler = bound.schedule.level, bound.spec.sampler
    return {
        step: (_actions(at.get(step, ()), bound.anatomy), target, sampler.calls(level(step), level(target), passed))
        for passed, (step, target) in enumerate(zip(called, [*called[1:], 0], strict=True))
    }


def _actions(present: Sequence[Edit], anatomy: Anatomy) -> tuple[Action, ...]:
    """What is done to the first call, the second and so on, and last to all that follow."""
    named = [edit.window.stage for edit in present if edit.window.stage is not None]
    stages = range(max(named) + 2 if named else 1)
    by_stage = [[edit for edit in present if edit.window.stage in (None, stage)] for stage in stages]
    return tuple(_action(there, anatomy) for there in by_stage)


def _action(present: Sequence[Edit], anatomy: Anatomy) -> Action:
    fills = frozenset(PlacedFill(edit.site, edit.fill) for edit in present)
    return Action(fills, anatomy.dead(anatomy.severed(present), anatomy.passed(present)) if present else frozenset())


def _grow_tree(
    programs: dict[int, _Program],
    steps: int,
    starts: dict[int, tuple[int, int]],
    leaves: dict[int, int],
    replay: frozenset[int],
    size: int,
) -> Iterator[Call]:
    state_of = {run: state for run, (_, state) in starts.items()}
    waiting: dict[int, list[int]] = defaultdict(list)
    for run, (step, _) in starts.items():
        waiting[step].append(run)
    next_state = 1
    for step in range(steps, 0, -1):
        shared: dict[tuple[int, int, Action], dict[tuple[int, int, tuple[Action, ...]], list[int]]] = {}
        if step in replay:
            shared[0, -step, Action()] = {}
        for run in sorted(waiting.pop(step, [])):
            (action, *later), target, made = programs[run][step]
            group = run // size if run != BASELINE and step <= leaves.get(run, 0) else 0
            way = target, made, tuple(later)
            shared.setdefault((group, state_of[run], action), {}).setdefault(way, []).append(run)
        for (_, state, action), targets in shared.items():
            forks = []
            for (target, made, further), runs in targets.items():
                forks.append(Fork(target, next_state, tuple(runs), made, further))
                state_of.update(dict.fromkeys(runs, next_state))
                waiting[target].extend(runs)
                next_state += 1
            looked_at = step in replay and state == -step and not action.fills
            later = (run for run, (first, _) in starts.items() if first < step) if looked_at else ()
            yield Call(step, action, state, tuple(forks), (BASELINE, *sorted(later)) if looked_at else ())
