"""Which cells of every array a store claims to hold, and which of their numbers must be finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from causalunet.dims import INTERVENTION, SAMPLE, STEP
from causalunet.errors import DamageError
from causalunet.results.guard.storage_errors import faults_told
from causalunet.results.meaning.declaration import Declaration
from causalunet.results.meaning.schema import COMPLETE, FAILED, Variable

__all__ = ["Coverage", "unrecorded"]

_KIND = "outcomes/kind"
_MAY_BE_NAN = {"audit/drift", "audit/null_difference"}


def unrecorded(
    paths: Iterable[str], read: Callable[[str], NDArray[Any]], baseline: NDArray[np.bool_], cells: NDArray[np.bool_]
) -> int:
    """Count outputs of components that are to be recorded of complete runs and are not yet.

    Parameters
    ----------
    paths : iterable of str
        Of all arrays.
    read : callable
        Gives the values of one.
    baseline, cells : ndarray of bool, (sample,) and (intervention, sample)
        Which are complete.
    """
    lacking = 0
    for path in paths:
        group, _, name = path.rpartition("/")
        if group.startswith("activation") and name in ("baseline_status", "status"):
            done, status = baseline if name == "baseline_status" else cells, read(path)
            lacking += int((done.reshape(*done.shape, *(1,) * (status.ndim - done.ndim)) & (status != COMPLETE)).sum())
    return lacking


@dataclass(frozen=True)
class Coverage:
    """What the statuses of a store say is there.

    Parameters
    ----------
    arrays : dict of str to zarr.Array
        By path.
    declaration : Declaration
        What each is.
    marks : dict of str to ndarray
        Every status and ``ran`` by path, ``audit/declared``, and the ``kind`` of every intervention.
    """

    arrays: dict[str, zarr.Array[Any]]
    declaration: Declaration
    marks: dict[str, NDArray[Any]]

    @classmethod
    def read(cls, arrays: dict[str, zarr.Array[Any]], declaration: Declaration, where: object) -> Coverage:
        """Read what is small and needed all the time."""
        marks = {}
        for path, array in arrays.items():
            variable = declaration.variable_at(path)
            is_mark = variable is not None and (variable.role == "status" or variable.name in ("ran", "declared"))
            if is_mark or path == _KIND:
                with faults_told(where, f"reading {path} from"):
                    marks[path] = np.asarray(array[...])
        for path in ("baseline/status", "outcomes/status", "audit/declared"):
            if path not in marks:
                raise DamageError(f"{where} is damaged: the array {path} is missing.")
        return cls(arrays, declaration, marks)

    @property
    def baselines(self) -> NDArray[np.bool_]:
        """Which samples have a complete baseline."""
        return self.marks["baseline/status"] == COMPLETE

    @property
    def cells(self) -> NDArray[np.bool_]:
        """Which cells are complete, (intervention, sample)."""
        return (self.marks["outcomes/status"] == COMPLETE) & self.baselines

    def expects(self, path: str, region: tuple[slice, ...]) -> bool:
        """Whether a chunk must have been written."""
        return bool(self.required(path, region).any())

    def finite(self, path: str, region: tuple[slice, ...]) -> NDArray[np.bool_] | None:
        """Which numbers of a chunk must be finite; None if that cannot be said of this array."""
        if path in _MAY_BE_NAN or SAMPLE not in self._dims(path) or self.declaration.variable_at(path) is None:
            return None
        return np.broadcast_to(self.required(path, region), tuple(part.stop - part.start for part in region))

    def declared(self, region: tuple[slice, ...]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """How often edits of a chunk of ``audit/fired`` are to fire, and which of its cells are complete."""
        done = np.broadcast_to(self._done("audit/fired", region), tuple(part.stop - part.start for part in region))
        return np.broadcast_to(self._spread("audit/declared", "audit/fired", region), done.shape), done

    def required(self, path: str, region: tuple[slice, ...]) -> NDArray[np.bool_]:
        """Complete entries of steps at which the call, or the block, ran; broadcastable to the chunk."""
        ran, dims = f"{path.rpartition('/')[0]}/ran", self._dims(path)
        done = self._done(path, region)
        if path == "audit/fired":  # places that came later are not written for what edits none of them
            return done & (self._spread("audit/declared", path, region) > 0)
        return done & self._spread(ran, path, region) if ran in self.marks and {STEP, INTERVENTION} <= {*dims} else done

    def _done(self, path: str, region: tuple[slice, ...]) -> NDArray[np.bool_]:
        """Which entries of a chunk the statuses call complete, broadcastable to it."""
        group, dims, variable = path.rpartition("/")[0], self._dims(path), self.declaration.variable_at(path)
        if SAMPLE not in dims or variable is None:
            return np.ones((1,) * len(dims), bool)  # known before anything runs, or a coordinate
        whole, own = "baseline/status", f"{group}/baseline_status"
        if INTERVENTION in dims:
            whole, own = "outcomes/status", f"{group}/status"
        if variable.outcome:
            return self._measured(variable, path, region)
        if path == "audit/null_difference":  # a search runs no null intervention
            nulls = self.marks.get(_KIND, np.empty(0, object)) == "null"
            if len(nulls) == len(self.cells):
                return np.asarray(self.cells[nulls].any(axis=0)[region])
        done = self._spread(whole, path, region) == COMPLETE
        return done & (self._spread(own, path, region) == COMPLETE) if own in self.marks else done

    def _measured(self, variable: Variable, path: str, region: tuple[slice, ...]) -> NDArray[np.bool_]:
        """Which entries of an outcome of the study's own its status calls measured, or, of its failures, failed.

        Its status may be missing where nothing was measured yet.
        """
        own = f"{path.rpartition('/')[0]}/{variable.outcome}_status"
        if variable.role == "status" or own not in self.marks:
            return np.zeros((1,) * len(region), bool)
        done = self._spread("outcomes/status", path, region) == COMPLETE
        return done & (self._spread(own, path, region) == (FAILED if variable.role == "failure" else COMPLETE))

    def _spread(self, mark: str, path: str, region: tuple[slice, ...]) -> NDArray[Any]:
        """Part of a mark that belongs to a chunk, with axes of length one where it has none."""
        dims, own = self._dims(path), self._dims(mark)
        index = tuple(part for dim, part in zip(dims, region, strict=True) if dim in own)
        shape = tuple(part.stop - part.start if dim in own else 1 for dim, part in zip(dims, region, strict=True))
        return self.marks[mark][index].reshape(shape)

    def _dims(self, path: str) -> tuple[str, ...]:
        names: Any = getattr(self.arrays[path].metadata, "dimension_names", None)
        return tuple(names or ())
