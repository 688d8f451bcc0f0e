"""The noise schedule as numbers: alpha_bar over training time, and the timestep of every step.

No torch: plans and stored results carry these as coordinates along ``step``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import ModelError, SpecError
from causalunet.process import VARIANCE_PRESERVING, Process

__all__ = [
    "Level",
    "Schedule",
    "TrainingSchedule",
    "cosine_alpha_bar",
    "exploding_alpha_bar",
    "linear_alpha_bar",
    "shifted_alpha_bar",
    "spaced_timesteps",
    "straight_alpha_bar",
    "training_schedule",
    "trigonometric_alpha_bar",
]

_ROUNDING = 1e-9
"""Of log SNR: what is computed of the ends of a schedule does not come back to the last bit."""


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


def shifted_alpha_bar(alpha_bar: NDArray[np.float64], shift: float) -> NDArray[np.float64]:
    """Schedule with another log SNR at every timestep (Hoogeboom, Heek & Salimans 2023, section 3.1).

    The same noise leaves less to be seen of an image with fewer pixels: there are fewer neighbours to average it over.
    What a schedule shows of an image at 64 x 64 pixels, a shift of 2 log(64 / d) shows of it at d x d.

    Parameters
    ----------
    alpha_bar : ndarray of float64, (timestep,)
        Share of signal variance at every training timestep.
    shift : float
        Added to log SNR, the natural logarithm of signal variance over noise variance: more signal if positive.

    Returns
    -------
    ndarray of float64, (timestep,)

    Raises
    ------
    SpecError
        The shift is no finite number.
    """
    if not math.isfinite(shift):
        raise SpecError(f"A schedule's log SNR can be shifted by a finite number; got {shift}.")
    share = np.asarray(alpha_bar, dtype=np.float64)
    # exact where nothing is shifted, and at the ends
    raised = share * math.exp(shift / 2)
    return np.asarray(raised / (raised + (1 - share) * math.exp(-shift / 2)), dtype=np.float64) if shift else share


def straight_alpha_bar(timesteps: int = 1000) -> NDArray[np.float64]:
    """Straight line from image to noise, of the process ``"straight"``: timestep i lies at t = (i + 1) / timesteps.

    The last one is noise alone.

    Returns
    -------
    ndarray of float64, (timestep,)
        (1 - t)^2 / ((1 - t)^2 + t^2) (Lipman et al. 2023; Liu et al. 2023).
    """
    t = np.arange(1, timesteps + 1) / timesteps
    return np.asarray((1 - t) ** 2 / ((1 - t) ** 2 + t**2), dtype=np.float64)


def trigonometric_alpha_bar(timesteps: int = 1000) -> NDArray[np.float64]:
    """Trigonometric interpolant, cos(pi t / 2) x_0 + sin(pi t / 2) eps, at t = (i + 1) / timesteps.

    It preserves the variance; the last timestep is noise alone.

    Returns
    -------
    ndarray of float64, (timestep,)
        cos(pi t / 2)^2 (Albergo & Vanden-Eijnden 2023).
    """
    t = np.arange(1, timesteps + 1) / timesteps
    # of sines: what is left at t = 1 is 0 then, and not a rounding of it
    return np.asarray(np.sin(math.pi / 2 * (1 - t)) ** 2, dtype=np.float64)


def exploding_alpha_bar(
    timesteps: int = 1000, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> NDArray[np.float64]:
    """Geometric sigmas, of the process ``"variance-exploding"``: x = x_0 + sigma eps.

    Parameters
    ----------
    timesteps : int
    sigma_min, sigma_max : float
        Of the first timestep and the last; by default those of Karras et al. 2022, table 1.

    Returns
    -------
    ndarray of float64, (timestep,)
        1 / (1 + sigma^2) (Song et al. 2021, equation 30).
    """
    return np.asarray(1 / (1 + np.geomspace(sigma_min, sigma_max, timesteps) ** 2), dtype=np.float64)


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
        Share of signal variance; 1 at the image, and 0 where there is noise alone.
    scale : float
        What x is multiplied by before the U-Net is given it, see `causalunet.process.Process`. Samplers see x before
        that, whose variance is preserved, and need not ask.
    """

    timestep: float
    alpha_bar: float
    scale: float = 1.0

    @property
    def signal(self) -> float:
        """What x_0 is multiplied by in what the U-Net is given."""
        return self.scale * math.sqrt(self.alpha_bar)

    @property
    def noise(self) -> float:
        """What the noise is multiplied by in what the U-Net is given."""
        return self.scale * math.sqrt(1 - self.alpha_bar)

    @property
    def log_snr(self) -> float:
        """Logarithm of signal variance over noise variance; infinite at the image and at noise alone."""
        if self.alpha_bar in (0, 1):
            return math.inf if self.alpha_bar else -math.inf
        return math.log(self.alpha_bar / (1 - self.alpha_bar))

    @property
    def sigma(self) -> float:
        """Noise over signal, sigma of Karras et al. 2022; 0 at the image, infinite at noise alone."""
        return math.sqrt((1 - self.alpha_bar) / self.alpha_bar) if self.alpha_bar else math.inf


class TrainingSchedule:
    """alpha_bar over training time, between the timesteps too.

    Parameters
    ----------
    alpha_bar : ndarray of float64, (timestep,)
        Share of signal variance left at every training timestep.
    process : Process
        Says how large x is.
    from_noise : bool
        Whether the model can be asked where no signal is left: one that predicts the noise says nothing of the image
        there.
    end : float
        Share of signal variance at which runs end: 1, the image itself, or a little less, as schedulers of diffusers
        end at that of the first timestep with ``set_alpha_to_one=False``.

    Notes
    -----
    Between two timesteps the logarithm of the ratio of signal to noise is a straight line in time, which is that of
    sigma = sqrt((1 - alpha_bar) / alpha_bar): so it is in k-diffusion's ``DiscreteSchedule`` and in ``_sigma_to_t`` of
    the schedulers of diffusers (after Karras et al. 2022). Of a straight process that line is t = sigma / (1 + sigma).
    """

    def __init__(
        self,
        alpha_bar: NDArray[np.float64],
        process: Process = VARIANCE_PRESERVING,
        *,
        from_noise: bool = False,
        end: float = 1.0,
    ) -> None:
        self._alpha_bar = np.asarray(alpha_bar, dtype=np.float64)
        self._process, self._from_noise, self._end = process, from_noise, end
        with np.errstate(divide="ignore", invalid="ignore"):  # what is no share is told by what checks the model
            self._log_snr = np.log(self._alpha_bar) - np.log1p(-self._alpha_bar)
        # what is a straight line in time between two timesteps, and falls
        self._line = 1 / (1 + np.exp(-self._log_snr / 2)) if self._is_straight else self._log_snr

    @property
    def alpha_bar(self) -> NDArray[np.float64]:
        """Share of signal variance left at every training timestep, (timestep,)."""
        return self._alpha_bar

    @property
    def process(self) -> Process:
        """Of the training."""
        return self._process

    @property
    def from_noise(self) -> bool:
        """Whether the model can be asked where no signal is left."""
        return self._from_noise

    @property
    def end(self) -> float:
        """Share of signal variance at which runs end."""
        return self._end

    @property
    def timesteps(self) -> int:
        """Number of training timesteps, which count from 0."""
        return len(self._alpha_bar)

    def level(self, timestep: float) -> Level:
        """Noise level at a timestep, whole or between two.

        Raises
        ------
        SpecError
            It lies outside 0 ... ``timesteps`` - 1.
        """
        last = self.timesteps - 1
        if not 0 <= timestep <= last:
            raise SpecError(f"The noise at timestep {timestep:g} was asked for; the model was trained at 0 to {last}.")
        below = int(timestep)
        if timestep == below:
            return self._made(float(timestep), float(self._alpha_bar[below]))
        share = timestep - below
        on_line = (1 - share) * float(self._line[below]) + share * float(self._line[below + 1])
        return self._made(float(timestep), _share_of_signal(on_line) if self._is_straight else _sigmoid(on_line))

    def level_of(self, log_snr: float) -> Level:
        """Noise level of a ratio of signal to noise, with the timestep at which it was trained.

        Parameters
        ----------
        log_snr : float
            As of `Level.log_snr`.

        Raises
        ------
        SpecError
            There is more or less noise than at any timestep.
        """
        least, most = float(self._log_snr[-1]), float(self._log_snr[0])
        if not least - _ROUNDING <= log_snr <= most + _ROUNDING:
            raise SpecError(
                f"The timestep of log SNR {log_snr:.4g} was asked for; the model was trained from {least:.4g} to "
                f"{most:.4g}."
            )
        log_snr = min(max(log_snr, least), most)
        on_line = _sigmoid(log_snr / 2) if self._is_straight else log_snr
        timestep = float(np.interp(on_line, self._line[::-1], np.arange(self.timesteps)[::-1]))
        return self._made(timestep, _sigmoid(log_snr))

    @property
    def _is_straight(self) -> bool:
        return self._process.of == "straight"

    def _made(self, timestep: float, alpha_bar: float) -> Level:
        if alpha_bar < 0 or alpha_bar > 1:
            raise ModelError(
                "The model's alpha_bar, the share of signal variance left at every training timestep, is "
                f"{alpha_bar:.3g} at timestep {timestep:g}. It has to fall from below 1 and end above 0."
            )
        return Level(timestep, alpha_bar, self._process.scale(alpha_bar))


def training_schedule(given: NDArray[np.float64] | TrainingSchedule) -> TrainingSchedule:
    """Of a schedule that preserves the variance its alpha_bar, (timestep,), says all."""
    return given if isinstance(given, TrainingSchedule) else TrainingSchedule(given)


def _sigmoid(value: float) -> float:
    return 0.0 if value == -math.inf else 1 / (1 + math.exp(-value))


def _share_of_signal(signal: float) -> float:
    """Share of variance, of a straight process: its signal and noise add up to 1."""
    return signal**2 / (signal**2 + (1 - signal) ** 2)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Training timestep and alpha_bar of every step T ... 1, and of the image, step 0.

    Parameters
    ----------
    timesteps : tuple of int, or of float
        Training timestep of step 1, 2, ..., T: integers where all are whole.
    alpha_bars : tuple of float
        alpha_bar of step 0 (the image, 1.0 unless runs end before), 1, ..., T.
    process : Process
        Says how large x is.
    """

    timesteps: tuple[float, ...]
    alpha_bars: tuple[float, ...]
    process: Process = VARIANCE_PRESERVING

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
        return cls.at(alpha_bar, spaced_timesteps(len(alpha_bar), steps)[::-1].tolist())

    @classmethod
    def at(cls, alpha_bar: NDArray[np.float64] | TrainingSchedule, timesteps: Sequence[float]) -> Schedule:
        """Take timesteps of a training schedule, whole ones or between.

        Parameters
        ----------
        alpha_bar : ndarray of float64, (timestep,), or TrainingSchedule
        timesteps : sequence of float
            From the first step of the run, the noisiest, to the last.

        Raises
        ------
        SpecError
            One lies outside the training schedule, stands twice, or is not below that of the step before.
        ModelError
            The shares of signal do not fall from below 1 to above 0.
        """
        training, steps = training_schedule(alpha_bar), len(timesteps)
        for passed, (one, other) in enumerate(itertools.pairwise(timesteps)):
            if not one > other:
                raise SpecError(
                    f"Steps {steps - passed} and {steps - passed - 1} of {steps} lie at timesteps {one:g} and "
                    f"{other:g} of the model's {training.timesteps}; every step has to lie below the one before. Ask "
                    "for fewer steps, or space them otherwise."
                )
        levels = [training.level(time) for time in reversed(timesteps)]
        shares = [level.alpha_bar for level in levels]
        falls = np.diff(shares, prepend=training.end, append=-1.0 if training.from_noise else 0.0)
        # A run that ends at the noise of its last step has nothing left to do there.
        if not (falls[1:] < 0).all() or falls[0] > 0 or (falls[0] == 0 and training.end == 1):
            raise ModelError(
                f"The model's alpha_bar, the share of signal variance left at every training timestep, goes from "
                f"{shares[0]:.3g} to {shares[-1]:.3g} over the steps. It has to fall from below 1 and end above 0: at "
                "0 nothing of the image is left to estimate it from, and equal shares have no noise between them."
            )
        whole = all(level.timestep.is_integer() for level in levels)
        times = tuple(int(level.timestep) if whole else level.timestep for level in levels)
        return cls(times, (training.end, *shares), training.process)

    @property
    def steps(self) -> int:
        """Number of steps, T."""
        return len(self.timesteps)

    def timestep(self, step: int) -> float:
        """Training timestep of a step in 1 ... T."""
        return self.timesteps[step - 1]

    def alpha_bar(self, step: int) -> float:
        """Share of signal variance in x at a step in 0 ... T."""
        return self.alpha_bars[step]

    def level(self, step: int) -> Level:
        """Noise level of a step in 0 ... T."""
        share = self.alpha_bars[step]
        return Level(float(self.timesteps[step - 1]) if step else -1.0, share, self.process.scale(share))

    def log_snr(self, step: int) -> float:
        """Logarithm of signal variance over noise variance at a step in 1 ... T."""
        return self.level(step).log_snr
