"""How many bytes a run may fill: told, or a share of what the device has that the model computes on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from causalunet.design.limits import is_number, plain_number, shown
from causalunet.errors import SpecError
from causalunet.models.devices import device_of

__all__ = ["budget_of", "free_memory"]

_USUAL = 1 << 30
"""On a CPU, which gains nothing from larger batches, and elsewhere where the device does not say."""
_SHARE = 0.5
"""Of what is free: the budget is used twice, for the activations of a call and for states, one after the other."""
_CONTROL_GROUP = Path("/sys/fs/cgroup")
_HOST = Path("/proc/meminfo")


def budget_of(memory: int | None, model: Any) -> int:
    """Bytes for the activations of a call, on the device of a model.

    Parameters
    ----------
    memory : int or None
        As a user gave it. None is half of what is free on the device, and on a CPU 1 GiB at the most.
    model : DiffusionModel

    Raises
    ------
    SpecError
        It is no number of bytes.
    """
    if memory is None:
        device = device_of(model)
        free = free_memory(device)
        share = _USUAL if free is None else max(1, int(free * _SHARE))
        return min(share, _USUAL) if device.type == "cpu" else share
    given = plain_number(memory)
    if not is_number(given) or given < 1:
        raise SpecError(
            f"memory={shown(memory)} is no number of bytes; give one such as 1 << 30, a gibibyte, or None for half of "
            "what is free on the device."
        )
    return int(given)


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where it does not say.

    Of CUDA's what is free and what PyTorch holds without using it, of Apple's (MPS) what is recommended at the most
    less what is taken, of the CPU's what the host has available, or the control group of the process, if that is less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if device.type == "cpu":
        found = [one for one in (_of_host(), _of_control_group()) if one is not None]
        return min(found, default=None)
    return None


def _of_host() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in _HOST.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return None


def _of_control_group() -> int | None:
    with suppress(OSError, ValueError):
        most, used = (int((_CONTROL_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        return max(0, most - used)
    return None
