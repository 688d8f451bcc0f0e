"""With a real limit on memory (``ulimit -v``): told as that, never as damage, and the store is as good as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import causalunet as cu
from tests.models.adapters import adapter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are read from /proc and kept by Linux"),
]

LEFT = (8, 100, 400)
"""Megabytes that a process has left; a thread of the storage engine takes some ten, with its arena more."""

STUDY = cu.Study(
    name="limited",
    prompts=[f"number {i}" for i in range(8)],
    sampler=cu.DDPM(steps=4, guidance_scale=1),
    interventions=[cu.AblateBlock(1, cu.Window(3, 1)), cu.AblateSkip(1, cu.Window(3, 2))],
)

CHILD = """
import resource, sys
from tests.results.test_little_memory import STUDY, adapter, cu
import causalunet.execute, icechunk, xarray, zarr

what, path, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = adapter()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + left * 2**20,) * 2)
try:
    if what == "run":
        STUDY.run(path, model=model, progress=False)
    else:
        cu.open_results(path).outcomes.image.load()
except (cu.CausalUNetError, MemoryError, RuntimeError) as error:
    print(f"told: {type(error).__name__} {error}")
"""


def in_little_memory(what: str, path: Path, left: int) -> str:
    """What a process says; one in which the storage engine hangs for want of threads is ended."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", CHILD, what, str(path), str(left)]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as error:
        return f"{(error.stdout or b'').decode()}{(error.stderr or b'').decode()}"
    return done.stdout + done.stderr


def test_little_memory_is_never_told_as_damage(tmp_path: Path) -> None:
    model: Any = adapter()
    whole = tmp_path / "whole.zarr"
    STUDY.run(whole, model=model, progress=False)
    said = []
    for left in LEFT:
        path = tmp_path / f"{left}.zarr"
        said += [in_little_memory("run", path, left), in_little_memory("open", whole, left)]
        again = STUDY.run(path, model=model, progress=False, retry_failed=True)
        assert again.verify(quiet=True), str(again.verify(quiet=True))
    assert cu.open_results(whole).verify(quiet=True)
    for text in said:
        assert "damaged" not in text, text
        assert "is gone" not in text, text
        assert "ModuleNotFoundError" not in text, text
    told = [line for text in said for line in text.splitlines() if line.startswith("told: ")]
    assert any("memory or threads ran out" in line for line in told), said
