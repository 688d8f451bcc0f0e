"""The walk over the steps, written once more: plainly, for one run, over functions instead of U-Nets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from causalunet.design.samplers import Estimate, Sampler, State
from causalunet.schedule import Level, TrainingSchedule

Denoise = Callable[[Any, Level], tuple[Any, Any]]
"""Of x and its level: x_0 and noise."""


class Walked(NamedTuple):
    """x after every step, the image last, and the levels at which was asked."""

    states: list[Any]
    asked: list[Level]


def walk(
    sampler: Sampler,
    denoise: Denoise,
    levels: Sequence[Level],
    training: TrainingSchedule,
    x: Any,
    noises: Sequence[Any] = (),
    past: tuple[Estimate, ...] = (),
    between: Callable[[int, int], Any] | None = None,
) -> Walked:
    """Go along levels, the image last; a noise for every step where the sampler draws, and what was passed before.

    ``between`` gives the noise of a step's further calls, by the steps passed and the number of the call.
    """
    asked: list[Level] = []

    def estimate(x: Any, level: Level) -> Estimate:
        asked.append(level)
        return Estimate(*denoise(x, level), None, x, level)

    state, states = State(x, past), list[Any]()
    for passed, (at, to) in enumerate(itertools.pairwise(levels)):
        said: tuple[Estimate, ...] = (estimate(state.x, at),)
        while len(said) < sampler.calls(at, to, passed + len(past)):
            x, level = sampler.further(state, said, at, to, training)
            spread = sampler.further_spread(said, at, level) if sampler.draws else 0.0
            if spread and between is not None:
                x = x + spread * between(passed, len(said))
            said = (*said, estimate(x, level))
        state = sampler.step(state, said, at, to, noises[passed] if sampler.draws else None)
        states.append(state.x)
    return Walked(states, asked)


def levels_of(training: TrainingSchedule, timesteps: Sequence[float]) -> list[Level]:
    """Of timesteps, the noisiest first; and the image."""
    return [*map(training.level, timesteps), Level(-1.0, 1.0)]
