"""Measuring outcomes that somebody else may have written: numbers are checked, and a failure is one of some cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.limits import shown
from causalunet.design.outcomes.base import Outcome, OutcomeContext, OutcomeVariable, ReadFactors
from causalunet.design.outcomes.dims import brought_by, sizes_along
from causalunet.errors import SpecError

__all__ = ["READABLE", "MeasuredCells", "measured", "measured_cells", "rehearse_outcomes"]

READABLE = {
    "trajectory/x0_distance": (True, False),
    "trajectory/eps_distance": (True, False),
    "baseline/x_t": (False, True),
    "baseline/x0_hat": (False, True),
    "baseline/eps": (False, True),
}
"""Stored variables with a value per step that outcomes can read: whether per intervention, and whether images."""

_OF_READER = ("baseline/factor_code",)
_MOST_REASON = 300


@dataclass(frozen=True, slots=True)
class MeasuredCells:
    """What is stored of an outcome of some cells.

    Attributes
    ----------
    values : dict of str to ndarray
        By variable, (intervention, sample, ...); NaN, or 0 in integers, where it failed.
    reasons : ndarray of object, (intervention, sample)
        Why it failed; empty elsewhere.
    """

    values: dict[str, NDArray[Any]]
    reasons: NDArray[Any]


def measured(
    outcome: Outcome, images: NDArray[np.float32], baseline: NDArray[np.float32], context: OutcomeContext
) -> dict[str, NDArray[Any]]:
    """Measure an outcome, and check the form of what it gives.

    Parameters
    ----------
    outcome : Outcome
    images, baseline, context
        As for `Outcome.measure`.

    Returns
    -------
    dict of str to ndarray
        By variable, (intervention, sample, ...), of the types that are stored.

    Raises
    ------
    SpecError
        It gives something else than it declares.
    """
    given = outcome.measure(images, baseline, context)
    found = given if isinstance(given, Mapping) else {outcome.variable: given}
    declared = {one.name: one for one in outcome.variables}
    if found.keys() != declared.keys():
        raise SpecError(
            f"The outcome {outcome.name!r} gave {shown(sorted(found))}; its variables are {', '.join(declared)}."
        )
    cells = images.shape[:2]
    return {name: _checked(outcome, one, found[name], cells, context.sizes) for name, one in declared.items()}


def measured_cells(
    outcome: Outcome,
    images: NDArray[np.float32],
    baseline: NDArray[np.float32],
    context: OutcomeContext,
    asked: NDArray[np.bool_],
) -> MeasuredCells:
    """Measure an outcome of the cells asked for; where it raises, or gives NaN, a cell fails by itself.

    Parameters
    ----------
    outcome : Outcome
    images, baseline, context
        As for `Outcome.measure`.
    asked : ndarray of bool, (intervention, sample)
    """
    reasons = np.full(asked.shape, "", dtype=object)
    try:
        values = measured(outcome, images, baseline, context)
    except MemoryError:
        raise
    except Exception:  # whatever somebody else's code raises; which cells it is of is asked next
        values = _one_by_one(outcome, images, baseline, context, asked, reasons)
    for name, value in values.items():
        if value.dtype.kind == "f":
            missing = np.isnan(value).any(axis=tuple(range(2, value.ndim))) if value.ndim > 2 else np.isnan(value)
            reasons[missing & asked & (reasons == "")] = f"{name} is NaN"
    failed = (reasons != "") | ~asked
    return MeasuredCells({name: _hidden(value, failed) for name, value in values.items()}, reasons)


def rehearse_outcomes(
    outcomes: Sequence[Outcome],
    image_shape: tuple[int, int, int],
    steps: int,
    read_factors: ReadFactors | None = None,
    factors: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Measure images of noise, so that an outcome that cannot be measured is told before anything runs.

    Parameters
    ----------
    outcomes : sequence of Outcome
    image_shape : tuple of int
        (channel, y, x)
    steps : int
        Of a run.
    read_factors : callable, optional
        The model's.
    factors : mapping of str to sequence of str, optional
        Values of every factor that it reads.

    Raises
    ------
    SpecError
        One does not suit such images, needs what is not stored, raises, or gives another form than it declares.
    """
    images = np.random.default_rng(0).random((1, 2, *image_shape), dtype=np.float32)
    baseline = np.clip(images[0] + np.float32(0.01), 0, 1)
    sizes = sizes_along(brought_by(outcomes, image_shape, factors or {}).values(), image_shape, steps)
    for outcome in outcomes:
        outcome.check(image_shape, steps)
        context = OutcomeContext(
            prompts=("a", "b"),
            seeds=(0, 1),
            stored=_made_up(outcome, image_shape, steps),
            read_factors=read_factors,
            sizes=sizes,
        )
        try:
            measured(outcome, images, baseline, context)
        except (SpecError, MemoryError):
            raise
        except Exception as error:
            raise SpecError(
                f"The outcome {outcome.name!r} cannot be measured: of two images of {image_shape} (channel, y, x) its "
                f"measure() ended in {type(error).__name__}: {error!s:.200}. Nothing was run."
            ) from error


def _made_up(outcome: Outcome, image_shape: tuple[int, ...], steps: int) -> dict[str, NDArray[Any]]:
    unknown = [path for path in outcome.reads if path not in READABLE and path not in _OF_READER]
    if unknown:
        raise SpecError(
            f"The outcome {outcome.name!r} reads {shown(unknown[0])}; outcomes can read {', '.join(READABLE)}."
        )
    made = {}
    for path in (path for path in outcome.reads if path in READABLE):
        per_intervention, pictures = READABLE[path]
        shape = (*((1,) if per_intervention else ()), 2, steps, *(image_shape if pictures else ()))
        made[path] = np.broadcast_to(np.float32(0.1), shape)
    return made


def _checked(
    outcome: Outcome, declared: OutcomeVariable, value: Any, cells: tuple[int, ...], sizes: Mapping[str, int]
) -> NDArray[Any]:
    array = np.asarray(value)
    beyond = zip(declared.dims, array.shape[2:], strict=False)
    wanted = (*cells, *(sizes.get(dim, size) for dim, size in beyond))
    if array.shape != wanted or array.ndim != 2 + len(declared.dims) or array.dtype.kind not in "fiub":
        along = ", ".join(("intervention", "sample", *(f"{dim}{_entries(dim, sizes)}" for dim in declared.dims)))
        raise SpecError(
            f"The outcome {outcome.name!r} gave {declared.name} of shape {array.shape} and type {array.dtype} for "
            f"{cells[0]} interventions and {cells[1]} samples; it declares numbers along ({along})."
        )
    if array.dtype.kind == "f" and not outcome.infinite and np.isinf(array).any():
        array = np.where(np.isinf(array), np.nan, array)
    return array.astype(declared.dtype)


def _entries(dim: str, sizes: Mapping[str, int]) -> str:
    return f" of {sizes[dim]}" if dim in sizes else ""


def _one_by_one(
    outcome: Outcome,
    images: NDArray[np.float32],
    baseline: NDArray[np.float32],
    context: OutcomeContext,
    asked: NDArray[np.bool_],
    reasons: NDArray[Any],
) -> dict[str, NDArray[Any]]:
    """Measure cell by cell, and note in ``reasons`` where that fails."""
    values: dict[str, NDArray[Any]] = {}
    for row, sample in np.argwhere(asked).tolist():
        own, of_sample = slice(row, row + 1), slice(sample, sample + 1)
        try:
            found = measured(outcome, images[own, of_sample], baseline[of_sample], _part(context, own, of_sample))
        except MemoryError:
            raise
        except Exception as error:
            reasons[row, sample] = f"{type(error).__name__}: {error!s:.{_MOST_REASON}}"
            continue
        for name, value in found.items():
            values.setdefault(name, np.zeros((*asked.shape, *value.shape[2:]), value.dtype))[own, of_sample] = value
    if not values:  # of no cell at all
        known = [one for one in outcome.variables if {*one.dims} <= context.sizes.keys()]
        shapes = {one.name: (*asked.shape, *(context.sizes[dim] for dim in one.dims)) for one in known}
        return {one.name: np.zeros(shapes[one.name], one.dtype) for one in known}
    return values


def _part(context: OutcomeContext, own: slice, samples: slice) -> OutcomeContext:
    stored = {
        path: value[samples] if path.startswith("baseline/") else value[own, samples]
        for path, value in context.stored.items()
    }
    return replace(context, prompts=context.prompts[samples], seeds=context.seeds[samples], stored=stored)


def _hidden(values: NDArray[Any], failed: NDArray[np.bool_]) -> NDArray[Any]:
    """Leave no number where a cell failed."""
    if not failed.any():
        return values
    kept = values.copy()
    kept[failed] = np.nan if values.dtype.kind == "f" else 0
    return kept
