"""One optimiser step, called plainly or captured once as a CUDA graph and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from causalunet.errors import CausalUNetWarning
from causalunet.training.batches import Batch

__all__ = ["CapturedStep", "Loss", "PlainStep"]

Loss = Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]]
"""A batch to the loss to be minimised and numbers to report, all scalars on the network's device."""

_WARM_UP = 5


class PlainStep:
    """Forward, backward, clipping of the gradient's norm to 1, optimiser.

    Parameters
    ----------
    network : torch.nn.Module
    optimizer : torch.optim.Optimizer
    loss : callable
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
        self._network, self._optimizer, self._loss = network, optimizer, loss

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take the step; return loss and numbers, detached and still on the device, so that nothing waits for it."""
        self._optimizer.zero_grad(set_to_none=True)
        loss, numbers = self._loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimizer.step()
        return {"loss": loss.detach(), **{name: value.detach() for name, value in numbers.items()}}


class CapturedStep:
    """The same step as a CUDA graph: its some thousand small kernels are launched at once.

    The first five steps are taken plainly on a side stream, as a capture wants it; the next is captured. Where that
    fails, steps stay plain, with a warning.

    Parameters
    ----------
    network, optimizer, loss
        As for `PlainStep`; the optimiser must be ``capturable``.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
        self._plain = PlainStep(network, optimizer, loss)
        self._optimizer = optimizer
        self._stream = torch.cuda.Stream()
        self._taken, self._failed = 0, False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: dict[str, Tensor] = {}
        self._numbers: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take the step."""
        self._taken += 1
        if self._failed:
            return self._plain(batch)
        if self._taken <= _WARM_UP:
            return self._aside(batch)
        if self._graph is None and not self._capture(batch):
            return self._plain(batch)
        return self._replay(batch)

    def _replay(self, batch: Batch) -> dict[str, Tensor]:
        for name, value in batch.items():
            self._given[name].copy_(value, non_blocking=True)
        if self._graph is not None:
            self._graph.replay()
        return self._numbers

    def _aside(self, batch: Batch) -> dict[str, Tensor]:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            numbers = self._plain(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return numbers

    def _capture(self, batch: Batch) -> bool:
        """Record the kernels; none of them runs yet. The gradients are left out, so that the graph makes its own."""
        self._given = {name: value.clone() for name, value in batch.items()}
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another thread pins batches meanwhile
                self._numbers = self._plain(self._given)
        except RuntimeError as error:
            self._failed = True
            self._optimizer.zero_grad(set_to_none=True)
            warnings.warn(
                f"The step could not be captured as a CUDA graph and is taken plainly: {error}",
                CausalUNetWarning,
                stacklevel=4,
            )
            return False
        self._graph = graph
        return True
