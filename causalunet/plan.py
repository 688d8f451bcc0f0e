"""From a study to the tree of its runs: what is called at every step, what is shared, what it costs."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from causalunet.bound import BoundStudy, placed
from causalunet.costs import RunCost, StretchCost, cost_of_run, cost_of_stretch
from causalunet.design.anatomy import Anatomy
from causalunet.design.donor_samples import DonorRuns, check_donor_runs
from causalunet.design.facts import facts_html
from causalunet.design.limits import shown
from causalunet.design.stages import check_stages, times_edited
from causalunet.design.study import StudySpec
from causalunet.programs import Action, PlacedFill, Program, calls_by_step, leaves_baseline, program_maker
from causalunet.schedule import Schedule
from causalunet.sources import Kept, Sources, begins_from, kept_values, most_kept, sources_of
from causalunet.tree import BASELINE, Call, Fork, RunId, StateId, Stretch, calls_of, grow, run_ids, widths_of

__all__ = [
    "BASELINE",
    "GROUP",
    "Action",
    "Call",
    "Fork",
    "PlacedFill",
    "Plan",
    "RunCost",
    "Stretch",
    "cost_of_run",
    "make_plan",
]

GROUP = 128
"""Interventions that go through a block of samples together, and are stored together when they are done, at most."""


@dataclass(frozen=True, repr=False)
class Plan:
    """The tree of runs of a study, and its cost.

    Parameters
    ----------
    bound : BoundStudy
    stretches : tuple of Stretch
        The tree, as few pieces: what is asked of a plan is counted on them, and `calls` are made of them.
    programs : mapping of RunId to tuple of Span
        What every run of it does by itself.
    sources : Sources
        Where the values come from that fills take from other calls.
    seconds_per_flop : float, optional
        From a calibration; gives the time estimate.
    group : int
        Interventions that go through a block of samples together.
    part_cells, part_flops : int, float
        Most cells and operations of what is committed together, if it can be cut so far.
    """

    bound: BoundStudy
    stretches: tuple[Stretch, ...]
    programs: Mapping[RunId, Program] = field(default_factory=dict, repr=False, compare=False)
    sources: Sources = field(default_factory=Sources, repr=False, compare=False)
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
    def calls(self) -> tuple[Call, ...]:
        """Every call, in the order of the steps, T first; made at first use, since a long study has millions."""
        if not self.spec.sampler.several:
            return tuple(calls_of(self.stretches))
        made, steps = self.calls_by_step, self.schedule.steps
        return tuple(calls_of(self.stretches, lambda run, step: int(made[run][steps - step])))

    @cached_property
    def calls_by_step(self) -> Mapping[RunId, NDArray[np.uint8]]:
        """U-Net calls that every run makes by itself at each step, T first; 0 at those that it skips."""
        sampler, schedule = self.spec.sampler, self.schedule
        programs = {**self.sources.programs(schedule.steps), **self.programs}
        return {run: calls_by_step(program, sampler, schedule) for run, program in programs.items()}

    @cached_property
    def donor_runs(self) -> DonorRuns:
        """Finds the runs that stand beside samples, for the values that fills take from them."""
        return DonorRuns(self.spec.samples)

    @cached_property
    def kept(self) -> dict[Kept, int]:
        """Values that are kept for later calls, each with the step of the last one that needs it."""
        return kept_values(self.programs, self.sources)

    @cached_property
    def kept_bytes(self) -> int:
        """Bytes per sample of the values that are kept at once, at most, in one group of interventions."""
        if not self.kept:
            return 0
        rows, places = self.spec.sampler.rows_per_sample, {kept.place for kept in self.kept}
        sizes = {place: 4 * rows * math.prod(self.anatomy.described(place).shape) for place in places}
        groups: dict[int, dict[Kept, int]] = defaultdict(dict)
        shared = {kept: step for kept, step in self.kept.items() if kept.runs[0] <= BASELINE}
        for kept, step in self.kept.items():
            groups[max(0, kept.runs[0]) // self.group][kept] = step
        return max(most_kept({**shared, **of_group}, sizes) for of_group in groups.values())

    @cached_property
    def _parts(self) -> tuple[Plan, ...]:
        """What is run one after another: of groups that take values from other runs, each makes these by itself."""
        groups: dict[int, list[RunId]] = defaultdict(list)
        for run in self.programs:
            groups[max(0, run) // self.group].append(run)
        if not self.kept or len(groups) < 2:
            return (self,)
        return tuple(self.part(runs, forked=group > 0) for group, runs in groups.items())

    @property
    def most_calls(self) -> int:
        """The most U-Net calls that a step of a run takes."""
        if not self.spec.sampler.several:
            return 1
        return max((int(made.max()) for made in self.calls_by_step.values()), default=1)

    def _cost_of(self, stretch: Stretch) -> StretchCost:
        """What a stretch takes for one sample and one row of a call."""
        return self._stretch_costs[id(stretch)]  # the plan's own, which live as long as it does

    @cached_property
    def _stretch_costs(self) -> dict[int, StretchCost]:
        calls, steps = self.calls_by_step if self.spec.sampler.several else None, self.schedule.steps
        return {id(one): cost_of_stretch(one, self.anatomy, steps, calls) for one in self.stretches}

    def _costs_of_runs(self, stretch: Stretch) -> Iterable[tuple[tuple[RunId, ...], RunCost]]:
        """Runs of the study that a stretch serves, with what each of them takes there."""
        if stretch.runs and stretch.runs[0] < BASELINE:
            return
        shared, apart = self._cost_of(stretch)
        for runs, own in apart or ((stretch.runs, RunCost(0, 0)),):
            yield runs, RunCost(shared.unet_calls + own.unet_calls, shared.flops + own.flops)
        if stretch.replays:
            yield stretch.replays, RunCost(1, self.anatomy.live_flops(stretch.action.dead))

    def declared(self, run: int, places: Sequence[str]) -> NDArray[np.uint8]:
        """How often the edits of a run are to apply: once in every U-Net call of their steps, and once for each jump.

        Parameters
        ----------
        run : int
            An intervention of the plan.
        places : sequence of str
            Every place that it edits, and others.

        Returns
        -------
        ndarray of uint8, (step, place)
        """
        return times_edited(self.spec.edits[run], self.calls_by_step[RunId(run)], places)

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

    @cached_property
    def calls_per_sample(self) -> int:
        """U-Net calls that each sample takes."""
        return sum(part._cost_of(one).whole.unet_calls for part in self._parts for one in part.stretches)

    @property
    def unet_calls(self) -> int:
        """U-Net calls over all samples; guidance puts two rows into each."""
        return self.calls_per_sample * self.samples

    @cached_property
    def widest_step(self) -> int:
        """The most calls that one step has."""
        return max((width for _, width in widths_of(self.stretches)), default=0)

    @cached_property
    def calls_by_run(self) -> dict[RunId, int]:
        """U-Net calls that each run passes through, for one sample."""
        counts: dict[RunId, int] = defaultdict(int)
        for stretch in self.stretches:
            for runs, cost in self._costs_of_runs(stretch):
                for run in runs:
                    counts[run] += cost.unet_calls
        return dict(counts)

    @cached_property
    def flops_by_run(self) -> dict[RunId, int]:
        """Floating-point operations of each run on its own, for one sample."""
        totals: dict[RunId, int] = defaultdict(int)
        rows = self.spec.sampler.rows_per_sample
        for stretch in self.stretches:
            for runs, cost in self._costs_of_runs(stretch):
                for run in runs:
                    totals[run] += rows * cost.flops
        return dict(totals)

    @cached_property
    def naive_calls(self) -> int:
        """U-Net calls if every run started from noise."""
        return sum(self.calls_by_run.values()) * self.samples

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of the whole study."""
        of_a_row = sum(part._cost_of(one).whole.flops for part in self._parts for one in part.stretches)
        return of_a_row * self.spec.sampler.rows_per_sample * self.samples

    @property
    def seconds(self) -> float | None:
        """Estimated time of the U-Net calls, if calibrated."""
        return None if self.seconds_per_flop is None else self.flops * self.seconds_per_flop

    @cached_property
    def stored_bytes(self) -> dict[str, int]:
        """Bytes per group of the results store, without coordinates and what a factor reader adds."""
        record, steps, interventions = self.spec.record, self.schedule.steps, len(self.spec.interventions)
        state, image = (4 * math.prod(shape) for shape in (self.image_shape, self.bound.picture_shape))
        intervened = interventions if record.of == "all" else 0
        kept = len(record.steps) if record.steps is not None else steps
        recorded, summed = self.anatomy.select(record.activations), record.summarised(self.anatomy)
        counts = 0 if record.bins is None else 8 * (len(record.bins) - 1)
        activation = np.dtype(record.dtype).itemsize * sum(math.prod(self.anatomy.described(n).shape) for n in recorded)
        places = len({edit.component for edits in self.spec.edits for edit in edits})
        per_sample = {
            "baseline": image + state * 3 * steps + 1,
            "outcomes": interventions * (image + 3 * 8 + 1),
            "trajectory": interventions * steps * 2 * 4,
            "activations": kept * (1 + intervened) * activation + (1 + intervened) * len(recorded),
            "activation_summary": len(summed)
            * (kept * (4 * (5 + 6 * intervened) + counts * (1 + intervened)) + 1 + intervened),
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
        chosen = self.programs if runs is None else {run: self.programs[run] for run in run_ids(runs)}
        return _laid_out(replace(self, programs=chosen), forked=forked, replay=replay)

    def of(self, spec: StudySpec, group: int) -> Plan:
        """The plan of another study on the same model, cut into parts as this one, in groups of a size."""
        made = make_plan(replace(self.bound, spec=spec), group=group)
        return replace(made, part_cells=self.part_cells, part_flops=self.part_flops)

    def grouped(self, group: int) -> Plan:
        """The same plan with other groups of interventions."""
        return _laid_out(replace(self, group=group))

    def calls_if_grouped(self, group: int) -> int:
        """U-Net calls for one sample that smaller groups would take, without laying them out.

        What runs share they go on sharing within a group, and with the baseline until they leave it.
        """
        if self.kept:  # groups do not share the calls that values are taken from
            return self.grouped(group).calls_per_sample
        leaves = {run: leaves_baseline(program) for run, program in self.programs.items()}
        total = 0
        for stretch in self.stretches:
            own = [run // group if run != BASELINE and stretch.start <= leaves[run] else 0 for run in stretch.runs]
            groups = max(1, len(set(own)))
            shared, apart = self._cost_of(stretch)
            group_of = dict(zip(stretch.runs, own, strict=True))
            total += shared.unet_calls * groups
            total += sum(cost.unet_calls * len({group_of[run] for run in runs}) for runs, cost in apart)
        return total

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
        return facts_html(self._title, self._rows)

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
        of_kind = f" ({sampler.guidance.name})" if sampler.guidance else ""
        rows = {
            "sampler": f"{sampler.steps} steps, guidance {sampler.guidance_scale:g}{of_kind}",
            "U-Net calls": f"{self.unet_calls:,} shared, {self.naive_calls:,} if each run started from noise "
            f"({self.naive_calls / self.unet_calls:.2f} times fewer)",
            "rows per call": f"{sampler.rows_per_sample}",
            "FLOPs": f"{self.flops:.3g} ({self._dead_share:.1%} saved by not running dead blocks)",
            **({"kept": f"{self.kept_bytes / 1e6:,.1f} MB per sample, of values that fills take"} if self.kept else {}),
            "stored": f"{sum(stored.values()) / 1e6:,.1f} MB ({by_group})",
        }
        if self.seconds is not None:
            rows["time"] = f"about {_duration(self.seconds)} (calibrated on this machine)"
        return rows

    @property
    def _dead_share(self) -> float:
        return 1 - self.flops / (self.anatomy.flops * self.spec.sampler.rows_per_sample * self.unet_calls)


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
        An intervention or record names what the model does not have, or an edit could never fire, as where its stage is
        a call that its step does not take.
    """
    bound = _probing(bound)
    spec, anatomy = bound.spec, bound.anatomy
    chosen = run_ids(range(BASELINE, len(spec.interventions)) if runs is None else runs)
    for run in chosen:
        if run != BASELINE:
            anatomy.check(spec.interventions[run], spec.edits[run])
    check_donor_runs((spec.edits[run] for run in chosen if run != BASELINE), spec.samples)
    anatomy.check_recorded(spec.record.places(anatomy))
    program_of = program_maker(anatomy, bound.schedule.steps)
    programs = {run: program_of(() if run == BASELINE else spec.edits[run]) for run in chosen}
    for run in chosen:
        if run != BASELINE and any(edit.window.stage for edit in spec.edits[run]):
            made = calls_by_step(programs[run], spec.sampler, bound.schedule)
            check_stages(spec.interventions[run].label, spec.edits[run], made, spec.sampler.name)
    group = GROUP if group is None else group
    return _laid_out(Plan(bound, (), programs, group=group), forked=forked, replay=replay)


def _laid_out(plan: Plan, *, forked: bool = False, replay: Iterable[int] = ()) -> Plan:
    """The plan with its tree; runs from stored states share calls with all others, those from noise by group."""
    group, steps = plan.group, plan.schedule.steps
    sources = sources_of(plan.programs, forked=forked)
    programs = {**sources.programs(steps), **plan.programs}
    leaves = {run: leaves_baseline(program) for run, program in plan.programs.items()}
    noise = StateId(0)
    starts = {run: (step, StateId(-step)) if forked else (steps, noise) for run, step in leaves.items()}
    starts |= {run: (steps, begins_from(BASELINE - run, steps)) for run in sources.lowest}
    own = {} if forked else {run: step for run, step in leaves.items() if run != BASELINE}
    replayed = frozenset(replay) | sources.replay
    tree = grow(programs, starts, lambda run, step: run // group if step <= own.get(run, 0) else 0, replayed)
    return replace(plan, stretches=tuple(tree), sources=sources)


def _probing(bound: BoundStudy) -> BoundStudy:
    spec = bound.spec
    items = placed(spec, bound.anatomy)
    return bound if items is spec.interventions else replace(bound, spec=replace(spec, interventions=items))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
