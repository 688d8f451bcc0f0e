"""One thread at a time in a U-Net: edits live in its modules while it is called."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

__all__ = ["alone"]

_LOCKS: WeakKeyDictionary[nn.Module, tuple[int, threading.RLock]] = WeakKeyDictionary()
_LOOKING = threading.Lock()


@contextmanager
def alone(unet: nn.Module) -> Iterator[None]:
    """Keep other threads of this process out of a U-Net; they wait. One thread may come in again.

    A call of the U-Net is traced, or has cuts installed in its modules, and another thread's call would meet them: its
    images would be those of somebody else's intervention.

    Parameters
    ----------
    unet : torch.nn.Module
    """
    with _LOOKING:
        process, lock = _LOCKS.get(unet, (0, threading.RLock()))
        if process != os.getpid():  # a lock that was held when the process was forked is never released here
            lock = threading.RLock()
            _LOCKS[unet] = os.getpid(), lock
    with lock:
        yield
