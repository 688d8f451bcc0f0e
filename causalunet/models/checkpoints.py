"""Weights files: read safely, checked against the network before anything is overwritten."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from causalunet.errors import CheckpointError

__all__ = ["fingerprint", "load_weights", "read_weights"]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a PyTorch file of tensors only.

    Raises
    ------
    CheckpointError
        The file does not exist, is damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no weights file at {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}. Is the file complete?") from error
    except Exception as error:  # pickle raises whatever a hostile file makes it raise
        raise CheckpointError(f"{path} holds more than tensors and was not loaded ({type(error).__name__}).") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds a {type(state).__name__}; expected a mapping of names to tensors.")
    return dict(state)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a module, all of them and nothing else.

    Raises
    ------
    CheckpointError
        Names or shapes differ; the first differences are listed.
    """
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
    module.load_state_dict({name: value.float() for name, value in weights.items()}, assign=False)


def fingerprint(module: nn.Module) -> str:
    """Sixteen hexadecimal digits that name the weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
