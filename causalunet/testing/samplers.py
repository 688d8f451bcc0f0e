"""Whether a sampler takes steps that runs can share, skip, repeat and be verified by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalunet.design.limits import shown
from causalunet.design.samplers import SAMPLERS, Estimate, Moment, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level, Schedule, cosine_alpha_bar
from causalunet.testing.report import Checks, Conformance
from causalunet.testing.rows import difference
from causalunet.testing.values import registered, round_trip

__all__ = ["check_sampler"]

_STEPS = 8
_SHAPE = (3, 3, 4, 4)
_ROUNDING = 1e-5
"""Of numbers of order 1, in single precision."""


def check_sampler(sampler: Sampler) -> Conformance:
    """Check that a sampler does what studies rely on.

    It is known by its name and comes back from JSON; takes every step, the jump of a run that skips steps too, without
    writing into what it is given; gives finite numbers of the same shape and type, the same every time, each row from
    its own; looks back no further than ``history``; ends with the estimate of the image; draws noise if and only if it
    says so; and does the same to NumPy's arrays.

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
    <Conformance of "the sampler 'ddpm'": passes 11 checks>
    """
    if not isinstance(sampler, Sampler):
        raise SpecError(f"{shown(sampler)} is no sampler. Give an instance of a subclass of causalunet.design.Sampler.")
    checks = Checks(f"the sampler {shown(sampler.name)}")
    checks.run("registered", "its name", lambda: registered(sampler, SAMPLERS, "name"))
    checks.run("JSON", "a round trip", lambda: round_trip(sampler, Sampler.from_json), ["registered"])
    walk = _Walk(sampler)
    steps = f"{len(walk.legs)} steps"
    with torch.random.fork_rng([]), torch.inference_mode():
        checks.run("steps taken", steps, walk.taken)
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


class _Walk:
    """Steps of a run that skips some, each from numbers drawn at random.

    Parameters
    ----------
    sampler : Sampler
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        schedule = Schedule.spaced(cosine_alpha_bar(), _STEPS)
        levels = [schedule.level(step) for step in (8, 7, 6, 3, 2, 1, 0)]
        self.legs = [self._leg(levels, number) for number in range(len(levels) - 1)]

    def _leg(self, levels: list[Level], number: int) -> tuple[State, Estimate, Level, Level]:
        generator = torch.Generator().manual_seed(number)

        def drawn() -> Tensor:
            return torch.randn(_SHAPE, generator=generator)

        before = reversed(levels[:number])
        past = tuple(Moment(level, drawn(), drawn().clamp(-1, 1), drawn()) for level in before)
        estimate = Estimate(drawn().clamp(-1, 1), drawn(), torch.rand(_SHAPE, generator=generator) * 2 - 1)
        return State(drawn(), past[: self._sampler.history]), estimate, levels[number], levels[number + 1]

    def _given(self, number: int, make: Callable[[Any], Any] = torch.clone) -> tuple[State, Estimate, Level, Level]:
        """What a step is given; ``make`` is applied to every array, and copies it by default."""
        state, estimate, at, to = self.legs[number]
        past = tuple(Moment(moment.level, *map(make, moment[1:])) for moment in state.past)
        return State(make(state.x), past), Estimate(*map(make, estimate)), at, to

    def _steps(self, make: Callable[[Any], Any] = torch.clone) -> Iterator[tuple[Any, Any]]:
        """Mean and spread of every step."""
        for number in range(len(self.legs)):
            given = self._given(number, make)
            mean, to = self._sampler.mean(*given), given[3]
            yield mean, self._sampler.spread(*given) if self._sampler.draws and to.alpha_bar < 1 else 0.0

    def taken(self) -> Iterator[str]:
        """Numbers of the right shape and type."""
        for (mean, spread), (_, _, at, to) in zip(self._steps(), self.legs, strict=True):
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
        for number in range(len(self.legs)):
            state, estimate, at, to = self._given(number)
            arrays = [state.x, *estimate, *(value for moment in state.past for value in moment[1:])]
            before = [value.clone() for value in arrays]
            noise = torch.ones(_SHAPE) if self._sampler.draws else None
            self._sampler.step(state, estimate, at, to, noise)
            if not all(map(torch.equal, arrays, before)):
                yield (
                    f"a step {_between(at, to)} wrote into its state or estimate, which other runs share. Make new "
                    "tensors: a + b, not a.add_(b) nor a[...] = b."
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
        for number, (mean, spread) in enumerate(self._steps()):
            for row in range(_SHAPE[0]):
                single = alone[row][number]
                beside = mean[row : row + 1], spread[row : row + 1] if isinstance(spread, Tensor) else spread
                if not all(map(_close, beside, single)):
                    yield (
                        f"row {row} of a step {_between(*self.legs[number][2:])} gets other numbers beside other "
                        "samples than alone. Results would depend on the batch: let nothing go over dimension 0."
                    )
                    return

    def finite(self) -> Iterator[str]:
        """At every level, the first and the last too."""
        for (mean, spread), (_, _, at, to) in zip(self._steps(), self.legs, strict=True):
            if not all(bool(torch.as_tensor(value).isfinite().all()) for value in (mean, spread)):
                yield (
                    f"a step {_between(at, to)} gives numbers that are not finite. At the image alpha_bar is 1: let "
                    "mean() give estimate.x0 before it divides by 1 - to.alpha_bar or takes its logarithm."
                )
                return

    def history(self) -> Iterator[str]:
        """No more of the past than is kept."""
        state, estimate, at, to = self._given(-2)
        further = Moment(self.legs[0][2], state.x * 3, estimate.x0 * 3, estimate.eps * 3)
        longer = State(state.x, (*state.past, *[further] * 3))
        if not _equal(self._sampler.mean(*self._given(-2)), self._sampler.mean(longer, estimate, at, to)):
            yield (
                f"it looks further back than {self._sampler.history} steps, which is all that is kept for it. Say so: "
                "history: ClassVar[int] = ..."
            )

    def image(self) -> Iterator[str]:
        """The last step gives the estimate."""
        if not _close(self._sampler.mean(*self._given(-1)), self.legs[-1][1].x0):
            yield "the step to the image, where to.alpha_bar is 1, gives something else than estimate.x0. Give that."

    def noise(self) -> Iterator[str]:
        """Drawn where it says so."""
        if not self._sampler.draws:
            return
        for (_, spread), (_, _, at, to) in zip(self._steps(), self.legs, strict=True):
            if to.alpha_bar < 1 and not bool((torch.as_tensor(spread) > 0).all()):
                yield (
                    f"it says that it draws noise, and spread() of a step {_between(at, to)} is not above 0. Let draws "
                    "be False where there is none."
                )
                return

    def in_numpy(self) -> Iterator[str]:
        """As results are verified without torch."""
        in_torch = [mean for mean, _ in self._steps()]
        for number, expected in enumerate(in_torch):
            given = self._given(number, lambda value: value.clone().numpy())
            try:
                found = self._sampler.mean(*given)
            except Exception as error:  # of foreign code
                yield (
                    f"mean() of NumPy's arrays ended in {type(error).__name__}: {error!s:.200}. Use Python's operators "
                    "and math, which do for both: results are verified without torch."
                )
                return
            if not isinstance(found, np.ndarray) or not _close(torch.from_numpy(found), expected):
                yield f"mean() gives NumPy's arrays other numbers, in a step {_between(*given[2:])}. Treat both alike."
                return


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
