"""Which Pythons there are: on PATH, among pyenv's versions, and those that $MATRIX_PYTHONS names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MINORS", "Interpreter", "candidates", "distinct", "find", "named"]

MINORS = ((3, 11), (3, 12), (3, 13), (3, 14))
"""Versions that are looked for."""

_PROBE = """
import json, os, platform, sys
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps([platform.python_implementation(), list(sys.version_info[:3]), os.path.realpath(base)]))
"""


@dataclass(frozen=True, slots=True, order=True)
class Interpreter:
    """A Python that runs."""

    version: tuple[int, int, int]
    path: str

    @property
    def minor(self) -> tuple[int, int]:
        return self.version[:2]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


def find(environment: Mapping[str, str]) -> list[Interpreter]:
    """Every interpreter of `MINORS`, one for each version, ascending; those that are named must run."""
    asked = [_asked(path) for path in named(environment)]
    return distinct([*asked, *(one for path in candidates(environment) if (one := _probed(path)) is not None)])


def named(environment: Mapping[str, str]) -> list[str]:
    """What $MATRIX_PYTHONS names, separated as in PATH."""
    return [path for path in environment.get("MATRIX_PYTHONS", "").split(os.pathsep) if path]


def candidates(environment: Mapping[str, str]) -> Iterator[str]:
    """Paths that may be interpreters: on PATH, then pyenv's."""
    names = ("python3", *(f"python{major}.{minor}" for major, minor in MINORS))
    for folder in environment.get("PATH", "").split(os.pathsep):
        for name in names:
            if folder and os.access(path := Path(folder, name), os.X_OK):
                yield str(path)
    for path in sorted(_pyenv(environment).glob("versions/*/bin/python3")):
        yield str(path)


def distinct(found: Iterable[Interpreter]) -> list[Interpreter]:
    """One for each version, the first that was found, ascending; other versions than `MINORS` are left out."""
    chosen: dict[tuple[int, int, int], Interpreter] = {}
    for one in found:
        if one.minor in MINORS:
            chosen.setdefault(one.version, one)
    return sorted(chosen.values())


def _pyenv(environment: Mapping[str, str]) -> Path:
    if root := environment.get("PYENV_ROOT"):
        return Path(root)
    if command := shutil.which("pyenv", path=environment.get("PATH", "")):
        done = subprocess.run([command, "root"], capture_output=True, text=True, check=False, env=dict(environment))
        if done.returncode == 0 and done.stdout.strip():
            return Path(done.stdout.strip())
    return Path(environment.get("HOME", "/"), ".pyenv")


def _asked(path: str) -> Interpreter:
    found = _probed(path)
    if found is None:
        raise SystemExit(f"MATRIX_PYTHONS names {path}, which does not run as CPython. Name others, or none.")
    if found.minor not in MINORS:
        versions = ", ".join(f"{major}.{minor}" for major, minor in MINORS)
        raise SystemExit(f"MATRIX_PYTHONS names {path}, Python {found}; the matrix is of {versions}.")
    return found


def _probed(path: str) -> Interpreter | None:
    """The interpreter at a path; None for what does not run, such as pyenv's stand-in for a version not chosen."""
    try:
        done = subprocess.run([path, "-I", "-c", _PROBE], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    try:
        implementation, version, base = json.loads(done.stdout)
    except ValueError:  # Python 2 has no -I, other things print what they like
        return None
    return Interpreter(tuple(version), base) if implementation == "CPython" else None
