"""What is kept of a block of samples: handed to the store as it comes, outcomes at the end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from causalunet.execute.lockstep import Block
from causalunet.execute.outcomes import baseline_values, outcome_values
from causalunet.execute.summaries import Summaries
from causalunet.models.base import DiffusionModel
from causalunet.plan import BASELINE, Call, Plan
from causalunet.results.layout import Layout
from causalunet.results.store import StudyWriter

__all__ = ["Recorder"]


class Recorder:
    """Observer of one block that writes into a results store.

    Parameters
    ----------
    model : DiffusionModel
    plan : Plan
    layout : Layout
    writer : StudyWriter
    block : Block
    """

    def __init__(self, model: DiffusionModel, plan: Plan, layout: Layout, writer: StudyWriter, block: Block) -> None:
        self._model, self._plan, self._writer = model, plan, writer
        self._start, self._n = block.start, len(block.seeds)
        self._samples = slice(block.start, block.start + len(block.seeds))
        record, anatomy = plan.spec.record, plan.anatomy
        shape = (len(plan.spec.interventions), self._n, plan.schedule.steps)
        self._full = anatomy.select(record.activations)
        self._summaries = Summaries(plan, layout, anatomy.select(record.summary), self._n)
        self._component_ran = {name: np.zeros((shape[0], len(layout.recorded_steps)), bool) for name in self._full}
        self._wanted = anatomy.select((*record.activations, *record.summary))
        self._of_all = record.of == "all"
        self._recorded = {step: position for position, step in enumerate(layout.recorded_steps)}
        self._distance = {name: np.full(shape, np.nan, np.float32) for name in ("x0", "eps")}
        self._ran = np.zeros((shape[0], shape[2]), dtype=bool)
        self._reference: tuple[Tensor, ...] = ()
        self._baseline_activations: dict[str, Tensor] = {}
        self._images: dict[int, NDArray[np.float32]] = {}

    def wants(self, call: Call) -> tuple[str, ...]:
        """All recorded components of the baseline's calls, and of other calls if the study records all."""
        if call.step not in self._recorded or not (self._of_all or BASELINE in call.runs):
            return ()
        return self._wanted

    def activations(self, call: Call, rows: slice, values: dict[str, Tensor]) -> None:
        """Store activations, and their summaries, of some samples of a call."""
        position = self._recorded[call.step]
        samples = slice(self._start + rows.start, self._start + rows.stop)
        for name, value in values.items():
            conditional = value.float()
            if BASELINE in call.runs:
                kept = self._baseline_activations.setdefault(name, conditional.new_zeros(self._n, *value.shape[1:]))
                kept[rows] = conditional
            if name in self._full:
                self._store_full(name, call, samples, position, conditional.cpu().numpy())
            self._summaries.add(name, call.runs, rows, position, conditional, self._baseline_activations[name][rows])

    def predicted(self, call: Call, x: Tensor, x0: Tensor, eps: Tensor) -> None:
        """Store the baseline's trajectory; keep the distance of every other run to it."""
        position = self._plan.schedule.steps - call.step
        if BASELINE in call.runs:
            self._reference = (x0, eps)
            self._writer.write("baseline/x_t", (self._samples, position), x.cpu().numpy())
            self._writer.write("baseline/x0_hat", (self._samples, position), x0.cpu().numpy())
        runs = [run for run in call.runs if run != BASELINE]
        self._ran[runs, position] = True
        for name, value, reference in zip(("x0", "eps"), (x0, eps), self._reference, strict=True):
            distance = (value - reference).square().mean(dim=(1, 2, 3)).sqrt().cpu().numpy()
            self._distance[name][runs, :, position] = distance

    def finished(self, run: int, x0: Tensor) -> None:
        """Keep a run's image."""
        self._images[run] = self._model.decode(x0)

    def write_outcomes(self) -> None:
        """Compare all images with the baseline's and mark the block complete."""
        order = range(len(self._plan.spec.interventions))
        baseline = self._images[BASELINE]
        images = np.stack([self._images[run] for run in order])
        of_baseline = baseline_values(self._model, baseline)
        for name, value in of_baseline.items():
            self._writer.write(f"baseline/{name}", (self._samples,), value)
        for name, value in outcome_values(self._model, images, of_baseline).items():
            self._writer.write(f"outcomes/{name}", (slice(None), self._samples), value)
        for name, distance in self._distance.items():
            self._writer.write(f"trajectory/{name}_distance", (slice(None), self._samples), distance)
        self._writer.write("trajectory/ran", (), self._ran)
        if self._of_all:
            for name, ran in self._component_ran.items():
                self._writer.write(f"activations/{name}/ran", (), ran)
        for name, summary in self._summaries.finished(self._of_all):
            per_sample = name.startswith("baseline_")
            place = (self._samples,) if per_sample else () if name == "ran" else (slice(None), self._samples)
            self._writer.write(f"activation_summary/{name}", place, summary)
        self._writer.complete(self._samples)

    def _store_full(self, name: str, call: Call, samples: slice, position: int, value: NDArray[np.float32]) -> None:
        group = f"activations/{name}"
        for run in call.runs:
            if run == BASELINE:
                self._writer.write(f"{group}/baseline", (samples, position), value)
            elif self._of_all:
                self._writer.write(f"{group}/intervened", (run, samples, position), value)
                self._component_ran[name][run, position] = True
