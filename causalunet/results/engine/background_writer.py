"""A thread that writes while the U-Net computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from causalunet.errors import StorageError

__all__ = ["BackgroundWriter"]

_PATIENCE = 0.2  # seconds between looks at whether the thread still lives


class BackgroundWriter:
    """Carries out writes in their order, in one thread.

    An error of a write is raised by `put` and `drain` from then on; what was queued after it is dropped.

    Parameters
    ----------
    waiting : int
        Most writes that wait; `put` blocks beyond.
    """

    def __init__(self, waiting: int = 16) -> None:
        self._waiting = waiting
        self._writing = threading.Lock()
        self._worker: _Worker | None = None

    def put(self, write: Callable[[], None]) -> None:
        """Queue a write; what it captures must not change any more."""
        if self._worker is None:
            self._worker = _Worker(self._waiting, self._writing)
        self._worker.give(write)

    def between(self) -> AbstractContextManager[bool]:
        """Between two writes: none is carried out meanwhile.

        What uses the session of a store while something is written into it may never end: with zarr 3.4 an array is
        opened with the text of its store, icechunk 2.3 holds Python's lock while it waits for the session to give that,
        and the write which has the session waits for Python's lock.
        """
        return self._writing

    def drain(self) -> None:
        """Wait for all writes."""
        if self._worker is not None:
            self._worker.end()
            error, self._worker = self._worker.error, None
            if error is not None:
                raise error

    def discard(self) -> None:
        """Forget what waits, and any error."""
        if self._worker is not None:
            self._worker.error = self._worker.error or StorageError(_DEAD)  # it drops writes after an error
            self._worker.end()
            self._worker = None


class _Worker:
    """A thread with its queue, and the first error of its writes."""

    def __init__(self, waiting: int, writing: threading.Lock) -> None:
        self.error: Exception | None = None
        self._writing = writing
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._work, name="causalunet-writer", daemon=True)
        self._thread.start()

    def give(self, write: Callable[[], None]) -> None:
        if self.error is None and self._put(write):
            return
        raise self.error or StorageError(_DEAD)

    def end(self) -> None:
        """Wait until it has done, or dropped, all that it was given."""
        if not self._put(None):
            self.error = self.error or StorageError(_DEAD)
        while self._thread.is_alive():
            self._thread.join(_PATIENCE)
        if not self._queue.empty():
            self.error = self.error or StorageError(_DEAD)

    def _put(self, item: Callable[[], None] | None) -> bool:
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._queue.put(item, timeout=_PATIENCE)
                return True
        return False

    def _work(self) -> None:
        while True:
            try:
                write = self._queue.get()
                if write is None:
                    return
                with self._writing:
                    if self.error is None:
                        write()
            except Exception as error:
                self.error = error
            except BaseException as error:  # such as SystemExit, which would end the thread without a word
                self.error = StorageError(_DEAD)
                self.error.__cause__ = error


_DEAD = (
    "The thread that writes results has died, so its last writes are lost. What was committed can be read; the same "
    "command goes on after it."
)
