"""What the analysis gives, as a table of pandas."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from causalunet.analysis.curves import BOUND, BOUNDS
from causalunet.errors import SpecError

__all__ = ["to_frame"]


def to_frame(data: xr.Dataset, *names: str) -> pd.DataFrame:
    """Variables along one dimension as columns, the bounds of intervals as two.

    Parameters
    ----------
    data : xarray.Dataset
        What a function of ``causalunet.analysis`` gave, or part of it.
    *names : str
        Variables, in this order. By default all that lie along the same one dimension, or along it and ``bound``.

    Returns
    -------
    pandas.DataFrame
        A row per entry of the dimension; "interval lower" and "interval upper" for an ``interval``.

    Raises
    ------
    SpecError
        A variable is not there, or variables lie along several dimensions; select from them first.

    Examples
    --------
    >>> from causalunet.analysis import effects
    >>> blocks = effects(results).sel(kind="ablate_block")
    >>> to_frame(blocks, "mean", "interval").columns.tolist()
    ['mean', 'interval lower', 'interval upper']
    """
    unknown = [name for name in names if name not in data.data_vars]
    if unknown:
        raise SpecError(f"There is no {', '.join(unknown)}; there are {', '.join(map(str, data.data_vars))}.")
    along = {str(name): tuple(dim for dim in data[name].dims if dim != BOUND) for name in names or data.data_vars}
    first = next((dims for dims in along.values() if len(dims) == 1), None)
    chosen = [name for name, dims in along.items() if dims == first]
    if first is None or (names and len(chosen) < len(names)):
        told = ", ".join(f"{name} along {', '.join(map(str, dims)) or 'nothing'}" for name, dims in along.items())
        raise SpecError(f"A table has one dimension as its rows: {told}. Select from the others, or name variables.")
    columns: dict[str, xr.DataArray] = {}
    for name in chosen:
        if BOUND in data[name].dims:
            columns |= {f"{name} {bound}": data[name].sel({BOUND: bound}, drop=True) for bound in BOUNDS}
        else:
            columns[name] = data[name]
    rows = data[first[0]].values.tolist()
    index = pd.Index([str(row) if not isinstance(row, int | float) else row for row in rows], name=first[0])
    return pd.DataFrame({name: column.values for name, column in columns.items()}, index=index)
