"""The transactional store under a study's results: opening, committing under a lock, history, tags."""

from __future__ import annotations

import datetime
import itertools
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import icechunk
from filelock import FileLock, Timeout
from zarr.abc.store import Store

from causalunet.errors import DamageError, StorageError, StoreError
from causalunet.results.engine.backend import (
    REPO,
    begin,
    check_format,
    check_settings,
    make,
    manifests,
    own_notes,
    settings,
)
from causalunet.results.engine.checksums import SUMS, Sums
from causalunet.results.engine.claims import claims_held
from causalunet.results.engine.leases import Leases, Wait
from causalunet.results.engine.location import Location, check_outside
from causalunet.results.guard.storage_errors import check_there, faults_told
from causalunet.results.guard.stray_files import OF_DISKS, check_folder, holds_results

__all__ = ["Commit", "Repository"]

_BRANCH = "main"
_LOCKS, _REFS = "locks", "refs"
_LOCK_SECONDS = 600.0
_NOT_FIRST = ("clean prefix", "updated by other session")
"""What icechunk says where somebody else has begun a store."""
_LOOKS, _LOOK_SECONDS = 25, 0.2
_CLOCK_SECONDS, _TICK_SECONDS = 60.0, 0.05
"""How far a clock may be behind the newest commit to be waited for, and what is waited beyond."""
_TAG = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._+=@,:;()!$&'-]{0,98}[A-Za-z0-9._+=@,:;()!$&'-])?")
"""The engine encodes all other characters in the name of a file, and does not list that tag any more."""
_COMMIT = re.compile(r"[0-9A-Z]{20}")
"""The form of identifiers of commits."""
_PARTS = {
    "chunks",
    "config.yaml",
    "manifests",
    _REFS,
    "snapshots",
    "transactions",
    REPO,
    "overwritten",
    _LOCKS,
    SUMS,
}
"""Names that icechunk and this package put into a store's folder."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One step of a store's history.

    Attributes
    ----------
    id : str
    time : datetime
    message : str
    added : dict
        Numbers of what the commit added, such as ``cells``, ``unet_calls`` and ``seconds``, and versions.
    tags : tuple of str
    """

    id: str
    time: datetime.datetime
    message: str
    added: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


class Repository:
    """A results store that takes transactions.

    Use `open` or `create`.

    Parameters
    ----------
    location : Location
    handle : icechunk.Repository
    """

    def __init__(self, location: Location, handle: icechunk.Repository) -> None:
        self.location, self._handle = location, handle
        self._sums = Sums(location.folder) if location.folder is not None else None
        self._leases = Leases(handle, location, self._committed)

    @staticmethod
    def exists(location: Location) -> bool:
        """Whether there is a transactional store, or else nothing yet.

        Raises
        ------
        StoreError
            There is something else at the location, or a store that the installed engine does not read.
        """
        folder = location.folder
        if folder is not None:
            if not folder.exists():
                return False
            _check_kind(folder, location)
            check_folder(folder)
        begin()
        with faults_told(location, "looking for a store at"):
            found = icechunk.Repository.exists(location.storage())
        if not found and folder is None:
            check_format(location)
        elif not found and folder is not None and holds_results(folder):
            raise DamageError(
                f"{location} is damaged: it holds results, and lacks the folder refs that says which (or the file "
                f"{REPO}, where icechunk 2 made it). Restore that from a copy of the store; nothing is written over it."
            )
        return found

    @classmethod
    def open(cls, location: Location) -> Repository:
        """Open a store that exists; chunks outside of it are never followed."""
        begin()
        with faults_told(location, "opening"):
            check_settings(location)
            return cls(location, icechunk.Repository.open(location.storage(), config=settings()))

    @classmethod
    def create(cls, location: Location, lay_out: Callable[[Repository], None]) -> Repository:
        """Make a store; whoever comes second opens that of the first.

        Parameters
        ----------
        location : Location
        lay_out : callable
            Commits what every store holds from the start. In a folder, nothing is seen at the location before.
        """
        begin()
        folder = location.folder
        if folder is None:
            with faults_told(location, "creating", fresh=True):
                cls._make_first(location)
            repository = cls.open(location)
            lay_out(repository)
            return repository
        check_outside(folder)
        with faults_told(location, "creating", fresh=True):
            folder.parent.mkdir(parents=True, exist_ok=True)
            # A folder that is there may be a disk of its own, to which nothing can be renamed from outside.
            near = folder if folder.is_dir() else folder.parent
            made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=near))
        try:
            beside = Location(made / folder.name, given=str(location))
            with faults_told(location, "creating", fresh=True):
                make(beside)
            lay_out(cls.open(beside))
            with faults_told(location, "creating", fresh=True):
                cls._put(made / folder.name, folder, location)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return cls.open(location)

    @classmethod
    def _put(cls, made: Path, folder: Path, location: Location) -> None:
        """Put a new store into its place: at once, or into a folder that is there, the references last."""
        if not folder.is_dir():
            with suppress(OSError):  # another process was first
                made.rename(folder)
                return
        with cls._locked(location, "layout"):
            if (folder / _REFS).exists() or (folder / REPO).exists():
                return
            for part in sorted(made.iterdir(), key=lambda part: part.name == _REFS):
                if part.is_file() or part.name == _REFS:
                    part.replace(folder / part.name)
                elif part.name != _LOCKS:
                    for file in (path for path in part.rglob("*") if path.is_file()):
                        place = folder / file.relative_to(made)
                        place.parent.mkdir(parents=True, exist_ok=True)
                        file.replace(place)

    @classmethod
    def _make_first(cls, location: Location) -> None:
        """Make a store in an object store, or wait for another process that makes it."""
        try:
            make(location)
        except icechunk.IcechunkError as error:
            if not any(words in str(error) for words in _NOT_FIRST):
                raise
            for _ in range(_LOOKS):
                if icechunk.Repository.exists(location.storage()):
                    return
                time.sleep(_LOOK_SECONDS)
            raise StoreError(
                f"{location} holds something that is no results store, or one whose creation was cut off before "
                "anything was stored. Give another address, or delete what lies there."
            ) from error

    def writable(self) -> icechunk.Session:
        """A session that starts from the newest commit."""
        with faults_told(self.location, "opening"):
            return self._handle.writable_session(_BRANCH)

    def readable(self, at: str | None = None) -> Store:
        """The store as of the newest commit, or of a tag or commit.

        Raises
        ------
        StoreError
            There is no such tag or commit; those that exist are named.
        """
        if at is None:
            with faults_told(self.location, "opening"):
                return self._checked(self._handle.readonly_session(_BRANCH))
        if not isinstance(at, str):
            raise StoreError(f"at={at!r:.200} is neither a tag nor a commit; give the name of one as text.")
        tags = self.tags()
        with faults_told(self.location, "opening"):
            if at in tags and not _COMMIT.fullmatch(at):
                return self._checked(self._handle.readonly_session(tag=at))
        # A name is a commit before it is a tag, and some tags of earlier versions are not listed.
        session = self._session_at(snapshot_id=at) or self._session_at(tag=at)
        if session is None:
            known = ", ".join(sorted(tags)) or "none yet; make one with results.tag(name)"
            raise StoreError(
                f"{self.location} has no tag or commit {at!r}. Tags: {known}. Commits are listed by results.history()."
            )
        return self._checked(session)

    def _session_at(self, **place: Any) -> icechunk.Session | None:
        with suppress(icechunk.IcechunkError, ValueError):
            return self._handle.readonly_session(**place)
        return None

    def commit(self, session: icechunk.Session, message: str, added: Mapping[str, Any]) -> str:
        """Make a session's writes visible, all at once.

        Parameters
        ----------
        session : icechunk.Session
        message : str
            Never with prompts or paths.
        added : mapping
            JSON values.

        Raises
        ------
        WriteConflictError
            Another process wrote one of the same chunks since the session began.
        StorageError
            Storage did not take it, or the clock is far behind the newest commit; small differences are waited for.
        """
        # Commits of several processes on one local disk may overwrite each other's reference without a lock.
        with self._locked(self.location, "commit"), faults_told(self.location, "committing to", writing=True):
            check_there(self.location)
            commit = self._committed(session, message, dict(added))
            self._sum(commit)
            return commit

    def _committed(self, session: icechunk.Session, message: str, added: dict[str, Any], *, wait: bool = True) -> str:
        """Commit as soon as the clock is past the newest commit, since the engine refuses before."""
        try:
            return session.commit(message, metadata=added, rebase_with=icechunk.ConflictDetector())
        except icechunk.IcechunkError as error:
            if "timestamp ordering" not in str(error):
                raise
            newest = next(iter(self._handle.ancestry(branch=_BRANCH))).written_at
            behind = (newest - datetime.datetime.now(datetime.UTC)).total_seconds()
            if not wait or behind > _CLOCK_SECONDS:
                raise StorageError(
                    f"The clock of this machine is {behind:,.0f} s behind the newest commit of {self.location}, "
                    "which another machine may have made, and commits keep the order of time. Set the clock right "
                    "(NTP does), or wait; what was committed can be read, and the same command goes on after it."
                ) from error
        time.sleep(max(behind, 0) + _TICK_SECONDS)
        return self._committed(session, message, added, wait=False)

    def history(self, most: int | None = None) -> list[Commit]:
        """Every commit, or so many of them, newest first."""
        with faults_told(self.location, "reading the history of"):
            named: dict[str, list[str]] = {}
            for tag in sorted(self._handle.list_tags()):
                named.setdefault(self._handle.lookup_tag(tag), []).append(tag)
            found: dict[str, icechunk.SnapshotInfo] = {}
            for info in itertools.islice(self._handle.ancestry(branch=_BRANCH), most):
                if info.id in found:
                    raise DamageError(f"The history of {self.location} is damaged: a commit comes before itself.")
                found[info.id] = info
            if self._sums is not None:
                self._sums.check(f"snapshots/{commit}" for commit in found)
            return [
                Commit(info.id, info.written_at, info.message, own_notes(info), tuple(named.get(info.id, ())))
                for info in found.values()
            ]

    def tags(self) -> frozenset[str]:
        """Names of all tags."""
        with faults_told(self.location, "reading the tags of"):
            return frozenset(self._handle.list_tags())

    def tag(self, name: str, commit: str) -> None:
        """Name a commit for good.

        Raises
        ------
        StoreError
            The name could not be told from a commit, or not be listed, or is taken.
        """
        if not isinstance(name, str) or not _TAG.fullmatch(name):
            raise StoreError(
                f"{name!r:.200} cannot be a tag: such names could not be listed. Give at most 100 letters (a to z), "
                "digits, spaces and signs of ._-+=@,:;()!$&', beginning with a letter or digit, such as 'paper-v1'."
            )
        if _COMMIT.fullmatch(name):
            raise StoreError(
                f"{name!r} cannot be a tag: it looks like the identifier of a commit, and at= takes both. Take another "
                "name, such as 'paper-v1'."
            )
        with self._locked(self.location, "commit"):
            if name in self.tags():
                raise StoreError(f"{self.location} has a tag {name!r} already, and tags never move. Take another name.")
            with faults_told(self.location, f"tagging {name!r} in"):
                self._handle.create_tag(name, commit)

    def newest(self) -> str:
        """Identifier of the newest commit."""
        with faults_told(self.location, "opening"):
            return self._handle.lookup_branch(_BRANCH)

    def _sum(self, commit: str) -> None:
        """Add the checksums of the engine's files that make a commit."""
        if self._sums is not None:
            self._sums.add((f"snapshots/{commit}", *manifests(self._handle, commit)))

    def _checked(self, session: icechunk.Session) -> Store:
        self._check(session.snapshot_id)
        return session.store

    def _check(self, commit: str) -> None:
        """Compare the engine's files that make a commit with their checksums."""
        if self._sums is not None:
            with faults_told(self.location, "checking"):
                self._sums.check([f"snapshots/{commit}"])
                self._sums.check(manifests(self._handle, commit))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes from changing the layout meanwhile: those on this machine, or of an object store all."""
        if self.location.folder is None:
            with self._leases.claim("layout", "free"):
                yield
            return
        with self._locked(self.location, "layout"):
            newest = self.newest()
            self._check(newest)
            with faults_told(self.location, "writing checksums of"):
                self._sum(newest)  # of a run that was killed between its commit and this
            yield

    @contextmanager
    def claim(self, name: str, *, wait: Wait) -> Iterator[bool]:
        """Claim a piece of work against other processes; gives whether it was free.

        On a local disk the operating system ends the claim with the process, however that ends, and it holds on this
        machine. In an object store it holds on all machines, and is taken over from a process that was killed.
        """
        folder = self.location.folder
        if folder is None:
            with self._leases.claim(name, wait) as free:
                yield free
            return
        try:
            with faults_told(self.location, "locking"):
                lock = self._lock(folder, name)
                lock.acquire(timeout=-1 if wait == "free" else 0)
        except StoreError as error:
            if isinstance(error.__cause__, Timeout):
                yield False
                return
            raise
        try:
            yield True
        finally:
            lock.release()

    def holds(self, name: str) -> bool:
        """Whether a claim that was taken is still this process's."""
        return self.location.folder is not None or self._leases.holds(name)

    def at_work(self) -> AbstractContextManager[None]:
        """Stay known to other processes between claims, and collect at the end what those that are gone have left."""
        return self._leases.at_work() if self.location.folder is None else nullcontext()

    def busy(self) -> dict[str, int] | None:
        """Claims that are held now, with the number of the process; looking takes none.

        None where that cannot be seen: of claims in an object store it takes a minute to tell whether they are held.
        """
        folder = self.location.folder
        return None if folder is None else claims_held(folder / _LOCKS)

    def claimed(self) -> dict[str, str]:
        """Claims in an object store, with what their process is known by: it may have been killed since."""
        return {} if self.location.folder is not None else self._leases.seen()

    @classmethod
    def _locked(cls, location: Location, name: str) -> AbstractContextManager[Any]:
        if location.folder is None:
            return nullcontext()
        with faults_told(location, "locking"):
            lock = cls._lock(location.folder, name)
            try:
                lock.acquire(timeout=_LOCK_SECONDS)
            except Timeout as error:
                raise StorageError(
                    f"Another process has held {lock.lock_file} for {_LOCK_SECONDS / 60:.0f} minutes. End it, or wait; "
                    "nothing committed is lost."
                ) from error
        return _released(lock)

    @staticmethod
    def _lock(folder: Path, name: str) -> FileLock:
        locks = folder / _LOCKS
        locks.mkdir(exist_ok=True)
        return FileLock(locks / f"{name}.lock", thread_local=False)


@contextmanager
def _released(lock: FileLock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()


def _check_kind(folder: Path, location: Location) -> None:
    """Refuse what is no transactional store, nor an empty folder that one can be made in."""
    if not folder.is_dir():
        raise StoreError(f"{location} is not a results store: it is a file. {_ADVICE}")
    if (folder / "zarr.json").exists():
        raise StoreError(
            f"{location} is not a results store that can be written to: it is plain zarr, an export or a store "
            f"of an older causalunet. {_ADVICE}"
        )
    check_format(location)  # first: newer formats may have files that are not known yet
    with faults_told(location, "looking for a store at"):
        strange = sorted({entry.name for entry in folder.iterdir() if entry.name[0] != "."} - _PARTS - OF_DISKS)
    if strange:
        raise StoreError(
            f"{location} is not a results store that can be written to: it holds {', '.join(strange[:3])}. {_ADVICE}"
        )


_ADVICE = "Give the path of a folder that study.run(...) wrote, or of one that is empty or does not exist yet."
