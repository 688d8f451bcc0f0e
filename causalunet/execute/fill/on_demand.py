"""Running single interventions of a study, each from the stored baseline state where it first differs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from causalunet.execute.fill.store_filler import StoreFiller
from causalunet.execute.walk.batches import micro_batch_size, places_asked
from causalunet.plan import BASELINE, Plan
from causalunet.results.meaning.schema import COMPLETE

__all__ = ["RunsOnDemand"]


class RunsOnDemand:
    """A study's store, filled by interventions as they are asked for.

    Parameters
    ----------
    runner : StoreFiller
        Of the whole study's store. Cells that it holds are not run again.
    plan : Plan
        Of the study as it was asked for.

    Attributes
    ----------
    unet_calls : int
        U-Net calls for what was asked so far, whether run now or found in the store.
    """

    def __init__(self, runner: StoreFiller, plan: Plan) -> None:
        self._runner, self._plan = runner, plan
        # As many samples at once as fill a U-Net call, in whole blocks.
        rows = micro_batch_size(plan.anatomy, runner.memory, plan.spec.sampler.rows_per_sample, places_asked(plan))
        self._blocks = max(1, rows // runner.layout.block)
        stored = {item.digest: place for place, item in enumerate(runner.layout.grid.interventions)}
        self._place = [stored[item.digest] for item in plan.spec.interventions]
        self._asked: set[int] = set()
        self.unet_calls = 0

    def baseline(self) -> None:
        """See to it that the store holds the run without intervention."""
        self._count((BASELINE,), forked=False)
        self._runner.fill((), blocks=self._blocks)

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
            NaN where the cell failed.
        """
        chosen = list(interventions)
        places = [self._place[index] for index in chosen]
        self._count(chosen, forked=True)
        self._asked.update(places)
        self._runner.fill(sorted(places), blocks=self._blocks)
        self._runner.writer.refresh()
        status, values = (self._runner.writer.read(f"outcomes/{name}")[places] for name in ("status", variable))
        return np.where(status == COMPLETE, np.asarray(values, dtype=np.float64), np.nan)

    def warn_of_failures(self, consequence: str) -> None:
        """Say how many of the cells asked for failed, why, and what follows from it."""
        self._runner.warn_of_failures(self._asked, "cells asked for", consequence)

    def _count(self, runs: Iterable[int], *, forked: bool) -> None:
        self.unet_calls += self._plan.part(runs, forked=forked).unet_calls
