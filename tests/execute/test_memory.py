"""A budget that nobody gave is a share of what the model's device has."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import causalunet as cu
from causalunet.execute.walk import memory
from causalunet.execute.walk.batches import micro_batch_size
from causalunet.execute.walk.memory import budget_of, free_memory
from causalunet.models.text_to_image import TextToImage

GIB = 1 << 30


def on(device: str) -> Any:
    return SimpleNamespace(device=torch.device(device))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host with 3 GiB available, in no control group; a CUDA GPU with 80 GiB, an Apple GPU with 12."""
    host = tmp_path / "meminfo"
    host.write_text(f"MemTotal: {8 << 20} kB\nMemFree: {1 << 20} kB\nMemAvailable:    {3 << 20} kB\n")
    monkeypatch.setattr(memory, "_HOST", host)
    monkeypatch.setattr(memory, "_CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4 * GIB)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * GIB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2 * GIB)
    return tmp_path


@pytest.mark.parametrize(("device", "free", "budget"), [("cuda:1", 72, 36), ("mps", 10, 5), ("cpu", 3, 1)])
def test_it_is_of_the_device(machine: Path, device: str, free: int, budget: int) -> None:
    assert free_memory(torch.device(device)) == free * GIB
    assert budget_of(None, on(device)) == budget * GIB
    assert budget_of(GIB // 8, on(device)) == GIB // 8, "as it was given"


def test_a_control_group_may_leave_less_than_the_host(machine: Path) -> None:
    (machine / "memory.max").write_text(f"{2 * GIB}\n")
    (machine / "memory.current").write_text(f"{GIB}\n")
    assert budget_of(None, on("cpu")) == GIB // 2
    (machine / "memory.max").write_text("max\n")
    assert budget_of(None, on("cpu")) == GIB


def test_a_machine_that_does_not_say(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert free_memory(torch.device("cpu")) is None
    assert budget_of(None, on("cpu")) == GIB
    assert budget_of(None, on("meta")) == GIB


def test_runs_go_by_it(machine: Path, tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With next to nothing free samples go one by one; what was given counts more."""
    (machine / "meminfo").write_text("MemAvailable: 1 kB\n")
    seen = list[int]()
    monkeypatch.setattr(
        "causalunet.execute.walk.generate.micro_batch_size",
        lambda *given: seen.append(micro_batch_size(*given)) or seen[-1],  # type: ignore[func-returns-value]
    )
    for given in (None, GIB):
        cu.execute.generate(["a red circle"], model=tiny_model, sampler=cu.DDIM(steps=1), memory=given)
    assert seen == [1, 32]
