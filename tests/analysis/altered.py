"""Stored results with some of their numbers replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr


def altered(results: xr.DataTree, *, baseline: dict[str, Any] | None = None, **outcomes: Any) -> xr.DataTree:
    """Replace outcomes, and variables of the baseline, by arrays of the same shape or numbers."""
    groups = {}
    for group, values in (("outcomes", outcomes), ("baseline", baseline or {})):
        dataset = results[group].to_dataset()
        new = {
            name: (dataset[name].dims, np.broadcast_to(array, dataset[name].shape)) for name, array in values.items()
        }
        groups[group] = dataset.assign({name: (*pair, dataset[name].attrs) for name, pair in new.items()})
    return xr.DataTree.from_dict(groups)
