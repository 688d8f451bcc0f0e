"""Which claims on a store are held now, seen without taking any."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["claims_held"]

_ENDING = ".lock"
_LOCKS = Path("/proc/locks")


def claims_held(folder: Path) -> dict[str, int] | None:
    """Find the lock files of a folder that a process of this machine holds.

    Nothing is created. Where the system lists its locks, only files that it lists are tried, so that no process at work
    finds its own claim taken by the one that looks.

    Parameters
    ----------
    folder : Path
        Of lock files.

    Returns
    -------
    dict of str to int, or None
        Number of the process by the claim's name; 0 where it is not known. None where locks cannot be seen.
    """
    if sys.platform == "win32":
        return None
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        return {}
    except OSError:
        return None
    listed, held = _listed(), {}
    for path in entries:
        if path.suffix != _ENDING or path.is_symlink():
            continue
        number = path.lstat().st_ino
        if (listed is None or number in listed) and _is_locked(path):
            held[path.stem] = (listed or {}).get(number, 0)
    return held


def _listed() -> dict[int, int] | None:
    """Processes by the number of the file that they hold a lock on; None where the system does not list them."""
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    # As in "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"; one that waits has "->" after its number.
    rows = [line.split() for line in lines]
    return {int(row[5].rpartition(":")[2]): int(row[4]) for row in rows if len(row) >= 6 and row[1] != "->"}


def _is_locked(path: Path) -> bool:
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # listed, and not ours to try
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # which ends the lock
    return False
