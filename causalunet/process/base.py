"""What every process is: the scale of x, and what a subclass says beyond it.

A process is a function of alpha_bar, the share of signal variance, alone: so schedules, spacings and stores tell the
time of all processes alike. Its arithmetic is that of tensors and of NumPy's arrays alike: no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.errors import ModelError, SpecError
from causalunet.registry import Registry

__all__ = ["PROCESSES", "SCALES", "VARIANCE_PRESERVING", "Process", "Shift", "Weights"]

SCALES: dict[str, Callable[[float, float], float]] = {
    "variance-preserving": lambda signal, noise: 1.0,
    "variance-exploding": lambda signal, noise: 1 / signal,
    "straight": lambda signal, noise: 1 / (signal + noise),
}
"""Scale of x where its signal and noise have these shares as standard deviations: their squares add up to 1.

Ho et al. 2020, and the trigonometric interpolant of Albergo et al. 2023, preserve the variance; Song et al. 2021 and
Karras et al. 2022 leave the signal as it is; flow matching (Lipman et al. 2023; Liu et al. 2023) goes along the
straight line (1 - t) x_0 + t eps.
"""

PROCESSES: Registry[type[Process]] = Registry("process", "causalunet.processes", ModelError)
"""Every class of processes that this process knows, by name."""


class Weights(NamedTuple):
    """What x_t, as the U-Net is given it, is made of: image x_0 + given u + noise eps.

    Attributes
    ----------
    image, given, noise : float
        Weights of the image, of the image that the model is given, and of standard normal noise.
    """

    image: float
    given: float
    noise: float


class Shift(NamedTuple):
    """How x_t differs from that of a plain process, in what the U-Net is given; u is a given image and R = u - x_0.

    The shift is given u + residual R, and the image that the plain process leads from is x_0 - image R.

    Attributes
    ----------
    given, residual, image : float
    """

    given: float
    residual: float
    image: float


@clear_calls
@dataclass(frozen=True, slots=True)
class Process:
    """How large x is along the way from image to noise. Subclasses say what else a state has.

    Parameters
    ----------
    of : str
        How large: ``"variance-preserving"``, ``"variance-exploding"`` or ``"straight"``.

    Attributes
    ----------
    name : str
        Its name in JSON and in stored results; ``"scale"`` is of those that have nothing but a scale.
    shifted : bool
        Whether states are shifted by an image that the model is given, see `shift`.
    split : bool
        Whether coordinates of a state have noise of their own, see `basis`, `bands` and `shares`.
    resized : bool
        Whether the U-Net is given states of another size, see `halvings`; such a process is split.

    Raises
    ------
    ModelError
        There is no such process.
    """

    name: ClassVar[str] = "scale"
    shifted: ClassVar[bool] = False
    split: ClassVar[bool] = False
    resized: ClassVar[bool] = False

    of: str = "variance-preserving"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(Process, cls).__init_subclass__(**kwargs)
        if cls.name != Process.name:
            PROCESSES.register(cls.name, cls)

    def __post_init__(self) -> None:
        if self.of not in SCALES:
            raise ModelError(f"A process {self.of!r} is not known; known: {', '.join(SCALES)}.")

    def __str__(self) -> str:
        """In words: of those that have nothing but a scale, as stores name it."""
        if self.name == Process.name:
            return self.of
        told = ", ".join(f"{name}={value}" for name, value in self.to_json()["configuration"].items())
        return f"{self.name}({told})"

    def scale(self, alpha_bar: float) -> float:
        """Root of the variance of x, for data of variance 1.

        Parameters
        ----------
        alpha_bar : float
            Share of signal variance, 0 to 1; above 0 where the variance explodes.
        """
        return SCALES[self.of](math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))

    def change(self, alpha_bar: float) -> Weights:
        """Weights in what is predicted as the velocity: of a straight line, eps - x_0."""
        return Weights(-1.0, 0.0, 1.0)

    def shift(self, alpha_bar: float) -> Shift:
        """How x_t differs from that of a plain process; nothing at the image, where `Shift.given` is 0.

        Asked for where the process is ``shifted``.
        """
        return Shift(0.0, 0.0, 0.0)

    def weights(self, alpha_bar: float) -> Weights:
        """What x_t, as the U-Net is given it, is made of."""
        scale = self.scale(alpha_bar)
        signal, noise = scale * math.sqrt(alpha_bar), scale * math.sqrt(1 - alpha_bar)
        if not self.shifted:
            return Weights(signal, 0.0, noise)
        given, residual, image = self.shift(alpha_bar)
        of_residual = residual - signal * image
        return Weights(signal - of_residual, given + of_residual, noise)

    def basis(self, size: int) -> NDArray[np.float64]:
        """Orthonormal rows, (coordinate, size): coordinates of an image are basis @ image @ basis' along y and x.

        Asked for where the process is ``split``.

        Raises
        ------
        ModelError
            There is none for that size.
        """
        return np.eye(size)

    def bands(self, height: int, width: int) -> NDArray[np.int64]:
        """Number from 0 of every coordinate's band, (y, x); those of a band always have the same noise."""
        return np.zeros((height, width), np.int64)

    def shares(self, alpha_bar: float, height: int, width: int) -> NDArray[np.float64]:
        """Share of signal variance of every band, (band,); 1 at the image and only there."""
        return np.array([alpha_bar])

    def halvings(self, alpha_bar: float) -> int:
        """How often the sides of a state are halved before the U-Net is given it."""
        return 0

    def to_json(self) -> Any:
        """Write as ``{"name": ..., "configuration": {...}}``, or, where it has nothing but a scale, as text."""
        if self.name == Process.name:
            return self.of
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        written = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"name": self.name, "configuration": written}

    @staticmethod
    def from_json(value: Any) -> Process:
        """Read what `to_json` wrote.

        Raises
        ------
        ModelError
            The name is not known or the configuration does not fit.
        """
        if isinstance(value, str):
            return Process(value)
        if not isinstance(value, dict) or set(value) != {"name", "configuration"}:
            raise ModelError(f"{json.dumps(value):.100} is no process; give its name and configuration.")
        kind: Any = PROCESSES[value["name"]]
        given = value["configuration"]
        if not isinstance(given, dict):
            raise ModelError(f"The process {value['name']!r} has a configuration {json.dumps(given):.100}.")
        try:
            return kind(**{name: tuple(one) if isinstance(one, list) else one for name, one in given.items()})
        except (SpecError, TypeError, ValueError) as error:
            raise ModelError(f"The process {value['name']!r} cannot be read: {error!s:.200}") from error


PROCESSES.register(Process.name, Process)

VARIANCE_PRESERVING = Process()
"""Of models that do not say what theirs is."""
