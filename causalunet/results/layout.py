"""From a plan to the arrays of its store: which variables, with which sizes, chunks and coordinates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.dims import CHANNEL, COMPONENT, INTERVENTION, SAMPLE, STEP, X, Y
from causalunet.plan import Plan
from causalunet.results.schema import FACTOR, VARIABLES, Variable

__all__ = ["Coordinate", "Layout", "StoredArray"]

_STEPWISE = ("x_t", "x0_hat")


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


@dataclass(frozen=True)
class Layout:
    """The arrays and coordinates of a plan's store.

    Parameters
    ----------
    plan : Plan
    factors : dict
        Factor name to its values; empty for models without a factor reader.
    block : int
        Samples per chunk: a block of samples is written whole.
    """

    plan: Plan
    factors: dict[str, tuple[str, ...]]
    block: int

    @property
    def recorded_steps(self) -> tuple[int, ...]:
        """Steps at which activations are recorded, descending."""
        steps = self.plan.spec.record.steps
        return steps if steps is not None else tuple(range(self.plan.schedule.steps, 0, -1))

    def arrays(self) -> list[StoredArray]:
        """Every array of the store."""
        record, anatomy = self.plan.spec.record, self.plan.anatomy
        activations = anatomy.select(record.activations)
        summary = anatomy.select(record.summary)
        arrays: list[StoredArray] = []
        for variable in VARIABLES:
            if FACTOR in variable.dims and not self.factors:
                continue
            if record.of == "baseline" and variable.group.startswith("activation") and INTERVENTION in variable.dims:
                continue
            if variable.group == "activations/*":
                arrays += [self._array(f"activations/{name}", variable, name) for name in activations]
            elif variable.group != "activation_summary" or summary:
                arrays.append(self._array(variable.group, variable))
        return arrays

    def costs(self) -> dict[str, list[int]]:
        """What is known of every run before it runs, by path."""
        plan, runs = self.plan, range(len(self.plan.spec.interventions))
        return {
            "outcomes/unet_calls": [plan.calls_by_run[run] for run in runs],
            "outcomes/flops": [plan.flops_by_run[run] for run in runs],
        }

    def coordinates(self, group: str) -> list[Coordinate]:
        """Coordinates of a group's dimensions."""
        dims = {dim for array in self.arrays() if array.path.rsplit("/", 1)[0] == group for dim in array.variable.dims}
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
        if FACTOR in dims:
            made.append(Coordinate(FACTOR, FACTOR, np.array(list(self.factors), dtype=object)))
        return made

    def _array(self, group: str, variable: Variable, component: str | None = None) -> StoredArray:
        channels, height, width = self.plan.anatomy.by_name[component].shape if component else self.plan.image_shape
        sizes = {
            INTERVENTION: len(self.plan.spec.interventions),
            SAMPLE: self.plan.samples,
            STEP: len(self.recorded_steps) if group.startswith("activation") else self.plan.schedule.steps,
            COMPONENT: len(self.plan.anatomy.select(self.plan.spec.record.summary)),
            FACTOR: len(self.factors),
            CHANNEL: channels,
            Y: height,
            X: width,
        }
        stepwise = variable.name in _STEPWISE or component is not None
        whole = {INTERVENTION: 1 if Y in variable.dims else sizes[INTERVENTION], SAMPLE: self.block}
        chunks = {**sizes, **whole, STEP: 1 if stepwise else sizes[STEP]}
        floating = component is not None and variable.dtype.startswith("float")
        return StoredArray(
            path=f"{group}/{variable.name}",
            variable=variable,
            shape=tuple(sizes[dim] for dim in variable.dims),
            chunks=tuple(min(chunks[dim], max(sizes[dim], 1)) for dim in variable.dims),
            dtype=self.plan.spec.record.dtype if floating else variable.dtype,
        )

    def _samples(self) -> list[Coordinate]:
        samples = self.plan.spec.samples
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
        ]

    def _interventions(self) -> list[Coordinate]:
        items = self.plan.spec.interventions
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
        chosen = [anatomy.by_name[name] for name in anatomy.select(self.plan.spec.record.summary)]
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
