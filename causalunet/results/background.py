"""A thread that writes while the U-Net computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from causalunet.errors import StorageError

__all__ = ["BackgroundWriter"]

_PATIENCE = 0.2  # seconds between looks at whether the thread still lives


class BackgroundWriter:
    """Carries out writes in their order, in one thread.

    An error of a write is raised by the next `put` or `drain`; what was queued after it is dropped.

    Parameters
    ----------
    waiting : int
        Most writes that wait; `put` blocks beyond.
    """

    def __init__(self, waiting: int = 16) -> None:
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, write: Callable[[], None]) -> None:
        """Queue a write; what it captures must not change any more."""
        self._raise()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="causalunet-writer", daemon=True)
            self._thread.start()
        self._enqueue(write)

    def drain(self) -> None:
        """Wait for all writes."""
        if self._thread is not None:
            self._enqueue(None)
            while self._thread.is_alive():
                self._thread.join(_PATIENCE)
            self._thread = None
            if not self._queue.empty() and self._error is None:
                self._error = StorageError(_DEAD)
        self._raise()

    def discard(self) -> None:
        """Forget what waits, and any error."""
        self._error = self._error or StorageError(_DEAD)  # the thread drops writes after an error
        try:
            self.drain()
        except BaseException:
            self._queue = queue.Queue(self._queue.maxsize)
        self._error = None

    def _enqueue(self, item: Callable[[], None] | None) -> None:
        while True:
            if self._thread is None or not self._thread.is_alive():
                self._error = self._error or StorageError(_DEAD)
                self._raise()
            try:
                self._queue.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue
            return

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while (write := self._queue.get()) is not None:
            if self._error is not None:
                continue
            try:
                write()
            except BaseException as error:
                self._error = error


_DEAD = (
    "The thread that writes results has died, so its last writes are lost. What was committed can be read; the same "
    "command goes on after it."
)
