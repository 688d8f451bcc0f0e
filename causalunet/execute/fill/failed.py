"""Marking cells as failed: those of a sample without a baseline, and those of a part that ends every worker."""

from __future__ import annotations

import numpy as np

from causalunet.execute.fill.part_runner import Done
from causalunet.execute.fill.parts import Part
from causalunet.execute.fill.stranded import strand
from causalunet.plan import BASELINE
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.schema import FAILED

__all__ = ["mark_failed"]


def mark_failed(writer: StudyWriter, layout: Layout, part: Part, reason: str) -> Done:
    """Mark all cells of a part as failed that could not be run; it counts once committed.

    Parameters
    ----------
    writer : StudyWriter
    layout : Layout
    part : Part
        Of outcomes.
    reason : str
        Kept beside every cell.
    """
    positions = range(part.samples.start, part.samples.stop)
    if not part.forked:
        writer.write("baseline/status", (part.samples,), np.array(FAILED))
        for sample in positions:
            strand(writer, sample, len(layout.grid.interventions), reason)
    elif part.interventions:
        shape = len(part.interventions), len(positions)
        writer.write_cells("outcomes/status", part.interventions, part.samples, np.full(shape, FAILED))
        reasons = np.full(shape, reason, dtype=object)
        writer.write_cells("outcomes/failure", part.interventions, part.samples, reasons)
    failed = tuple((run, sample) for run in part.runs for sample in positions)
    return Done(part, 0, 0.0, failed, sum(run != BASELINE for run, _ in failed))
