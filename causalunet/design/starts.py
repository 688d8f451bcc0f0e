"""Starts: where a sample's run begins, and which noise it draws."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.limits import LARGEST, is_integer, plain_number, shown
from causalunet.design.named import class_named, write_named
from causalunet.errors import SpecError
from causalunet.noise import initial_noise
from causalunet.registry import Registry

__all__ = ["STARTS", "Noise", "Start", "first_states", "start_of"]

STARTS: Registry[type[Start]] = Registry("start", "causalunet.starts")
"""Every start that this process knows, by name."""


@clear_calls
@dataclass(frozen=True, slots=True)
class Start:
    """Base of every start. A subclass names itself and says `state`.

    Parameters
    ----------
    seed : int
        Names the noise that is drawn at every step.

    Attributes
    ----------
    name : str
        Its name in JSON and in stored results.
    """

    name: ClassVar[str] = ""

    seed: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(Start, cls).__init_subclass__(**kwargs)
        if cls.name != Start.name:
            STARTS.register(cls.name, cls)

    def __post_init__(self) -> None:
        STARTS.check_named(self, "name", self.name)
        for entry in fields(self):
            object.__setattr__(self, entry.name, plain_number(getattr(self, entry.name)))
        if not is_integer(self.seed) or not 0 <= self.seed <= LARGEST:
            raise SpecError(
                f"{type(self).__name__} got seed={shown(self.seed)}; it must be an integer of at least 0, below 2**63."
            )

    def state(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The state x_T that the run of a sample begins with; the same whatever is sampled beside it.

        Parameters
        ----------
        shape : tuple of int
            (channel, y, x).

        Returns
        -------
        ndarray of float32, (channel, y, x)
            Numbers such as standard normal ones: what x is where nothing is left of the image.
        """
        raise NotImplementedError(self.name)

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {...}}``."""
        return write_named(self)

    @staticmethod
    def from_json(value: Any) -> Start:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError
            The name is not known or the configuration does not fit.
        """
        kind, configuration = class_named(STARTS, value)
        return kind(**configuration)


@clear_calls
@dataclass(frozen=True, slots=True)
class Noise(Start):
    """Standard normal noise, named by a seed as that of every step is: what ``seeds=`` of a study stand for.

    Parameters
    ----------
    seed : int
    """

    name: ClassVar[str] = "noise"

    def state(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The noise of the seed before any step."""
        return initial_noise([self.seed], shape)[0]


def start_of(value: Any) -> Start:
    """A start, or the noise of a seed.

    Raises
    ------
    SpecError
        It is neither.
    """
    return value if isinstance(value, Start) else Noise(value)


def first_states(starts: Iterable[Start], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The x_T of some samples, (sample, channel, y, x).

    Raises
    ------
    SpecError
        A start gives something else than an array of that shape and type, or numbers that are not finite.
    """
    states = []
    for start in starts:
        state: Any = start.state(shape)
        if not isinstance(state, np.ndarray) or state.shape != shape or state.dtype != np.float32:
            found = f"{state.shape} {state.dtype}" if isinstance(state, np.ndarray) else f"a {type(state).__name__}"
            raise SpecError(f"The start {start.name!r} gave {found}; state() has to give an array {shape} of float32.")
        if not math.isfinite(float(np.abs(state).max())):
            raise SpecError(f"The start {start.name!r} gave numbers that are not finite.")
        states.append(state)
    return np.stack(states)
