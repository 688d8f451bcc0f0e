"""Outcomes of made-up interventions, without a store: numbers that a test knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from causalunet.design.interventions import Intervention
from causalunet.results.meaning.index import InterventionIndex
from causalunet.results.meaning.schema import COMPLETE


def cells(interventions: Sequence[Intervention], values: Any, prompts: Sequence[str] | None = None) -> xr.Dataset:
    """Outcomes as stores show them, of one variable ``y``, (intervention, sample)."""
    values = np.asarray(values, dtype=np.float64)
    told = prompts or [f"prompt {i}" for i in range(values.shape[1])]
    columns = {
        "label": [item.label for item in interventions],
        "kind": [item.kind for item in interventions],
        "digest": [item.digest for item in interventions],
        "spec": [json.dumps(item.to_json()) for item in interventions],
    }
    along = {name: ("intervention", np.array(column, dtype=object)) for name, column in columns.items()}
    dims = ("intervention", "sample")
    data = xr.Dataset(
        {
            "y": (dims, values, {"units": "1", "better": "lower"}),
            "status": (dims, np.full(values.shape, COMPLETE)),
        },
        coords={
            **{name: column for name, column in along.items() if name not in ("spec", "label")},
            "intervention": along["label"],
            "prompt": ("sample", np.array(told, dtype=np.dtypes.StringDType())),
            "sample": np.arange(values.shape[1]),
        },
    ).assign(spec=along["spec"])
    names = ["intervention", "kind", "digest"]
    return data.drop_indexes("intervention").set_xindex(names, InterventionIndex)
