"""Outcomes of a study's own, measured again from what the store holds: how far they are, and whether they are right."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from causalunet.design.outcomes import Outcome, OutcomeContext
from causalunet.design.outcomes.measuring import measured_cells
from causalunet.errors import PluginError
from causalunet.prompts import NO_PROMPT
from causalunet.registry import is_own
from causalunet.results.engine.export import regions
from causalunet.results.guard.checked_store import Reader
from causalunet.results.guard.coverage import Coverage
from causalunet.results.guard.findings import Finding
from causalunet.results.meaning.declaration import DeclaredOutcome
from causalunet.results.meaning.schema import COMPLETE, FAILED, MISSING
from causalunet.results.meaning.scored import known_outcome

__all__ = ["measured_again"]

_CELLS = 256
"""Looked at unless all are."""
_TOLERANCE = (1e-4, 1e-3)
"""Absolute and relative: networks give other numbers on other machines."""


def measured_again(reader: Reader, coverage: Coverage, *, deep: bool) -> Iterator[Finding]:
    """Look at every outcome of the study's own; one whose class is not here, or not the same, is not checkable.

    Parameters
    ----------
    reader : Reader
    coverage : Coverage
    deep : bool
        Measure all cells again, and not some that are drawn at random.
    """
    for declared in reader.stored.declaration.outcomes:
        status = reader.read(declared.status.path)
        if status.shape != coverage.cells.shape:
            continue  # told as an array that is missing
        done, failed, missing = (coverage.cells & (status == one) for one in (COMPLETE, FAILED, MISSING))
        lacking = [f"{int(missing.sum()):,} cells not measured yet"] if missing.any() else []
        lacking += [f"{int(failed.sum()):,} cells failed"] if failed.any() else []
        told = f"{int(done.sum()):,} of {int(coverage.cells.sum()):,} cells"
        yield Finding(f"complete {declared.name}", told, tuple(lacking), damage=False)
        chosen = done if deep else _drawn(done)
        wrong, unchecked = _compared(reader, declared, chosen)
        looked_at = f"{int(chosen.sum()):,} of {int(done.sum()):,} cells again"
        yield Finding(f"outcome {declared.name}", looked_at, tuple(wrong), unchecked=tuple(unchecked))


def _drawn(done: NDArray[np.bool_]) -> NDArray[np.bool_]:
    places = np.flatnonzero(done)
    if len(places) <= _CELLS:
        return done
    chosen = np.zeros(done.size, bool)
    chosen[np.random.default_rng().choice(places, _CELLS, replace=False)] = True
    return chosen.reshape(done.shape)


def _compared(reader: Reader, declared: DeclaredOutcome, chosen: NDArray[np.bool_]) -> tuple[list[str], list[str]]:
    """What is wrong, and what cannot be said."""
    try:
        outcome = known_outcome(declared)
    except PluginError as error:
        return [], [str(error)]
    image = reader.stored.arrays["outcomes/image"]
    wrong: list[str] = []
    for region in regions(chosen.shape, (image.shards or image.chunks)[:2]):
        if chosen[region].any():
            found, told = _of_region(reader, outcome, (region[0], region[1]), chosen[region])
            if told:
                return [], [f"the outcome {declared.name!r} ({told})"]
            wrong += found
    if wrong and not is_own(type(outcome)):  # the class may be another than it was
        return [], [f"the outcome {declared.name!r} as it is defined here ({wrong[0]})"]
    return wrong, []


def _of_region(
    reader: Reader, outcome: Outcome, region: tuple[slice, slice], chosen: NDArray[np.bool_]
) -> tuple[list[str], str]:
    """Cells whose numbers are not what is stored; or why they cannot be measured."""
    _, samples = region
    stored = {path: reader.read(path, samples if path.startswith("baseline/") else region) for path in outcome.reads}
    prompts, seeds = (reader.read(f"outcomes/{name}", samples).tolist() for name in ("prompt", "seed"))
    images, baseline = reader.read("outcomes/image", region), reader.read("baseline/image", samples)
    context = OutcomeContext(
        prompts=[prompt or NO_PROMPT for prompt in prompts],
        seeds=seeds,
        stored=stored,
        sizes={dim: len(labels) for dim, labels in reader.stored.brought.items()},
    )
    again = measured_cells(outcome, images, baseline, context, chosen)
    if (again.reasons != "").any():
        return [], str(again.reasons[again.reasons != ""][0])
    wrong = []
    for name, values in again.values.items():
        found = reader.read(f"outcomes/{name}", region)
        close = np.isclose(found.astype(np.float64), values.astype(np.float64), atol=_TOLERANCE[0], rtol=_TOLERANCE[1])
        differs = ~close.reshape(*chosen.shape, -1).all(axis=-1) & chosen
        for row, sample in np.argwhere(differs).tolist():
            cell = f"intervention {row + region[0].start}, sample {sample + region[1].start}"
            one, other = (np.ravel(value[row, sample])[0] for value in (found, values))
            wrong.append(f"{cell}: {name} is {one:.6g}, and what is stored gives {other:.6g}")
    return wrong, ""
