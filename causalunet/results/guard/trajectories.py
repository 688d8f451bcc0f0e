"""Stored baselines made again as far as that goes without the model: from the noise of a seed to an image."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.design.limits import is_number, shown
from causalunet.design.samplers import DDIM, Estimate, Sampler, State
from causalunet.design.starts import Noise, Start, first_states
from causalunet.errors import CausalUNetError, ModelError
from causalunet.identity import END
from causalunet.noise import step_noise
from causalunet.prediction import Prediction
from causalunet.process import VARIANCE_PRESERVING, Process
from causalunet.results.engine.export import regions
from causalunet.results.guard.checked_store import Reader
from causalunet.results.meaning.schema import GIVEN, SAMPLE_START
from causalunet.schedule import Level, TrainingSchedule
from causalunet.stepping import Stepping
from causalunet.thresholding import THRESHOLDING, Thresholding

__all__ = ["Trajectory", "trajectories"]

_NAMES = ("x_t", "x0_hat", "eps")
_ROUNDING = 1e-5
"""Of float32, relative to the largest term; a GPU rounds elsewhere than a CPU."""

_Way = bool | Thresholding
"""Whether estimates are clipped, or how they are thresholded."""


@dataclass(slots=True)
class Trajectory:
    """What was found of one sample's baseline.

    Parameters
    ----------
    sample, seed : int
    start : Start, optional
        None where it is not known here, and the first state is not looked at.

    Attributes
    ----------
    problems : list of str
    is_image : bool
        Whether the last estimate of x_0, clipped to [-1, 1], is the image: so it is for models of pixels.
    """

    sample: int
    seed: int
    start: Start | None
    problems: list[str] = field(default_factory=list)
    is_image: bool = False
    estimated: set[_Way] = field(default_factory=lambda: {True, False})
    """Ways, clipped or not or thresholded, in which every estimate so far follows from state and prediction."""
    largest: float = 0.0

    def tell(self, what: str) -> None:
        """Note the first thing that is wrong: what comes after it follows from it."""
        if not self.problems:
            self.problems.append(f"sample {self.sample}: {what}")


def trajectories(
    reader: Reader, chosen: NDArray[np.bool_], sampler: Sampler | None, process: Process = VARIANCE_PRESERVING
) -> dict[int, Trajectory]:
    """Look at stored baselines, a chunk at a time.

    The first state must be the noise of the seed. Every estimate of x_0 must follow from state and prediction, clipped
    or not (as the store says, if it does); every next state from state and estimate by the sampler, and from the seed's
    noise of the step, if it draws any, whose share is positive; and, if it does for any sample, every image from its
    last estimate. Of a step with several U-Net calls only the first is stored, so that nothing is said of the state
    after it.

    Parameters
    ----------
    reader : Reader
    chosen : ndarray of bool, (sample,)
    sampler : Sampler, optional
        Of the study; None where it is not known, and how states follow one another is not looked at.
    process : Process
        Of the model.

    Returns
    -------
    dict of int to Trajectory
        By position of the sample.
    """
    names = (*_NAMES, "seed", "alpha_bar", *((GIVEN,) if process.shifted else ()))
    if not reader.has(*(f"baseline/{name}" for name in names)):
        return {}
    seeds = reader.read("baseline/seed").tolist()
    starts = _starts(reader, seeds)
    ways, places = _known_ways(reader), np.flatnonzero(chosen).tolist()
    found = {sample: Trajectory(sample, seeds[sample], starts[sample], estimated=set(ways)) for sample in places}
    shares = [*reader.read("baseline/alpha_bar").tolist(), _end(reader)]
    if not all(0 <= one < other for one, other in itertools.pairwise(shares[:-1])) or not shares[-2] <= shares[-1] <= 1:
        for one in found.values():
            one.tell("its alpha_bar does not rise from 0 or above to below 1")
        return found
    x_t = reader.stored.arrays["baseline/x_t"]
    chunks = (x_t.shards or x_t.chunks)[:2]
    for (samples,) in regions(chosen.shape, chunks[:1]):
        some = [found[sample] for sample in range(samples.start, samples.stop) if sample in found]
        if some:
            _follow(reader, some, samples, chunks[1], _steps(reader, shares, sampler, process))
    if any(one.is_image for one in found.values()):
        for one in found.values():
            if not one.is_image:
                one.tell("its image is not the one that its last estimate of x_0 gives")
    for one in found.values():
        one.is_image &= one.largest == 1.0  # else other runs may be clipped where the baseline is not
    return found


def _end(reader: Reader) -> float:
    """Share of signal at which runs end."""
    found = reader.stored.attributes.identity.get(END, 1.0)
    return float(found) if is_number(found) else math.nan


def _known_ways(reader: Reader) -> set[_Way]:
    """Whether estimates are clipped, or how they are thresholded; both, in stores that do not say it."""
    if (said := reader.stored.attributes.identity.get(THRESHOLDING)) is not None:
        with suppress(ModelError):
            return {Thresholding.from_json(said)}
    clip = reader.stored.attributes.identity.get("clip")
    return {clip} if isinstance(clip, bool) else {True, False}


class _Steps(NamedTuple):
    """Levels of a run, the image last, and what leads from one to the next; whether that is known."""

    levels: list[Level]
    stepping: Stepping
    known: bool


def _steps(reader: Reader, shares: list[float], sampler: Sampler | None, process: Process) -> _Steps:
    times = [*reader.read("baseline/timestep").tolist(), -1]
    levels = [Level(time, share, process.scale(share)) for time, share in zip(times, shares, strict=True)]
    told = reader.stored.attributes.identity.get("prediction")
    of = next((of for of in ("residual_eps", "velocity_score") if told == str(Prediction(of))), "eps")
    training = TrainingSchedule(np.array(shares[-2::-1]), process)
    prediction = Prediction(of)
    return _Steps(levels, Stepping(sampler or DDIM(), training, prediction), sampler is not None)


def _follow(reader: Reader, some: list[Trajectory], samples: slice, chunk: int, told: _Steps) -> None:
    levels, stepping, known = told
    sampler, shifted = stepping.sampler, stepping.process.shifted
    places = [one.sample - samples.start for one in some]
    given = reader.read(f"baseline/{GIVEN}", samples)[places].astype(np.float64) if shifted else None
    shape = reader.stored.arrays["baseline/x_t"].shape[2:]
    nothing = np.full(shape, np.nan, np.float32)  # which nothing differs from
    start = np.stack([nothing if one.start is None else first_states([one.start], shape)[0] for one in some])
    first = stepping.first(start, levels[0], given)
    expected: NDArray[np.floating] | None = first
    past: tuple[Estimate, ...] = ()
    calls = sampler.calls_along(levels) if known else []
    noise: NDArray[np.floating] | None = None
    slack = np.full(len(some), _ROUNDING * max(1.0, np.nan_to_num(np.abs(first)).max()))
    steps = len(levels) - 1
    for (window,) in regions((steps,), (chunk,)):
        read = {name: reader.read(f"baseline/{name}", (samples, window))[places] for name in _NAMES}
        for position in range(window.start, window.stop):
            x, x0, eps = (read[name][:, position - window.start].astype(np.float64) for name in _NAMES)
            step = steps - position
            if expected is not None:
                _check_state(some, step, steps, stepping.coordinates(x - expected), noise, slack)
            estimate = Estimate(x0, eps, None, x, levels[position])
            _check_estimate(some, step, estimate, stepping, given)
            if not known:
                expected = None
                continue
            state, past = State(x, past), (estimate, *past)[: sampler.history]
            if calls[position] > 1:
                expected = None
                continue
            expected = stepping.mean(state, (estimate,), levels[position], levels[position + 1], given)
            slack = _ROUNDING * (1 + _largest(expected) + _largest(x) + _largest(x0))
            drawn = step_noise([one.seed for one in some], step, shape) if sampler.draws else None
            noise = None if drawn is None else stepping.coordinates(drawn)
    _check_image(reader, some, samples, places, x0)


def _check_state(
    some: list[Trajectory],
    step: int,
    steps: int,
    rest: NDArray[np.float64],
    noise: NDArray[np.floating] | None,
    slack: NDArray[np.float64],
) -> None:
    """The first state is the noise of the seed; a later one is the mean and a positive share of its noise, if any."""
    off = np.abs(rest) if noise is None else -rest * np.sign(noise)
    for one, wrong in zip(some, off.reshape(len(some), -1).max(axis=1) > slack, strict=True):
        if wrong and step == steps:
            one.tell(f"x_t at step {steps} is not {_told(one)}")
        elif wrong:
            one.tell(f"x_t at step {step} does not follow from step {step + 1} with the noise of its seed, {one.seed}")


def _check_estimate(some: list[Trajectory], step: int, said: Estimate, stepping: Stepping, given: Any) -> None:
    x0, eps, _, x, level = said
    if stepping.prediction.scored:  # two things, which do not make up x
        return
    if level.alpha_bar == 0 and not stepping.process.shifted:  # nothing in x says anything of the estimate
        for one, off in zip(some, _largest(x - eps), strict=True):
            if off > _ROUNDING * (1 + _largest(x).max()):
                one.tell(f"eps at step {step} is not x_t, where there is noise alone")
        return
    if (follows := stepping.implied(said, given)) is None:
        return
    estimate, factor = follows
    for place, one in enumerate(some):
        largest = max(np.abs(part[place]).max() for part in (x, eps, *(() if given is None else (given,))))
        slack = _ROUNDING * (1 + factor * largest)
        ways = one.estimated
        # a threshold is itself read off the estimate
        near = {
            way: np.abs(x0[place] - _bounded(estimate[place], way)).max() <= slack * (1 + isinstance(way, Thresholding))
            for way in ways
        }
        one.largest = max(one.largest, float(np.abs(x0[place]).max()))
        one.estimated = {way for way, well in near.items() if well}
        if not one.estimated:
            how = f", {_way_in_words(*ways)}" if len(ways) == 1 else ""
            one.tell(f"x0_hat at step {step} does not follow from x_t and eps{how}")


def _bounded(estimate: NDArray[np.float64], way: _Way) -> NDArray[np.float64]:
    """One estimate of x_0, (channel, y, x), as it is stored."""
    if isinstance(way, Thresholding):
        thresholded: NDArray[np.float64] = way(estimate[None])[0]
        return thresholded
    return np.clip(estimate, -1, 1) if way else estimate


def _way_in_words(way: _Way) -> str:
    return str(way) if isinstance(way, Thresholding) else "clipped" if way else "not clipped"


def _told(one: Trajectory) -> str:
    plain = type(one.start) is Noise
    return f"the noise of its seed, {one.seed}" if plain else f"that of its start, {shown(one.start)}"


def _starts(reader: Reader, seeds: Sequence[int]) -> list[Start | None]:
    """Of every sample; None where the class is not known here."""
    if not reader.has(f"baseline/{SAMPLE_START}"):
        return [Noise(seed) for seed in seeds]
    found: list[Start | None] = []
    for text in reader.read(f"baseline/{SAMPLE_START}").tolist():
        try:
            found.append(Start.from_json(json.loads(text)))
        except (CausalUNetError, ValueError):
            found.append(None)
    return found


def _largest(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of each sample."""
    found: NDArray[np.float64] = np.abs(values).reshape(len(values), -1).max(axis=1)
    return found


def _check_image(reader: Reader, some: list[Trajectory], samples: slice, places: list[int], x0: Any) -> None:
    if not reader.has("baseline/image"):
        return
    images = reader.read("baseline/image", samples)[places]
    if images.shape != x0.shape:  # an image that a decoder made of a latent
        return
    off = np.abs((np.clip(x0, -1, 1) + 1) / 2 - images).reshape(len(some), -1).max(axis=1)
    for one, well in zip(some, off <= _ROUNDING, strict=True):
        one.is_image = bool(well)
