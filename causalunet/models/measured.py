"""What modules of a U-Net put out, in which order, and what that costs: one call on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Measured", "input_of", "largest_output", "measure", "on_meta"]


class Measured(NamedTuple):
    """What a call showed.

    Attributes
    ----------
    ran : list of str
        Paths of modules, each time that one ran.
    outputs : dict
        What each put out last: a tensor on the meta device, or what it was instead.
    inputs : dict
        What each was called with last, by position and keyword.
    flops : dict of str to int
        Floating-point operations of each; a multiply-add counts as two.
    total : int
        Of the whole call.
    """

    ran: list[str]
    outputs: dict[str, Any]
    inputs: dict[str, dict[int | str, Any]]
    flops: dict[str, int]
    total: int


def input_of(given: Mapping[int | str, Any], output: Tensor) -> int | str | None:
    """Where the first tensor that a module is called with enters, if it has the shape of what the module puts out."""
    where, first = next(((key, value) for key, value in given.items() if isinstance(value, Tensor)), (None, None))
    return where if first is not None and first.shape == output.shape else None


def on_meta(unet: nn.Module) -> nn.Module:
    """Copy the module without its weights: deepcopy is told that they are copied already."""
    twins: dict[int, Any] = {}
    for parameter in unet.parameters():
        twins[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in unet.buffers():
        twins[id(buffer)] = buffer.to("meta")
    with _as_built(unet):
        return copy.deepcopy(unet, twins)


@contextmanager
def _as_built(unet: nn.Module) -> Iterator[None]:
    """Without what nnsight leaves on modules that it has wrapped: it copies the module again, and so on for ever."""
    own = {module: vars(module)["forward"] for module in unet.modules() if "forward" in vars(module)}
    left = {module: forward for module, forward in own.items() if type(forward).__module__.startswith("nnsight.")}
    for module in left:
        del vars(module)["forward"]
    try:
        yield
    finally:
        for module, forward in left.items():
            vars(module)["forward"] = forward


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
    ran, outputs, given = list[str](), dict[str, Any](), dict[str, dict[int | str, Any]]()

    def watch(path: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            ran.append(path)
            outputs[path] = output
            given[path] = dict(enumerate(inputs))
            given[path].update(named)

        return twin.get_submodule(path).register_forward_hook(note, with_kwargs=True)

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
    return Measured(ran, outputs, given, flops, counter.get_total_flops())


def largest_output(network: nn.Module, *arguments: Tensor) -> int:
    """Numbers of the largest tensor that any module of a network puts out.

    Parameters
    ----------
    network : torch.nn.Module
        Called on the meta device; where that is not possible, called once as it is. Its weights are not changed.
    *arguments : Tensor
        On the meta device.
    """
    sizes = [0]

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        parts = output if isinstance(output, tuple | list) else (output,)
        sizes.extend(part.numel() for part in parts if isinstance(part, Tensor))

    def widest(called: nn.Module, given: tuple[Tensor, ...]) -> int:
        sizes[:] = [0]
        handles = [module.register_forward_hook(note) for module in called.modules()]
        try:
            with torch.no_grad():
                called(*given)
        finally:
            for handle in handles:
                handle.remove()
        return max(sizes)

    try:
        return widest(on_meta(network), arguments)
    except (RuntimeError, NotImplementedError):
        # A method that was replaced on the module itself goes on reading the original's weights, and not every kernel
        # has a form for the meta device: then it is called as it is.
        weight = next(network.parameters(), torch.empty(0))
        return widest(network, tuple(torch.zeros_like(each, device=weight.device) for each in arguments))
