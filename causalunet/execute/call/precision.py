"""In which precision the components of a U-Net compute: what stands in for one must be of its type and shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy
from causalunet.models.modules import watched

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
        parts = any(len(component.modules) > 1 for component in anatomy.components)
        self._types: dict[str, torch.dtype] | None = None if mixed or parts else {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def read(self, arguments: tuple[Tensor, ...]) -> None:
        """Call the U-Net with the first row, unless its types are known: the type of weights does not tell."""
        if self._types is not None:
            return
        found: dict[str, torch.dtype] = {}
        modules = {name: self._unet.get_submodule(path) for name, path in self._anatomy.modules.items()}

        def note(name: str, output: Tensor) -> None:
            found[name] = output.dtype
            self._shapes[name] = tuple(output.shape[1:])

        with watched(modules, note):
            self._unet(*(argument[:1] for argument in arguments))
        self._types = found

    def of(self, component: str) -> torch.dtype:
        """Type of what a component puts out."""
        return (self._types or {}).get(component, torch.float32)

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
