"""Where a model can run on this machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from causalunet.design.limits import shown
from causalunet.errors import ModelError

__all__ = ["device_of", "usable_device"]


def device_of(model: Any) -> torch.device:
    """Where a model, or a U-Net by itself, computes.

    Parameters
    ----------
    model : DiffusionModel or torch.nn.Module
        Says so by an attribute ``device``; of one without, it is where the first of the U-Net's weights or buffers is.

    Returns
    -------
    torch.device
        The CPU, if there are neither weights nor buffers.
    """
    if isinstance(own := getattr(model, "device", None), torch.device | str):
        return torch.device(own)
    unet: nn.Module = getattr(model, "unet", model)
    return next((value.device for value in (*unet.parameters(), *unet.buffers())), torch.device("cpu"))


def usable_device(device: str | torch.device) -> torch.device:
    """Find a device by its name, and see that it can be used; before anything is read or downloaded.

    Raises
    ------
    ModelError
        There is no such device here, PyTorch was built without it, or it keeps no numbers.
    """
    try:
        place = torch.device(device)
        if place.type != "meta":
            torch.empty(1, device=place)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if isinstance(device, str | torch.device) and str(error) else "no such name"
        raise ModelError(
            f"The model cannot run on device={shown(device)}: {reason:.200}. PyTorch can use {', '.join(_devices())} "
            "here. For a GPU, PyTorch has to be a build for it."
        ) from error
    if place.type == "meta":
        raise ModelError(
            "The model cannot run on device='meta', which keeps no numbers. PyTorch can use "
            f"{', '.join(_devices())} here."
        )
    return place


def _devices() -> list[str]:
    """Devices of this machine, by the names that PyTorch takes."""
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    more = [] if kind is None else [f"{kind.type}:{index}" for index in range(torch.accelerator.device_count())]
    return ["cpu", *more]
