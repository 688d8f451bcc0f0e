"""What modules of a U-Net put out, in which order, and what that costs: one call on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Measured", "measure", "on_meta"]


class Measured(NamedTuple):
    """What a call showed.

    Attributes
    ----------
    ran : list of str
        Paths of modules, each time that one ran.
    outputs : dict
        What each put out last: a tensor on the meta device, or what it was instead.
    flops : dict of str to int
        Floating-point operations of each; a multiply-add counts as two.
    total : int
        Of the whole call.
    """

    ran: list[str]
    outputs: dict[str, Any]
    flops: dict[str, int]
    total: int


def on_meta(unet: nn.Module) -> nn.Module:
    """Copy the module without its weights: deepcopy is told that they are copied already."""
    twins: dict[int, Any] = {}
    for parameter in unet.parameters():
        twins[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in unet.buffers():
        twins[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(unet, twins)


def measure(twin: nn.Module, paths: Sequence[str], arguments: Sequence[Tensor]) -> Measured:
    """Call a U-Net and watch some of its modules.

    Parameters
    ----------
    twin : torch.nn.Module
        From `on_meta`.
    paths : sequence of str
        Of the modules.
    arguments : sequence of Tensor
        Of its forward, on the meta device.
    """
    ran, outputs = list[str](), dict[str, Any]()

    def watch(path: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            ran.append(path)
            outputs[path] = output

        return twin.get_submodule(path).register_forward_hook(note)

    handles = [watch(path) for path in paths]
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            twin(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    counts, root = counter.get_flop_counts(), type(twin).__name__
    flops = {path: sum(counts.get(f"{root}.{path}", {}).values()) for path in paths}
    return Measured(ran, outputs, flops, counter.get_total_flops())
