"""Mean, SD, norm and cosine of activations, collected over one block of samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.plan import BASELINE, Plan
from causalunet.results.layout import Layout

__all__ = ["Summaries"]

_NAMES = ("mean", "sd", "norm", "cosine")


class Summaries:
    """Numbers per (run, sample, step, component).

    Parameters
    ----------
    plan : Plan
    layout : Layout
    components : tuple of str
        Which components are summarised.
    samples : int
        In the block.
    """

    def __init__(self, plan: Plan, layout: Layout, components: tuple[str, ...], samples: int) -> None:
        self._column = {name: column for column, name in enumerate(components)}
        runs = len(plan.spec.interventions) + 1  # the baseline has index -1, which is the last row
        sizes = (runs, samples, len(layout.recorded_steps), len(components))
        self._values = {name: np.full(sizes, np.nan, np.float32) for name in _NAMES} if components else {}
        self._ran = np.zeros((sizes[0], *sizes[2:]), dtype=bool)

    def add(
        self, name: str, runs: tuple[int, ...], rows: slice, position: int, value: Tensor, reference: Tensor
    ) -> None:
        """Summarise a block's output of some samples, (sample, channel, y, x), for every run that shares the call."""
        if name not in self._column:
            return
        flat, column, chosen = value.flatten(1), self._column[name], list(runs)
        numbers = {
            "mean": flat.mean(dim=1),
            "sd": flat.std(dim=1, correction=0),
            "norm": flat.norm(dim=1),
            "cosine": torch.cosine_similarity(flat, reference.flatten(1), dim=1),
        }
        for key, number in numbers.items():
            self._values[key][chosen, rows, position, column] = number.cpu().numpy()
        self._ran[chosen, position, column] = True

    def finished(self, of_all: bool) -> Iterator[tuple[str, NDArray[Any]]]:
        """Variables of ``activation_summary`` with their values for the block.

        Parameters
        ----------
        of_all : bool
            Whether runs other than the baseline were recorded.
        """
        for key, values in self._values.items():
            if of_all:
                yield key, values[:BASELINE]
            if key != "cosine":
                yield f"baseline_{key}", values[BASELINE]
        if of_all and self._values:
            yield "ran", self._ran[:BASELINE]
