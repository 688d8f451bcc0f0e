"""Whether a sampler takes steps that runs can share, skip, repeat and be verified by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from causalunet.design.limits import shown
from causalunet.design.samplers import SAMPLERS, Estimate, Query, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level, Schedule, TrainingSchedule, cosine_alpha_bar
from causalunet.testing.report import Checks, Conformance
from causalunet.testing.rows import difference
from causalunet.testing.values import registered, round_trip

__all__ = ["check_sampler"]

_STEPS = 8
_TRAINING = TrainingSchedule(cosine_alpha_bar())
_LEVELS = [Schedule.spaced(cosine_alpha_bar(), _STEPS).level(step) for step in (8, 7, 6, 3, 2, 1, 0)]
"""Of a run that skips two steps, the image last."""
_NOISE_ALONE = Level(999.0, 0.0)
_SHAPE = (3, 3, 4, 4)
_ROUNDING = 1e-5
"""Of numbers of order 1, in single precision."""


def check_sampler(sampler: Sampler) -> Conformance:
    """Check that a sampler does what studies rely on.

    It is known by its name and comes back from JSON; says how many U-Net calls a step takes, and where each looks;
    takes every step, the jump of a run that skips steps too, without writing into what it is given; gives finite
    numbers of the same shape and type, the same every time, each row from its own; looks back no further than
    ``history``; ends with the image that all calls agree upon; draws noise if and only if it says so; and does the same
    to NumPy's arrays.

    Parameters
    ----------
    sampler : Sampler
        With values of its fields that are not the defaults, so that a field that is lost shows.

    Returns
    -------
    Conformance

    Raises
    ------
    ConformanceError
        A check failed; each failure is a line of the message.
    SpecError
        It is no sampler.

    Examples
    --------
    >>> import causalunet as cu
    >>> from causalunet.testing import check_sampler
    >>> check_sampler(cu.DDPM(steps=20))
    <Conformance of "the sampler 'ddpm'": passes 12 checks>
    """
    if not isinstance(sampler, Sampler):
        raise SpecError(f"{shown(sampler)} is no sampler. Give an instance of a subclass of causalunet.design.Sampler.")
    checks = Checks(f"the sampler {shown(sampler.name)}")
    checks.run("registered", "its name", lambda: registered(sampler, SAMPLERS, "name"))
    checks.run("JSON", "a round trip", lambda: round_trip(sampler, Sampler.from_json), ["registered"])
    walk = _Walk(sampler)
    steps = f"{len(_LEVELS) - 1} steps"
    with torch.random.fork_rng([]), torch.inference_mode():
        checks.run("calls", steps, walk.calls)
        checks.run("steps taken", steps, walk.taken, ["calls"])
        for name, check in (
            ("untouched", walk.untouched),
            ("repeatable", walk.repeatable),
            ("rows apart", walk.rows_apart),
            ("finite", walk.finite),
            ("history", walk.history),
            ("image", walk.image),
            ("noise", walk.noise),
            ("NumPy", walk.in_numpy),
        ):
            checks.run(name, steps, check, ["steps taken"])
    return checks.done()


class _Leg(NamedTuple):
    """One step, with all that it is taken by."""

    state: State
    estimates: tuple[Estimate, ...]
    at: Level
    to: Level

    def copied(self, make: Callable[[Any], Any] = torch.clone) -> _Leg:
        """The same; ``make`` is applied to every array, and copies it by default."""

        def made(one: Estimate) -> Estimate:
            fraction = None if one.fraction is None else make(one.fraction)
            return Estimate(make(one.x0), make(one.eps), fraction, make(one.x), one.level)

        state = State(make(self.state.x), tuple(map(made, self.state.past)))
        return _Leg(state, tuple(map(made, self.estimates)), self.at, self.to)

    def arrays(self) -> list[Tensor]:
        """All of its numbers."""
        given = (*self.state.past, *self.estimates)
        return [self.state.x, *(value for one in given for value in one if isinstance(value, Tensor))]


class _Walk:
    """Steps of a run that skips some, each from numbers drawn at random.

    Parameters
    ----------
    sampler : Sampler

    Attributes
    ----------
    legs : list of _Leg
        Made by `calls`, which is the first check.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.legs: list[_Leg] = []

    def calls(self) -> Iterator[str]:
        """How many calls each step takes, and where they look."""
        counts = self._sampler.calls_along(_LEVELS)
        for number, count in enumerate(counts):
            at, to = _LEVELS[number : number + 2]
            estimates = [_drawn(number, at)]
            past = tuple(_drawn(10 + step, _LEVELS[step])._replace(fraction=None) for step in reversed(range(number)))
            state = State(estimates[0].x, past[: self._sampler.history])
            while len(estimates) < count:
                query = self._sampler.further(state, tuple(estimates), at, to, _TRAINING)
                if told := _wrong(query):
                    yield f"further() gave {told} for a step {_between(at, to)}. Give a Query of a tensor and a level."
                    return
                estimates.append(_drawn(100 * len(estimates) + number, query.level)._replace(x=query.x))
            self.legs.append(_Leg(state, tuple(estimates), at, to))

    def _steps(self, make: Callable[[Any], Any] = torch.clone) -> Iterator[tuple[Any, ...]]:
        """Mean and spread of every step, and what its further calls are given."""
        for leg in self.legs:
            given = leg.copied(make)
            spreads = self._sampler.draws and leg.to.alpha_bar < 1
            further = [
                self._sampler.further(given.state, given.estimates[:said], leg.at, leg.to, _TRAINING).x
                for said in range(1, len(given.estimates))
            ]
            yield self._sampler.mean(*given), self._sampler.spread(*given) if spreads else 0.0, *further

    def taken(self) -> Iterator[str]:
        """Numbers of the right shape and type."""
        for (mean, spread, *_), (_, _, at, to) in zip(self._steps(), self.legs, strict=True):
            for what, value in (("mean()", mean), ("spread()", spread)):
                fits = isinstance(value, Tensor) and value.shape == _SHAPE and value.dtype == torch.float32
                if not fits and not (what == "spread()" and isinstance(value, float)):
                    found = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
                    yield (
                        f"{what} gave {found} for a step {_between(at, to)}; it has to give a tensor of the shape "
                        "and type of state.x."
                    )
                    return

    def untouched(self) -> Iterator[str]:
        """Nothing that others share is written into."""
        for leg in map(_Leg.copied, self.legs):
            arrays = leg.arrays()
            before = [value.clone() for value in arrays]
            noise = torch.ones(_SHAPE) if self._sampler.draws else None
            for said in range(1, len(leg.estimates)):
                self._sampler.further(leg.state, leg.estimates[:said], leg.at, leg.to, _TRAINING)
            self._sampler.step(*leg, noise)
            if not all(map(torch.equal, arrays, before)):
                yield (
                    f"a step {_between(leg.at, leg.to)} wrote into its state or estimates, which other runs share. "
                    "Make new tensors: a + b, not a.add_(b) nor a[...] = b."
                )
                return

    def repeatable(self) -> Iterator[str]:
        """The same twice, and no random numbers of its own."""
        torch.manual_seed(1)
        state = torch.get_rng_state()
        for one, other in zip(self._steps(), self._steps(), strict=True):
            if not all(map(_equal, one, other)):
                yield "the same step gave something else the second time. Draw nothing: noise is what step() is given."
                return
        if not torch.equal(torch.get_rng_state(), state):
            yield "it drew or seeded PyTorch's random numbers. Draw nothing: noise is what step() is given."

    def rows_apart(self) -> Iterator[str]:
        """Each sample from its own numbers."""
        alone = [list(self._steps(_row(row))) for row in range(_SHAPE[0])]
        for number, together in enumerate(self._steps()):
            for row in range(_SHAPE[0]):
                beside = [value[row : row + 1] if isinstance(value, Tensor) else value for value in together]
                if not all(map(_close, beside, alone[row][number])):
                    yield (
                        f"row {row} of a step {_between(*self.legs[number][2:])} gets other numbers beside other "
                        "samples than alone. Results would depend on the batch: let nothing go over dimension 0."
                    )
                    return

    def _from_noise(self) -> Iterator[_Leg]:
        """A step that begins where there is noise alone, if the sampler says that it can."""
        if type(self._sampler).from_noise:
            start, to = _drawn(5, _NOISE_ALONE), _LEVELS[1]
            estimates = [start._replace(x=start.eps)]
            while len(estimates) < self._sampler.calls(_NOISE_ALONE, to, 0):
                said = tuple(estimates)
                query = self._sampler.further(State(start.eps), said, _NOISE_ALONE, to, _TRAINING)
                estimates.append(_drawn(5 + len(said), query.level)._replace(x=query.x))
            yield _Leg(State(start.eps), tuple(estimates), _NOISE_ALONE, to)

    def finite(self) -> Iterator[str]:
        """At every level, the first and the last too."""
        for leg in self._from_noise():
            if not bool(torch.as_tensor(self._sampler.mean(*leg)).isfinite().all()):
                yield (
                    "a step from noise alone, where at.alpha_bar is 0, gives numbers that are not finite. Do not "
                    "divide by the signal, nor take its logarithm; or do not say from_noise, and such runs are refused."
                )
                return
        for values, (_, _, at, to) in zip(self._steps(), self.legs, strict=True):
            if not all(bool(torch.as_tensor(value).isfinite().all()) for value in values):
                yield (
                    f"a step {_between(at, to)} gives numbers that are not finite. At the image alpha_bar is 1: let "
                    "mean() give estimates[0].x0 before it divides by 1 - to.alpha_bar or takes its logarithm."
                )
                return

    def history(self) -> Iterator[str]:
        """No more of the past than is kept."""
        leg = self.legs[-2].copied()
        older = _drawn(99, self.legs[0].at)
        longer = State(leg.state.x, (*leg.state.past, *[older._replace(fraction=None)] * 3))
        if not _equal(self._sampler.mean(*leg.copied()), self._sampler.mean(longer, *leg[1:])):
            yield (
                f"it looks further back than {self._sampler.history} steps, which is all that is kept for it. Say so: "
                "history: ClassVar[int] = ..."
            )

    def image(self) -> Iterator[str]:
        """The last step gives the image, where everything that was said is one and the same image and noise."""
        x0, eps, *_ = _drawn(7, self.legs[-1].at)

        def agreeing(one: Estimate) -> Estimate:
            share = one.level.alpha_bar
            return Estimate(x0, eps, one.fraction, math.sqrt(share) * x0 + math.sqrt(1 - share) * eps, one.level)

        state, estimates, at, to = self.legs[-1]
        said = tuple(map(agreeing, estimates))
        if not _close(self._sampler.mean(State(said[0].x, tuple(map(agreeing, state.past))), said, at, to), x0):
            yield (
                "the step to the image, where to.alpha_bar is 1, gives something else than x0 where all calls agree on "
                "it. A step of one call gives estimates[0].x0."
            )

    def noise(self) -> Iterator[str]:
        """Drawn where it says so, in some steps at least, and never of less than nothing."""
        if not self._sampler.draws:
            return
        spreads = [torch.as_tensor(spread) for _, spread, *_ in self._steps()][:-1]
        for spread, (_, _, at, to) in zip(spreads, self.legs, strict=False):
            if not bool((spread >= 0).all()):
                yield f"spread() of a step {_between(at, to)} is below 0. Give a standard deviation."
                return
        if not any(bool((spread > 0).all()) for spread in spreads):
            yield (
                "it says that it draws noise, and spread() is above 0 in no step. Let draws be False where there is "
                "none."
            )

    def in_numpy(self) -> Iterator[str]:
        """As results are verified without torch."""
        for leg, (expected, *_) in zip(self.legs, self._steps(), strict=True):
            given = leg.copied(lambda value: value.clone().numpy())
            try:
                found = self._sampler.mean(*given)
            except Exception as error:  # of foreign code
                yield (
                    f"mean() of NumPy's arrays ended in {type(error).__name__}: {error!s:.200}. Use Python's operators "
                    "and math, which do for both: results are verified without torch."
                )
                return
            if not isinstance(found, np.ndarray) or not _close(torch.from_numpy(found), expected):
                yield f"mean() gives NumPy's arrays other numbers, in a step {_between(*leg[2:])}. Treat both alike."
                return


def _drawn(seed: int, level: Level) -> Estimate:
    generator = torch.Generator().manual_seed(seed)
    x, x0, eps = (torch.randn(_SHAPE, generator=generator) for _ in range(3))
    return Estimate(x0.clamp(-1, 1), eps, torch.rand(_SHAPE, generator=generator) * 2 - 1, x, level)


def _wrong(query: Any) -> str:
    """What is wrong with a further call; empty if nothing is."""
    if not isinstance(query, Query) or not isinstance(query.level, Level):
        return f"a {type(query).__name__}"
    x, level = query
    if not isinstance(x, Tensor) or x.shape != _SHAPE or x.dtype != torch.float32:
        return f"x of {tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__} as x"
    if not 0 < level.alpha_bar < 1 or not 0 <= level.timestep <= _TRAINING.timesteps - 1:
        return f"a level at timestep {level.timestep:g} with alpha_bar {level.alpha_bar:g}"
    return ""


def _row(number: int) -> Callable[[Any], Any]:
    def take(value: Any) -> Any:
        return value[number : number + 1].clone()

    return take


def _between(at: Level, to: Level) -> str:
    return f"from alpha_bar {at.alpha_bar:.3g} to {to.alpha_bar:.3g}"


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def _close(one: Any, other: Any) -> bool:
    one, other = torch.as_tensor(one), torch.as_tensor(other)
    size = max(1.0, float(other.abs().max()))
    return difference(one, other) <= _ROUNDING * size or not math.isfinite(size)
