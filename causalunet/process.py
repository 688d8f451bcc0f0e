"""Processes that lead from an image to noise, by how large a state is: x = signal x_0 + noise eps.

Two processes with the same ratio of signal to noise are the same but for the scale of x and for how time is told
(Karras et al. 2022, section 2; Kingma et al. 2021, section 5.1). So a process is the scale that belongs to a share of
signal variance, and everything else - samplers, states, what is stored - is written for x of scale 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from causalunet.errors import ModelError

__all__ = ["PROCESSES", "VARIANCE_PRESERVING", "Process"]

PROCESSES: dict[str, Callable[[float, float], float]] = {
    "variance-preserving": lambda signal, noise: 1.0,
    "variance-exploding": lambda signal, noise: 1 / signal,
    "straight": lambda signal, noise: 1 / (signal + noise),
}
"""Scale of x where its signal and noise have these shares as standard deviations: their squares add up to 1.

Ho et al. 2020, and the trigonometric interpolant of Albergo et al. 2023, preserve the variance; Song et al. 2021 and
Karras et al. 2022 leave the signal as it is; flow matching (Lipman et al. 2023; Liu et al. 2023) goes along the
straight line (1 - t) x_0 + t eps.
"""


@dataclass(frozen=True, slots=True)
class Process:
    """How large x is along the way from image to noise.

    Parameters
    ----------
    of : str
        ``"variance-preserving"``, ``"variance-exploding"`` or ``"straight"``.

    Raises
    ------
    ModelError
        There is no such process.
    """

    of: str = "variance-preserving"

    def __post_init__(self) -> None:
        if self.of not in PROCESSES:
            raise ModelError(f"A process {self.of!r} is not known; known: {', '.join(PROCESSES)}.")

    def __str__(self) -> str:
        """As stores name it."""
        return self.of

    def scale(self, alpha_bar: float) -> float:
        """Root of the variance of x, for data of variance 1.

        Parameters
        ----------
        alpha_bar : float
            Share of signal variance, 0 to 1; above 0 where the variance explodes.
        """
        return PROCESSES[self.of](math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))


VARIANCE_PRESERVING = Process()
"""Of models that do not say what theirs is."""
