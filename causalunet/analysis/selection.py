"""Interventions of a study, chosen by their coordinates and checked to be complete."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.dims import INTERVENTION
from causalunet.errors import SpecError, StoreError
from causalunet.results import InterventionIndex

__all__ = ["check_variable", "complete_samples", "intervention_columns", "outcomes", "select_interventions"]

_COMPLETE = 1
_NAMES = ("digest", "spec")
"""Coordinates that name one intervention and say nothing of what it has in common with others."""


def outcomes(results: xr.DataTree) -> xr.Dataset:
    """Outcomes of every intervention on every sample, still unread.

    Raises
    ------
    SpecError
        What is given is not opened results.
    """
    if not isinstance(results, xr.DataTree) or "outcomes" not in results.children:
        raise SpecError(
            f"An analysis needs results with the group 'outcomes'; got {type(results).__name__}. "
            "Give what study.run(path) or causalunet.open_results(path) returned."
        )
    return results.children["outcomes"].to_dataset()


def intervention_columns(dataset: xr.Dataset) -> dict[str, NDArray[Any]]:
    """Coordinates that tell kinds of intervention apart, such as kind, bottom and start, (intervention,) each."""
    return {
        str(name): coordinate.values
        for name, coordinate in dataset.coords.items()
        if coordinate.dims == (INTERVENTION,) and name != INTERVENTION and name not in _NAMES
    }


def select_interventions(results: xr.DataTree, selection: Mapping[str, Any]) -> xr.Dataset:
    """Outcomes of the interventions that have all the given coordinates.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        Coordinate name (``intervention`` for the label) to a value, a list of values, or a slice with both ends
        included. Empty for all interventions.

    Returns
    -------
    xarray.Dataset
        In the order of the study.

    Raises
    ------
    SpecError
        A name is not a coordinate of interventions, or no intervention fits.
    """
    dataset = outcomes(results)
    if not selection:
        return dataset
    columns: dict[Hashable, NDArray[Any]] = {
        name: coordinate.values for name, coordinate in dataset.coords.items() if coordinate.dims == (INTERVENTION,)
    }
    unknown = [name for name in selection if name not in columns]
    if unknown:
        known = ", ".join(sorted(map(str, columns)))
        raise SpecError(f"Interventions are not told apart by {', '.join(unknown)}; select by any of {known}.")
    try:
        found = InterventionIndex(columns).sel(dict(selection))
    except KeyError as error:
        found_none = str(error.args[0])
        raise SpecError(f"{found_none[0].upper()}{found_none[1:]}.") from error
    return dataset.isel({INTERVENTION: found.dim_indexers[INTERVENTION]})


def check_variable(dataset: xr.Dataset, variable: str) -> None:
    """Raise `SpecError` unless the outcomes have a variable of that name."""
    known = [str(name) for name, array in dataset.data_vars.items() if INTERVENTION in array.dims and name != "status"]
    if variable not in known:
        raise SpecError(f"Outcomes have no variable {variable!r}; they have {', '.join(sorted(known))}.")


def complete_samples(dataset: xr.Dataset, *, allow_incomplete: bool) -> xr.Dataset:
    """Outcomes of the samples that were run whole.

    Parameters
    ----------
    dataset : xarray.Dataset
        Outcomes with their ``status``.
    allow_incomplete : bool
        Leave out samples that lack some of the interventions, instead of raising an error. Samples stay paired: every
        intervention keeps the same ones.

    Raises
    ------
    StoreError
        Some cells were not run, or, if that is allowed, no sample is whole.
    """
    complete = (dataset["status"] == _COMPLETE).transpose(INTERVENTION, ...).values
    missing = int((~complete).sum())
    if not missing:
        return dataset
    whole = np.flatnonzero(complete.all(axis=0))
    if allow_incomplete and len(whole):
        return dataset.isel(sample=whole)
    advice = "Run the study into the same path again: it goes on where it was"
    if allow_incomplete:
        raise StoreError(f"None of the {complete.shape[1]} samples was run whole yet. {advice}.")
    raise StoreError(
        f"{missing} of {complete.size} cells (intervention and sample) were not run yet. {advice}. "
        f"allow_incomplete=True takes the {len(whole)} samples that are whole."
    )
