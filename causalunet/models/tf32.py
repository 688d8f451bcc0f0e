"""TF32: products of float32 with ten bits of mantissa, which PyTorch lets convolutions use on NVIDIA's GPUs.

What it costs in accuracy depends on how a batch is laid out, so that under it a null intervention moves images by 1e-3.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

__all__ = ["exact_float32", "tf32_allowed"]

_SWITCHES: Any = torch.backends  # its newer switches have no types
_KINDS = (_SWITCHES.cudnn.conv, _SWITCHES.cudnn.rnn, _SWITCHES.cuda.matmul)


def tf32_allowed() -> bool:
    """Whether PyTorch may round the factors of convolutions or matrix products to TF32 on a GPU."""
    general = _SWITCHES.fp32_precision
    return any((kind.fp32_precision if kind.fp32_precision != "none" else general) == "tf32" for kind in _KINDS)


class _Exact:
    """How many are inside, and what puts the switches back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._restore: Callable[[], None] | None = None

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._restore = _switch_off()
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._restore:
                self._restore()


_EXACT = _Exact()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions and products of float32 with all of its 24 bits, for all threads while any is inside.

    PyTorch's switches are for the whole process: the first to enter notes how they were, the last to leave puts that
    back. Nothing changes for half precision, on a CPU, or where TF32 is off.
    """
    _EXACT.enter()
    try:
        yield
    finally:
        _EXACT.leave()


def _switch_off() -> Callable[[], None]:
    """Switch TF32 off; return what puts everything back."""
    found = [kind.fp32_precision for kind in _KINDS]
    older: tuple[bool, bool] | None = None
    # The older switches raise once the newer have been set to something that they cannot say; else both are kept in
    # step, since code of a model may read the older.
    with suppress(RuntimeError):
        older = _SWITCHES.cudnn.allow_tf32, _SWITCHES.cuda.matmul.allow_tf32
        _SWITCHES.cudnn.allow_tf32 = _SWITCHES.cuda.matmul.allow_tf32 = False
    if older is None or tf32_allowed():
        for kind in _KINDS:
            kind.fp32_precision = "ieee"

    def restore() -> None:
        if older is not None:
            _SWITCHES.cudnn.allow_tf32, _SWITCHES.cuda.matmul.allow_tf32 = older
        for kind, precision in zip(_KINDS, found, strict=True):
            kind.fp32_precision = precision

    return restore
