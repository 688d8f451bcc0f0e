"""Errors that people meet first: a missing extra, an unknown model, a file that is not a checkpoint."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import causalunet as cu
from causalunet import errors
from causalunet.errors import CausalUNetError, CheckpointError, ModelError
from causalunet.models.checkpoints import fingerprint, load_weights
from causalunet.models.openai_layout import TextUNet
from causalunet.models.shapes import SHAPES_CONFIG
from tests.without_torch import run_without_torch

WITHOUT_TORCH = """
import causalunet as cu

study = cu.Study(name="study", prompts=["a red circle"], interventions=[cu.AblateBlock(2, cu.Window(9, 2))])
for attempt in (study.plan, lambda: study.run("results.zarr"), lambda: cu.load_model("shapes"), lambda: cu.register):
    try:
        attempt()
    except cu.MissingExtraError as error:
        assert isinstance(error, (cu.CausalUNetError, ImportError))
        print(error)
"""


def test_a_missing_extra_is_named_with_its_cure(tmp_path: Path) -> None:
    done = run_without_torch(WITHOUT_TORCH, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    messages = done.stdout.splitlines()
    assert len(messages) == 4
    for message in messages:
        assert "needs torch, which is not installed" in message
        assert "pip install 'causalunet[run]'" in message
    assert not list(tmp_path.iterdir())


def test_every_error_is_ours_and_a_builtin_one() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert inspect.getdoc(kind)
        if issubclass(kind, Warning):
            continue
        assert issubclass(kind, CausalUNetError)
        builtin = (ValueError, RuntimeError, ImportError, MemoryError)
        assert kind is CausalUNetError or issubclass(kind, builtin), name


def test_an_unknown_model_is_told_with_those_that_exist() -> None:
    with pytest.raises(ModelError, match=r"No model is called 'shape'; there are .*shapes.*register"):
        cu.load_model("shape")
    study = cu.Study(name="x", model="shape", prompts=["a"], interventions=[cu.AblateBlock(2, cu.Window(9, 2))])
    with pytest.raises(ModelError, match="No model is called 'shape'"):
        study.plan(calibrate=False)


def test_an_unknown_name_of_the_package() -> None:
    with pytest.raises(AttributeError, match="module 'causalunet' has no attribute 'Studie'"):
        cu.Studie  # noqa: B018


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Of the embedded model's architecture, random."""
    return TextUNet(SHAPES_CONFIG).state_dict()


def load(path: Path) -> Any:
    return cu.load_model("shapes", checkpoint=path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_checkpoint_is_loaded(tmp_path: Path, weights: dict[str, Tensor], name: str) -> None:
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(weights, path)
    model = load(path)
    assert {key: value for key, value in model.unet.state_dict().items() if not torch.equal(value, weights[key])} == {}
    assert not any(parameter.requires_grad for parameter in model.unet.parameters())
    assert model.fingerprint == fingerprint(model.unet)


def test_half_precision_is_loaded_as_single(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    save_file({name: value.half() for name, value in weights.items()}, tmp_path / "half.safetensors")
    state = load(tmp_path / "half.safetensors").unet.state_dict()
    assert all(value.dtype == torch.float32 for value in state.values())
    assert all(torch.equal(value, weights[name].half().float()) for name, value in state.items())


class Hostile:
    """Unpickled, it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.mkdir, (self.path,)


def truncated(path: Path, weights: dict[str, Tensor]) -> None:
    (save_file if path.suffix == ".safetensors" else torch.save)(weights, path)
    path.write_bytes(path.read_bytes()[:-1000])


BROKEN: dict[str, tuple[str, Callable[[Path, dict[str, Tensor]], object], str]] = {
    "missing": ("none.safetensors", lambda path, _: None, "There is no weights file at "),
    "folder": ("folder.safetensors", lambda path, _: path.mkdir(), "There is no weights file at "),
    "text": ("text.safetensors", lambda path, _: path.write_text("not weights"), "cannot be read as weights"),
    "text, .pt": ("text.pt", lambda path, _: path.write_text("not weights"), r"text\.pt .*not"),
    "empty": ("empty.safetensors", lambda path, _: path.touch(), "cannot be read as weights"),
    "empty, .pt": ("empty.pt", lambda path, _: path.touch(), "cannot be read as weights"),
    "truncated": ("half.safetensors", truncated, "cannot be read as weights.*Is the file complete"),
    "truncated, .pt": ("half.pt", truncated, "cannot be read as weights.*Is the file complete"),
    "number": ("number.pt", lambda path, _: torch.save(3, path), "holds a int; expected a mapping of names to tensors"),
    "training state": (
        "training.pt",
        lambda path, weights: torch.save({"model": weights, "iteration": 3}, path),
        "expected a mapping of names to tensors",
    ),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("name", "write", "message"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_checkpoint(
    tmp_path: Path,
    weights: dict[str, Tensor],
    name: str,
    write: Callable[[Path, dict[str, Tensor]], object],
    message: str,
) -> None:
    write(tmp_path / name, weights)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / name)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, protocol: str) -> None:
    made, path = tmp_path / "made by the checkpoint", tmp_path / "hostile.pt"
    if protocol == "torch":
        torch.save({"weight": Hostile(made)}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Hostile(made)}))
    with pytest.raises(CheckpointError, match=r"hostile\.pt holds more than tensors and was not loaded"):
        load(path)
    assert not made.exists()
    pickle.loads(pickle.dumps(Hostile(made)))
    assert made.exists(), "the file would have done it"


def test_a_checkpoint_of_another_architecture_is_told_apart(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    other = dict(weights)
    del other["out.0.weight"], other["out.0.bias"]
    other["extra.bias"] = torch.zeros(1)
    other["out.2.bias"] = torch.zeros(7)
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "other.safetensors")
    message = str(caught.value)
    for part in (
        "other.safetensors is not a checkpoint of this TextUNet",
        "2 names missing, 1 not expected, 1 of another shape",
        "missing out.0.bias; missing out.0.weight; not expected extra.bias",
        "out.2.bias has shape (7,), expected (6,)",
    ):
        assert part in message, part


def test_a_refused_checkpoint_leaves_the_network_as_it_was() -> None:
    module = torch.nn.Linear(2, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(CheckpointError, match="bias has shape"):
        load_weights(module, {"weight": torch.ones(2, 2), "bias": torch.ones(3)}, "here")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
