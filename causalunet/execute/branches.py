"""Running single interventions of a study, each from the stored baseline state where it first differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.execute.batches import micro_batch_size
from causalunet.execute.images import KeptImages
from causalunet.execute.lockstep import Block, check_fired, run_block
from causalunet.execute.outcomes import baseline_values, outcome_values
from causalunet.execute.run import blocks, open_writer
from causalunet.execute.trace import TracedUNet
from causalunet.models.base import DiffusionModel
from causalunet.plan import BASELINE, Call, Plan, make_plan

__all__ = ["Branches"]


class Branches:
    """A study's store, filled by interventions as they are asked for.

    Cells that the store holds are not run again. Trajectories of the intervened runs are not stored.

    Parameters
    ----------
    plan : Plan
        Of the whole study.
    model : DiffusionModel
    path : Path
        Results store: made if absent, gone on with if it holds the same study.
    memory : int
        Budget in bytes, as for `run_plan`.
    overwrite : bool
        Replace a store that holds another study.
    advance : callable, optional
        Told the number of samples after every U-Net call.

    Attributes
    ----------
    unet_calls : int
        U-Net calls for what was asked so far, whether run now or found in the store.
    unet_calls_run : int
        Those run now.
    """

    def __init__(
        self,
        plan: Plan,
        model: DiffusionModel,
        path: Path,
        *,
        memory: int,
        overwrite: bool = False,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self._plan, self._model, self._advance = plan, model, advance
        self._micro_batch = micro_batch_size(model.anatomy, memory, plan.spec.sampler.rows_per_sample)
        self._writer, layout = open_writer(plan, model, path, self._micro_batch, memory, overwrite)
        # As many samples at once as fill a U-Net call, in whole chunks of the store.
        self._block = layout.block * max(1, self._micro_batch // layout.block)
        self._unet = TracedUNet(model.unet, model.anatomy)
        self.unet_calls = self.unet_calls_run = 0

    def baseline(self) -> None:
        """See to it that the store holds the run without intervention."""
        self._complete(self._part((BASELINE,), forked=False), self._writer.baseline_stored())

    def run(self, interventions: Iterable[int], variable: str) -> NDArray[np.float64]:
        """See to it that the store holds the outcomes of some interventions, and give them.

        Parameters
        ----------
        interventions : iterable of int
            Indices in the study. The baseline must be stored.
        variable : str
            Of the outcomes, with one number per cell.

        Returns
        -------
        ndarray of float64, (intervention, sample)
        """
        chosen = list(interventions)
        stored = np.asarray(self._writer.cells_stored()[chosen].all(axis=0))
        self._complete(self._part(chosen, forked=True), stored)
        return np.asarray(self._writer.read(f"outcomes/{variable}", (slice(None),))[chosen], dtype=np.float64)

    def _part(self, runs: Iterable[int], *, forked: bool) -> Plan:
        plan = self._plan
        return make_plan(plan.spec, plan.anatomy, plan.schedule, plan.image_shape, runs=runs, forked=forked)

    def _complete(self, part: Plan, stored: NDArray[np.bool_]) -> None:
        """Run a part of the study for the blocks in which not every sample is stored."""
        self.unet_calls += part.unet_calls
        for block in blocks(part, self._block):
            samples = slice(block.start, block.start + len(block.seeds))
            if stored[samples].all():
                continue
            self._run(part, block, samples)
            self.unet_calls_run += len(part.calls) * len(block.seeds)

    def _run(self, part: Plan, block: Block, samples: slice) -> None:
        starts = {call.state for call in part.calls if call.state < 0}
        states = {state: self._stored_state(-state, samples) for state in starts} or None
        observer = KeptImages(self._model, self._store_prediction(samples))
        fired = run_block(
            self._model,
            self._unet,
            part,
            block,
            micro_batch=self._micro_batch,
            observer=observer,
            states=states,
            advance=self._advance,
        )
        check_fired(part, fired, len(block.seeds))
        for run, images in observer.images.items():
            self._store_images(run, images, samples)

    def _stored_state(self, step: int, samples: slice) -> Tensor:
        position = self._plan.schedule.steps - step
        return torch.from_numpy(self._writer.read("baseline/x_t", (samples, position)))

    def _store_prediction(self, samples: slice) -> Callable[[Call, Tensor, Tensor], None]:
        def store(call: Call, x: Tensor, x0: Tensor) -> None:
            if BASELINE in call.runs:
                position = self._plan.schedule.steps - call.step
                self._writer.write("baseline/x_t", (samples, position), x.cpu().numpy())
                self._writer.write("baseline/x0_hat", (samples, position), x0.cpu().numpy())

        return store

    def _store_images(self, run: int, images: NDArray[np.float32], samples: slice) -> None:
        if run == BASELINE:
            for name, value in baseline_values(self._model, images).items():
                self._writer.write(f"baseline/{name}", (samples,), value)
            self._writer.complete_baseline(samples)
            return
        names = ("image", "factor_code") if self._model.factors else ("image",)
        baseline = {name: self._writer.read(f"baseline/{name}", (samples,)) for name in names}
        for name, value in outcome_values(self._model, images[None], baseline).items():
            self._writer.write(f"outcomes/{name}", (run, samples), value[0])
        self._writer.complete_cells(run, samples)
