"""The files of a store from a stranger, looked at before anything of it is opened.

Links lead out of the store and devices never end. The engine's own files are compressed, and it unpacks them whole: a
file of 100 kB can become gigabytes. What is refused here is what no study writes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from causalunet.errors import DamageError, StoreError
from causalunet.results.guard.storage_errors import faults_told

__all__ = ["OF_DISKS", "check_folder", "holds_results", "unpacked_bytes"]

OF_DISKS = {"lost+found"}
"""What lies in the root of an empty disk."""
_LAID_OUT = 2
"""Commits of a store in which nothing was run."""

_MOST_DEPTH = 24
_MOST_FILE = (1 << 29) + (1 << 25)
"""Bytes of any file: the largest chunk, and what goes with it."""
_MOST_METADATA = 1 << 25
"""Bytes of a ``zarr.json``."""
_MOST_SETTINGS = 1 << 16
"""Bytes of a setting or reference."""
_MOST_UNPACKED = 1 << 28
"""Bytes that one of the engine's compressed files becomes."""
_MOST_SUMS = 1 << 27
"""Bytes of the list of checksums, which is read whole."""
_SETTINGS = {"config.yaml", "refs"}
_CHUNKS = "chunks"
_PLAIN = {_CHUNKS, "locks", "sums"}
_SEEN: dict[tuple[int, int], set[int]] = {}
"""Numbers of files by the device and number of their store's folder: asking the system for every size takes long."""
_MOST_SEEN = 16

_HEADER = 39
"""Bytes before the content of one of the engine's files; the last one says how it is compressed."""
_FRAME, _SKIPPED = 0xFD2FB528, 0x184D2A50
_OLD = {0x1EB52FFD, *range(0xFD2FB522, 0xFD2FB528)}
"""How frames begin that versions of zstd before 1.0 wrote, and some readers unpack still."""
_BLOCK = 1 << 17
"""Most bytes that a block of a zstd frame unpacks to (RFC 8878, section 3.1.1.2.4)."""
_FACTOR = _BLOCK // 4
"""A block takes four bytes at least, so no file unpacks to more than this many times its size."""


def check_folder(folder: Path) -> None:
    """Refuse a store that leads elsewhere, or whose files would fill the memory.

    Parameters
    ----------
    folder : Path
        Of a live store or an export.

    Raises
    ------
    StoreError
        A link, a device, or folders too deep.
    DamageError
        A file that is too large, or unpacks to too much.
    """
    live = not (folder / "zarr.json").is_file()
    with faults_told(folder, "opening"):
        seen = _seen_of(folder)
        for entry, parts in _entries(folder):
            chunk = live and parts[0] == _CHUNKS
            if chunk and entry.inode() in seen:
                continue
            try:
                size = entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:  # a run is at work there
                continue
            engine = live and parts[0] not in _PLAIN
            most = _MOST_FILE
            if engine and parts[0] in _SETTINGS:
                most = _MOST_SETTINGS
            elif entry.name == "zarr.json":
                most = _MOST_METADATA
            elif parts == ("sums",):
                most = _MOST_SUMS
            if size > most or (engine and size * _FACTOR > _MOST_UNPACKED and _too_much(Path(entry.path))):
                raise DamageError(
                    f"{folder} holds {'/'.join(parts)!a:.200} of {size:,} bytes, which is, or unpacks to, more than "
                    "any study writes there. It is not opened, since it might fill the memory."
                )
            if chunk:
                seen.add(entry.inode())


def _seen_of(folder: Path) -> set[int]:
    """Chunks of a live store that this process has looked at; its files of chunks never change."""
    status = folder.stat()
    while len(_SEEN) >= _MOST_SEEN and (status.st_dev, status.st_ino) not in _SEEN:
        _SEEN.pop(next(iter(_SEEN)), None)
    return _SEEN.setdefault((status.st_dev, status.st_ino), set())


def holds_results(folder: Path) -> bool:
    """Whether a folder holds commits of results, be it that nothing refers to them.

    A store that was deleted under a run has none, only what that run went on to write, and neither has one whose
    creation was cut off.
    """
    snapshots = folder / "snapshots"
    return snapshots.is_dir() and sum(1 for _ in snapshots.iterdir()) > _LAID_OUT


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], tuple[str, ...]]]:
    """Every file, with its place."""
    pending: list[tuple[str, tuple[str, ...]]] = [(os.fspath(folder), ())]
    while pending:
        path, above = pending.pop()
        try:
            entries = [entry for entry in os.scandir(path) if above or entry.name not in OF_DISKS]
        except FileNotFoundError:
            continue
        for entry in entries:
            parts = (*above, entry.name)
            if entry.is_dir(follow_symlinks=False) and len(parts) <= _MOST_DEPTH:
                pending.append((entry.path, parts))
            elif entry.is_file(follow_symlinks=False):
                yield entry, parts
            else:
                raise StoreError(
                    f"{folder} holds {'/'.join(parts)!a:.200}, which is a link or a device, or lies too deep. Results "
                    "are plain files; this store may want to be read as something else, so it is not opened."
                )


def _too_much(path: Path) -> bool:
    content = path.read_bytes()
    return content[_HEADER - 1 : _HEADER] != b"\0" and unpacked_bytes(content[_HEADER:]) > _MOST_UNPACKED


def unpacked_bytes(content: bytes) -> int:
    """Bound what zstd frames unpack to, from the headers of their blocks; nothing is unpacked.

    Source: RFC 8878, section 3.1. What is no frame counts as nothing: it cannot be unpacked.
    """
    total, at = 0, 0
    while at + 8 <= len(content):
        magic = int.from_bytes(content[at : at + 4], "little")
        if magic in _OLD:
            return sys.maxsize
        if magic & ~0xF == _SKIPPED:
            at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        elif magic == _FRAME:
            size, at = _frame(content, at)
            total += size
        else:
            break
    return total


def _frame(content: bytes, at: int) -> tuple[int, int]:
    """Bound what a frame unpacks to; also gives where the next one begins."""
    descriptor, total, last = content[at + 4], 0, 0
    single, checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
    at += 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
    while not last and at + 3 <= len(content):
        header = int.from_bytes(content[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        total += size if kind == 0 else max(size, _BLOCK)
        at += 3 + (1 if kind == 1 else size)
    return total, at + 4 * checksum
