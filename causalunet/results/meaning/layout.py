"""From a plan to the arrays of its store: which variables, with which sizes, chunks and coordinates."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.dims import CHANNEL, COMPONENT, FACTOR, INTERVENTION, PLACE, SAMPLE, STEP, X, Y
from causalunet.plan import Action, Plan
from causalunet.results.meaning.grid import Grid
from causalunet.results.meaning.schema import CALLS, VARIABLES, Variable

__all__ = ["Coordinate", "Layout", "Recording", "StoredArray"]

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
    """A coordinate along one dimension."""

    name: str
    dim: str
    values: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """One of the two things that are recorded of a component: its whole output, or a summary of it."""

    component: str
    whole: bool


@dataclass(frozen=True)
class Layout:
    """The arrays and coordinates of a plan's store.

    Parameters
    ----------
    plan : Plan
        Of a study whose interventions stand in the order of the grid.
    factors : dict
        Factor name to its values; empty for models without a factor reader.
    block : int
        Samples per chunk: one process at a time works on a block of samples.
    grid : Grid, optional
        What stands where; by default all in the order of the study.
    """

    plan: Plan
    factors: dict[str, tuple[str, ...]]
    block: int
    grid: Grid = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.grid is None:
            object.__setattr__(self, "grid", Grid.of(self.plan.spec, self.plan.anatomy))

    @property
    def recorded_steps(self) -> tuple[int, ...]:
        """Steps at which activations are recorded, descending."""
        steps = self.plan.spec.record.steps
        return steps if steps is not None else tuple(range(self.plan.schedule.steps, 0, -1))

    @cached_property
    def arrays(self) -> tuple[StoredArray, ...]:
        """Every array of the store."""
        record, grid = self.plan.spec.record, self.grid
        arrays: list[StoredArray] = []
        for variable in VARIABLES:
            if FACTOR in variable.dims and not self.factors:
                continue
            if record.of == "baseline" and variable.group.startswith("activation") and INTERVENTION in variable.dims:
                continue
            if variable.group == "activations/*":
                arrays += [self._array(f"activations/{name}", variable, name) for name in grid.activations]
            elif variable.group != "activation_summary" or grid.summary:
                arrays.append(self._array(variable.group, variable))
        return tuple(arrays)

    def known(self) -> dict[str, NDArray[Any]]:
        """What is known of every run before it runs, by path: its costs, what runs at which step, what is edited."""
        plan, grid, runs = self.plan, self.grid, range(len(self.grid.interventions))
        number: dict[Action | None, int] = {None: 0}  # None where there is no call
        acted = np.zeros((len(runs), plan.schedule.steps), np.int32)
        for run in runs:
            for span in plan.programs[run]:
                at = slice(plan.schedule.steps - span.start, plan.schedule.steps - span.stop + 1)
                acted[run, at] = number.setdefault(span.action, len(number))
        recorded = acted[:, [plan.schedule.steps - step for step in self.recorded_steps]]
        alive = {
            name: np.array([action is not None and name not in action.dead for action in number])[recorded]
            for name in {recording.component for recording in self.recordings}
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

    def _declared(self) -> NDArray[np.uint8]:
        """How often each intervention's edits are to apply, (intervention, step, place)."""
        declared = np.zeros((len(self.grid.interventions), self.plan.schedule.steps, len(self.grid.places)), np.uint8)
        for row in range(len(declared)):
            declared[row] = self.plan.declared(row, self.grid.places)
        return declared

    def coordinates(self, group: str) -> list[Coordinate]:
        """Coordinates of a group's dimensions."""
        dims = {dim for array in self.arrays if array.path.rsplit("/", 1)[0] == group for dim in array.variable.dims}
        recorded = group.startswith("activation")
        made: list[Coordinate] = []
        if SAMPLE in dims:
            made += self._samples()
        if STEP in dims:
            made += self._steps(self.recorded_steps if recorded else tuple(range(self.plan.schedule.steps, 0, -1)))
        if INTERVENTION in dims:
            made += self._interventions()
        if COMPONENT in dims:
            made += self._components()
        if PLACE in dims:
            made.append(Coordinate(PLACE, PLACE, np.array(self.grid.places, dtype=object)))
        if FACTOR in dims:
            made.append(Coordinate(FACTOR, FACTOR, np.array(list(self.factors), dtype=object)))
        return made

    def _array(self, group: str, variable: Variable, component: str | None = None) -> StoredArray:
        channels, height, width = self.plan.anatomy.by_name[component].shape if component else self.plan.image_shape
        sizes = {
            INTERVENTION: len(self.grid.interventions),
            SAMPLE: len(self.grid.samples),
            STEP: len(self.recorded_steps) if group.startswith("activation") else self.plan.schedule.steps,
            COMPONENT: len(self.grid.summary),
            PLACE: len(self.grid.places),
            FACTOR: len(self.factors),
            CHANNEL: channels,
            Y: height,
            X: width,
        }
        floating = component is not None and variable.dtype.startswith("float")
        dtype = self.plan.spec.record.dtype if floating else variable.dtype
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
        ]

    def _steps(self, steps: tuple[int, ...]) -> list[Coordinate]:
        schedule = self.plan.schedule
        return [
            Coordinate(STEP, STEP, np.array(steps, dtype=np.int64)),
            Coordinate("timestep", STEP, np.array([schedule.timestep(step) for step in steps], dtype=np.int64)),
            Coordinate("alpha_bar", STEP, np.array([schedule.alpha_bar(step) for step in steps])),
            Coordinate("log_snr", STEP, np.array([schedule.log_snr(step) for step in steps])),
            *self._calls(steps),
        ]

    def _calls(self, steps: tuple[int, ...]) -> list[Coordinate]:
        """U-Net calls of every step of the baseline, unless each takes one."""
        schedule = self.plan.schedule
        levels = [schedule.level(step) for step in range(schedule.steps, -1, -1)]
        made = self.plan.spec.sampler.calls_along(levels)
        if max(made) == 1:
            return []
        return [Coordinate(CALLS, STEP, np.array([made[schedule.steps - step] for step in steps], dtype=np.int64))]

    def _interventions(self) -> list[Coordinate]:
        items = self.grid.interventions
        rows = [item.coordinates() for item in items]
        made = [Coordinate(INTERVENTION, INTERVENTION, np.array([row["label"] for row in rows], dtype=object))]
        for name in rows[0]:
            if name != "label":
                kind = object if isinstance(rows[0][name], str) else np.int64
                made.append(Coordinate(name, INTERVENTION, np.array([row[name] for row in rows], dtype=kind)))
        specs = np.array([json.dumps(item.to_json(), sort_keys=True) for item in items], dtype=object)
        return [*made, Coordinate("spec", INTERVENTION, specs)]

    def _components(self) -> list[Coordinate]:
        anatomy = self.plan.anatomy
        chosen = [anatomy.by_name[name] for name in self.grid.summary]
        text = {COMPONENT: [item.name for item in chosen], "role": [item.role for item in chosen]}
        numbers = {
            "level": [item.level for item in chosen],
            "depth": [item.depth for item in chosen],
            "resolution": [item.shape[1] for item in chosen],
            "channels": [item.shape[0] for item in chosen],
            "component_flops": [item.flops for item in chosen],
        }
        return [
            *(Coordinate(name, COMPONENT, np.array(values, dtype=object)) for name, values in text.items()),
            *(Coordinate(name, COMPONENT, np.array(values, dtype=np.int64)) for name, values in numbers.items()),
        ]
