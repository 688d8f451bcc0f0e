"""Outcomes as a table of pandas: a row for every cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr

from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import SpecError

__all__ = ["outcomes_frame"]

_UNTOLD = ("digest", "spec")
"""Coordinates that name one intervention and say nothing of it to a reader."""


def outcomes_frame(outcomes: xr.Dataset, variables: Sequence[str]) -> pd.DataFrame:
    """Make the table of `causalunet.results.Results.to_frame`.

    Raises
    ------
    SpecError
        A variable is not there, or has more than one number per cell.
    """
    cell: set[Any] = {INTERVENTION, SAMPLE}
    known = [str(name) for name, one in outcomes.data_vars.items() if one.dims and set(one.dims) <= cell]
    wrong = [name for name in variables if name not in known]
    if wrong:
        raise SpecError(
            f"Outcomes have no {', '.join(map(repr, wrong))} with one value per intervention and sample; they have "
            f"{', '.join(sorted(known))}. results.outcomes has those with more."
        )
    chosen = outcomes[list(variables) or known]
    indexed = [name for name in chosen.xindexes if name not in cell]
    chosen = chosen.drop_indexes(indexed).drop_vars(_UNTOLD, errors="ignore")
    # pandas 2 knows nothing of NumPy's texts of any length.
    texts = {name: one.astype(object) for name, one in chosen.variables.items() if one.dtype.kind == "T"}
    chosen = chosen.assign({name: texts[name] for name in texts if name in chosen.data_vars})
    chosen = chosen.assign_coords({name: texts[name] for name in texts if name in chosen.coords})
    told = [str(name) for dim in (INTERVENTION, SAMPLE) for name in chosen.coords if chosen[name].dims == (dim,)]
    order = [*(name for name in told if name in cell), *(name for name in told if name not in cell), *chosen.data_vars]
    return chosen.to_dataframe(dim_order=[INTERVENTION, SAMPLE]).reset_index()[order]
