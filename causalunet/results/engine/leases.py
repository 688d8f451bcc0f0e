"""Claims in an object store: conditional writes decide who has one, and beats tell whether its holder still runs.

A claim is a branch of the store that points at the one commit which its holder made to be known by, apart from the
history of results. Making and moving a branch is a conditional write of one object, so of several processes one
succeeds. A holder has a branch whose name counts its beats: whoever wants a claim watches that with its own clock, so
the clocks of machines do not matter.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import icechunk
import zarr

from causalunet.results.engine.location import Location
from causalunet.results.guard.storage_errors import FAULTS, faults_told

__all__ = ["BEAT_SECONDS", "LEASE_SECONDS", "Leases", "Wait"]

BEAT_SECONDS = 10.0
"""Between beats of a process that holds claims."""
LEASE_SECONDS = 60.0
"""Without a beat, seen by the one that wants the claim, after which it is taken over."""
_LOOKS = 3
"""At a claim that is waited for, in the time between two beats."""
_HOLDER, _CLAIM, _MAIN = "holder-", "claim-", "main"

Wait = Literal["no", "known", "free"]
"""What is waited for where another process has the claim: nothing; whether that one runs; until the claim is free."""


@dataclass
class _Watched:
    """What is seen of another holder's beats.

    Attributes
    ----------
    beat : int, optional
        The newest that was seen; None where the holder has ended.
    since : float
        When it was first seen, of this machine's clock.
    state : {"unknown", "runs", "gone"}
    """

    beat: int | None
    since: float
    state: Literal["unknown", "runs", "gone"] = "unknown"

    def see(self, beat: int | None, began: float, ended: float) -> None:
        """Take in a look that began and ended at some time."""
        if beat is None:
            self.state = "gone"
        elif beat != self.beat:
            self.state, self.since = "runs", ended
        elif began - self.since >= LEASE_SECONDS:
            self.state = "gone"
        self.beat = beat


class Leases:
    """The claims of a process on parts of a store in an object store.

    Parameters
    ----------
    handle : icechunk.Repository
    location : Location
    commit : callable
        Commits a session, with a message and notes; gives the commit's identifier.
    """

    def __init__(
        self,
        handle: icechunk.Repository,
        location: Location,
        commit: Callable[[icechunk.Session, str, dict[str, Any]], str],
    ) -> None:
        self._handle, self._location, self._commit = handle, location, commit
        self._lock, self._looking = threading.RLock(), threading.Lock()
        self._depth = 0
        self._mine = self._name = ""
        self._beats = 0
        self._held: set[str] = set()
        self._watched: dict[str, _Watched] = {}
        self._holders: dict[str, str] = {}
        self._ended, self._thread = threading.Event(), threading.Thread()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Be known as a holder meanwhile; what processes that are gone have left is collected at the end."""
        with self._lock, faults_told(self._location, "claiming work in", writing=True):
            if not self._depth:
                self._enter()
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if not self._depth:
                    self._leave()

    @contextmanager
    def claim(self, name: str, wait: Wait) -> Iterator[bool]:
        """Claim a piece of work; gives whether it was free, or its holder gone."""
        with self.at_work():
            with faults_told(self._location, "claiming work in", writing=True):
                taken = self._take(name)
                while not taken and wait != "no" and not (wait == "known" and self._runs(name)):
                    time.sleep(BEAT_SECONDS / _LOOKS)
                    taken = self._take(name)
            try:
                yield taken
            finally:
                if taken:
                    self._release(name)

    def holds(self, name: str) -> bool:
        """Whether a claim is still this process's: one that was held up for long may have lost it."""
        with faults_told(self._location, "claiming work in", writing=True):
            return self._at(_CLAIM + name) == self._mine

    def seen(self) -> dict[str, str]:
        """Claims that are there, with the commit that the holder of each is known by; it may be gone."""
        with faults_told(self._location, "reading"):
            branches = sorted(name for name in self._handle.list_branches() if name.startswith(_CLAIM))
            found = ((name.removeprefix(_CLAIM), self._at(name)) for name in branches)
            return {name: there for name, there in found if there is not None}

    def _enter(self) -> None:
        """Make a commit to be known by, beside the history, and begin to beat."""
        self._name, self._beats = uuid.uuid4().hex, 0
        self._handle.create_branch(self._branch, self._handle.lookup_branch(_MAIN))
        session = self._handle.writable_session(self._branch)
        zarr.create_group(session.store, path=_HOLDER + self._name, zarr_format=3)
        self._mine = self._commit(session, "a holder of claims", {"holder": self._name})
        self._watched, self._ended = {}, threading.Event()
        self._look()
        self._thread = threading.Thread(
            target=self._beat, args=(self._ended, os.getpid()), name="causalunet-claims", daemon=True
        )
        self._thread.start()

    @property
    def _branch(self) -> str:
        """With numbers as long as each other, so that one list of names never misses a holder that beats meanwhile."""
        return f"{_HOLDER}{self._name}-{self._beats:010d}"

    def _leave(self) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(*FAULTS):  # what stays is collected by the next process
            self._collect()

    def _collect(self) -> None:
        """Delete what processes that are gone have left, and be none that holds claims any more."""
        gone = {name for name, one in self._watched.items() if one.state == "gone"}
        branches = self._handle.list_branches()
        for branch in sorted(name for name in branches if gone and name.startswith(_CLAIM)):
            there = self._at(branch)
            if there and there != self._mine and self._holder(there) in gone:
                with suppress(*FAULTS):  # another process takes it over
                    self._handle.reset_branch(branch, self._mine, from_snapshot_id=there)
                    self._handle.delete_branch(branch)
        for branch in sorted(name for name in branches if name.startswith(_HOLDER)):
            if _beat_of(branch)[0] in gone | {self._name}:
                with suppress(*FAULTS):  # another process deletes it
                    self._handle.delete_branch(branch)

    def _beat(self, ended: threading.Event, process: int) -> None:
        """Beat, and look at others in between."""
        while not ended.wait(BEAT_SECONDS) and os.getpid() == process:
            with suppress(*FAULTS):  # of a network that may come back
                before = self._branch
                self._beats += 1
                self._handle.create_branch(self._branch, self._mine)
                self._handle.delete_branch(before)
            with suppress(*FAULTS):
                self._look()

    def _look(self) -> None:
        """See which holders have beaten."""
        began, beats = time.monotonic(), dict[str, int]()
        for branch in self._handle.list_branches():
            if branch.startswith(_HOLDER):
                name, beat = _beat_of(branch)
                beats[name] = max(beat, beats.get(name, 0))
        ended = time.monotonic()
        with self._looking:
            for name in beats.keys() | self._watched.keys():
                newest = beats.get(name)
                self._watched.setdefault(name, _Watched(newest, ended)).see(newest, began, ended)

    def _take(self, name: str) -> bool:
        branch = _CLAIM + name
        with self._lock:
            if name in self._held:
                return False
            there = self._at(branch)
            if there is None:
                taken = self._won(branch, there, lambda: self._handle.create_branch(branch, self._mine))
            elif there == self._mine:  # it could not be given back
                taken = True
            elif self._gone(self._holder(there)):
                taken = self._won(
                    branch, there, lambda: self._handle.reset_branch(branch, self._mine, from_snapshot_id=there)
                )
            else:
                taken = False
            if taken:
                self._held.add(name)
            return taken

    def _won(self, branch: str, before: str | None, write: Callable[[], None]) -> bool:
        """Whether a conditional write made the claim this process's."""
        try:
            write()
        except FAULTS:
            there = self._at(branch)
            if there == before:  # it was not another process that kept it from being written
                raise
            return there == self._mine  # of a write that was done, and sent again as its answer was lost
        return True

    def _release(self, name: str) -> None:
        self._held.discard(name)
        # One that this process has lost is another's; a process that beats does not lose any.
        with suppress(*FAULTS):
            if self._at(_CLAIM + name) == self._mine:
                self._handle.delete_branch(_CLAIM + name)

    def _gone(self, name: str) -> bool:
        if self._state(name) == "gone":
            self._look()  # it may have come back since the last look
        return self._state(name) == "gone"

    def _runs(self, name: str) -> bool:
        there = self._at(_CLAIM + name)
        return there is not None and self._state(self._holder(there)) == "runs"

    def _state(self, name: str) -> str:
        if name not in self._watched:
            self._look()
        return self._watched[name].state if name in self._watched else "gone"

    def _holder(self, commit: str) -> str:
        if commit not in self._holders:
            self._holders[commit] = str(self._handle.lookup_snapshot(commit).metadata["holder"])
        return self._holders[commit]

    def _at(self, branch: str) -> str | None:
        try:
            return self._handle.lookup_branch(branch)
        except icechunk.IcechunkError as error:
            if "ref not found" not in str(error):
                raise
            return None


def _beat_of(branch: str) -> tuple[str, int]:
    """Name of a holder, and the number of its beat."""
    name, _, beat = branch.removeprefix(_HOLDER).rpartition("-")
    return name, int(beat)
