"""A device that cannot be used, and an option that a loader does not take, are told before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import causalunet as cu
from causalunet.errors import ModelError
from causalunet.models import checkpoints, devices
from causalunet.models.devices import usable_device

needs_none = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
ABSENT = [
    pytest.param("cuda", id="cuda", marks=needs_none),
    pytest.param("cuda:99", id="cuda:99"),
    pytest.param(torch.device("xpu"), id="xpu", marks=pytest.mark.skipif(torch.xpu.is_available(), reason="has one")),
]


@pytest.mark.parametrize("device", ABSENT)
@pytest.mark.parametrize("name", ["shapes", "glide"])
def test_a_device_that_is_not_there(name: str, device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"never read")

    def never(*_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(checkpoints, "_check_exists", never)
    with pytest.raises(ModelError, match=rf"cannot run on device=.*{device}.*PyTorch can use cpu.* here\. For a GPU,"):
        cu.load_model(name, checkpoint=weights, device=device)


@pytest.mark.parametrize("device", ["cudda", "", "cpu:x", "meta", None, 3.5, ["cpu"]], ids=repr)
def test_what_is_no_device(device: Any) -> None:
    with pytest.raises(ModelError, match=r"cannot run on device=.*PyTorch can use cpu"):
        usable_device(device)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")], ids=str)
def test_a_device_that_is_there(device: Any) -> None:
    assert usable_device(device) == torch.device("cpu")
    assert cu.load_model("shapes", device=device).encode(["a red circle"])[0].device.type == "cpu"


def test_devices_that_exist_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert devices._devices() == ["cpu", "cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cu.load_model("shapes", devic="cpu"),
            r"The model 'shapes' has no 'devic'; is device meant\? It takes checkpoint, device\.",
        ),
        (lambda: cu.load_model("glide", checkpont="base.pt"), "The model 'glide' has no 'checkpont'; is checkpoint"),
    ],
    ids=["shapes", "glide"],
)
def test_an_option_that_the_loader_does_not_take(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        call()
