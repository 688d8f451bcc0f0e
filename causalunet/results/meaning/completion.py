"""How far a stored study is: counted from its marks alone, without its arrays."""

from __future__ import annotations

import datetime
import math
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import DamageError
from causalunet.results.engine.repository import Commit, Repository
from causalunet.results.guard.checked_store import Stored, read_stored
from causalunet.results.guard.coverage import unrecorded
from causalunet.results.guard.storage_errors import faults_told
from causalunet.results.meaning.schema import COMPLETE, FAILED
from causalunet.results.store import open_source

__all__ = ["Completion", "Tally"]

_MOST_MARKS = 1 << 28
_MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of something are complete, failed and missing."""

    complete: int
    failed: int
    missing: int

    @classmethod
    def of(cls, status: NDArray[Any]) -> Tally:
        """Count a ``status``."""
        complete, failed = int((status == COMPLETE).sum()), int((status == FAILED).sum())
        return cls(complete, failed, status.size - complete - failed)

    @property
    def total(self) -> int:
        """All of them."""
        return self.complete + self.failed + self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How far a stored study is.

    Attributes
    ----------
    where : str
    study, model, digest : str
    cells, baselines : Tally
    unrecorded : int
        Outputs of components, one per run and sample, that are to be recorded and are not yet.
    failures : tuple of (str, int)
        The most frequent reasons, with the number of cells.
    unet_calls : int
    seconds : float
    last : Commit, optional
        None for an export.
    changed : datetime, optional
        When the store was last written to; of an export at an address it is not known.
    tags : tuple of str
    busy : dict of str to int, optional
        Claims that are held now, see `Repository.busy`.
    claimed : dict of str to str
        Claims in an object store, see `Repository.claimed`.
    size : int, optional
        Bytes on the local disk.
    """

    where: str
    study: str
    model: str
    digest: str
    cells: Tally
    baselines: Tally
    unrecorded: int
    failures: tuple[tuple[str, int], ...]
    unet_calls: int
    seconds: float
    last: Commit | None
    changed: datetime.datetime | None
    tags: tuple[str, ...]
    busy: dict[str, int] | None
    claimed: dict[str, str]
    size: int | None

    @property
    def complete(self) -> bool:
        """Whether everything asked for is stored and nothing failed."""
        return self.cells.complete == self.cells.total and self.baselines.missing == 0 and self.unrecorded == 0

    @classmethod
    def read(cls, path: str | Path) -> Completion:
        """Look at a store.

        Parameters
        ----------
        path : path or str
            Folder or address, of a live store or an export.

        Raises
        ------
        StoreError
            There is no results store, or it cannot be read.
        """
        source = open_source(path)
        where, folder = source.location, source.location.folder
        marks = _Marks(read_stored(source.store, where), where)
        baseline, cells = marks.read("baseline/status"), marks.read("outcomes/status")
        last, tags, busy, claimed = None, frozenset[str](), None, dict[str, str]()
        if source.commit:
            repository = Repository.open(where)
            last, tags = repository.history(most=1)[0], repository.tags()
            busy, claimed = repository.busy(), repository.claimed()
        attributes = marks.stored.attributes
        study = attributes.study
        return cls(
            where=str(where),
            study=str(study.get("name", "")),
            model=str(study.get("model", "")),
            digest=attributes.digest,
            cells=Tally.of(cells),
            baselines=Tally.of(baseline),
            unrecorded=marks.unrecorded(baseline == COMPLETE, cells == COMPLETE),
            failures=_failures(marks, cells),
            unet_calls=int(marks.read("audit/unet_calls").sum()),
            seconds=float(np.nansum(marks.read("audit/seconds"))),
            last=last,
            changed=last.time if last else _written(folder),
            tags=tuple(sorted(tags)),
            busy=busy,
            claimed=claimed,
            size=None if folder is None else _size(folder),
        )


@dataclass(frozen=True, slots=True)
class _Marks:
    """Small arrays of a store, read whole."""

    stored: Stored
    where: object

    def read(self, path: str) -> NDArray[Any]:
        """The values of an array that every store has."""
        if path not in self.stored.arrays:
            raise DamageError(f"{self.where} is damaged: the array {path} is missing.")
        array = self.stored.arrays[path]
        size = math.prod(array.shape)
        if size > _MOST_MARKS:
            raise DamageError(f"{self.where} claims to have {size:,} entries in {path}; no study has so many.")
        with faults_told(self.where, f"reading {path} from"):
            return np.asarray(array[...])

    def unrecorded(self, baseline: NDArray[np.bool_], cells: NDArray[np.bool_]) -> int:
        """Count what is not recorded yet of runs that are complete."""
        with faults_told(self.where, "counting what is recorded in"):
            return unrecorded(self.stored.arrays, self.read, baseline, cells)


def _failures(marks: _Marks, cells: NDArray[Any]) -> tuple[tuple[str, int], ...]:
    failed = cells == FAILED
    if not failed.any():
        return ()
    reasons = marks.read("outcomes/failure")
    with faults_told(marks.where, "counting failures in"):
        return tuple(Counter(map(str, reasons[failed].tolist())).most_common(_MOST_REASONS))


def _size(folder: Path) -> int:
    if folder.is_file():
        return folder.stat().st_size
    size, pending = 0, [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                with suppress(FileNotFoundError):  # a run may be writing
                    size += entry.stat(follow_symlinks=False).st_size
    return size


def _written(folder: Path | None) -> datetime.datetime | None:
    """When an export was made; of one at an address it is not known."""
    if folder is None:
        return None
    file = folder if folder.is_file() else folder / "zarr.json"
    return datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC)
