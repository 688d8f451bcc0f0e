"""Reading the anatomy off a U-Net in OpenAI's layout: shapes, FLOPs and parameters by one call on the meta device."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from causalunet.design.anatomy import Anatomy, Component, Role, u_edges
from causalunet.models.openai_layout import TextUNet

__all__ = ["read_anatomy"]


@dataclass(frozen=True, slots=True)
class _Block:
    name: str
    role: Role
    path: str
    module: nn.Module


def read_anatomy(unet: TextUNet) -> Anatomy:
    """Describe a U-Net as a graph.

    Parameters
    ----------
    unet : TextUNet
        Weights are neither read nor changed.

    Returns
    -------
    Anatomy
    """
    config = unet.config
    blocks = _blocks(unet)
    twin = copy.deepcopy(unet).to("meta") if not _is_meta(unet) else unet
    shapes, flops, total = _measure(twin, [block.path for block in blocks])
    components = tuple(
        Component(
            name=block.name,
            role=block.role,
            level=_level(config.image_size, shapes[block.path][1]),
            depth=min(index, len(blocks) - 1 - index),
            shape=shapes[block.path],
            flops=flops[block.path],
            parameters=sum(parameter.numel() for parameter in block.module.parameters()),
            module=block.path,
        )
        for index, block in enumerate(blocks)
    )
    edges = u_edges(len(unet.input_blocks), len(unet.output_blocks))
    return Anatomy(components, edges, total, sum(parameter.numel() for parameter in unet.parameters()))


def _is_meta(unet: nn.Module) -> bool:
    return next(unet.parameters()).device.type == "meta"


def _blocks(unet: TextUNet) -> list[_Block]:
    encoder = [_Block(f"down.{i}", "encoder", f"input_blocks.{i}", block) for i, block in enumerate(unet.input_blocks)]
    decoder = [_Block(f"up.{i}", "decoder", f"output_blocks.{i}", block) for i, block in enumerate(unet.output_blocks)]
    return [*encoder, _Block("mid", "bottleneck", "middle_block", unet.middle_block), *decoder]


def _measure(twin: TextUNet, paths: list[str]) -> tuple[dict[str, tuple[int, int, int]], dict[str, int], int]:
    """Output shapes and FLOPs of the blocks, and FLOPs of the whole call, for one row."""
    config, text = twin.config, twin.config.text
    shapes: dict[str, tuple[int, int, int]] = {}
    handles = [twin.get_submodule(path).register_forward_hook(_shape_hook(shapes, path)) for path in paths]
    arguments = (
        torch.empty(1, config.in_channels, config.image_size, config.image_size, device="meta"),
        torch.empty(1, device="meta"),
        torch.empty(1, 4 * config.model_channels, device="meta"),
        torch.empty(1, text.width, text.context, device="meta"),
    )
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            twin(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    counts = counter.get_flop_counts()
    root = type(twin).__name__
    flops = {path: sum(counts.get(f"{root}.{path}", {}).values()) for path in paths}
    return shapes, flops, counter.get_total_flops()


def _shape_hook(shapes: dict[str, tuple[int, int, int]], path: str) -> Any:
    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        channels, height, width = output.shape[1:]
        shapes[path] = (channels, height, width)

    return record


def _level(image_size: int, resolution: int) -> int:
    return (image_size // resolution).bit_length() - 1
