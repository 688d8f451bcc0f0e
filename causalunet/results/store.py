"""Opening stored results, and what can be done with them as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from zarr.abc.store import Store

from causalunet.design.facts import facts_html
from causalunet.design.outcomes import Outcome, chosen_outcome
from causalunet.dims import INTERVENTION
from causalunet.errors import StoreError
from causalunet.paths import given_path
from causalunet.results.engine.archive import open_archive
from causalunet.results.engine.exported import ExportedStore
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Commit, Repository
from causalunet.results.guard.checked_store import Reader, read_stored
from causalunet.results.guard.storage_errors import faults_told
from causalunet.results.guard.stray_files import check_folder
from causalunet.results.meaning.declaration import Declaration
from causalunet.results.meaning.identity import stored_identity
from causalunet.results.meaning.index import InterventionIndex, StepIndex
from causalunet.results.meaning.lazy import datasets_of
from causalunet.results.meaning.schema import COMPLETE

if TYPE_CHECKING:
    import pandas as pd

    from causalunet.results.guard.findings import Verification

__all__ = ["Results", "open_results"]

_ADVICE = "Give the path of a folder that study.run(...) wrote."


@dataclass(frozen=True, slots=True)
class Source:
    """Where results were opened, and as of which commit.

    Parameters
    ----------
    location : Location
    store : zarr Store
    commit : str
        Empty for an export, which has no history.
    """

    location: Location
    store: Store
    commit: str


class Results(xr.DataTree):  # type: ignore[no-untyped-call]
    """Stored results of a study: an `xarray.DataTree`, read lazily, that knows its store.

    Made by `causalunet.open_results`. What xarray makes of it (selections, means) are plain trees and datasets.
    """

    __slots__ = ("_source",)

    _source: Source | None

    if TYPE_CHECKING:  # the groups, which xarray finds at run time
        baseline: xr.DataTree
        outcomes: xr.DataTree
        trajectory: xr.DataTree
        audit: xr.DataTree
        activations: xr.DataTree
        activation_summary: xr.DataTree

    def _repr_html_(self) -> str:
        """What was run and how much of it is there, above what xarray shows of the tree, for notebooks."""
        tree: str = xr.DataTree._repr_html_(self)  # type: ignore[no-untyped-call]
        if getattr(self, "_source", None) is None:
            return tree
        study, status = self.attrs.get("study", {}), self["outcomes"].to_dataset()["status"]
        told = {
            "at": str(self.source.location),
            "model": str(study.get("model")),
            "digest": str(self.attrs.get("digest")),
            "cells": f"{int((status == COMPLETE).sum()):,} of {status.size:,} complete",
        }
        return facts_html(f"Results of the study {study.get('name')!r}", told) + tree

    def verify(self, *, deep: bool = False, quiet: bool = False) -> Verification:
        """Read every chunk and check all that can be checked without the model; print the table.

        Checked are checksums, missing chunks, completeness against the study's grid, finiteness and range of what is
        marked as complete, whether every edit fired as declared, the noise floor of the null intervention, drift,
        whether coordinates, edits and calls are those of the stored study, and of cells and baselines that are drawn at
        random, other ones every time, whether outcomes are what the images give, and states what the seeds give.

        Parameters
        ----------
        deep : bool
            Make the outcomes of all cells again, and follow all baselines, and not 256 and 8 of them.
        quiet : bool
            Print nothing.

        Returns
        -------
        Verification
            True if all was checked and is well; ``exit_code`` is for scripts.
        """
        from causalunet.results.guard.verify import verify_store

        verification = verify_store(self.source.store, self.source.location, export=not self.source.commit, deep=deep)
        if not quiet:
            verification.print()
        return verification

    def add_outcome(
        self,
        outcome: str | Outcome,
        *,
        model: Any = None,
        retry_failed: bool = False,
        progress: bool = True,
    ) -> Results:
        """Measure one more outcome of what is stored, without a U-Net call, and open the results with it.

        It is committed as it goes: after an interruption the same call goes on, and nothing is measured twice. Cells
        whose runs failed are left out. Runs that are added to the study later are measured by it too.

        Parameters
        ----------
        outcome : str or Outcome
            By name, or itself, such as `causalunet.design.outcomes.MultiScaleSSIM`.
        model : DiffusionModel, optional
            Whose factor reader the outcome needs; most need none.
        retry_failed : bool
            Measure cells again of which it failed.
        progress : bool
            Show how far it is.

        Returns
        -------
        Results
            As of now. Beside the outcome's own variables they have its ``_status`` (1 measured, 2 failed) and
            ``_failure``, the reason.

        Raises
        ------
        SpecError
            It cannot be measured of such images; nothing was written.
        StoreError
            The store holds it by another definition, or is an export, or what is opened is not its newest state.

        Warns
        -----
        CausalUNetWarning
            It failed on some cells; they are marked, and the rest was measured.
        """
        self._repository()
        from causalunet.results.engine.scoring import score_store

        read_factors = model.read_factors if model is not None and model.factors else None
        score_store(
            self.source.location,
            chosen_outcome(outcome),
            retry_failed=retry_failed,
            read_factors=read_factors,
            progress=progress,
        )
        return open_results(self.source.location)

    def export(self, path: str | Path) -> Path:
        """Write plain zarr v3, sharded and with checksums, that `xarray.open_datatree` opens without this package.

        Parameters
        ----------
        path : path
            Folder that does not exist yet; or with the ending ``.zip`` a file, which is what to send to somebody or to
            put on a server.

        Raises
        ------
        StoreError
            It exists, or a chunk is damaged; then nothing is left at the path.
        """
        from causalunet.results.engine.export import export_store

        return export_store(self.source.store, self.source.location, given_path(path, StoreError))

    def to_frame(self, *variables: str) -> pd.DataFrame:
        """Outcomes as a table of pandas: a row for every intervention and sample.

        Parameters
        ----------
        *variables : str
            Outcomes with one value per intervention and sample, or per intervention, your own included. By default all.

        Returns
        -------
        pandas.DataFrame
            Columns ``intervention`` and ``sample``, what each is (kind, start, ..., prompt, seed), and the outcomes.
            Cells that failed or were not run yet have their ``status`` and NaN.

        Raises
        ------
        SpecError
            A variable is not there, or has more than one number per cell.

        Examples
        --------
        >>> table = results.to_frame("ssim", "psnr")
        >>> means = table.pivot_table(index="start", columns="kind", values="ssim")
        """
        from causalunet.results.meaning.frame import outcomes_frame

        return outcomes_frame(self["outcomes"].to_dataset(), variables)

    def to_parquet(self, path: str | Path, *variables: str) -> Path:
        """Write the table of `to_frame` as Parquet, with the meaning and units of every column in its metadata.

        Parameters
        ----------
        path : path
            File that does not exist yet.
        *variables : str
            As for `to_frame`.

        Returns
        -------
        Path
            The file. Fields have ``long_name`` and ``units`` as metadata, and the schema the digest of the study.

        Raises
        ------
        StoreError
            The file exists, or pyarrow is not installed (extra ``share``).
        SpecError
            As of `to_frame`.
        """
        from causalunet.results.engine.parquet import write_parquet

        outcomes = self["outcomes"].to_dataset()
        told = {"study": str(self.attrs["study"]["name"]), "digest": str(self.attrs["digest"])}
        return write_parquet(self.to_frame(*variables), outcomes, given_path(path, StoreError), told)

    def explore(self, **options: Any) -> Any:
        """Show the results in a notebook, with widgets that choose what is looked at.

        In a shell, ``causalunet explore`` does the same in a browser.

        Parameters
        ----------
        **options
            As for `causalunet.explore.explore`.

        Raises
        ------
        MissingExtraError
            The extra ``explore`` is not installed.
        """
        above: Any = import_module("causalunet.explore")  # by name: it stands above all that it shows
        return above.explore(self, **options)

    @property
    def identity(self) -> dict[str, Any]:
        """What made the images, part by part: fingerprint of the model, noise schedule, clipping, sampler, ....

        What a store of an earlier version does not know is not there. `causalunet.Shortcut` takes it.
        """
        return stored_identity(Reader(read_stored(self.source.store, self.source.location), self.source.location))

    @property
    def declaration(self) -> Declaration:
        """What the store says that it holds: variables, coordinates, dimensions, and outcomes of its own."""
        return read_stored(self.source.store, self.source.location).declaration

    def tag(self, name: str) -> None:
        """Name this state for good, so that ``open_results(path, at=name)`` opens it for ever.

        Parameters
        ----------
        name : str
            Such as "paper-v1": at most 100 letters (a to z), digits, spaces and signs such as ``.`` ``-`` ``_``.

        Raises
        ------
        StoreError
            The name is taken or not usable, or these results are an export.
        """
        self._repository().tag(name, self.source.commit)

    def history(self) -> list[Commit]:
        """Every commit, newest first, with what it added."""
        return self._repository().history()

    @property
    def source(self) -> Source:
        """Where these results were opened."""
        found = getattr(self, "_source", None)
        if found is None:
            raise StoreError("This tree was made from results, it is not a store. Call this on what open_results gave.")
        return found

    def _repository(self) -> Repository:
        if not self.source.commit:
            raise StoreError(
                f"{self.source.location} is an export: it has no history and no tags. Open the store it was made of."
            )
        return Repository.open(self.source.location)


def open_results(path: str | Path | Location, *, at: str | None = None) -> Results:
    """Open stored results lazily; needs no torch.

    What is seen is what was committed when they were opened, also while a run goes on writing.

    Parameters
    ----------
    path : path or str
        Folder or address (``s3://bucket/prefix``, ``gs://bucket/prefix``) that a study was run into; folder or ``.zip``
        of an export, or its address (``https://host/name.zarr.zip``, ``hf://datasets/user/name/name.zarr.zip``), of
        which only what is asked for is loaded (needs the extra ``share``).
    at : str, optional
        Tag or commit to open instead of the newest.

    Returns
    -------
    Results
        An `xarray.DataTree` with the groups ``baseline``, ``outcomes``, ``trajectory``, ``audit`` and, if recorded,
        ``activations/<component>`` and ``activation_summary``. Interventions are selected by any of their coordinates.

    Raises
    ------
    StoreError
        There is nothing at the path, not a results store, or no such tag.
    DamageError
        The store is damaged, or was made by something else.

    Examples
    --------
    >>> results = open_results("results/phases.zarr")
    >>> results.outcomes.ssim.sel(kind="ablate_block", bottom=2).mean("sample").dims
    ('intervention',)
    """
    source = open_source(path, at)
    location = source.location
    with faults_told(location, "opening"):
        datasets = datasets_of(read_stored(source.store, location), location)
        results = Results.from_dict({path: _with_index(dataset) for path, dataset in datasets.items()})
    results._source = source
    return results


def open_source(path: str | Path | Location, at: str | None = None) -> Source:
    """Find a store, without reading what it holds; arguments and errors as for `open_results`."""
    location = Location.parse(path)
    with faults_told(location, "opening"):
        return _export_source(location, at) if location.export else _live_source(location, at)


def store_exists(path: str | Path) -> bool:
    """Whether results can be opened at a path or address; one of the web is taken to exist."""
    location = Location.parse(path)
    if location.folder is not None and not location.folder.exists():
        return False
    try:
        return location.export or Repository.exists(location)
    except StoreError:
        return False


def _export_source(location: Location, at: str | None) -> Source:
    if at is not None:
        raise StoreError(f"{location} is an export: it has no history, so nothing can be opened at {at!r}.")
    if location.folder is None or location.zipped:
        return Source(location, open_archive(location), "")
    check_folder(location.folder)
    return Source(location, ExportedStore(location.folder, read_only=True), "")


def _live_source(location: Location, at: str | None) -> Source:
    folder = location.folder
    if folder is not None and not folder.exists():
        raise StoreError(f"There is nothing at {location}. Run a study with study.run({str(location)!r}) first.")
    if not Repository.exists(location):
        found = "nothing of causalunet's is there" if folder is None else "it has neither refs nor zarr.json"
        raise StoreError(f"{location} is not a results store: {found}. {_ADVICE}")
    repository = Repository.open(location)
    store = repository.readable(at)
    return Source(location, store, store.session.snapshot_id)  # type: ignore[attr-defined]


def _with_index(dataset: xr.Dataset) -> xr.Dataset:
    dataset = StepIndex.of(dataset)
    if INTERVENTION not in dataset.dims:
        return dataset
    columns = [
        name
        for name, coordinate in dataset.coords.items()
        if coordinate.dims == (INTERVENTION,) and name not in (INTERVENTION, "spec")
    ]
    return dataset.set_xindex(columns, InterventionIndex)
