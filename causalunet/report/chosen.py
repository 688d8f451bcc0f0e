"""One intervention of a study, picked by a selection that must fit no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from causalunet.analysis.described import variable_name
from causalunet.analysis.selection import complete_samples, select_interventions
from causalunet.design.outcomes import Outcome
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import SpecError

__all__ = ["baseline_images", "one_intervention"]


def one_intervention(
    results: xr.DataTree, selection: Mapping[str, Any], variable: str | Outcome = "", *, allow_incomplete: bool
) -> xr.Dataset:
    """Outcomes of the one intervention that a selection picks, (sample, ...) each, still unread.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        Such as ``{"kind": "ablate_block", "bottom": 2, "start": 60}`` or ``{"intervention": label}``.
    variable : str or Outcome
        That the samples are to have; one of the study's own may be measured of fewer.
    allow_incomplete : bool
        Take the samples that were run, instead of raising an error for the others.

    Raises
    ------
    SpecError
        None fits, or several do.
    StoreError
        Some of the samples failed or were not run yet.
    """
    found = select_interventions(results, selection)
    if found.sizes[INTERVENTION] != 1:
        labels = ", ".join(str(label) for label in found[INTERVENTION].values[:5])
        raise SpecError(
            f"This figure shows one intervention; {found.sizes[INTERVENTION]} fit the selection: {labels}, ... "
            "Select more narrowly, for instance by start, or show them all with plot_grid(by='intervention')."
        )
    whole = complete_samples(found, variable_name(variable), allow_incomplete=allow_incomplete)
    return whole.isel({INTERVENTION: 0})


def baseline_images(results: xr.DataTree, samples: xr.DataArray) -> xr.DataArray:
    """Images of the run without intervention, of some samples by their coordinate, (sample, channel, y, x)."""
    return results["baseline"].to_dataset()["image"].sel({SAMPLE: samples})
