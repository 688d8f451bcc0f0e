"""Which file defined a study, and the state of its git repository."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["calling_source", "describe"]

_MOST_BYTES = 200_000
_SECONDS = 5.0
_PACKAGE = Path(__file__).resolve().parent


def calling_source(*, keep_text: bool = False) -> dict[str, Any] | None:
    """The file outside of this package whose code is running.

    Parameters
    ----------
    keep_text : bool
        Keep its text too. A script may hold what its author shares with nobody, so it is never kept unasked.

    Returns
    -------
    dict or None
        ``name`` of the file without its folders, ``sha256``, ``text`` (None unless it is kept, and beyond 200 kB), and
        ``git`` with ``commit`` and ``changed``, which says whether the file differs from that commit. None where there
        is no file, as in an interactive session.
    """
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.suffix == ".py" and path.is_file() and not _is_library(path.resolve()):
            return describe(path, keep_text=keep_text)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def describe(path: Path, *, keep_text: bool = False) -> dict[str, Any] | None:
    """What is kept of a study's file, see `calling_source`; None if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    text = content.decode("utf-8", errors="replace") if keep_text and len(content) <= _MOST_BYTES else None
    digest = hashlib.sha256(content).hexdigest()
    return {"name": path.name, "sha256": digest, "text": text, "git": _git_state(path.resolve())}


def _is_library(path: Path) -> bool:
    return _PACKAGE in path.parents or "site-packages" in path.parts or Path(sys.base_prefix).resolve() in path.parents


def _git_state(path: Path) -> dict[str, Any] | None:
    commit = _git(path, "rev-parse", "HEAD")
    if commit is None:
        return None
    status = _git(path, "status", "--porcelain", "--", path.name)
    return {"commit": commit, "changed": bool(status)}


def _git(path: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=path.parent, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
