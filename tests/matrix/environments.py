"""Virtual environments of the matrix: made once for a set of requirements, with the package of today in them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.matrix.interpreters import Interpreter
from tests.matrix.requirements import NEWEST, installing, judged, key, unresolvable

__all__ = ["Combination", "Failed", "build_wheel", "environment", "run"]

_READY = "ready"
_LONGEST = 1200  # seconds


class Failed(Exception):
    """A step failed; its text is the reason, its log has the rest."""


@dataclass
class Combination:
    """An interpreter with a set of requirements.

    Parameters
    ----------
    interpreter : Interpreter
    kind : str
        One of `requirements.KINDS`.
    root, cache, work : Path
        Source tree, where environments are kept, and folder of this run.
    """

    interpreter: Interpreter
    kind: str
    root: Path
    cache: Path
    work: Path
    results: dict[str, str] = field(default_factory=dict)
    """By step: "ok", or what is wrong."""
    versions: str = ""

    @property
    def name(self) -> str:
        return f"{self.interpreter}-{self.kind}"

    @property
    def folder(self) -> Path:
        return self.cache / key(self.kind, self.interpreter, self.root)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def log(self) -> Path:
        return self.work / f"{self.name}.log"

    @property
    def works(self) -> bool:
        return all(result == "ok" for result in self.results.values())

    def install(self, wheel: Path) -> None:
        """Make the environment, or bring an earlier one up to date; ``install`` among the results says how it went."""
        ready = self.folder / _READY
        try:
            if not ready.exists():
                self._make(wheel)
            elif self.kind == NEWEST:
                self._pip("--upgrade", "--upgrade-strategy", "eager", str(wheel))
            self._pip("--no-deps", "--force-reinstall", str(wheel))
            run([sys.executable, "-m", "pip", "--python", str(self.python), "check"], self.log)
            self.versions = run([str(self.python), "-I", "-c", _VERSIONS], self.log).strip()
            ready.touch()
            self.results["install"] = judged(self.kind, self.interpreter.minor, None) or "ok"
        except Failed as failed:
            reason = unresolvable(self.log.read_text(encoding="utf-8"))
            wrong = str(failed) if reason is None else judged(self.kind, self.interpreter.minor, reason)
            self.results["install"] = wrong or f"not installable, as expected: {reason}"

    @property
    def left_out(self) -> bool:
        """Whether there is no such set of versions, as expected."""
        return self.results["install"].startswith("not installable, as expected")

    def read(self, *arguments: str) -> None:
        """Run `tests.matrix.reading` in the environment."""
        run([str(self.python), "-I", "-m", "tests.matrix.reading", *arguments], self.log, self.work)

    def _make(self, wheel: Path) -> None:
        for old in self.cache.glob(f"{self.name}-*"):
            shutil.rmtree(old)
        run([self.interpreter.path, "-m", "venv", "--without-pip", str(self.folder)], self.log)
        self._pip(str(wheel), *installing(self.kind, self.root))
        (site,) = self.folder.glob("lib/python*/site-packages")
        (site / "tests.pth").write_text(f"{self.root}\n", encoding="utf-8")  # searched after what is installed

    def _pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", *_pip_flags()]
        run([*command, "--only-binary", ":all:", "--progress-bar", "off", *arguments], self.log)


_VERSIONS = """
from importlib.metadata import version
print(", ".join(f"{name} {version(name)}" for name in ("icechunk", "zarr", "xarray", "numpy", "pandas", "matplotlib")))
"""


def build_wheel(root: Path, work: Path) -> Path:
    """Build the package, as ``pip install .`` does."""
    folder = work / "wheel"
    command = [sys.executable, "-m", "pip", "wheel", *_pip_flags(), "--no-deps", "--wheel-dir", str(folder), str(root)]
    run(command, work / "wheel.log")
    (wheel,) = folder.glob("*.whl")
    return wheel


def run(command: Sequence[str], log: Path, work: Path | None = None) -> str:
    """Run a command, and give what it prints; everything goes into a log too.

    Raises
    ------
    Failed
        With the last line that it printed; where it stood still, with where `faulthandler` found its threads.
    """
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_LONGEST,
            env=environment(os.environ, work),
            cwd=work,
        )
        printed, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired:
        printed, status = f"not done after {_LONGEST} seconds\n", -1
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(command)}\n{printed}[{status}, {time.monotonic() - start:.1f} s]\n")
    if status != 0:
        if (hung := re.search(r"^Timeout \(.*", printed, re.MULTILINE | re.DOTALL)) is not None:
            raise Failed(hung[0].rstrip())
        raise Failed((printed.strip().splitlines() or [f"exit status {status}"])[-1])
    return printed


def environment(inherited: Mapping[str, str], work: Path | None) -> dict[str, str]:
    """Variables of a process: nothing of the caller's Python, one thread, and settings of matplotlib of its own."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    if work is not None:
        kept |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLCONFIGDIR": str(work / "matplotlib")}
    return kept


def _pip_flags() -> list[str]:
    """Options of pip that the Makefile was given."""
    return ["--disable-pip-version-check", *shlex.split(os.environ.get("PIP_FLAGS", ""))]
