"""Writing results: a part of a study becomes visible whole, or not at all."""

from __future__ import annotations

import datetime
import pickle
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from causalunet.errors import ModelError, StoreError
from causalunet.results.engine.arrays import arrays_beside, coordinates_beside, make_array, write_coordinate
from causalunet.results.engine.background_writer import BackgroundWriter
from causalunet.results.engine.leases import Wait
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.guard.storage_errors import faults_told
from causalunet.results.meaning.attributes import StoreAttributes
from causalunet.results.meaning.declaration import OUTCOMES, DeclaredOutcome
from causalunet.results.meaning.layout import Coordinate, Layout, StoredArray
from causalunet.results.meaning.schema import FORMAT_VERSION

__all__ = ["StudyWriter", "consecutive"]


class StudyWriter:
    """Writes parts of a study into its store; nothing counts before `commit`.

    Use `open` or `create`.

    Parameters
    ----------
    repository : Repository
    fork : bytes, optional
        Of the session of another process, from its `fork`: what is written goes into that, and is committed there.
    """

    def __init__(self, repository: Repository, fork: bytes | None = None) -> None:
        self.repository = repository
        self._background = BackgroundWriter()
        self._checked: tuple[dict[str, Any], StoreAttributes] | None = None
        self._attributes: StoreAttributes | None = None
        if fork is None:
            self.refresh()
        else:
            self._begin(pickle.loads(fork))

    @classmethod
    def create(cls, location: Location, layout: Layout, attributes: StoreAttributes) -> StudyWriter:
        """Lay out every array and write every coordinate, in one commit.

        Parameters
        ----------
        location : Location
        layout : Layout
        attributes : StoreAttributes
            Of the study; what the layout knows is added.
        """

        def lay_out(repository: Repository) -> None:
            writer = cls(repository)
            if writer.attributes is None:
                writer.lay_out(layout, attributes, "a study laid out")

        return cls(Repository.create(location, lay_out))

    @property
    def attributes(self) -> StoreAttributes | None:
        """Of the root; None in a store that was not laid out.

        Raises
        ------
        StoreError, DamageError
            They are not those of a study.
        """
        if self._attributes is None and (written := dict(self._root.attrs)):
            # Checking them takes thousands of calls, and most commits leave them as they are.
            if self._checked is None or self._checked[0] != written:
                self._checked = written, StoreAttributes.from_json(written, self.repository.location)
            self._attributes = self._checked[1]
        return self._attributes

    @property
    def known(self) -> StoreAttributes:
        """Attributes of a store that was laid out.

        Raises
        ------
        StoreError
            It was not.
        """
        if self.attributes is None:
            raise StoreError(f"{self.repository.location} holds no study yet. Run one into it with study.run(path).")
        return self.attributes

    @property
    def root(self) -> zarr.Group:
        """Of the session, with what was written since the last commit; not for use while writes are under way."""
        return self._root

    def refresh(self) -> None:
        """Forget what was not committed, and start from the newest commit."""
        self._background.discard()
        self._begin(self.repository.writable())

    def _begin(self, session: icechunk.Session) -> None:
        self._session = session
        with faults_told(self.repository.location, "opening"):
            self._root = zarr.open_group(self._session.store, mode="a", zarr_format=3)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._attributes = None

    def fork(self) -> bytes:
        """A session that another process can write into, as of this one, into which nothing was written."""
        with faults_told(self.repository.location, "opening"):
            return pickle.dumps(self._session.fork())

    def written(self) -> bytes:
        """What a writer of a fork has written, for the process that gave it the fork."""
        self._background.drain()
        return pickle.dumps(self._session)

    def take(self, written: bytes) -> None:
        """Take what another process wrote into this session's fork; it counts once committed.

        Of two forks of one session that wrote the same chunk the later would win, so one session gives one fork.
        """
        with faults_told(self.repository.location, "writing to", writing=True):
            self._session.merge(pickle.loads(written))

    def abandon(self) -> None:
        """Forget what was not committed."""
        self._background.discard()

    def has(self, path: str) -> bool:
        """Whether the store holds an array."""
        with self._background.between():
            return path in self._root

    def write(self, path: str, index: tuple[Any, ...], values: NDArray[Any]) -> None:
        """Write part of an array, later and in the order of the calls.

        Parameters
        ----------
        path : str
            ``group/name``.
        index : tuple
            Integers and slices along the array's leading dimensions.
        values : ndarray
            Copied.

        Raises
        ------
        ModelError
            They do not fit.
        """
        array, kept = self._array(path), np.array(values)
        shape = _shape_at(array.shape, index)
        if kept.shape not in ((), shape):
            raise ModelError(
                f"The run gave {path} values of shape {kept.shape}, and the store has a place of shape {shape} for "
                "them: the model gives something else than its image_shape, anatomy or factors say."
            )

        def put() -> None:
            with faults_told(self.repository.location, f"writing {path} to", writing=True):
                array[index] = kept

        self._background.put(put)

    def write_cells(self, path: str, interventions: Sequence[int], samples: slice, values: NDArray[Any]) -> None:
        """Write the cells of some interventions, given in ascending order, (intervention, sample, ...)."""
        for rows, positions in consecutive(interventions):
            self.write(path, (positions, samples), values[rows])

    def read(self, path: str, index: tuple[Any, ...] = ()) -> NDArray[Any]:
        """Read part of an array, with what was written before; arguments as for `write`."""
        self._background.drain()
        with faults_told(self.repository.location, f"reading {path} from"):
            return np.asarray(self._array(path)[index])

    def commit(self, message: str, added: Mapping[str, Any]) -> None:
        """Make everything written since the last commit visible, all at once.

        Raises
        ------
        WriteConflictError
            Another process wrote one of the same cells; nothing of this commit is stored then.
        StorageError
            Storage did not take it.
        """
        self._background.drain()
        self.repository.commit(self._session, message, added)
        self.refresh()

    def claim(self, name: str, *, wait: Wait = "no") -> AbstractContextManager[bool]:
        """See `Repository.claim`."""
        return self.repository.claim(name, wait=wait)

    def lay_out(self, layout: Layout, attributes: StoreAttributes, message: str, *, afresh: bool = False) -> None:
        """Make or grow every array to a layout and write what is known before anything runs, in one commit.

        Parameters
        ----------
        layout : Layout
            What is stored keeps its place in it.
        attributes : StoreAttributes
            Of the study; what the layout knows is added. A store of an earlier format has the newest from here on.
        message : str
        afresh : bool
            Leave out all that was stored; history keeps it.
        """
        now, known = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), layout.known()
        if afresh:
            for name in list(self._root):
                del self._root[name]
            self._root.attrs.clear()
        arrays = layout.arrays  # from here on nothing is computed that a user may have defined
        coordinates_of = {group: layout.coordinates(group) for group in sorted({_group(array) for array in arrays})}
        with faults_told(self.repository.location, "laying out", writing=True):
            stored = {path for path, _ in self._root.members(max_depth=None)}
            for array in arrays:
                placed = self._grown(array) if array.path in stored else make_array(self._root, array)
                if array.path in known:
                    placed[...] = known[array.path]
            for group, coordinates in coordinates_of.items():
                self._root[group].attrs["created_at"] = now
                self._name_coordinates(group, coordinates)
                for item in coordinates:
                    path = f"{group}/{item.name}"
                    write_coordinate(self._root, path, item, fresh=path not in stored)
            made = replace(
                attributes,
                format_version=FORMAT_VERSION,
                declaration=layout.declaration,
                created_at=attributes.created_at or now,
                block=layout.block,
                group=layout.plan.group,
                layout_id=attributes.layout_id or uuid.uuid4().hex,
            )
            self._root.attrs.update(made.to_json())
        self.commit(message, {"interventions": len(layout.grid.interventions), "samples": len(layout.grid.samples)})

    def declare(self, outcome: DeclaredOutcome) -> None:
        """Add an outcome to what the store holds, in one commit: its arrays, its status and its failures, unwritten.

        Nothing is done where the store holds it already. A store of an earlier format has the newest from here on.

        Parameters
        ----------
        outcome : DeclaredOutcome

        Raises
        ------
        StoreError
            The store holds another outcome of that name, or was never laid out.
        SpecError
            A name stands for something else there already.
        """
        where, attributes = self.repository.location, self.known
        if (known := attributes.declaration.outcome(outcome.name)) is not None:
            if known.digest != outcome.digest:
                raise StoreError(
                    f"{where} holds the outcome {outcome.name!r} of another definition: its digest is {known.digest} "
                    f"there and {outcome.digest} here. Give this one a name of its own."
                )
            return
        types = {
            path: array.dtype.name
            for path, array in self._root.members(max_depth=None)
            if isinstance(array, zarr.Array)
        }
        declaration = attributes.declaration.holding(types).with_outcome(outcome)
        made = replace(attributes, format_version=FORMAT_VERSION, declaration=declaration)
        with faults_told(where, "declaring an outcome in", writing=True):
            added = list(coordinates_beside(self._root, outcome))
            for array in arrays_beside(self._root, outcome):
                make_array(self._root, array)
            for item in added:
                write_coordinate(self._root, f"{OUTCOMES}/{item.name}", item)
            self._name_coordinates(OUTCOMES, added)
            self._root.attrs.update(made.to_json())
        self.commit(f"outcome {outcome.name} declared", {})

    def update_attributes(self, attributes: StoreAttributes, message: str) -> None:
        """Set attributes of the root, in one commit."""
        self._root.attrs.update(attributes.to_json())
        self.commit(message, {})

    def _array(self, path: str) -> zarr.Array[Any]:
        if path not in self._arrays:
            with zarr.config.set({"array.write_empty_chunks": True}), self._background.between():
                found = self._root[path]
            if not isinstance(found, zarr.Array):
                raise StoreError(f"{self.repository.location} holds a group where the array {path} should be.")
            self._arrays[path] = found
        return self._arrays[path]

    def _grown(self, array: StoredArray) -> zarr.Array[Any]:
        found = self._array(array.path)
        if found.shape != array.shape:
            found.resize(array.shape)
        return found

    def _name_coordinates(self, group: str, coordinates: Iterable[Coordinate]) -> None:
        """By xarray's convention: named so, they are coordinates for any reader, not only for open_results."""
        attributes = self._root[group].attrs
        known = str(attributes.get("coordinates", "")).split()
        names = dict.fromkeys((*known, *(item.name for item in coordinates if item.name != item.dim)))
        attributes["coordinates"] = " ".join(names)


def _group(array: StoredArray) -> str:
    return array.path.rpartition("/")[0]


def _shape_at(shape: tuple[int, ...], index: tuple[Any, ...]) -> tuple[int, ...]:
    """Shape of what a basic index takes from an array."""
    chosen = [part if isinstance(part, slice) else None for part in index]
    sizes = [len(range(*part.indices(size))) for part, size in zip(chosen, shape, strict=False) if part is not None]
    return (*sizes, *shape[len(index) :])


def consecutive(positions: Iterable[int]) -> list[tuple[slice, slice]]:
    """Split ascending positions into stretches: (where they stand in the list, the positions themselves)."""
    stretches: list[tuple[slice, slice]] = []
    for row, position in enumerate(positions):
        if stretches and stretches[-1][1].stop == position:
            rows, before = stretches[-1]
            stretches[-1] = (slice(rows.start, row + 1), slice(before.start, position + 1))
        else:
            stretches.append((slice(row, row + 1), slice(position, position + 1)))
    return stretches
