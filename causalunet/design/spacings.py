"""Spacings: at which timesteps of its training the steps of a run lie, whole ones or between."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.limits import MOST_STEPS, is_integer, is_number, plain_number, shown
from causalunet.design.named import read_named, write_named
from causalunet.errors import SpecError
from causalunet.registry import Registry
from causalunet.schedule import TrainingSchedule, spaced_timesteps

__all__ = ["SPACINGS", "Beta", "Exponential", "Given", "Karras", "Leading", "Linspace", "Spacing", "Trailing"]

SPACINGS: Registry[type[Spacing]] = Registry("spacing", "causalunet.spacings")
"""Every spacing that this process knows, by name."""

_NEAR = 1e-7
"""A timestep as near as this to a whole one is that one: powers and logarithms do not come back to the last bit."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """Base of every spacing. A subclass names itself and says `times`.

    Attributes
    ----------
    name : str
        Its name in JSON and in stored results.
    count : int or None
        How many steps it has, where it says so itself.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(Spacing, cls).__init_subclass__(**kwargs)
        if cls.name != Spacing.name:
            SPACINGS.register(cls.name, cls)

    def __post_init__(self) -> None:
        SPACINGS.check_named(self, "name", self.name)
        for entry in fields(self):
            object.__setattr__(self, entry.name, plain_number(getattr(self, entry.name)))

    @property
    def count(self) -> int | None:
        """How many steps it has, where it says so itself."""
        return None

    def times(self, training: TrainingSchedule, steps: int) -> Sequence[float]:
        """Say where the steps of a run lie.

        Parameters
        ----------
        training : TrainingSchedule
            Of the model.
        steps : int
            How many.

        Returns
        -------
        sequence of float
            Training timesteps from the first step of the run, the noisiest, to the last; whole ones or between.

        Raises
        ------
        SpecError
            The model was not trained at as many, or not there.
        """
        raise NotImplementedError(self.name)

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {...}}``."""
        return write_named(self)

    @staticmethod
    def from_json(value: Any) -> Spacing:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError
            The name is not known or the configuration does not fit.
        """
        return read_named(SPACINGS, value)


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Linspace(Spacing):
    """Equal strides from the noisiest timestep to timestep 0 (Nichol & Dhariwal 2021, section 4).

    Parameters
    ----------
    whole : bool
        Round to whole timesteps.
    last : bool
        End at timestep 0. Otherwise a step before it, as if there were one step more, which is left out: so DPM-Solver
        and UniPC space in diffusers.
    """

    name: ClassVar[str] = "linspace"

    whole: bool = True
    last: bool = True

    def __post_init__(self) -> None:
        super(Linspace, self).__post_init__()
        _check_truths(self, "whole", "last")

    def times(self, training: TrainingSchedule, steps: int) -> Sequence[float]:
        """Equal strides."""
        if self.whole and self.last:
            return _plain(spaced_timesteps(training.timesteps, steps)[::-1])
        total = steps + (not self.last)
        _stride(training, total)
        found = np.linspace(0, training.timesteps - 1, total)[total - steps :] if total > 1 else np.zeros(1)
        return _plain((found.round() if self.whole else found)[::-1])


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Leading(Spacing):
    """Multiples of a whole stride, from timestep 0 upwards; the noisiest timesteps are not asked.

    Parameters
    ----------
    offset : int
        Added to all of them; 1 in Stable Diffusion.
    last : bool
        Begin at timestep 0. Otherwise a stride above it, as if there were one step more, which is left out: so
        DPM-Solver and UniPC space in diffusers.

    Notes
    -----
    Lin et al. 2024 ("Common diffusion noise schedules and sample steps are flawed"), table 2.
    """

    name: ClassVar[str] = "leading"

    offset: int = 0
    last: bool = True

    def __post_init__(self) -> None:
        super(Leading, self).__post_init__()
        _check_truths(self, "last")
        if not is_integer(self.offset) or not 0 <= self.offset <= MOST_STEPS:
            raise SpecError(f"Leading got offset={shown(self.offset)}; it must be an integer in 0 ... {MOST_STEPS:,}.")

    def times(self, training: TrainingSchedule, steps: int) -> Sequence[float]:
        """Multiples of a stride."""
        total = steps + (not self.last)
        return _plain((np.arange(total - steps, total) * _stride(training, total) + self.offset)[::-1])


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Trailing(Spacing):
    """A stride at a time downwards from the noisiest timestep; timestep 0 is not asked.

    Notes
    -----
    Lin et al. 2024 ("Common diffusion noise schedules and sample steps are flawed"), table 2.
    """

    name: ClassVar[str] = "trailing"

    def times(self, training: TrainingSchedule, steps: int) -> Sequence[float]:
        """Round multiples of a stride, less one."""
        _stride(training, steps)
        stride = training.timesteps / steps
        return _plain((training.timesteps - stride * np.arange(steps)).round() - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfSigma(Spacing):
    """Spacings that are said of sigma, the ratio of noise to signal (Karras et al. 2022)."""

    sigma_min: float | None = None
    sigma_max: float | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        super(_OfSigma, self).__post_init__()
        _check_truths(self, "whole")
        kind = type(self).__name__
        for name in ("sigma_min", "sigma_max"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _above_zero(kind, name, value))
        if self.sigma_min is not None and self.sigma_max is not None and self.sigma_min >= self.sigma_max:
            raise SpecError(f"{kind} got sigma_min={self.sigma_min:g} and sigma_max={self.sigma_max:g}; it rises.")

    @abstractmethod
    def _sigmas(self, least: float, most: float, steps: int) -> NDArray[np.float64]:
        """From the most to the least."""

    def times(self, training: TrainingSchedule, steps: int) -> Sequence[float]:
        """Timesteps that were trained with these ratios of noise to signal."""
        first, last = training.level(0), training.level(training.timesteps - 1)
        least = first.sigma if self.sigma_min is None else self.sigma_min
        most = last.sigma if self.sigma_max is None else self.sigma_max
        found = [training.level_of(-2 * math.log(sigma)).timestep for sigma in self._sigmas(least, most, steps)]
        return _plain(np.round(found) if self.whole else np.asarray(found))


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Karras(_OfSigma):
    """Equal strides of sigma ** (1 / rho) (Karras et al. 2022, equation 5); timesteps are not whole.

    Parameters
    ----------
    rho : float
        1 makes equal strides of sigma itself, and large values those of its logarithm.
    sigma_min, sigma_max : float, optional
        Ratios of noise to signal of the last step and the first; by default those of the model's training.
    whole : bool
        Round to whole timesteps.
    """

    name: ClassVar[str] = "karras"

    rho: float = 7.0

    def __post_init__(self) -> None:
        super(Karras, self).__post_init__()
        object.__setattr__(self, "rho", _above_zero("Karras", "rho", self.rho))

    def _sigmas(self, least: float, most: float, steps: int) -> NDArray[np.float64]:
        power = 1 / self.rho
        return np.asarray(np.linspace(most**power, least**power, steps) ** self.rho, dtype=np.float64)


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential(_OfSigma):
    """Equal strides of log sigma, and so of log SNR; timesteps are not whole.

    Parameters
    ----------
    sigma_min, sigma_max : float, optional
        Ratios of noise to signal of the last step and the first; by default those of the model's training.
    whole : bool
        Round to whole timesteps.
    """

    name: ClassVar[str] = "exponential"

    def _sigmas(self, least: float, most: float, steps: int) -> NDArray[np.float64]:
        return np.asarray(np.exp(np.linspace(math.log(most), math.log(least), steps)), dtype=np.float64)


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Beta(_OfSigma):
    """Sigma at equal strides of a beta distribution's quantiles: dense at both ends; timesteps are not whole.

    Parameters
    ----------
    alpha, beta : float
        Of the distribution.
    sigma_min, sigma_max : float, optional
        Ratios of noise to signal of the last step and the first; by default those of the model's training.
    whole : bool
        Round to whole timesteps.

    Notes
    -----
    Lee et al. 2024 ("Beta Sampling is All You Need") space timesteps so; of sigma, as here, diffusers does.
    """

    name: ClassVar[str] = "beta"

    alpha: float = 0.6
    beta: float = 0.6

    def __post_init__(self) -> None:
        super(Beta, self).__post_init__()
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, _above_zero("Beta", name, getattr(self, name)))

    def _sigmas(self, least: float, most: float, steps: int) -> NDArray[np.float64]:
        from scipy.special import betaincinv  # slow to import, and seldom needed

        quantiles = betaincinv(self.alpha, self.beta, np.linspace(1, 0, steps))
        return np.asarray(least + quantiles * (most - least), dtype=np.float64)


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Given(Spacing):
    """Timesteps that are written down one by one.

    Parameters
    ----------
    timesteps : iterable of float
        From the first step of the run, the noisiest, to the last; whole ones or between.
    """

    name: ClassVar[str] = "given"

    timesteps: tuple[float, ...]

    def __post_init__(self) -> None:
        super(Given, self).__post_init__()
        given: Any = self.timesteps
        try:
            values = [plain_number(value) for value in given]
        except TypeError:
            values = []
        if not 1 <= len(values) <= MOST_STEPS or not all(is_number(value) and value >= 0 for value in values):
            raise SpecError(
                f"Given got timesteps={shown(given)}; give 1 to {MOST_STEPS:,} numbers of at least 0, the noisiest "
                "timestep first."
            )
        if rising := next((pair for pair in itertools.pairwise(values) if pair[0] <= pair[1]), None):
            raise SpecError(
                f"Given got timestep {rising[1]:g} after {rising[0]:g}; a run goes down from the noisiest timestep, "
                "and asks at none twice."
            )
        object.__setattr__(self, "timesteps", tuple(_plain(np.asarray(values, dtype=np.float64))))

    @property
    def count(self) -> int:
        """As many as are given."""
        return len(self.timesteps)

    def times(self, training: TrainingSchedule, steps: int) -> Sequence[float]:
        """Those that are given."""
        return self.timesteps

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {...}}``."""
        return {"name": self.name, "configuration": {"timesteps": list(self.timesteps)}}


def _plain(times: NDArray[Any]) -> list[float]:
    """Python's numbers; integers where all are whole."""
    whole = np.round(times)
    if np.all(np.abs(times - whole) <= _NEAR):
        return [int(time) for time in whole]
    return [float(time) for time in np.where(np.abs(times - whole) <= _NEAR, whole, times)]


def _stride(training: TrainingSchedule, steps: int) -> int:
    """How many timesteps a whole stride has.

    Raises
    ------
    SpecError
        There are more steps than timesteps.
    """
    if steps > training.timesteps:
        raise SpecError(
            f"{steps} sampling steps asked; the model has 1 to {training.timesteps} timesteps to choose from."
        )
    return training.timesteps // steps


def _above_zero(kind: str, name: str, value: Any) -> float:
    if not is_number(value) or value <= 0:
        raise SpecError(f"{kind} got {name}={shown(value)}; it must be a finite number above 0.")
    return float(value)


def _check_truths(spacing: Spacing, *names: str) -> None:
    for name in names:
        if not isinstance(value := getattr(spacing, name), bool):
            raise SpecError(f"{type(spacing).__name__} got {name}={shown(value)}; it is True or False.")
