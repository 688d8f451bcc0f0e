"""Samples without a baseline, of which nothing can be said."""

from __future__ import annotations

import numpy as np

from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.schema import FAILED

__all__ = ["strand"]


def strand(writer: StudyWriter, sample: int, interventions: int, reason: str) -> None:
    """Mark every cell of a sample as failed for want of a baseline.

    Parameters
    ----------
    writer : StudyWriter
    sample : int
        Position in the store.
    interventions : int
        How many the store has.
    reason : str
        Why the baseline failed.
    """
    at = slice(sample, sample + 1)
    writer.write("outcomes/status", (slice(None), at), np.full((interventions, 1), FAILED))
    told = np.full((interventions, 1), f"baseline: {reason}", dtype=object)
    writer.write("outcomes/failure", (slice(None), at), told)
