"""Weights files: read safely, checked against the network before anything is overwritten."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from causalunet.errors import CheckpointError

__all__ = ["file_digest", "fingerprint", "load_weights", "read_training", "read_weights"]


def file_digest(path: Path, expected: str | None = None) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Parameters
    ----------
    path : Path
    expected : str, optional
        What it must be.

    Raises
    ------
    CheckpointError
        The file does not exist, or has another digest.
    """
    _check_exists(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected.strip().lower():
        raise CheckpointError(
            f"{path} is not the file asked for: its SHA-256 is {digest}, expected {expected}. It was not read; "
            "download it again, or give the digest of the file that you mean."
        )
    return digest


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a PyTorch file of tensors only, without running code that the file may hold.

    A PyTorch archive is mapped, not read: names and shapes are known before memory is taken for the weights.

    Raises
    ------
    CheckpointError
        The file does not exist, is damaged, or holds anything but tensors.
    """
    _check_exists(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}. Is the file complete?") from error
    except Exception as error:  # pickle raises whatever a hostile file makes it raise
        raise CheckpointError(f"{path} holds more than tensors and was not loaded ({type(error).__name__}).") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds a {type(state).__name__}; expected a mapping of names to tensors.")
    odd = [name for name, value in state.items() if value.layout is not torch.strided or not value.is_floating_point()]
    if odd:
        raise CheckpointError(f"{path} holds {odd[0]!r}, which is not a dense tensor of floating-point numbers.")
    return dict(state)


def read_training(path: Path) -> dict[str, Any]:
    """Read how weights of this package were trained; nothing where a file does not tell.

    Raises
    ------
    CheckpointError
        The file does not exist, or what it tells is none.
    """
    _check_exists(path)
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("training", "{}")
    try:
        told = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} tells its training in words that are no JSON: {error}.") from error
    return told if isinstance(told, dict) else {}


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"There is no weights file at {path}.")


def load_weights(
    module: nn.Module, weights: Mapping[str, Tensor], source: str, *, device: str | torch.device | None = None
) -> None:
    """Copy weights into a module in float32, all of them and nothing else.

    Parameters
    ----------
    module : torch.nn.Module
        If it is on the meta device, it gets its memory here: that of one copy of the weights.
    weights : mapping of str to Tensor
    source : str
        What error messages call them.
    device : str or torch.device, optional
        Where the weights of a module on the meta device go; the CPU by default.

    Raises
    ------
    CheckpointError
        Names or shapes differ; the first differences are listed. The module is then as it was.
    """
    _check_fits(module, weights, source)
    if not any(value.is_meta for value in module.state_dict().values()):
        module.load_state_dict({name: value.float() for name, value in weights.items()}, assign=False)
        return
    place = torch.device(device or "cpu")
    own = {
        name: value.to(place, torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, value in weights.items()
    }
    module.load_state_dict(own, assign=True)


def _check_fits(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    shaped = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
    if missing or extra or shaped:
        lines = [
            *(f"missing {name}" for name in missing[:3]),
            *(f"not expected {name}" for name in extra[:3]),
            *(f"{name} has shape {found[name]}, expected {expected[name]}" for name in shaped[:3]),
        ]
        raise CheckpointError(
            f"{source} is not a checkpoint of this {type(module).__name__}: {len(missing)} names missing, {len(extra)} "
            f"not expected, {len(shaped)} of another shape ({'; '.join(lines)})."
        )


def fingerprint(module: nn.Module) -> str:
    """Sixteen hexadecimal digits that name the weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy has no bfloat16
        digest.update(content.numpy().tobytes())
    return digest.hexdigest()[:16]
