"""Keep freed memory for the next operation: on Linux CPUs the page faults of fresh memory otherwise cost time."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

from causalunet.process_effects import left_alone

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_LARGEST_KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Tell glibc not to hand every freed tensor back to the operating system, unless that is not wanted.

    By default each tensor of more than 128 kB is mapped anew and its pages are zeroed one fault at a time. Set for the
    whole process, once, see `causalunet.process_effects`; peak memory stays what it was, it is only given back later.
    Measured by ``make bench``.

    Returns
    -------
    bool
        Whether the C library took the setting; other libraries than glibc have none.
    """
    return not left_alone("malloc") and _set()


@cache
def _set() -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, _LARGEST_KEPT) for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
