"""Small disks that can be filled, and made read-only, in tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BLOCK = 4096


class Disk:
    """A disk in memory.

    Parameters
    ----------
    path : Path
        Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._ballast = path, path / "ballast"

    def leave_free(self, size: int) -> None:
        """Fill it up to some bytes."""
        with self._ballast.open("wb") as ballast:
            ballast.write(b"\0" * max(0, shutil.disk_usage(self.path).free - size))

    def free(self) -> None:
        """Empty it again, except for what others wrote."""
        self._ballast.unlink()

    def read_only(self, yes: bool) -> None:
        """Mount it for reading alone, or for writing again."""
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(self.path)], check=True)


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Disk]:
    """Mount a disk of some bytes, or skip the test."""
    path.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size // _BLOCK * _BLOCK}", "tmpfs", str(path)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
