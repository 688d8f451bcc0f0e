"""What is stored of a run's images: themselves, how alike they are to the baseline's, and what they show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.outcomes import Outcome, OutcomeContext, usual_outcomes
from causalunet.design.outcomes.measuring import measured, measured_cells
from causalunet.models.base import DiffusionModel
from causalunet.results.engine.scoring import Scorer
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.schema import COMPLETE, FAILED, MISSING
from causalunet.results.meaning.scored import KnownOutcome

__all__ = [
    "BASELINE_IMAGE",
    "baseline_values",
    "measure_outcomes",
    "outcome_values",
    "own_values",
    "read_of_baseline",
]


BASELINE_IMAGE = "baseline/image"
"""Path of the baseline's images."""


def read_of_baseline(model: DiffusionModel) -> tuple[str, ...]:
    """Paths of what is known of the baseline before outcomes of a run that every study has are measured."""
    return tuple(dict.fromkeys((BASELINE_IMAGE, *(path for one in _usual(model) for path in one.reads))))


def baseline_values(model: DiffusionModel, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Stored variables of baseline images.

    Parameters
    ----------
    model : DiffusionModel
    images : ndarray, (sample, channel, y, x)

    Returns
    -------
    dict
        Name to values, (sample, ...).
    """
    values: dict[str, NDArray[Any]] = {"image": images}
    for outcome in _usual(model):
        values |= outcome.of_baseline(images, _context(model, {}))
    return values


def outcome_values(
    model: DiffusionModel, images: NDArray[np.float32], baseline: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Stored variables of intervened images.

    Parameters
    ----------
    model : DiffusionModel
    images : ndarray, (intervention, sample, channel, y, x)
    baseline : mapping
        What is stored under the paths of `read_of_baseline`.

    Returns
    -------
    dict
        Name to values, (intervention, sample, ...).
    """
    values: dict[str, NDArray[Any]] = {"image": images}
    for outcome in _usual(model):
        values |= measured(outcome, images, baseline[BASELINE_IMAGE], _context(model, baseline))
    return values


def _usual(model: DiffusionModel) -> tuple[Outcome, ...]:
    return usual_outcomes(factors=bool(model.factors))


def _context(model: DiffusionModel, stored: Mapping[str, NDArray[Any]]) -> OutcomeContext:
    return OutcomeContext(stored=stored, read_factors=model.read_factors if model.factors else None)


def measure_outcomes(writer: StudyWriter, outcomes: Iterable[Outcome], model: DiffusionModel) -> None:
    """Measure outcomes of what a store held before the study asked for them; of what is run they are measured then."""
    for outcome in outcomes:
        scorer = Scorer(writer, outcome, read_factors=model.read_factors if model.factors else None)
        scorer.measure_all()
        scorer.warn_of_failures()


def own_values(
    outcomes: Iterable[KnownOutcome],
    images: NDArray[np.float32],
    baseline: NDArray[np.float32],
    context: OutcomeContext,
    failed: NDArray[np.bool_],
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Stored variables of the outcomes of a study's own: where one fails, its cell says why, and the rest stands.

    Parameters
    ----------
    outcomes : iterable of KnownOutcome
    images : ndarray, (intervention, sample, channel, y, x)
    baseline : ndarray, (sample, channel, y, x)
    context : OutcomeContext
    failed : ndarray of bool, (intervention, sample)
        Cells whose runs failed; nothing is measured of them.

    Yields
    ------
    path : str
    values : ndarray, (intervention, sample, ...)
    """
    for outcome, declared in outcomes:
        found = measured_cells(outcome, images, baseline, context, ~failed)
        yield from ((f"outcomes/{name}", value) for name, value in found.values.items())
        yield declared.status.path, np.where(failed, MISSING, np.where(found.reasons != "", FAILED, COMPLETE))
        yield declared.failure.path, found.reasons
