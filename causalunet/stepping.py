"""A sampler under a process: what is done to states before a U-Net call, to what it says, and around a step.

Runs hold states in pixels, of full size and of scale 1, whatever the process. A sampler sees plain ones: without the
shift, and coordinate by coordinate where these have noise of their own. So every sampler whose arithmetic is the same
for every number works under every process. Everything takes tensors and NumPy's arrays alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.design.samplers import Estimate, Query, Sampler, State
from causalunet.errors import SpecError
from causalunet.prediction import Prediction, Told
from causalunet.process import Process, Weights
from causalunet.schedule import Level, TrainingSchedule

__all__ = ["Frame", "Stepping", "frame_of", "grown", "shrunk"]


@dataclass(frozen=True, slots=True)
class Stepping:
    """Steps of a sampler under the process of a model.

    Parameters
    ----------
    sampler : Sampler
    training : TrainingSchedule
        Of the model; has the process.
    prediction : Prediction
        Of the model.
    """

    sampler: Sampler
    training: TrainingSchedule
    prediction: Prediction

    @property
    def process(self) -> Process:
        """Of the model."""
        return self.training.process

    def first(self, noise: Any, level: Level, given: Any) -> Any:
        """The state that a run begins with.

        Parameters
        ----------
        noise : Tensor, (sample, channel, y, x)
            Of a start.
        level : Level
            Of the first step.
        given : Tensor, (sample, channel, y, x), or None
            The image that the model is given of each sample, where its process is shifted.

        Notes
        -----
        What the state has of x_0 is not known; for data of variance 1 it is noise of as much variance.
        """
        if given is None:
            return noise
        image, of_given, of_noise = self.process.weights(level.alpha_bar)
        return (math.hypot(image, of_noise) * noise + of_given * given) / level.scale

    def put_in(self, x: Any, level: Level) -> Any:
        """What the U-Net is given of a state, but for its scale.

        Parameters
        ----------
        x : Tensor, (row, channel, y, x)
        level : Level
        """
        return shrunk(x, self.process.halvings(level.alpha_bar)) if self.process.resized else x

    def estimated(self, value: Any, x: Any, level: Level, given: Any) -> tuple[Any, Any]:
        """Say x_0 and eps by what the U-Net said of a state.

        Parameters
        ----------
        value : Tensor, (sample, channel, y, x)
        x : Tensor, (sample, channel, y, x)
            The state.
        level : Level
        given : Tensor, (sample, channel, y, x), or None
        """
        process = self.process
        if not process.split:
            return self.prediction.image_and_noise(value, x, level, self._told(level), given)
        if process.resized:
            value = grown(value, max(process.halvings(level.alpha_bar) - 1, 0))
        frame = frame_of(process, *x.shape[-2:])
        of_value, of_x = frame.coordinates(value), frame.coordinates(x)
        x0, eps = 0.0 * of_x, 0.0 * of_x
        for places, own in frame.bands(level):
            said = self.prediction.image_and_noise(of_value[..., places], of_x[..., places], own)
            x0[..., places], eps[..., places] = said
        return frame.pixels(x0), frame.pixels(eps)

    def further(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, given: Any) -> Query:
        """Say what the next U-Net call of a step is given; as `Sampler.further`, of states as runs hold them.

        Raises
        ------
        SpecError
            The sampler asks where coordinates are not at one time.
        """
        sampler, process = self.sampler, self.process
        if not (process.shifted or process.split):
            return sampler.further(state, estimates, at, to, self.training)
        plain, said = self._plain(state, estimates, given)
        if process.split:
            query = self._further_by_band(plain, said, at, to)
        else:
            query = sampler.further(plain, said, at, to, self.training)
        if not process.shifted:
            return query
        shift = self._shift(query.level, self._residual(estimates[-1], given), given)
        return Query(query.x + shift, query.level)

    def step(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, noise: Any, given: Any
    ) -> State:
        """Take one step; as `Sampler.step`, of states as runs hold them."""
        if not (self.process.shifted or self.process.split):
            return self.sampler.step(state, estimates, at, to, noise)
        x = self._moved(state, estimates, at, to, noise, given)
        past = (estimates[0]._replace(fraction=None), *state.past)
        return State(x, past[: self.sampler.history])

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, given: Any) -> Any:
        """Where a step goes, but for the noise that it draws; as `Sampler.mean`, of states as runs hold them."""
        if not (self.process.shifted or self.process.split):
            return self.sampler.mean(state, estimates, at, to)
        return self._moved(state, estimates, at, to, None, given)

    def coordinates(self, x: Any) -> Any:
        """A state in the coordinates in which steps are taken."""
        return frame_of(self.process, *x.shape[-2:]).coordinates(x) if self.process.split else x

    def implied(self, estimate: Estimate, given: Any) -> tuple[Any, float] | None:
        """The image that follows from a state and its noise, and what their rounding is multiplied by in it.

        Where nothing is left of the image that is the estimate itself, put off by what the noise is not what is left
        of the state. None where the image does not follow: of models that predict residual and noise apart.
        """
        if self.prediction.pair:
            return None
        process, level = self.process, estimate.level
        if process.split:
            frame = frame_of(process, *estimate.x.shape[-2:])
            turned, found, worst = frame.estimate(estimate), frame.coordinates(estimate.x0), 1.0
            for places, own in frame.bands(level):
                one = _taken(turned, places, own)
                found[..., places], factor = _follows(one, Weights(own.signal, 0.0, own.noise), None)
                worst = max(worst, factor)
            return frame.pixels(found), worst
        return _follows(estimate, process.weights(level.alpha_bar), given)

    def _moved(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, noise: Any, given: Any
    ) -> Any:
        """The next state; without noise its mean."""
        plain, said = self._plain(state, estimates, given)
        move = self._by_band if self.process.split else self._one
        x = move(plain, said, at, to, noise)
        return x + self._shift(to, self._residual(estimates[0], given), given) if self.process.shifted else x

    def _one(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, noise: Any) -> Any:
        if noise is None:
            return self.sampler.mean(state, estimates, at, to)
        return self.sampler.step(state, estimates, at, to, noise).x

    def _told(self, level: Level) -> Told:
        """What the table of predictions is told of a level beside it."""
        process, time = self.process, level.timestep
        before = self.training.level(time - 1).alpha_bar if self.prediction.by_step and time >= 1 else 1.0
        weights = process.weights(level.alpha_bar)
        return Told(*weights, level.alpha_bar / before, process.change(level.alpha_bar))

    # What a shift adds.

    def _residual(self, estimate: Estimate, given: Any) -> Any:
        """R of an estimate: u - x_0, or of models that predict R and eps both what is then left of x_t."""
        if not self.prediction.pair:
            return given - estimate.x0
        level = estimate.level
        of_given, residual, image = self.process.shift(level.alpha_bar)
        left = level.scale * estimate.x - level.signal * estimate.x0 - level.noise * estimate.eps - of_given * given
        return left / (residual - level.signal * image)

    def _shift(self, level: Level, residual: Any, given: Any) -> Any:
        """The shift at a level, of x of scale 1."""
        of_given, of_residual, _ = self.process.shift(level.alpha_bar)
        return (of_given * given + of_residual * residual) / level.scale

    def _plain(self, state: State, estimates: Sequence[Estimate], given: Any) -> tuple[State, tuple[Estimate, ...]]:
        """State and estimates as those of the plain process."""
        if not self.process.shifted:
            return state, tuple(estimates)
        said = tuple(self._plain_estimate(one, given) for one in estimates)
        return State(said[0].x, tuple(self._plain_estimate(one, given) for one in state.past)), said

    def _plain_estimate(self, estimate: Estimate, given: Any) -> Estimate:
        residual = self._residual(estimate, given)
        image = self.process.shift(estimate.level.alpha_bar).image
        x = estimate.x - self._shift(estimate.level, residual, given)
        return estimate._replace(x=x, x0=estimate.x0 - image * residual)

    # Coordinates one band after the other.

    def _by_band(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, noise: Any) -> Any:
        frame = frame_of(self.process, *state.x.shape[-2:])
        turned = frame.state(state), tuple(map(frame.estimate, estimates))
        drawn = None if noise is None else frame.coordinates(noise)
        x = 1.0 * turned[0].x
        for band, (places, begin) in enumerate(frame.bands(at)):
            end = frame.level(to, band)
            if begin.alpha_bar == end.alpha_bar:  # noise alone that stays so
                continue
            own, said = frame.of_band(*turned, band)
            x[..., places] = self._one(own, said, begin, end, None if drawn is None else drawn[..., places])
        return frame.pixels(x)

    def _further_by_band(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Query:
        frame = frame_of(self.process, *state.x.shape[-2:])
        turned = frame.state(state), tuple(map(frame.estimate, estimates))
        x, time = 1.0 * turned[0].x, to.timestep
        for band, (places, begin) in enumerate(frame.bands(at)):
            own, said = frame.of_band(*turned, band)
            training = _OfBand(self.training, frame, band, self.sampler.name)
            query = self.sampler.further(own, said, begin, frame.level(to, band), training)
            x[..., places], time = query.x, query.level.timestep
        level = to if time == to.timestep else self.training.level(time)
        return Query(frame.pixels(x), level)


def _follows(estimate: Estimate, weights: Weights, given: Any) -> tuple[Any, float]:
    x0, eps, _, x, level = estimate
    image, of_given, noise = weights
    left = level.scale * x - (0.0 if given is None else of_given * given)
    if image == 0:
        return x0 + (left / noise - eps), 1.0
    return (left - noise * eps) / image, (level.scale + abs(of_given) + noise) / abs(image)


class _OfBand(TrainingSchedule):
    """A model's training as a band of coordinates sees it."""

    def __init__(self, whole: TrainingSchedule, frame: Frame, band: int, sampler: str) -> None:
        super().__init__(whole.alpha_bar, whole.process, from_noise=whole.from_noise)
        self._whole, self._frame, self._band, self._sampler = whole, frame, band, sampler

    def level(self, timestep: float) -> Level:
        """Of the band."""
        return self._frame.level(self._whole.level(timestep), self._band)

    def level_of(self, log_snr: float) -> Level:
        """Not to be told: coordinates have that ratio of signal to noise at times of their own."""
        raise SpecError(
            f"The sampler {self._sampler!r} asks the U-Net where the ratio of signal to noise has some value, and the "
            f"process {str(self.process)!r} of the model has coordinates that have it at different times. Take one "
            "that asks at steps or timesteps, such as DDIM(), DDPM(), Euler(), Heun() or DPMMultistep()."
        )


class Frame(NamedTuple):
    """Coordinates of states of one size under a process; they lie along the last of (sample, channel, 1, coordinate).

    Attributes
    ----------
    process : Process
    height, width : int
    along_y, along_x : ndarray
        Orthonormal.
    places : tuple of ndarray
        Coordinates of each band.
    """

    process: Process
    height: int
    width: int
    along_y: NDArray[np.float64]
    along_x: NDArray[np.float64]
    places: tuple[NDArray[np.int64], ...]

    def coordinates(self, x: Any) -> Any:
        """Of pixels, (sample, channel, y, x)."""
        turned = _like(self.along_y, x) @ x @ _like(self.along_x.T, x)
        return turned.reshape(*x.shape[:2], 1, self.height * self.width)

    def pixels(self, coordinates: Any) -> Any:
        """Back."""
        x = coordinates.reshape(*coordinates.shape[:2], self.height, self.width)
        return _like(self.along_y.T, x) @ x @ _like(self.along_x, x)

    def estimate(self, estimate: Estimate) -> Estimate:
        """In coordinates."""
        x0, eps, x = map(self.coordinates, (estimate.x0, estimate.eps, estimate.x))
        return Estimate(x0, eps, None, x, estimate.level)

    def state(self, state: State) -> State:
        """In coordinates."""
        return State(self.coordinates(state.x), tuple(map(self.estimate, state.past)))

    def bands(self, level: Level) -> Iterator[tuple[NDArray[np.int64], Level]]:
        """Places and level of every band."""
        for band, places in enumerate(self.places):
            yield places, self.level(level, band)

    def level(self, level: Level, band: int) -> Level:
        """Of a band."""
        share = float(_shares(self.process, level.alpha_bar, self.height, self.width)[band])
        return level._replace(alpha_bar=share)

    def shares(self, level: Level) -> NDArray[np.float64]:
        """Share of signal variance of every coordinate, (coordinate,)."""
        by_band = _shares(self.process, level.alpha_bar, self.height, self.width)
        return np.asarray(by_band[self.process.bands(self.height, self.width).ravel()])

    def of_band(self, state: State, estimates: Sequence[Estimate], band: int) -> tuple[State, tuple[Estimate, ...]]:
        """What a band is of state and estimates in coordinates."""
        places = self.places[band]

        def taken(one: Estimate) -> Estimate:
            return _taken(one, places, self.level(one.level, band))

        return State(state.x[..., places], tuple(map(taken, state.past))), tuple(map(taken, estimates))


def _taken(estimate: Estimate, places: NDArray[np.int64], level: Level) -> Estimate:
    """Some coordinates of an estimate in coordinates."""
    x0, eps, x = (part[..., places] for part in (estimate.x0, estimate.eps, estimate.x))
    return Estimate(x0, eps, None, x, level)


@lru_cache(maxsize=32)
def frame_of(process: Process, height: int, width: int) -> Frame:
    """Coordinates of states of a size, of a process that is split."""
    bands = process.bands(height, width).ravel()
    places = tuple(np.flatnonzero(bands == band) for band in range(int(bands.max()) + 1))
    return Frame(process, height, width, process.basis(height), process.basis(width), places)


@lru_cache(maxsize=4096)
def _shares(process: Process, alpha_bar: float, height: int, width: int) -> NDArray[np.float64]:
    return process.shares(alpha_bar, height, width)


def _like(matrix: NDArray[np.float64], x: Any) -> Any:
    """A matrix as what x is: a tensor on its device, or an array."""
    return matrix.astype(x.dtype) if isinstance(x, np.ndarray) else x.new_tensor(matrix)


def shrunk(x: Any, times: int) -> Any:
    """H applied so often: sums of 2 by 2 pixels over 2.

    Parameters
    ----------
    x : Tensor, (row, channel, y, x)
    times : int
    """
    size = 1 << times
    rows, channels, height, width = x.shape
    return x.reshape(rows, channels, height // size, size, width // size, size).sum((3, 5)) / size


def grown(x: Any, times: int) -> Any:
    """H' applied so often, which is shrunk back: pixels over 2 in 2 by 2 places.

    Parameters
    ----------
    x : Tensor, (row, channel, y, x)
    times : int
    """
    size = 1 << times
    rows, channels, height, width = x.shape
    spread = x.reshape(rows, channels, height, 1, width, 1) * _like(np.ones((size, 1, size)), x)
    return spread.reshape(rows, channels, height * size, width * size) / size
