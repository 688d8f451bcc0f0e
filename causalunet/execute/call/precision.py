"""In which precision the components of a U-Net compute: what stands in for one must be of its type and shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy
from causalunet.models.modules import first_row, part_of, watched, whole_with, zeros_for

__all__ = ["OutputTypes"]


class OutputTypes:
    """Types of what components put out: float32, unless some of the U-Net's weights are not.

    Parameters
    ----------
    unet : torch.nn.Module
    anatomy : Anatomy
        Of that U-Net.
    """

    def __init__(self, unet: nn.Module, anatomy: Anatomy) -> None:
        self._unet, self._anatomy = unet, anatomy
        mixed = any(value.is_floating_point() and value.dtype != torch.float32 for value in unet.parameters())
        parts = any(len(component.modules) > 1 for component in anatomy.components) or bool(anatomy.output_ports)
        self._types: dict[str, torch.dtype] | None = None if mixed or parts else {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._wholes: dict[str, Any] = {}

    def read(self, arguments: tuple[Tensor, ...]) -> None:
        """Call the U-Net with the first row, unless its types are known: the type of weights does not tell."""
        if self._types is not None:
            return
        found: dict[str, torch.dtype] = {}
        modules = {name: self._unet.get_submodule(path) for name, path in self._anatomy.modules.items()}

        def note(name: str, output: Any) -> None:
            port = self._anatomy.output_ports.get(name)
            part = part_of(output, port)
            found[name] = part.dtype
            self._shapes[name] = tuple(part.shape[1:])
            if port is not None:
                self._wholes[name] = first_row(output)

        with watched(modules, note):
            self._unet(*(argument[:1] for argument in arguments))
        self._types = found

    def of(self, component: str) -> torch.dtype:
        """Type of what a component puts out."""
        return (self._types or {}).get(component, torch.float32)

    def whole(self, component: str, value: Tensor) -> Any:
        """What a component's module puts out, of which a value is the component's; the other parts are zeros."""
        port = self._anatomy.output_ports.get(component)
        return value if port is None else whole_with(zeros_for(self._wholes[component], len(value)), port, value)

    def zeros(self, module: str, like: Tensor) -> Tensor:
        """What stands in for a module inside a component, which nothing but the next one is given.

        Parameters
        ----------
        module : str
            By the name that `Anatomy.modules` gives it.
        like : Tensor, (row, ...)
            For rows and device.
        """
        return like.new_zeros(like.shape[0], *self._shapes[module], dtype=self.of(module))
