"""Writing a results store while a study runs, and opening one."""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from causalunet.dims import INTERVENTION
from causalunet.errors import StoreError
from causalunet.results.index import InterventionIndex
from causalunet.results.layout import Layout
from causalunet.results.schema import FORMAT, FORMAT_VERSION

__all__ = ["StudyWriter", "open_results"]

COMPLETE = 1
"""Value of ``status`` in cells that were written whole."""
BASELINE_ONLY = 2
"""Value of a sample's ``status`` where its baseline is stored, but not all of its interventions."""


class StudyWriter:
    """Writes blocks of samples into a results store; a block counts only once its status is written, last.

    Use `create` or `resume`.

    Parameters
    ----------
    root : zarr.Group
        Of a store whose arrays exist.
    """

    def __init__(self, root: zarr.Group) -> None:
        self._root = root
        self._arrays = {path: item for path, item in root.members(max_depth=None) if isinstance(item, zarr.Array)}

    @classmethod
    def create(cls, path: Path, layout: Layout, provenance: dict[str, Any]) -> StudyWriter:
        """Lay out every array and write every coordinate.

        Parameters
        ----------
        path : Path
            Must not exist.
        layout : Layout
        provenance : dict
            JSON attributes of the root.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made beside its place and then renamed: cut off half-way, it leaves nothing at the path.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            made = Path(folder) / path.name
            _lay_out(zarr.create_group(store=str(made), zarr_format=3), layout, provenance)
            made.rename(path)
        return cls.resume(path)

    @classmethod
    def resume(cls, path: Path) -> StudyWriter:
        """Go on with a store that exists."""
        _check_marker(path)
        return cls(zarr.open_group(str(path), mode="r+", zarr_format=3))

    @property
    def block(self) -> int:
        """Samples per block."""
        return int(str(self._root.attrs["block"]))

    def write(self, path: str, index: tuple[Any, ...], values: NDArray[Any]) -> None:
        """Write part of an array.

        Parameters
        ----------
        path : str
            ``group/name``.
        index : tuple
            Integers and slices along the array's leading dimensions.
        values : ndarray
        """
        self._arrays[path][index] = values

    def has(self, path: str) -> bool:
        """Whether the store holds an array."""
        return path in self._arrays

    def completed(self) -> NDArray[np.bool_]:
        """Which samples are complete, (sample,)."""
        return np.asarray(self._arrays["baseline/status"][:]) == COMPLETE

    def complete(self, samples: slice) -> None:
        """Mark a block of samples as written whole."""
        self._arrays["outcomes/status"][:, samples] = COMPLETE
        self._arrays["baseline/status"][samples] = COMPLETE

    def read(self, path: str, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read part of an array; arguments as for `write`."""
        return np.asarray(self._arrays[path][index])

    def baseline_stored(self) -> NDArray[np.bool_]:
        """Which samples have their baseline stored, (sample,)."""
        return np.isin(self._arrays["baseline/status"][:], (COMPLETE, BASELINE_ONLY))

    def complete_baseline(self, samples: slice) -> None:
        """Mark the baseline of a block of samples as stored; samples that are complete stay so."""
        status = self._arrays["baseline/status"]
        known = np.asarray(status[samples])
        status[samples] = np.where(known == COMPLETE, COMPLETE, BASELINE_ONLY)

    def cells_stored(self) -> NDArray[np.bool_]:
        """Which cells are complete, (intervention, sample)."""
        return np.asarray(self._arrays["outcomes/status"][:]) == COMPLETE

    def complete_cells(self, intervention: int, samples: slice) -> None:
        """Mark the cells of one intervention as written whole."""
        self._arrays["outcomes/status"][intervention, samples] = COMPLETE

    def finish(self, attributes: dict[str, Any]) -> None:
        """Add attributes to the root, such as timings."""
        self._root.attrs.update(attributes)


def _lay_out(root: zarr.Group, layout: Layout, provenance: dict[str, Any]) -> None:
    """Make every array and write what is known before anything runs; the marker comes last."""
    now, costs = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), layout.costs()
    for array in layout.arrays():
        created = root.create_array(
            array.path,
            shape=array.shape,
            chunks=array.chunks,
            dtype=array.dtype,
            compressors=[Crc32cCodec()],
            fill_value=np.nan if array.dtype.startswith("float") else 0,
            dimension_names=array.variable.dims,
            attributes={"long_name": array.variable.meaning, "units": array.variable.units},
            config={"write_empty_chunks": True},
        )
        if array.path in costs:
            created[:] = np.array(costs[array.path])
    for group in sorted({array.path.rsplit("/", 1)[0] for array in layout.arrays()}):
        coordinates = layout.coordinates(group)
        # xarray's convention: named here, they are coordinates for any reader, not only for open_results.
        names = " ".join(item.name for item in coordinates if item.name != item.dim)
        root[group].attrs.update({"created_at": now, "coordinates": names})
        for item in coordinates:
            text = item.values.dtype == object
            coordinate = root.create_array(
                f"{group}/{item.name}",
                shape=item.values.shape,
                chunks=(max(len(item.values), 1),),
                dtype=str if text else item.values.dtype,
                compressors=[Crc32cCodec()],
                dimension_names=(item.dim,),
                config={"write_empty_chunks": True},
            )
            coordinate[:] = item.values.astype(str) if text else item.values
    root.attrs.update(
        {"format": FORMAT, "format_version": FORMAT_VERSION, "created_at": now, "block": layout.block, **provenance}
    )


def open_results(path: str | Path) -> xr.DataTree:
    """Open a results store lazily; needs no torch.

    Parameters
    ----------
    path : path
        Folder that a study was run into.

    Returns
    -------
    xarray.DataTree
        Groups ``baseline``, ``outcomes``, ``trajectory`` and, if recorded, ``activations/<component>`` and
        ``activation_summary``. Interventions are selected by any of their coordinates.

    Raises
    ------
    StoreError
        There is nothing at the path, or not a results store.

    Examples
    --------
    >>> results = open_results("results/phases.zarr")  # doctest: +SKIP
    >>> results.outcomes.ssim.sel(kind="ablate_block", bottom=2).mean("sample")  # doctest: +SKIP
    """
    path = Path(path)
    _check_marker(path)
    tree = xr.open_datatree(path, engine="zarr", chunks=None, consolidated=False, zarr_format=3)
    return tree.map_over_datasets(_with_index)


def remove_store(path: Path) -> None:
    """Delete a results store, and nothing that is not one."""
    _check_marker(path)
    shutil.rmtree(path)


def store_attributes(path: Path) -> dict[str, Any]:
    """Attributes of a results store's root."""
    _check_marker(path)
    return dict(zarr.open_group(str(path), mode="r", zarr_format=3).attrs)


def _check_marker(path: Path) -> None:
    marker = path / "zarr.json"
    if not path.exists():
        raise StoreError(f"There is nothing at {path}. Run a study with study.run({str(path)!r}) first.")
    advice = "Give the path of a folder that study.run(...) wrote."
    if not marker.is_file():
        found = "a folder without zarr.json" if path.is_dir() else "a file"
        raise StoreError(f"{path} is not a results store: it is {found}. {advice}")
    try:
        attributes = json.loads(marker.read_text()).get("attributes", {})
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise StoreError(f"{path} is not a results store: its zarr.json cannot be read ({error}). {advice}") from error
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise StoreError(
            f"{path} is a zarr store, but not one of causalunet's results, or its creation was cut off. {advice}"
        )
    if attributes.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {attributes.get('format_version')}; this causalunet reads {FORMAT_VERSION}. "
            "Open it with the version of causalunet that wrote it."
        )


def _with_index(dataset: xr.Dataset) -> xr.Dataset:
    if INTERVENTION not in dataset.dims:
        return dataset
    columns = [
        name
        for name, coordinate in dataset.coords.items()
        if coordinate.dims == (INTERVENTION,) and name not in (INTERVENTION, "spec")
    ]
    return dataset.set_xindex(columns, InterventionIndex)
