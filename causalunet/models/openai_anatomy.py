"""Reading the anatomy off a U-Net in OpenAI's layout: shapes, FLOPs and parameters by one call on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Component, Edge, Role, u_edges
from causalunet.design.ports import Port
from causalunet.design.views import Channels
from causalunet.errors import ModelError
from causalunet.models.inner import Text, with_inner
from causalunet.models.measured import Measured, input_of, measure, on_meta
from causalunet.models.openai_layout import TextUNet

__all__ = ["read_anatomy", "read_called"]


@dataclass(frozen=True, slots=True)
class _Block:
    name: str
    role: Role
    path: str
    module: nn.Module


_READ: dict[tuple[object, ...], Anatomy] = {}
"""What was read in this process, by the sizes, the modules and the shapes of their parameters."""


def read_anatomy(unet: TextUNet) -> Anatomy:
    """Describe a U-Net as a graph; one of an architecture read before is not called again.

    Parameters
    ----------
    unet : TextUNet
        Weights are neither read nor changed.

    Returns
    -------
    Anatomy
    """
    modules = tuple((name, type(module)) for name, module in unet.named_modules())
    architecture = (unet.config, modules, tuple(parameter.shape for parameter in unet.parameters()))
    if architecture not in _READ:
        _READ[architecture] = _read_anatomy(unet)
    return _READ[architecture]


def _read_anatomy(unet: TextUNet) -> Anatomy:
    config, text = unet.config, unet.config.text
    arguments = (
        torch.empty(1, config.in_channels, config.image_size, config.image_size, device="meta"),
        torch.empty(1, device="meta"),
        torch.empty(1, 4 * config.model_channels, device="meta"),
        torch.empty(1, text.width, text.context, device="meta"),
    )
    return with_inner(
        _skips_last(read_called(unet, arguments)), unet, arguments, text=Text(3, "row channel token", pooled=2)
    )


def _skips_last(anatomy: Anatomy) -> Anatomy:
    """Say where skip connections enter in this layout: behind the path, as the last channels."""
    width = {component.name: component.shape[0] for component in anatomy.components}
    path = {edge.target: width[edge.source] for edge in anatomy.edges if not edge.name}

    def port(skip: Edge) -> Port:
        first = path[skip.target]
        return Port(0, Channels(range(first, first + width[skip.source])))

    edges = tuple(replace(edge, port=port(edge)) if edge.name else edge for edge in anatomy.edges)
    return replace(anatomy, edges=edges)


def read_called(unet: nn.Module, arguments: Sequence[Tensor], *, inside: str = "") -> Anatomy:
    """Describe any U-Net that has ``input_blocks``, ``middle_block`` and ``output_blocks`` as a graph.

    Parameters
    ----------
    unet : torch.nn.Module
        Weights are neither read nor changed.
    arguments : sequence of Tensor
        Of its forward, for one row, on the meta device; the first is the image, (1, channel, y, x).
    inside : str
        Path of the submodule that has the blocks; empty if ``unet`` has them itself.

    Returns
    -------
    Anatomy

    Raises
    ------
    ModelError
        A block did not run exactly once, in the order encoder, bottleneck, decoder.
    SpecError
        Encoder and decoder have different numbers of blocks.
    """
    blocks = _blocks(unet, f"{inside}." if inside else "")
    edges = u_edges(*(sum(block.role == role for block in blocks) for role in ("encoder", "decoder")))
    seen = _measure(on_meta(unet), [block.path for block in blocks], arguments)
    shapes = {path: tuple(output.shape[1:]) for path, output in seen.outputs.items()}
    components = tuple(
        Component(
            name=block.name,
            role=block.role,
            level=_level(arguments[0].shape[-1], shapes[block.path][2]),
            depth=min(index, len(blocks) - 1 - index),
            shape=shapes[block.path],
            flops=seen.flops[block.path],
            parameters=sum(parameter.numel() for parameter in block.module.parameters()),
            module=block.path,
            input=input_of(seen.inputs[block.path], seen.outputs[block.path]),
        )
        for index, block in enumerate(blocks)
    )
    return Anatomy(components, edges, seen.total, sum(parameter.numel() for parameter in unet.parameters()))


def _blocks(unet: nn.Module, prefix: str) -> list[_Block]:
    def numbered(name: str, role: Role, path: str) -> list[_Block]:
        blocks = unet.get_submodule(prefix + path).children()
        return [_Block(f"{name}.{i}", role, f"{prefix}{path}.{i}", block) for i, block in enumerate(blocks)]

    middle = f"{prefix}middle_block"
    return [
        *numbered("down", "encoder", "input_blocks"),
        _Block("mid", "bottleneck", middle, unet.get_submodule(middle)),
        *numbered("up", "decoder", "output_blocks"),
    ]


def _measure(twin: nn.Module, paths: list[str], arguments: Sequence[Tensor]) -> Measured:
    """What one call shows, of one row."""
    seen = measure(twin, paths, arguments)
    if seen.ran != paths:
        raise ModelError(
            f"The blocks of this {type(twin).__name__} ran in the order {', '.join(seen.ran)}; a U-Net "
            "in OpenAI's layout runs every input block, the middle block, then every output block, each once."
        )
    return seen


def _level(image_size: int, resolution: int) -> int:
    return (image_size // resolution).bit_length() - 1
