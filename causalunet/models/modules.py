"""Watch modules of a U-Net, or let something stand in for them; afterwards they are as they were.

What a module puts out may be a tuple or a list of which a part is its component's, or several, one after the other
along the first dimension after the rows, see ``Component.output``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "argument_of",
    "arguments_with",
    "each_tensor",
    "first_row",
    "given_at",
    "part_of",
    "replace_forward",
    "watched",
    "whole_with",
    "zeros_for",
]

Output = int | tuple[int, ...] | None
"""As ``Component.output``."""


@contextmanager
def watched(modules: Mapping[str, nn.Module], note: Callable[[str, Any], None]) -> Iterator[None]:
    """Tell what modules put out while the context lasts.

    Parameters
    ----------
    modules : mapping of torch.nn.Module
        By name.
    note : callable
        Given the name of a module that ran, and its output.
    """

    def watch(name: str, module: nn.Module) -> Any:
        return module.register_forward_hook(lambda _module, _given, output: note(name, output))

    handles = [watch(name, module) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def part_of(output: Any, port: Output) -> Any:
    """The part of what a module puts out that is its component's; the whole where that is no tuple, nor so long."""
    if isinstance(port, tuple):
        parts = [part_of(output, place) for place in port]
        return torch.cat(parts, dim=1) if all(isinstance(part, Tensor) for part in parts) else output
    if port is None or not isinstance(output, tuple | list) or port >= len(output):
        return output
    return output[port]


def whole_with(output: Any, port: Output, value: Any) -> Any:
    """What a module puts out, with a value in the place of its component's part."""
    if port is None:
        return value
    if isinstance(port, tuple):
        sizes = [output[place].shape[1] for place in port]
        for place, part in zip(port, value.split(sizes, dim=1), strict=True):
            output = whole_with(output, place, part.contiguous())
        return output
    return _like(output, [*output[:port], value, *output[port + 1 :]])


def given_at(where: int | str | tuple[int | str, ...] | None, given: Mapping[int | str, Any]) -> Tensor | None:
    """What a module is called with there, see ``Component.input``; None where that is no tensor."""
    places = where if isinstance(where, tuple) else (where,)
    parts = [given.get(place) if place is not None else None for place in places]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) < len(parts):
        return None
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)


def argument_of(where: int | str, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """An argument of a call, by position or keyword."""
    return named[where] if isinstance(where, str) else given[where]


def arguments_with(
    where: int | str, given: tuple[Any, ...], named: dict[str, Any], value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call, by position and by keyword, with another value for one of them."""
    if isinstance(where, str):
        return given, {**named, where: value}
    return (*given[:where], value, *given[where + 1 :]), named


def each_tensor(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a module puts out, with every tensor changed, and all else as it is."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple | list):
        return _like(output, [each_tensor(part, change) for part in output])
    return output


def zeros_for(output: Any, rows: int) -> Any:
    """Zeros in place of what a module puts out, for a number of rows."""
    return each_tensor(output, lambda value: value.new_zeros(rows, *value.shape[1:]) if value.ndim else value * 0)


def first_row(output: Any) -> Any:
    """A copy of what a module puts out, of the first row."""
    return each_tensor(output, lambda value: (value[:1] if value.ndim else value).clone())


def _like(output: Any, parts: list[Any]) -> Any:
    # A named tuple is made of its fields, others of one sequence.
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Let a module call something else than its own forward, until what is returned is called.

    Parameters
    ----------
    module : torch.nn.Module
    forward : callable
    """
    own, before = vars(module), vars(module).get("forward")  # nnsight leaves one on modules that it has wrapped
    own["forward"] = forward

    def undo() -> None:
        if before is None:
            own.pop("forward")
        else:
            own["forward"] = before

    return undo
