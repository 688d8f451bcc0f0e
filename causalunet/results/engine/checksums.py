"""Checksums of the engine's own files, which it does not check by itself.

Every chunk has its checksum. What says which chunk stands where, and what every array and attribute is, lies in files
of the engine that have none: a bit that flips there shows as other numbers without an error. So every commit into a
folder adds the checksums of its files to a list beside them. Object stores check what they keep.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from causalunet.errors import DamageError

__all__ = ["SUMS", "Sums"]

SUMS = "sums"
"""Name of the list in a store's folder."""

_LINE = re.compile(rb"([a-z]{1,20}/[0-9A-Za-z]{1,64}) ([0-9a-f]{32})")


class Sums:
    """The list of a store.

    Parameters
    ----------
    folder : Path
        Of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}
        self._read = 0

    def add(self, names: Iterable[str]) -> None:
        """Add the checksums of files that are not in the list; the caller holds a lock.

        Raises
        ------
        OSError
            A file cannot be read, or the list cannot be written.
        """
        self._refresh()
        lines = [f"{name} {self._sum(name)}\n" for name in names if name not in self._known]
        if lines:
            # A run that was cut off may have left half a line.
            content = f"\n{''.join(lines)}".encode()
            with (self._folder / SUMS).open("ab") as file:
                file.write(content)

    def check(self, names: Iterable[str]) -> None:
        """Check files against the list; what is not in it, such as the newest of a run that was killed, passes.

        Raises
        ------
        DamageError
            A file is not the one that was written.
        """
        self._refresh()
        for name in names:
            if name in self._known and self._sum(name) != self._known[name]:
                raise DamageError(
                    f"{self._folder} is damaged: {name} is not as it was written. Restore that file from a copy of the "
                    "store; an older state may still open, see at=."
                )

    def _sum(self, name: str) -> str:
        return hashlib.blake2b((self._folder / name).read_bytes(), digest_size=16).hexdigest()

    def _refresh(self) -> None:
        """Read what was added since the last time."""
        path = self._folder / SUMS
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            if found := _LINE.fullmatch(line):
                self._known.setdefault(found[1].decode(), found[2].decode())
