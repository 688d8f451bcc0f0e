"""Processes: how large x is, which levels there are, and that models of all of them are the same runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import causalunet as cu
from causalunet.design import Given, Leading, Sampler, Trailing
from causalunet.design.samplers import SAMPLERS
from causalunet.errors import ModelError, SpecError
from causalunet.prediction import LEARNED, PREDICTIONS, Prediction, Told, process_of, training_of
from causalunet.process import SCALES, VARIANCE_PRESERVING, Process
from causalunet.schedule import (
    Level,
    TrainingSchedule,
    cosine_alpha_bar,
    exploding_alpha_bar,
    straight_alpha_bar,
    trigonometric_alpha_bar,
)
from tests.samplers.walks import Denoise, levels_of, walk

PLAIN = [of for of in PREDICTIONS if not Prediction(of).of_given]
MEAN, SPREAD, SHAPE = 0.3, 0.5, (2, 3, 4, 4)
STRAIGHT = TrainingSchedule(straight_alpha_bar(), Process("straight"), from_noise=True)
EXPLODING = TrainingSchedule(exploding_alpha_bar(), Process("variance-exploding"))


def noise(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(given: Tensor, signal: float, std: float, of: str) -> Tensor:
    """What is best predicted of signal x_0 + std eps, given so, where data are normal."""
    variance = (signal * SPREAD) ** 2 + std**2
    x0 = MEAN + signal * SPREAD**2 / variance * (given - signal * MEAN)
    eps = std / variance * (given - signal * MEAN)
    p, _, q = PREDICTIONS[of](Told(signal, 0.0, std))
    return p * x0 + q * eps


def exact(of: str) -> Denoise:
    """As a run calls a model: it is given x times the scale."""

    def denoise(x: Tensor, level: Level) -> tuple[Any, Any]:
        said = gaussian(x * level.scale, level.signal, level.noise, of)
        return Prediction(of).image_and_noise(said, x, level)

    return denoise


@given(share=st.floats(1e-6, 1))
def test_signal_and_noise_are_those_of_the_process(share: float) -> None:
    levels = {of: Level(3.0, share, Process(of).scale(share)) for of in SCALES}
    held = {
        "variance-preserving": lambda one: one.signal**2 + one.noise**2,
        "variance-exploding": lambda one: one.signal,
        "straight": lambda one: one.signal + one.noise,
    }
    for of, level in levels.items():
        assert held[of](level) == pytest.approx(1)
        assert level.noise / level.signal == pytest.approx(level.sigma)
    assert Level(3.0, share).scale == 1


@given(time=st.floats(0, 999))
def test_a_straight_process_is_at_t_between_its_timesteps_too(time: float) -> None:
    level = STRAIGHT.level(time)
    assert level.noise == pytest.approx((time + 1) / 1000, abs=1e-12)
    assert level.signal == pytest.approx(1 - (time + 1) / 1000, abs=1e-12)
    assert STRAIGHT.level_of(level.log_snr).timestep == pytest.approx(time, abs=1e-6)


@given(time=st.floats(0, 999))
def test_an_exploding_process_has_geometric_sigmas(time: float) -> None:
    level = EXPLODING.level(time)
    assert level.noise == pytest.approx(0.002 * (80 / 0.002) ** (time / 999), rel=1e-6)
    assert level.signal == pytest.approx(1)


def test_a_trigonometric_interpolant_preserves_the_variance() -> None:
    t = np.arange(1, 1001) / 1000
    np.testing.assert_allclose(trigonometric_alpha_bar(), np.cos(math.pi / 2 * t) ** 2, atol=1e-15)
    assert trigonometric_alpha_bar()[-1] == 0


@given(of=st.sampled_from(PLAIN), process=st.sampled_from(list(SCALES)), share=st.floats(1e-3, 0.999))
def test_on_a_gaussian_all_predictions_say_the_same(of: str, process: str, share: float) -> None:
    x = noise()
    expected = exact("eps")(x, Level(1.0, share))
    found = exact(of)(x, Level(1.0, share, Process(process).scale(share)))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


SCALED = {"evodiff"}
"""Whose weights depend on how large x is, as their authors' code has it."""
SAMPLED = [
    name
    for name in SAMPLERS
    if SAMPLERS[name].__module__.startswith("causalunet.") and name != "ddpm" and name not in SCALED
]


@pytest.mark.parametrize("process", ["variance-exploding", "straight"])
@pytest.mark.parametrize("name", SAMPLED)
def test_every_sampler_takes_every_process(name: str, process: str) -> None:
    """Processes of the same ratio of signal to noise are the same runs, but for the scale."""
    sampler: Sampler = SAMPLERS[name](steps=6, guidance_scale=1, spacing=Leading(offset=100))
    plain = TrainingSchedule(cosine_alpha_bar())
    other = TrainingSchedule(plain.alpha_bar, Process(process))
    runs = []
    for training, of in ((plain, "eps"), (other, "velocity")):
        levels = levels_of(training, sampler.schedule(training).timesteps[::-1])
        noises = [noise(seed) for seed in range(1, 7)]
        runs.append(walk(sampler, exact(of), levels, training, noise(), noises))
    if not any(level.scale != 1 for level in runs[1].asked):
        pytest.fail("no level has a scale")
    if process == "variance-exploding":  # between timesteps the straight one has other levels
        for one, expected in zip(runs[1].states, runs[0].states, strict=True):
            torch.testing.assert_close(one, expected, rtol=0, atol=1e-8)
    assert all(bool(state.isfinite().all()) for run in runs for state in run.states)


def by_diffusers(scheduler: Any, t: list[float]) -> list[Tensor]:
    """States after every step, by a scheduler that is told its sigmas."""
    twice = isinstance(scheduler, FlowMatchHeunDiscreteScheduler)
    sigmas = [t[0], *(one for one in t[1:] for _ in range(2 if twice else 1)), 0.0]
    scheduler.set_timesteps(len(t))
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    scheduler.timesteps = 1000 * scheduler.sigmas[:-1]
    scheduler.set_begin_index(0)
    x, found = noise(), []
    for sigma, time in zip(sigmas[:-1], scheduler.timesteps, strict=True):
        said = gaussian(x, 1 - sigma, sigma, "velocity")
        x = scheduler.step(said, time, x).prev_sample.double()
        found.append(x)
    # of a step of two calls the first leads to where the second asks
    return found[1::2] + found[-1:] if twice else found


@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        (cu.Euler, FlowMatchEulerDiscreteScheduler),
        (cu.DDIM, FlowMatchEulerDiscreteScheduler),
        (cu.FlowHeun, FlowMatchHeunDiscreteScheduler),
    ],
)
def test_trajectories_of_a_flow_are_those_of_diffusers(
    sampler: type[Sampler], scheduler: Callable[[], Any], steps: int
) -> None:
    """From noise alone on."""
    made = sampler(steps=steps, guidance_scale=1, spacing=Trailing())
    levels = levels_of(STRAIGHT, made.schedule(STRAIGHT).timesteps[::-1])
    assert levels[0].alpha_bar == 0
    ours = walk(made, exact("velocity"), levels, STRAIGHT, noise())
    assert len(ours.asked) == (2 * steps - 1 if sampler is cu.FlowHeun else steps)
    theirs = by_diffusers(scheduler(), [level.noise for level in levels[:-1]])
    for state, level, expected in zip(ours.states, levels[1:], theirs, strict=True):
        torch.testing.assert_close(state * level.scale, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("sampler", "order"), [(cu.Euler(), 1), (cu.FlowHeun(), 2)])
def test_orders_on_a_gaussian_flow(sampler: Any, order: int) -> None:
    """The flow carries noise to mean and spread; the error falls with the power of the step."""
    errors = []
    for steps in (20, 40, 80):
        made = type(sampler)(steps=steps, guidance_scale=1, spacing=Trailing())
        # near the image, where the last step is of first order whatever the sampler, the rest is exact
        levels = levels_of(STRAIGHT, [999 - 800 * passed / steps for passed in range(steps + 1)])[:-1]
        *_, found = walk(made, exact("velocity"), levels, STRAIGHT, noise()).states
        end = levels[-1]
        spread = math.hypot(end.signal * SPREAD, end.noise)
        errors.append(float((found * end.scale - (end.signal * MEAN + spread * noise())).abs().max()))
    slopes = [math.log2(one / other) for one, other in itertools.pairwise(errors)]
    assert slopes[-1] == pytest.approx(order, abs=0.2)


def test_karras_sampling_is_that_of_an_exploding_process() -> None:
    """Algorithm 1 of Karras et al. 2022, written out for x_0 + sigma eps."""
    sampler = cu.Heun(steps=8, guidance_scale=1, spacing=Given(timesteps=range(990, 30, -120)))
    levels = levels_of(EXPLODING, sampler.schedule(EXPLODING).timesteps[::-1])
    ours = walk(sampler, exact("score"), levels, EXPLODING, noise())
    x = levels[0].scale * noise()
    for (at, to), state in zip(itertools.pairwise(levels), ours.states, strict=True):
        slope = (x - gaussian(x, 1, at.noise, "x0")) / at.noise
        along = x + (to.noise - at.noise) * slope
        if to.noise > 0:
            other = (along - gaussian(along, 1, to.noise, "x0")) / to.noise
            along = x + (to.noise - at.noise) * (slope + other) / 2
        x = along
        torch.testing.assert_close(state * to.scale, x, rtol=1e-9, atol=1e-9)


def test_samplers_that_divide_by_the_signal_do_not_begin_at_noise_alone() -> None:
    for name in SAMPLED:
        sampler = SAMPLERS[name](steps=4, spacing=Trailing())
        if sampler.from_noise:
            assert sampler.schedule(STRAIGHT).alpha_bars[-1] == 0
            continue
        with pytest.raises(SpecError, match=rf"timestep 999.* noise alone.* {name!r} divides by the signal.*Leading"):
            sampler.schedule(STRAIGHT)
        assert type(sampler)(steps=4, spacing=Leading()).schedule(STRAIGHT).steps == 4


def test_of_noise_alone_a_model_of_noise_says_nothing() -> None:
    with pytest.raises(ModelError, match="at 0 nothing of the image is left"):
        cu.DDIM(steps=4).schedule(trigonometric_alpha_bar())


@dataclass
class Saying:
    """What a model says."""

    name: str = "told"
    alpha_bar: Any = None
    prediction: Any = LEARNED
    process: Any = VARIANCE_PRESERVING


def test_what_a_model_says_of_its_process() -> None:
    straight = {"alpha_bar": straight_alpha_bar(), "process": Process("straight")}
    training = training_of(Saying(prediction=Prediction("velocity"), **straight))
    assert (training.process, training.from_noise) == (Process("straight"), True)
    assert not training_of(Saying(alpha_bar=cosine_alpha_bar(), prediction=Prediction("score"))).from_noise
    assert process_of(object()) == VARIANCE_PRESERVING
    with pytest.raises(ModelError, match=r"The model 'told' has process='flow'; give a causalunet\.process\.Process"):
        process_of(Saying(process="flow"))
    with pytest.raises(ModelError, match="A process 'flow' is not known; known: variance-preserving"):
        Process("flow")
