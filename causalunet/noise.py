"""Common random numbers: the noise of a sample at a step is a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["initial_noise", "step_noise"]

_STAGES = 32  # bits: more steps than any run has
_INITIAL = 0  # steps count from 1, so 0 names x_T, whatever T is


def step_noise(seeds: Iterable[int], step: int, shape: tuple[int, ...], stage: int = 0) -> NDArray[np.float32]:
    """Standard normal noise added on the way from a step to the next.

    Parameters
    ----------
    seeds : iterable of int
        One per sample.
    step : int
        Step of the U-Net call, T ... 1.
    shape : tuple of int
        (channel, y, x).
    stage : int
        Which of a step's further U-Net calls the noise is for, from 1 on; 0 is that which ends the step.

    Returns
    -------
    ndarray of float32, (sample, channel, y, x)

    Notes
    -----
    Philox is counter-based (Salmon et al. 2011): each (seed, step) is a stream of its own, so no other sample, batch
    or skipped step can move it.
    """
    of = step + (stage << _STAGES)
    return np.stack(
        [np.random.Generator(np.random.Philox(key=[seed, of])).standard_normal(shape, np.float32) for seed in seeds]
    )


def initial_noise(seeds: Iterable[int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The x_T of every seed, (sample, channel, y, x); the same for every number of steps."""
    return step_noise(seeds, _INITIAL, shape)
