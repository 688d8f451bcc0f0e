"""Measuring an outcome of a store that is there: from its images, block by block, without a U-Net call."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from causalunet.design.outcomes import Outcome, OutcomeContext
from causalunet.design.outcomes.base import ReadFactors
from causalunet.design.outcomes.dims import sizes_along
from causalunet.design.outcomes.measuring import measured_cells, rehearse_outcomes
from causalunet.errors import CausalUNetWarning, StoreError, WriteConflictError
from causalunet.progress import show_progress
from causalunet.prompts import NO_PROMPT
from causalunet.results.engine.export import regions
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.declaration import DeclaredOutcome
from causalunet.results.meaning.schema import COMPLETE, FAILED, MISSING
from causalunet.results.meaning.scored import declared_outcome

__all__ = ["Scorer", "score_store"]

_SECONDS = 10.0
"""Between commits: what an interruption can lose."""
_TRIES = 5
_MOST_REASONS = 3


def score_store(
    location: Location,
    outcome: Outcome,
    *,
    retry_failed: bool = False,
    read_factors: ReadFactors | None = None,
    progress: bool = False,
) -> None:
    """Measure an outcome of every complete cell of a store that has it not measured yet.

    Parameters
    ----------
    location : Location
    outcome : Outcome
    retry_failed : bool
        Measure cells again of which it failed.
    read_factors : callable, optional
        The model's, for outcomes that need it.
    progress : bool
        Show how far it is.

    Raises
    ------
    StoreError
        The store holds another outcome of that name, or one of every study's.
    SpecError
        The outcome cannot be measured of such images; nothing was written.

    Warns
    -----
    CausalUNetWarning
        It failed on some cells; they are marked, and the rest was measured.
    """
    writer = StudyWriter(Repository.open(location))
    scorer = Scorer(writer, outcome, retry_failed=retry_failed, read_factors=read_factors)
    scorer.prepare()
    with show_progress("cells", scorer.lacking(), shown=progress) as shown:
        scorer.advance = shown.advance
        for tries in range(_TRIES):
            try:
                scorer.measure_all()
                break
            except WriteConflictError:  # another process measures the same; what it committed is not measured again
                if tries == _TRIES - 1:
                    raise
    scorer.warn_of_failures()


class Scorer:
    """Measures one outcome of what a store holds.

    Parameters
    ----------
    writer : StudyWriter
    outcome : Outcome
    retry_failed, read_factors
        As for `score_store`.

    Attributes
    ----------
    advance : callable, optional
        Told how many cells were measured.
    """

    def __init__(
        self,
        writer: StudyWriter,
        outcome: Outcome,
        *,
        retry_failed: bool = False,
        read_factors: ReadFactors | None = None,
    ) -> None:
        self._writer, self._outcome, self._retry = writer, outcome, retry_failed
        self._read_factors = read_factors
        self.advance: Callable[[int], None] | None = None
        self._shape, self._steps = _image_shape(writer), writer.root["baseline/x_t"].shape[1]  # type: ignore[union-attr]
        self._declared: DeclaredOutcome = declared_outcome(outcome, self._shape, writer.known.factors)
        self._sizes = sizes_along(self._declared.brings, self._shape, self._steps)
        self._cells = 0

    def prepare(self) -> None:
        """Rehearse the outcome, and make a place for it in the store."""
        writer = self._writer
        usual = {one.path for one in writer.known.declaration.common}
        if taken := [one.name for one in self._declared.variables if one.path in usual]:
            raise StoreError(f"Every store holds {taken[0]!r}: it is measured of each run, and need not be added.")
        factors = writer.known.factors
        rehearse_outcomes([self._outcome], self._shape, self._steps, self._read_factors, factors)
        with writer.repository.exclusive():
            writer.refresh()
            writer.declare(self._declared)

    def measure_all(self) -> None:
        """Measure what is lacking, and commit as it goes."""
        self._writer.refresh()
        committed = time.monotonic()
        lacking = self._asked()
        for region in self._regions():
            if lacking[region].any():
                self._measure(region, lacking[region])
            if time.monotonic() - committed >= _SECONDS:
                self._commit()
                committed = time.monotonic()
        self._commit()

    def warn_of_failures(self) -> None:
        """Say of how many cells it could not be measured, and why."""
        self._writer.refresh()
        failed = self._writer.read(self._declared.status.path) == FAILED
        if not failed.any():
            return
        reasons = Counter(map(str, self._writer.read(self._declared.failure.path)[failed].tolist()))
        listed = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(_MOST_REASONS))
        warnings.warn(
            f"The outcome {self._declared.name!r} failed on {int(failed.sum()):,} of {failed.size:,} cells: {listed}. "
            f"They are marked in outcomes.{self._declared.status.name} (2); what else was measured of them stands.",
            CausalUNetWarning,
            stacklevel=2,
        )

    def _regions(self) -> Iterator[tuple[slice, slice]]:
        """Interventions and samples of one chunk of images after the other: as much as is in memory at once."""
        image = self._writer.root["outcomes/image"]
        chunks = (image.shards or image.chunks)[:2]  # type: ignore[union-attr]
        yield from regions(image.shape[:2], chunks)  # type: ignore[union-attr, misc]

    def lacking(self) -> int:
        """How many cells it is to be measured of."""
        return int(self._asked().sum())

    def _asked(self) -> NDArray[np.bool_]:
        """Complete cells of which it is not measured, (intervention, sample)."""
        status, cells = (self._writer.read(path) for path in (self._declared.status.path, "outcomes/status"))
        return (cells == COMPLETE) & ((status == MISSING) | ((status == FAILED) & self._retry))

    def _measure(self, region: tuple[slice, slice], asked: NDArray[np.bool_]) -> None:
        found = measured_cells(self._outcome, *self._given(region), asked)
        failed = found.reasons != ""
        for name, values in found.values.items():
            kept = self._writer.read(f"outcomes/{name}", region)
            kept[asked] = values[asked]
            self._writer.write(f"outcomes/{name}", region, kept)
        reasons = self._writer.read(self._declared.failure.path, region).astype(object)
        reasons[asked] = found.reasons[asked]
        status = self._writer.read(self._declared.status.path, region)
        status[asked] = np.where(failed, FAILED, COMPLETE)[asked]
        self._writer.write(self._declared.status.path, region, status)
        self._writer.write(self._declared.failure.path, region, reasons)
        self._cells += int(asked.sum())
        if self.advance is not None:
            self.advance(int(asked.sum()))

    def _given(self, region: tuple[slice, slice]) -> tuple[NDArray[np.float32], NDArray[np.float32], OutcomeContext]:
        """Images, the baseline's, and what else the outcome reads, of a region."""
        _, samples = region
        stored = {
            path: self._writer.read(path, (samples,) if path.startswith("baseline/") else region)
            for path in self._outcome.reads
            if self._writer.has(path)
        }
        prompts, seeds = (self._writer.read(f"outcomes/{name}", (samples,)).tolist() for name in ("prompt", "seed"))
        context = OutcomeContext(
            prompts=[prompt or NO_PROMPT for prompt in prompts],
            seeds=seeds,
            stored=stored,
            read_factors=self._read_factors,
            sizes=self._sizes,
        )
        return self._writer.read("outcomes/image", region), self._writer.read("baseline/image", (samples,)), context

    def _commit(self) -> None:
        if self._cells:
            cells, self._cells = self._cells, 0
            self._writer.commit(f"outcome {self._declared.name} of {cells:,} cells", {"measured": cells})


def _image_shape(writer: StudyWriter) -> tuple[int, int, int]:
    _, _, channels, height, width = writer.root["outcomes/image"].shape  # type: ignore[union-attr]
    return channels, height, width
