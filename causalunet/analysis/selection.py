"""Interventions of a study, chosen by their coordinates and checked to be complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.described import variable_name
from causalunet.design.limits import shown
from causalunet.design.outcomes import Outcome
from causalunet.dims import INTERVENTION, SAMPLE, STEP
from causalunet.errors import SpecError, StoreError
from causalunet.results import InterventionIndex
from causalunet.results.meaning.schema import COMPLETE, FAILED, MISSING

__all__ = [
    "at_labels",
    "check_variable",
    "complete_baselines",
    "complete_samples",
    "intervention_columns",
    "labelled",
    "outcomes",
    "select_interventions",
]

_NAMES = ("digest", "spec")
"""Coordinates that name one intervention and say nothing of what it has in common with others."""


def outcomes(results: xr.DataTree | xr.Dataset) -> xr.Dataset:
    """Outcomes of every intervention on every sample, still unread; of these themselves, they.

    Raises
    ------
    SpecError
        What is given is not opened results.
    """
    if isinstance(results, xr.Dataset) and {"status", "kind"} <= results.variables.keys():
        return results
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


def select_interventions(results: xr.DataTree | xr.Dataset, selection: Mapping[str, Any]) -> xr.Dataset:
    """Outcomes of the interventions that have all the given coordinates.

    Parameters
    ----------
    results : xarray.DataTree or Dataset
        Or their `outcomes`.
    selection : mapping
        Coordinate name (``intervention`` for the label) to a value, a list of values, or a slice: a range
        with both ends included, whichever comes first. Empty for all interventions. A dimension that an outcome brings
        is taken at one of its labels: ``colour="red"``.

    Returns
    -------
    xarray.Dataset
        In the order of the study.

    Raises
    ------
    SpecError
        A name is not a coordinate of interventions, or no intervention fits.
    """
    dataset, selection = at_labels(outcomes(results), selection)
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


def at_labels(dataset: xr.Dataset, selection: Mapping[str, Any]) -> tuple[xr.Dataset, dict[str, Any]]:
    """Outcomes at labels of dimensions that outcomes bring, and what else is selected by.

    Parameters
    ----------
    dataset : xarray.Dataset
        Of `outcomes`.
    selection : mapping
        As for `select_interventions`.

    Raises
    ------
    SpecError
        There is no such label.
    """
    labels = {name: value for name, value in selection.items() if name in labelled(dataset)}
    for name, label in labels.items():
        known = dataset[name].values.tolist()
        if not isinstance(label, str) or label not in known:
            raise SpecError(f"{name}={shown(label)} is no label of that dimension; it has {', '.join(known)}.")
    return dataset.sel(labels), {name: value for name, value in selection.items() if name not in labels}


def labelled(dataset: xr.Dataset) -> list[str]:
    """Dimensions of outcomes that have names for their entries, such as ``factor``."""
    return [str(dim) for dim in dataset.dims if dim not in (INTERVENTION, SAMPLE, STEP) and dim in dataset.coords]


def check_variable(dataset: xr.Dataset, variable: str | Outcome) -> str:
    """Name of a variable of the outcomes; raises `SpecError` unless they have it."""
    variable = variable_name(variable)
    along = INTERVENTION if INTERVENTION in dataset.dims else SAMPLE  # of one intervention only the samples are left
    known = [str(name) for name, array in dataset.data_vars.items() if along in array.dims and name != "status"]
    if variable not in known:
        raise SpecError(f"Outcomes have no variable {variable!r}; they have {', '.join(sorted(known))}.")
    return variable


def complete_samples(dataset: xr.Dataset, variable: str = "", *, allow_incomplete: bool) -> xr.Dataset:
    """Outcomes of the samples that were run whole.

    Parameters
    ----------
    dataset : xarray.Dataset
        Outcomes with their ``status``.
    variable : str
        Of the outcomes; one of the study's own may be measured of fewer cells than were run.
    allow_incomplete : bool
        Leave out samples that lack some of the interventions, or of which some failed, instead of raising an error.
        Samples stay paired: every intervention keeps the same ones.

    Raises
    ------
    StoreError
        Some cells failed or were not run, or, if that is allowed, no sample is whole.
    """
    status = dataset["status"].transpose(INTERVENTION, SAMPLE).values
    if (own := f"{variable}_status") in dataset.data_vars:
        status = np.where(status == COMPLETE, dataset[own].transpose(INTERVENTION, SAMPLE).values, status)
        dataset = dataset.assign(status=((INTERVENTION, SAMPLE), status), failure=dataset[f"{variable}_failure"])
    whole = np.flatnonzero((status == COMPLETE).all(axis=0))
    if len(whole) == status.shape[1]:
        return dataset
    if not (allow_incomplete and len(whole)):
        raise _incomplete("cells (intervention and sample)", status, len(whole), _reasons(dataset))
    return dataset.isel({SAMPLE: whole})


def complete_baselines(results: xr.DataTree, *, allow_incomplete: bool) -> xr.Dataset:
    """Run without intervention of the samples for which it was run, still unread.

    Parameters
    ----------
    results : xarray.DataTree
    allow_incomplete : bool
        Leave out samples whose run failed or is missing, instead of raising an error.

    Raises
    ------
    SpecError
        What is given is not opened results.
    StoreError
        Some runs failed or are missing, or, if that is allowed, all of them.
    """
    if not isinstance(results, xr.DataTree) or "baseline" not in results.children:
        raise SpecError(
            f"An analysis needs results with the group 'baseline'; got {type(results).__name__}. "
            "Give what study.run(path) or causalunet.open_results(path) returned."
        )
    baseline = results.children["baseline"].to_dataset()
    status = baseline["status"].values
    whole = np.flatnonzero(status == COMPLETE)
    if len(whole) == len(status):
        return baseline
    if not (allow_incomplete and len(whole)):
        cells = results.children["outcomes"].to_dataset() if "outcomes" in results.children else xr.Dataset()
        raise _incomplete("samples", status, len(whole), _reasons(cells))
    return baseline.isel({SAMPLE: whole})


def _reasons(dataset: xr.Dataset) -> list[str]:
    """Why cells failed, the most frequent reason first."""
    if "failure" not in dataset.data_vars:
        return []
    told = dataset["failure"].values[dataset["status"].values == FAILED]
    return [reason for reason, _ in Counter(map(str, told.tolist())).most_common() if reason]


def _incomplete(what: str, status: NDArray[Any], whole: int, reasons: list[str]) -> StoreError:
    """Say how many are missing and failed, each with what helps: running again does not try again what failed."""
    missing, failed = int((status == MISSING).sum()), int((status == FAILED).sum())
    found, advice = [], []
    if missing:
        found.append(f"{missing} of {status.size} {what} were not run yet")
        advice.append("Run the study into the same path again: it goes on where it was.")
    if failed:
        reason = f" (most often: {shown(reasons[0])})" if reasons else ""
        found.append(f"{failed} of {status.size} {what} failed{reason}")
        advice.append("Failed ones are tried again by study.run(path, retry_failed=True).")
    if whole:
        advice.append(f"allow_incomplete=True takes the {whole} samples that are whole.")
    else:
        found.append(f"none of the {status.shape[-1]} samples is whole")
    return StoreError(f"{'; '.join(found)}. {' '.join(advice)}")
