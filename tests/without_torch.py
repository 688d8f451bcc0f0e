"""Processes that behave as where torch, and what else the extra ``run`` brings, is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["run_without_torch"]

_BLOCK = """
import sys

BLOCKED = {"einops", "nnsight", "safetensors", "torch"}


class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} was imported, and is blocked here", name=name)


def check():
    tried = BLOCKED & {name.partition(".")[0] for name in sys.modules}
    assert not tried, f"{tried} in sys.modules"


sys.meta_path.insert(0, Blocker)
"""


def run_without_torch(script: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own; ``check()`` in it makes sure that nothing of the extra is loaded."""
    command = [sys.executable, "-c", _BLOCK + script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
