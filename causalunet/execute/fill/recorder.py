"""What is kept of a part of a study: handed to the store as it comes, outcomes at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.outcomes import OutcomeContext
from causalunet.design.samplers import Estimate, State
from causalunet.errors import FiringError, ModelError
from causalunet.execute.fill.parts import Part
from causalunet.execute.fill.stranded import strand
from causalunet.execute.measure.outcomes import (
    BASELINE_IMAGE,
    baseline_values,
    outcome_values,
    own_values,
    read_of_baseline,
)
from causalunet.execute.measure.summaries import Summaries
from causalunet.execute.walk.lockstep import Block
from causalunet.models.checking import encoded
from causalunet.models.given import shifting_images
from causalunet.plan import BASELINE, Call, Plan
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.layout import Layout, Recording
from causalunet.results.meaning.schema import COMPLETE, FAILED, GIVEN, MISSING
from causalunet.results.meaning.scored import KnownOutcome
from causalunet.tree import StateId

__all__ = ["Recorder"]

_TRAJECTORY = ("x_t", "x0_hat", "eps")


class Recorder:
    """Observer of one part that writes into a results store.

    Parameters
    ----------
    plan : Plan
        Of the part.
    layout : Layout
        Of the whole store.
    writer : StudyWriter
    part : Part
    block : Block
        The part's samples.
    decode : callable
        x_0 to images, such as a `Decoding`.
    outcomes : sequence of KnownOutcome
        Of the store's own.

    Attributes
    ----------
    failed : dict of (int, int) to str
        Reason by run and position of the sample in the part.
    baseline : dict of str to ndarray, (sample, step, channel, y, x)
        The baseline's trajectory: that of this part, or the stored one that it starts from.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        writer: StudyWriter,
        part: Part,
        block: Block,
        decode: Callable[[Tensor], NDArray[np.float32]],
        outcomes: Sequence[KnownOutcome] = (),
    ) -> None:
        self._model, self._plan, self._writer, self._part = plan.bound.model, plan, writer, part
        self._n, self._samples, self._decode = len(block.seeds), part.samples, decode
        self._block, self._outcomes, self._sizes = block, outcomes, layout.sizes
        self._row = {run: row for row, run in enumerate(part.interventions)}
        self._places = {name: index for index, name in enumerate(layout.grid.places)}
        self._recorded = {step: position for position, step in enumerate(layout.recorded_steps)}
        self._summaries, self._layout = Summaries(layout, part, block.prompts), layout
        steps = plan.schedule.steps
        shape = (len(self._row), self._n, steps)
        self._distance = {name: np.full(shape, np.nan, np.float32) for name in ("x0_hat", "eps")}
        for run, step in self._first_steps().items():
            for distance in self._distance.values():
                distance[self._row[run], :, : self._position(step)] = 0.0  # until then it is the baseline
        self._fired = np.zeros((*shape, len(self._places)), np.uint8)
        self._called = np.zeros(shape, bool)
        trajectory = (self._n, steps, *plan.image_shape)
        self.baseline = {
            name: writer.read(f"baseline/{name}", (part.samples,)) if part.forked else np.empty(trajectory, np.float32)
            for name in _TRAJECTORY
        }
        self._reference: dict[str, Tensor] = {}
        self._reference_step = 0
        self._baseline_activations: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        self._images: dict[int, NDArray[np.float32]] = {}
        self.failed: dict[tuple[int, int], str] = {}

    def states(self) -> dict[StateId, State] | None:
        """States that the part starts from, by their number in its plan."""
        if not self._part.forked:
            return None
        states = {call.state for call in self._plan.calls if call.state < 0 and not call.source}
        return {state: self._stored_state(-state) for state in states}

    def _stored_state(self, step: int) -> State:
        """The baseline's, with as much of its past as the sampler looks back on."""
        schedule, history = self._plan.schedule, self._plan.spec.sampler.history
        x, x0, eps = (torch.from_numpy(self.baseline[name]) for name in ("x_t", "x0_hat", "eps"))
        passed = range(step + 1, min(step + history, schedule.steps) + 1)
        past = (
            Estimate(x0[:, at], eps[:, at], None, x[:, at], schedule.level(step))
            for step, at in ((step, self._position(step)) for step in passed)
        )
        return State(x[:, self._position(step)], tuple(past))

    def wants(self, call: Call) -> tuple[str, ...]:
        """Components that are recorded of the baseline's calls, and of the other runs."""
        if call.step not in self._recorded:
            return ()
        # Others are compared with the baseline's activations, so its calls give what theirs do.
        of_baseline = (*self._part.baseline_recordings, *self._part.recordings) if BASELINE in call.runs else ()
        others = self._part.recordings if any(run > BASELINE for run in call.runs) else ()
        return tuple(dict.fromkeys(self._layout.place_of(recording) for recording in (*of_baseline, *others)))

    def activations(self, call: Call, rows: slice, values: dict[str, Tensor]) -> None:
        """Summarise activations, and store whole ones once those of all samples of a call are there."""
        compared = {self._layout.place_of(recording) for recording in self._part.recordings}
        for name, value in values.items():
            numbers = value.float()
            if BASELINE in call.runs and name in compared:
                self._keep(self._baseline_activations, name, rows, numbers)
            reference = numbers if BASELINE in call.runs else self._baseline_activations[name][rows]
            self._summaries.add(name, call.runs, rows, self._recorded[call.step], numbers, reference)
            if Recording(name, whole=True) in {*self._part.baseline_recordings, *self._part.recordings}:
                self._keep(self._kept, name, rows, numbers)
                if rows.stop == self._n:
                    self._store_activation(name, call, self._kept.pop(name))

    def _keep(self, kept: dict[str, Tensor], name: str, rows: slice, value: Tensor) -> None:
        if rows.start == 0:
            kept[name] = value.new_zeros(self._n, *value.shape[1:])
        kept[name][rows] = value

    def fired(self, call: Call, rows: slice, places: Mapping[str, int]) -> None:
        """Count the edits of every run that shares the call, and note that it was called."""
        position = self._position(call.step)
        own = [self._row[run] for run in call.runs if run > BASELINE]
        for row in own:
            self._called[row, rows, position] = True
            for place, times in places.items():
                self._fired[row, rows, position, self._places[place]] += times

    def predicted(self, call: Call, stage: int, estimate: Estimate) -> None:
        """Keep the baseline's trajectory, and the distance of every other run to it: of the first call of each step."""
        position, (x0, eps, _, x, _) = self._position(call.step), estimate
        self._check_finite(call, eps)
        if stage:
            return
        if BASELINE in call.runs and not self._part.forked:
            for name, value in zip(_TRAJECTORY, (x, x0, eps), strict=True):
                self.baseline[name][:, position] = value.cpu().numpy()
        if self._reference_step != call.step:
            self._reference = {
                name: torch.from_numpy(self.baseline[name][:, position]).to(x) for name in ("x0_hat", "eps")
            }
            self._reference_step = call.step
        rows = [self._row[run] for run in call.runs if run > BASELINE]
        for name, value in (("x0_hat", x0), ("eps", eps)) if rows else ():
            distance = (value - self._reference[name]).square().mean(dim=(1, 2, 3)).sqrt().cpu().numpy()
            self._distance[name][rows, :, position] = distance

    def finished(self, run: int, x0: Tensor) -> None:
        """Keep a run's image."""
        self._images[run] = self._decode(x0)

    @property
    def failed_cells(self) -> int:
        """Cells of this part that failed."""
        return sum(run > BASELINE for run, _ in self.failed) if self._part.outcomes else 0

    def write(self) -> None:
        """Compare all images with the baseline's and hand everything to the store; it counts once committed."""
        self._spread_failures()
        if self.failed and not self._part.outcomes:
            reason = next(iter(self.failed.values()))
            raise ModelError(
                f"Runs that are stored were made again to record more of them, and now {reason}. "
                "The model or the machine is not the one that made the store; nothing of this was stored."
            )
        if not self._part.forked:
            self._write_baseline()
        if self._part.outcomes and self._row:
            self._write_outcomes()
        for path, positions, values in self._summaries.finished():
            self._writer.write(path, positions, values)

    def _first_steps(self) -> dict[int, int]:
        """Step at which each run is first called on its own account."""
        first: dict[int, int] = {}
        for call in self._plan.calls:
            for run in (run for fork in call.forks for run in fork.runs if run > BASELINE):
                first.setdefault(run, call.step)
        return first

    def _position(self, step: int) -> int:
        return self._plan.schedule.steps - step

    def _check_finite(self, call: Call, eps: Tensor) -> None:
        finite = torch.isfinite(eps).flatten(1).all(dim=1)
        if bool(finite.all()):
            return
        if call.source:
            return  # those that take values of it tell
        for sample in torch.nonzero(~finite).flatten().tolist():
            for run in call.runs:
                self.failed.setdefault((run, sample), f"the U-Net's prediction at step {call.step} is not finite")

    def _spread_failures(self) -> None:
        """Without a baseline nothing can be said of a sample's other runs."""
        for (run, sample), reason in list(self.failed.items()):
            if run == BASELINE:
                for other in self._row:
                    self.failed[other, sample] = f"baseline: {reason}"

    def _failures(self, runs: tuple[int, ...]) -> NDArray[np.bool_]:
        return np.array([[(run, sample) in self.failed for sample in range(self._n)] for run in runs], dtype=bool)

    def _write_baseline(self) -> None:
        failed = self._failures((BASELINE,))[0]
        values = baseline_values(self._model, _blank(self._images[BASELINE], failed))
        self._images[BASELINE] = values["image"]
        for name, value in values.items():
            self._writer.write(f"baseline/{name}", (self._samples,), _hidden(value, failed))
        for name, value in self.baseline.items():
            self._writer.write(f"baseline/{name}", (self._samples,), value)
        if self._plan.schedule.process.shifted:
            given = shifting_images(self._model, encoded(self._model, self._block.prompts))
            self._writer.write(f"baseline/{GIVEN}", (self._samples,), given.cpu().numpy())
        self._writer.write("baseline/status", (self._samples,), np.where(failed, FAILED, COMPLETE))
        self._open_again(failed)
        for sample in np.flatnonzero(failed).tolist():
            # The sample's cells of other parts cannot be run either.
            count, reason = len(self._plan.spec.interventions), self.failed[BASELINE, sample]
            strand(self._writer, self._samples.start + sample, count, reason)

    def _open_again(self, failed: NDArray[np.bool_]) -> None:
        """Let cells that failed for want of a baseline be missing where there is one now."""
        stranded = (self._writer.read("outcomes/status", (slice(None), self._samples)) == FAILED) & ~failed
        for sample in np.flatnonzero(stranded.any(axis=0)).tolist():
            at = slice(self._samples.start + sample, self._samples.start + sample + 1)
            rows = np.flatnonzero(stranded[:, sample]).tolist()
            self._writer.write_cells("outcomes/status", rows, at, np.full((len(rows), 1), MISSING))
            self._writer.write_cells("outcomes/failure", rows, at, np.full((len(rows), 1), "", dtype=object))

    def _write_outcomes(self) -> None:
        runs = self._part.interventions
        failed = self._failures(runs)
        images = np.stack([_blank(self._images[run], failed[row]) for run, row in self._row.items()])
        baseline = {path: self._writer.read(path, (self._samples,)) for path in read_of_baseline(self._model)}
        if BASELINE in self._images:
            baseline[BASELINE_IMAGE] = self._images[BASELINE]
        values = outcome_values(self._model, images, baseline)
        self._writer.write_cells("outcomes/status", runs, self._samples, np.where(failed, FAILED, COMPLETE))
        reasons = np.array([[self.failed.get((run, n), "") for n in range(self._n)] for run in runs], dtype=object)
        self._writer.write_cells("outcomes/failure", runs, self._samples, reasons)
        for name, value in values.items():
            self._writer.write_cells(f"outcomes/{name}", runs, self._samples, _hidden(value, failed))
        for path, value in own_values(self._outcomes, images, baseline[BASELINE_IMAGE], self._context(), failed):
            self._writer.write_cells(path, runs, self._samples, value)
        for name, distance in zip(("x0", "eps"), self._distance.values(), strict=True):
            self._writer.write_cells(f"trajectory/{name}_distance", runs, self._samples, distance)
        self._writer.write_cells("audit/fired", runs, self._samples, self._all_fired())
        nulls = [row for run, row in self._row.items() if self._plan.spec.interventions[run].kind == "null"]
        if nulls:
            largest = np.abs(values["image"][nulls] - baseline[BASELINE_IMAGE]).max(axis=(2, 3, 4))
            difference = np.fmax.reduce(np.where(failed[nulls], np.nan, largest), axis=0)
            before = self._writer.read("audit/null_difference", (self._samples,))
            self._writer.write("audit/null_difference", (self._samples,), np.fmax(before, difference))

    def _context(self) -> OutcomeContext:
        """What outcomes see beside images: what the store holds of the same runs and samples, once they are written."""
        stored = {f"trajectory/{name}_distance": self._distance[of] for name, of in (("x0", "x0_hat"), ("eps", "eps"))}
        return OutcomeContext(
            prompts=self._block.prompts,
            seeds=self._block.seeds,
            stored={**stored, **{f"baseline/{name}": value for name, value in self.baseline.items()}},
            read_factors=self._model.read_factors if self._model.factors else None,
            sizes=self._sizes,
        )

    def _all_fired(self) -> NDArray[np.uint8]:
        """How often every edit fired: at a skipped step, that the U-Net was not called between two calls of the run.

        Raises
        ------
        FiringError
            Another number of times than declared.
        """
        if "unet" in self._places:
            # Calls before that are replayed, to look at them, and not at every step.
            begun = np.zeros(self._called.shape, bool)
            for run, step in self._first_steps().items():
                begun[self._row[run], :, self._position(step) :] = True
            self._fired[..., self._places["unet"]] = begun & ~self._called
        for run, row in self._row.items():
            declared, item = self._plan.declared(run, list(self._places)), self._plan.spec.interventions[run]
            if (self._fired[row] != declared).any():
                sample, position, place = np.argwhere(self._fired[row] != declared)[0].tolist()
                at = list(self._places)[place], self._plan.schedule.steps - position
                found = int(self._fired[row, sample, position, place]), int(declared[position, place])
                raise FiringError(
                    f"Edits of {item.label!r} fired another number of times than declared, (place, step): (fired, "
                    f"declared): {{{at}: {found}}}. Nothing of this part is stored; please report the model and the "
                    "intervention."
                )
        return self._fired

    def _store_activation(self, name: str, call: Call, value: Tensor) -> None:
        position, part = self._recorded[call.step], self._part
        others = tuple(run for run in call.runs if run > BASELINE)
        whole = Recording(name, whole=True)
        if BASELINE in call.runs and whole in part.baseline_recordings:
            self._writer.write(f"activations/{name}/baseline", (self._samples, position), value.cpu().numpy())
        if others and whole in part.recordings:
            numbers = value.cpu().numpy()
            for run in others:
                self._writer.write(f"activations/{name}/intervened", (run, self._samples, position), numbers)


def _blank(images: NDArray[np.float32], failed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Put grey in place of images that are not finite, so that metrics of the others can be computed."""
    return np.where(failed[:, None, None, None], np.float32(0.5), images) if failed.any() else images


def _hidden(values: NDArray, failed: NDArray[np.bool_]) -> NDArray:
    """Leave no number where a cell failed."""
    if not failed.any():
        return values
    kept = values.copy()
    kept[failed] = np.nan if values.dtype.kind == "f" else 0
    return kept
