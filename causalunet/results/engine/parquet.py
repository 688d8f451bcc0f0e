"""Tables for readers that know neither xarray nor zarr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from causalunet.errors import StoreError
from causalunet.results.engine.location import check_outside
from causalunet.results.guard.storage_errors import faults_told

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_parquet"]

_TOLD = ("long_name", "units")


def write_parquet(table: pd.DataFrame, described: xr.Dataset, path: Path, told: Mapping[str, str]) -> Path:
    """Write a table whose columns say what they are.

    Parameters
    ----------
    table : pandas.DataFrame
    described : xarray.Dataset
        Whose variables of the names of columns have ``long_name`` and ``units`` as attributes.
    path : Path
        Must not exist.
    told : mapping of str to str
        Of the whole, beside the versions of packages that wrote it.

    Raises
    ------
    StoreError
        The file exists, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise StoreError("To write Parquet, pyarrow is needed: pip install 'causalunet[share]'.") from error
    if path.exists():
        raise StoreError(f"{path} exists. An export never writes over anything; give a new path.")
    check_outside(path)
    made: Any = pa.Table.from_pandas(table, preserve_index=False)
    fields = [field.with_metadata(_metadata(described, field.name)) for field in made.schema]
    whole = {f"causalunet.{name}": value for name, value in told.items()}
    schema = pa.schema(fields, metadata={**(made.schema.metadata or {}), **whole})
    with faults_told(path, "exporting to", writing=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            parquet.write_table(made.cast(schema), file)
    return path


def _metadata(described: xr.Dataset, name: str) -> dict[str, str]:
    attrs = described[name].attrs if name in described.variables else {}
    return {key: str(attrs[key]) for key in _TOLD if key in attrs}
