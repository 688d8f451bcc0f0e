"""From a plan to the arrays of its store: which variables, with which sizes, chunks and coordinates."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.coordinates import MISSING_OF, coordinate_columns
from causalunet.design.site import Site
from causalunet.design.starts import Noise
from causalunet.dims import BIN, CHANNEL, COMPONENT, INTERVENTION, LATENTS, PLACE, SAMPLE, STEP, X, Y
from causalunet.plan import Action, Plan
from causalunet.results.meaning.declaration import ORDINARY, Declaration, DeclaredOutcome
from causalunet.results.meaning.grid import Grid
from causalunet.results.meaning.schema import (
    CALLS,
    EXTREMES,
    GIVEN,
    OPTIONAL,
    SAMPLE_START,
    DeclaredCoordinate,
    Variable,
    in_latents,
)
from causalunet.tree import run_ids

__all__ = ["Coordinate", "Layout", "Recording", "StoredArray"]

_OF_IMAGES = (CHANNEL, Y, X)
_OF_A_COMPONENT = "activations/"
_MOST_BYTES = 2_000_000
"""Of a chunk, unless a single entry along its leading axes takes more."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """A variable with its place and size.

    Parameters
    ----------
    path : str
        ``group/name``.
    variable : Variable
    shape, chunks : tuple of int
    dtype : str
    """

    path: str
    variable: Variable
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A coordinate along one dimension, with its meaning unless every study has it."""

    name: str
    dim: str
    values: NDArray[Any]
    meaning: str = ""

    @property
    def declared(self) -> DeclaredCoordinate:
        """What a store says of it."""
        dtype = "str" if self.values.dtype == object else self.values.dtype.name
        return DeclaredCoordinate(name=self.name, dim=self.dim, dtype=dtype, meaning=self.meaning)


@dataclass(frozen=True, slots=True)
class Recording:
    """One of the two things that are recorded of a component: its whole output, or a summary of it or a part."""

    component: str
    whole: bool


@dataclass(frozen=True)
class Layout:
    """The arrays and coordinates of a plan's store.

    Parameters
    ----------
    plan : Plan
        Of a study whose interventions stand in the order of the grid.
    brought : mapping of str to tuple of str
        Labels of every dimension that outcomes bring, such as the factors that a model's reader tells apart. What lies
        along a dimension that nothing brings is not stored.
    block : int
        Samples per chunk: one process at a time works on a block of samples.
    grid : Grid, optional
        What stands where; by default all in the order of the study.
    stored : Declaration, optional
        Of the store that is laid out anew; what it has, it keeps.
    outcomes : tuple of DeclaredOutcome
        Of the study's own, beside those that the store has.
    """

    plan: Plan
    brought: Mapping[str, tuple[str, ...]]
    block: int
    grid: Grid = field(default=None)  # type: ignore[assignment]
    stored: Declaration | None = None
    outcomes: tuple[DeclaredOutcome, ...] = ()

    def __post_init__(self) -> None:
        if self.grid is None:
            object.__setattr__(self, "grid", Grid.of(self.plan.spec, self.plan.anatomy))

    @property
    def recorded_steps(self) -> tuple[int, ...]:
        """Steps at which activations are recorded, descending."""
        steps = self.plan.spec.record.steps
        return steps if steps is not None else tuple(range(self.plan.schedule.steps, 0, -1))

    @cached_property
    def declaration(self) -> Declaration:
        """What the store says that it holds: what every study has, and its own outcomes and coordinates.

        Raises
        ------
        SpecError
            A name stands for two things.
        """
        ordinary = map(in_latents, ORDINARY.common) if self.plan.bound.decodes else ORDINARY.common
        common = tuple(self._as_recorded(variable) for variable in ordinary if self._has(variable))
        own = tuple(one for variable in common for one in self._put_out(variable))
        dims = {dim: "of what a component puts out" for one in own for dim in one.dims}
        dims |= LATENTS if self.plan.bound.decodes else {}
        made = replace(ORDINARY, common=(*common, *own), dims={**dims, **ORDINARY.dims})
        if self.stored is not None:
            dims = {**made.dims, **self.stored.dims, **ORDINARY.dims}
            known = replace(made, dims=dims, outcomes=self.stored.outcomes, coordinates=self.stored.coordinates)
            made = known.with_coordinates(ORDINARY.coordinates)
        made = made.with_coordinates(self._own_coordinates())
        for outcome in self.outcomes:
            made = made.with_outcome(outcome)
        return made

    def _has(self, variable: Variable) -> bool:
        """Whether the study has a variable that not every study has."""
        record, grid = self.plan.spec.record, self.grid
        if not {*variable.dims} <= self.sizes.keys():
            return False
        if variable.path == f"baseline/{GIVEN}":
            return self.plan.schedule.process.shifted
        if record.of == "baseline" and variable.group.startswith("activation") and INTERVENTION in variable.dims:
            return False
        if variable.path in EXTREMES and self._goes_on_without(variable.path):
            return False
        chosen = {"activations/*": grid.activations, "activation_summary": grid.summary}
        return bool(chosen.get(variable.group, True))

    def _goes_on_without(self, path: str) -> bool:
        """Whether a store summarises, and lacks this: its cells that are complete have none."""
        known = () if self.stored is None else tuple(one.path for one in self.stored.common)
        return path not in known and any(one.startswith("activation_summary/") for one in known)

    def _as_recorded(self, variable: Variable) -> Variable:
        streamed = variable.group == "activations/*" and variable.dtype.startswith("float")
        return replace(variable, dtype=self.plan.spec.record.dtype) if streamed else variable

    def _put_out(self, variable: Variable) -> list[Variable]:
        """A variable of components' whole outputs as it is of those whose dimensions are other ones than an image's."""
        if not {*_OF_IMAGES} <= {*variable.dims} or variable.group != "activations/*":
            return []
        leading = tuple(dim for dim in variable.dims if dim not in _OF_IMAGES)
        dims = {name: self.plan.anatomy.described(name).dims for name in self.grid.activations}
        return [
            replace(variable, group=f"activations/{name}", dims=(*leading, *own))
            for name, own in dims.items()
            if own != _OF_IMAGES
        ]

    @cached_property
    def arrays(self) -> tuple[StoredArray, ...]:
        """Every array of the store."""
        arrays: list[StoredArray] = []
        own = {one.path: one for one in self.declaration.common if one.group.startswith(_OF_A_COMPONENT)}
        for variable in self.declaration.variables:
            if variable.group == "activations/*":
                groups = {name: f"{_OF_A_COMPONENT}{name}" for name in self.grid.activations}
                arrays += [
                    self._array(group, own.get(f"{group}/{variable.name}", variable), name)
                    for name, group in groups.items()
                ]
            elif variable.path not in own:
                arrays.append(self._array(variable.group, variable))
        return tuple(arrays)

    def known(self) -> dict[str, NDArray[Any]]:
        """What is known of every run before it runs, by path: its costs, what runs at which step, what is edited."""
        plan, grid, runs = self.plan, self.grid, run_ids(range(len(self.grid.interventions)))
        number: dict[Action | None, int] = {None: 0}  # None where there is no call
        acted = np.zeros((len(runs), plan.schedule.steps), np.int32)
        for run in runs:
            for span in plan.programs[run]:
                at = slice(plan.schedule.steps - span.start, plan.schedule.steps - span.stop + 1)
                acted[run, at] = number.setdefault(span.action, len(number))
        recorded = acted[:, [plan.schedule.steps - step for step in self.recorded_steps]]
        alive = {
            one.component: np.array(
                [action is not None and plan.anatomy.owner(self.place_of(one)) not in action.dead for action in number]
            )[recorded]
            for one in self.recordings
        }
        values = {
            "outcomes/unet_calls": np.array([plan.calls_by_run[run] for run in runs]),
            "outcomes/flops": np.array([plan.flops_by_run[run] for run in runs]),
            "trajectory/ran": acted != 0,
            "audit/declared": self._declared(),
        }
        if plan.spec.record.of == "all":
            values |= {f"activations/{name}/ran": alive[name] for name in grid.activations}
            if grid.summary:
                values["activation_summary/ran"] = np.stack([alive[name] for name in grid.summary], axis=-1)
        return values

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """All that is recorded of components."""
        whole, summary = self.grid.activations, self.grid.summary
        return (*(Recording(name, True) for name in whole), *(Recording(name, False) for name in summary))

    @cached_property
    def summarised(self) -> dict[str, Site]:
        """What is summarised, by its name."""
        return self.plan.spec.record.summarised(self.plan.anatomy)

    def place_of(self, recording: Recording) -> str:
        """Whose value is needed for a recording."""
        return recording.component if recording.whole else self.summarised[recording.component].component

    def _declared(self) -> NDArray[np.uint8]:
        """How often each intervention's edits are to apply, (intervention, step, place)."""
        declared = np.zeros((len(self.grid.interventions), self.plan.schedule.steps, len(self.grid.places)), np.uint8)
        for row in range(len(declared)):
            declared[row] = self.plan.declared(row, self.grid.places)
        return declared

    def coordinates(self, group: str) -> list[Coordinate]:
        """Coordinates of a group's dimensions."""
        general = "activations/*" if group.startswith(_OF_A_COMPONENT) else group
        dims = {dim for one in self.declaration.variables if one.group == general for dim in one.dims}
        recorded = group.startswith("activation")
        made: list[Coordinate] = []
        if SAMPLE in dims:
            made += self._samples()
        if STEP in dims:
            made += self._steps(self.recorded_steps if recorded else tuple(range(self.plan.schedule.steps, 0, -1)))
        if INTERVENTION in dims:
            made += [one for one in self._interventions if one.name not in dims or one.name == one.dim]
        if COMPONENT in dims:
            made += self._components()
        if BIN in dims:
            made += self._bins()
        if PLACE in dims:
            made.append(Coordinate(PLACE, PLACE, np.array(self.grid.places, dtype=object)))
        for name, labels in self.brought.items():
            made += [Coordinate(name, name, np.array(labels, dtype=object))] if name in dims else []
        return made

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Of every dimension; those of a component's own output are other ones."""
        channels, height, width = self.plan.bound.picture_shape
        latents = dict(zip(LATENTS, self.plan.image_shape, strict=True)) if self.plan.bound.decodes else {}
        return {
            INTERVENTION: len(self.grid.interventions),
            SAMPLE: len(self.grid.samples),
            STEP: self.plan.schedule.steps,
            COMPONENT: len(self.grid.summary),
            PLACE: len(self.grid.places),
            **({} if (bins := self.plan.spec.record.bins) is None else {BIN: len(bins) - 1}),
            CHANNEL: channels,
            Y: height,
            X: width,
            **latents,
            **{name: len(labels) for name, labels in self.brought.items()},
        }

    def _array(self, group: str, variable: Variable, component: str | None = None) -> StoredArray:
        sizes = dict(self.sizes)
        if group.startswith("activation"):
            sizes[STEP] = len(self.recorded_steps)
        if component is not None:
            put_out = self.plan.anatomy.described(component)
            sizes |= zip(put_out.dims, put_out.shape, strict=True)
        floating, dtype = component is not None and variable.dtype.startswith("float"), variable.dtype
        shape = tuple(sizes[dim] for dim in variable.dims)
        return StoredArray(
            path=f"{group}/{variable.name}",
            variable=variable,
            shape=shape,
            chunks=self._chunks(variable.dims, shape, dtype, streamed=floating),
            dtype=dtype,
        )

    def _chunks(self, dims: tuple[str, ...], shape: tuple[int, ...], dtype: str, *, streamed: bool) -> tuple[int, ...]:
        """A block of samples and a group of interventions, or as much of them as keeps a chunk small.

        Whole outputs of components are written step by step and run by run as they come.
        """
        largest = {
            SAMPLE: self.block,
            INTERVENTION: 1 if streamed else self.plan.group,
            STEP: 1 if streamed else max(shape),
        }
        chunks = [min(size, largest.get(dim, size)) for dim, size in zip(dims, shape, strict=True)]
        itemsize = 8 if dtype == "str" else np.dtype(dtype).itemsize
        for dim in (INTERVENTION, STEP):
            if dim in dims:
                place = dims.index(dim)
                rest = itemsize * math.prod(chunks) // chunks[place]
                chunks[place] = max(1, min(chunks[place], _MOST_BYTES // max(rest, 1)))
        return tuple(chunks)

    def _samples(self) -> list[Coordinate]:
        samples = self.grid.samples
        return [
            Coordinate(SAMPLE, SAMPLE, np.arange(len(samples))),
            Coordinate("prompt", SAMPLE, np.array([sample.prompt for sample in samples], dtype=object)),
            Coordinate("seed", SAMPLE, np.array([sample.seed for sample in samples], dtype=np.int64)),
            *self._starts(),
        ]

    def _starts(self) -> list[Coordinate]:
        """The start of every sample, unless its seed says all of it."""
        starts = [sample.start for sample in self.grid.samples]
        if all(type(start) is Noise for start in starts):
            return []
        written = [json.dumps(start.to_json(), sort_keys=True) for start in starts]
        return [Coordinate(SAMPLE_START, SAMPLE, np.array(written, dtype=object))]

    def _steps(self, steps: tuple[int, ...]) -> list[Coordinate]:
        schedule = self.plan.schedule
        return [
            Coordinate(STEP, STEP, np.array(steps, dtype=np.int64)),
            Coordinate("timestep", STEP, self._times(steps)),
            Coordinate("alpha_bar", STEP, np.array([schedule.alpha_bar(step) for step in steps])),
            Coordinate("log_snr", STEP, np.array([schedule.log_snr(step) for step in steps])),
            *self._calls(steps),
        ]

    def _times(self, steps: tuple[int, ...]) -> NDArray[Any]:
        """Whole numbers, unless the spacing of the whole run has others."""
        times = self.plan.schedule.timesteps
        kind = np.int64 if all(isinstance(time, int) for time in times) else np.float64
        return np.array([times[step - 1] for step in steps], dtype=kind)

    def _calls(self, steps: tuple[int, ...]) -> list[Coordinate]:
        """U-Net calls of every step of the baseline, unless each takes one."""
        schedule = self.plan.schedule
        levels = [schedule.level(step) for step in range(schedule.steps, -1, -1)]
        made = self.plan.spec.sampler.calls_along(levels)
        if max(made) == 1:
            return []
        return [Coordinate(CALLS, STEP, np.array([made[schedule.steps - step] for step in steps], dtype=np.int64))]

    def _own_coordinates(self) -> list[DeclaredCoordinate]:
        """Of samples, steps and interventions: those that not every study has, or has of another type."""
        said = [
            DeclaredCoordinate(name=name, dim=INTERVENTION, dtype=dtype, meaning="as the kind of intervention says it")
            for name, (dtype, _) in self._columns.items()
            if name != "label"
        ]
        found = [*said, *(item.declared for item in (*self._samples(), *self._steps(self.recorded_steps)))]
        known = {(one.name, one.dim): one for one in (*OPTIONAL, *ORDINARY.coordinates)}
        meant = [replace(one, meaning=known.get((one.name, one.dim), one).meaning) for one in found]
        return [one for one in meant if one not in ORDINARY.coordinates]

    @cached_property
    def _columns(self) -> dict[str, tuple[str, list[Any]]]:
        return coordinate_columns(self.grid.interventions, self.grid.edits)

    @cached_property
    def _interventions(self) -> list[Coordinate]:
        columns, items = self._columns, self.grid.interventions
        specs = np.array([json.dumps(item.to_json(), sort_keys=True) for item in items], dtype=object)
        labels = np.array([item.label for item in items], dtype=object)
        made = {INTERVENTION: labels, "spec": specs}
        for one in self.declaration.coordinates:
            if one.dim == INTERVENTION and one.name not in made:
                _, values = columns.get(one.name, (one.dtype, [MISSING_OF[one.dtype]] * len(items)))
                made[one.name] = np.array(values, dtype=object if one.dtype == "str" else one.dtype)
        return [Coordinate(name, INTERVENTION, values) for name, values in made.items()]

    def _bins(self) -> list[Coordinate]:
        edges = np.array(self.plan.spec.record.bins)
        numbers = Coordinate(BIN, BIN, np.arange(len(edges) - 1))
        return [numbers, Coordinate("bin_low", BIN, edges[:-1]), Coordinate("bin_high", BIN, edges[1:])]

    def _components(self) -> list[Coordinate]:
        anatomy = self.plan.anatomy
        sites = [self.summarised[name] for name in self.grid.summary]
        blocks = [anatomy.block(site.component) for site in sites]  # of a place inside a component that component
        sizes = [dict(zip((axes := anatomy.axes(site.component)).dims, axes.shape, strict=True)) for site in sites]
        roles = [block.role if block else "block" for block in blocks]
        text = {COMPONENT: list(self.grid.summary), "role": roles}
        numbers = {
            "level": [block.level if block else 0 for block in blocks],
            "depth": [block.depth if block else 0 for block in blocks],
            "resolution": [along.get(Y, 0) for along in sizes],  # 0 where there are no pixels
            "channels": [along.get(CHANNEL, 0) for along in sizes],
            "component_flops": [block.flops if block else 0 for block in blocks],
        }
        return [
            *(Coordinate(name, COMPONENT, np.array(values, dtype=object)) for name, values in text.items()),
            *(Coordinate(name, COMPONENT, np.array(values, dtype=np.int64)) for name, values in numbers.items()),
        ]
