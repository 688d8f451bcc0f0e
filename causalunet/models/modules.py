"""Watch modules of a U-Net, or let something stand in for them; afterwards they are as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["replace_forward", "watched"]


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
