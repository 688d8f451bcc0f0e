"""The noise schedule as numbers: alpha_bar over training timesteps, and the timestep of every step.

No torch: plans and stored results carry these as coordinates along ``step``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import ModelError, SpecError

__all__ = ["Level", "Schedule", "cosine_alpha_bar", "linear_alpha_bar", "spaced_timesteps"]


def cosine_alpha_bar(timesteps: int = 1000, max_beta: float = 0.999) -> NDArray[np.float64]:
    """Squared-cosine schedule (Nichol & Dhariwal 2021, equation 17), as used by GLIDE's base model.

    Returns
    -------
    ndarray of float64, (timestep,)
        Share of signal variance left at every training timestep.
    """
    grid = np.arange(timesteps + 1) / timesteps
    share = np.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.asarray(np.cumprod(1 - np.minimum(1 - share[1:] / share[:-1], max_beta)), dtype=np.float64)


def linear_alpha_bar(timesteps: int = 1000) -> NDArray[np.float64]:
    """Linear schedule of Ho et al. 2020, scaled to the number of timesteps.

    Returns
    -------
    ndarray of float64, (timestep,)
    """
    scale = 1000 / timesteps
    return np.asarray(np.cumprod(1 - np.linspace(scale * 0.0001, scale * 0.02, timesteps)), dtype=np.float64)


def spaced_timesteps(timesteps: int, steps: int) -> NDArray[np.int64]:
    """Spread ``steps`` over the training timesteps, both ends included (Nichol & Dhariwal 2021, section 4).

    Returns
    -------
    ndarray of int, (step,)
        Ascending training timesteps; entry ``t - 1`` belongs to step ``t``.
    """
    if not 1 <= steps <= timesteps:
        raise SpecError(f"{steps} sampling steps asked; the model has 1 to {timesteps} timesteps to choose from.")
    stride = (timesteps - 1) / (steps - 1) if steps > 1 else 1.0
    # Python's round, half to even and accumulated, is what the official sampler does.
    position, chosen = 0.0, []
    for _ in range(steps):
        chosen.append(round(position))
        position += stride
    return np.asarray(chosen, dtype=np.int64)


class Level(NamedTuple):
    """How noisy a state is.

    Attributes
    ----------
    timestep : float
        Training timestep that the U-Net is told; nothing is asked of it at the image, whose is -1.
    alpha_bar : float
        Share of signal variance; 1 at the image.
    """

    timestep: float
    alpha_bar: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Training timestep and alpha_bar of every step T ... 1, and of the image, step 0.

    Parameters
    ----------
    timesteps : tuple of int
        Training timestep of step 1, 2, ..., T.
    alpha_bars : tuple of float
        alpha_bar of step 0 (the image, 1.0), 1, ..., T.
    """

    timesteps: tuple[int, ...]
    alpha_bars: tuple[float, ...]

    @classmethod
    def spaced(cls, alpha_bar: NDArray[np.float64], steps: int) -> Schedule:
        """Take ``steps`` evenly spaced timesteps of a training schedule.

        Raises
        ------
        SpecError
            There are more steps than timesteps.
        ModelError
            The shares of signal do not fall from below 1 to above 0.
        """
        chosen = spaced_timesteps(len(alpha_bar), steps)
        shares = np.asarray(alpha_bar, dtype=np.float64)[chosen]
        if not (np.diff(shares, prepend=1.0, append=0.0) < 0).all():
            raise ModelError(
                f"The model's alpha_bar, the share of signal variance left at every training timestep, goes from "
                f"{shares[0]:.3g} to {shares[-1]:.3g} over the steps. It has to fall from below 1 and end above 0: at "
                "0 nothing of the image is left to estimate it from, and equal shares have no noise between them."
            )
        return cls(tuple(chosen.tolist()), (1.0, *alpha_bar[chosen].tolist()))

    @property
    def steps(self) -> int:
        """Number of steps, T."""
        return len(self.timesteps)

    def timestep(self, step: int) -> int:
        """Training timestep of a step in 1 ... T."""
        return self.timesteps[step - 1]

    def alpha_bar(self, step: int) -> float:
        """Share of signal variance in x at a step in 0 ... T."""
        return self.alpha_bars[step]

    def level(self, step: int) -> Level:
        """Noise level of a step in 0 ... T."""
        return Level(float(self.timesteps[step - 1]) if step else -1.0, self.alpha_bars[step])

    def log_snr(self, step: int) -> float:
        """Logarithm of signal variance over noise variance at a step in 1 ... T."""
        alpha_bar = self.alpha_bars[step]
        return math.log(alpha_bar / (1 - alpha_bar))
