"""Batches of a training run, each a function of (seed, iteration) alone, made here or ahead of time in workers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

__all__ = ["Batch", "Draw", "batches"]

Batch = Mapping[str, Tensor]
"""Tensors by name, one row per image."""


class Draw(Protocol):
    """Draws batches; can be pickled, so that workers have it too."""

    def __call__(self, iteration: int, rng: np.random.Generator) -> Batch:
        """Draw a batch, everything random in it from ``rng``."""
        ...


class _Numbered(Dataset[dict[str, Tensor]]):
    """Batches by iteration; no length, as the run says where it ends."""

    def __init__(self, draw: Draw, seed: int) -> None:
        self.draw, self.seed = draw, seed

    def __getitem__(self, iteration: int) -> dict[str, Tensor]:
        return dict(self.draw(iteration, np.random.default_rng((self.seed, iteration))))


def batches(
    draw: Draw, seed: int, iterations: Iterable[int], *, workers: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Draw the batches of iterations, in their order.

    Parameters
    ----------
    draw : Draw
    seed : int
        Of the run.
    iterations : iterable of int
        May have no end.
    workers : int
        Processes that draw ahead; 0 draws in this one. Batches do not depend on it.
    device : torch.device
        Where they are brought.

    Yields
    ------
    dict of str to Tensor
    """
    numbered = _Numbered(draw, seed)
    if not workers:
        for iteration in iterations:
            yield {name: value.to(device) for name, value in numbered[iteration].items()}
        return
    loader = DataLoader(
        numbered,
        sampler=iterations,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context="spawn",  # a fork would copy threads' locks, and CUDA cannot be used after one
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # the loader's own draw leaves the global generator alone
        worker_init_fn=_one_thread,
    )
    for batch in loader:
        yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _one_thread(worker: int) -> None:
    """Workers share the cores among themselves."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
