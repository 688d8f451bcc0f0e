"""Samplers where the truth is known: orders of convergence, marginals, and equations written down once more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad

import causalunet as cu
from causalunet.design import Exponential, Karras, Sampler
from causalunet.design.samplers import (
    DEIS,
    EDM,
    PNDM,
    DPMMultistep,
    DPMSinglestep,
    Estimate,
    Euler,
    EulerAncestral,
    Heun,
    State,
    UniPC,
)
from causalunet.schedule import Level, TrainingSchedule, linear_alpha_bar
from tests.samplers.walks import levels_of, walk

TRAINING = TrainingSchedule(linear_alpha_bar())
MEAN, SPREAD = np.array([0.3, -0.2, 0.5]), np.array([0.2, 0.5, 1.0])
"""Of three numbers that are normal and independent."""

ORDERS: dict[str, tuple[Sampler, int]] = {
    "Euler": (Euler(), 1),
    "DDIM": (cu.DDIM(), 1),
    "Heun": (Heun(), 2),
    **{f"DPMMultistep({order})": (DPMMultistep(order=order), order) for order in (1, 2, 3)},
    "DPMMultistep(3, official)": (DPMMultistep(order=3, official=True), 2),
    **{f"DPMSinglestep({order})": (DPMSinglestep(order=order), order) for order in (1, 2, 3)},
    **{f"DEIS({order})": (DEIS(order=order), order) for order in (1, 2, 3)},
    # The corrector makes it one more.
    **{f"UniPC({order})": (UniPC(order=order), order + 1) for order in (1, 2)},
}


def denoise(x: Any, level: Level) -> tuple[Any, Any]:
    """Mean of x_0 given x, and the noise that is left."""
    share = level.alpha_bar
    gain = math.sqrt(share) * SPREAD**2 / (share * SPREAD**2 + 1 - share)
    x0 = MEAN + gain * (x - math.sqrt(share) * MEAN)
    return x0, (x - math.sqrt(share) * x0) / math.sqrt(1 - share)


def flow(x: Any, at: Level, to: Level) -> Any:
    """The probability-flow ODE in closed form: numbers keep their place in the distribution."""
    sizes = [np.sqrt(level.alpha_bar * SPREAD**2 + 1 - level.alpha_bar) for level in (at, to)]
    return math.sqrt(to.alpha_bar) * MEAN + sizes[1] / sizes[0] * (x - math.sqrt(at.alpha_bar) * MEAN)


def between(sigmas: NDArray[np.float64]) -> list[Level]:
    return [TRAINING.level_of(-2 * math.log(sigma)) for sigma in sigmas]


def error_of(sampler: Sampler, steps: int) -> float:
    """At the end of equal strides of log SNR, begun on the solution, with the past that lies on it too."""
    sigmas = np.geomspace(4, 0.2, steps + 1)
    levels, x = between(sigmas), np.array([[1.5, -0.7, 0.4]])
    earlier = between(sigmas[0] * (sigmas[0] / sigmas[1]) ** np.arange(1, sampler.history + 1))
    past = [(flow(x, levels[0], level), level) for level in earlier]
    # UniPC corrects what it has predicted, so it begins without.
    given = () if isinstance(sampler, UniPC) else tuple(Estimate(*denoise(y, at), None, y, at) for y, at in past)
    found = walk(sampler, denoise, levels, TRAINING, x, past=given).states[-1]
    return float(np.abs(found - flow(x, levels[0], levels[-1])).max())


@pytest.mark.parametrize(("sampler", "order"), ORDERS.values(), ids=ORDERS)
def test_errors_fall_as_theory_says(sampler: Sampler, order: int) -> None:
    steps = np.array([20, 40, 80, 160])
    errors = [error_of(sampler, int(number)) for number in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.2), errors


@pytest.mark.parametrize("runge_kutta", [False, True])
def test_pseudo_numerical_methods_are_of_second_order_at_least(runge_kutta: bool) -> None:
    """Liu et al. 2022, theorem 3.3; in equal strides of time, to which its weights belong."""
    fine = TrainingSchedule(linear_alpha_bar(20_000))
    steps, x, errors = np.array([10, 20, 40, 80]), np.array([[1.5, -0.7, 0.4]]), []
    for number in steps:
        levels = [fine.level(time) for time in np.linspace(8000, 1000, number + 1)]
        found = walk(PNDM(runge_kutta=runge_kutta), denoise, levels, fine, x).states[-1]
        errors.append(float(np.abs(found - flow(x, levels[0], levels[-1])).max()))
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] < -1.8, errors


@pytest.mark.parametrize(
    "sampler",
    [
        Euler(steps=300),
        EulerAncestral(steps=300),
        EulerAncestral(steps=300, eta=0.5),
        EDM(steps=300, churn=60, noise=1),
        DPMMultistep(steps=300, stochastic=True, order=1),
        DPMMultistep(steps=300, stochastic=True),
        DPMMultistep(steps=300, stochastic=True, order=3),
        DPMSinglestep(steps=150, stochastic=True),
        DPMSinglestep(steps=200, stochastic=True, order=3),
        cu.DDPM(steps=300, variance="small"),
        cu.DDPM(steps=300, variance="large"),
    ],
    ids=repr,
)
def test_with_noise_and_without_the_marginals_are_those_of_the_data(sampler: Sampler) -> None:
    """Each noise by itself: the steps are linear, so that variances add up."""
    sigmas = np.geomspace(40, 0.1, sampler.steps)
    levels, steps = between(sigmas), sampler.steps
    each = max(sampler.calls_along(levels))  # noises of a step: of its further calls, and that which ends it
    rows = np.eye((steps - 1) * each + 1)[:, :, None] * np.ones(3)  # (which noise, row, number), x_T first

    def noise(passed: int, stage: int = 0) -> Any:
        return np.concatenate([np.zeros((1, 3)), rows[passed * each + stage + 1]])

    noises = [noise(passed) for passed in range(steps - 1)]
    x = np.concatenate([np.zeros((1, 3)), rows[0]])
    found = walk(sampler, denoise, levels, TRAINING, x, noises, between=noise).states[-1]
    first, last = levels[0], levels[-1]
    parts = (found[1:] - found[0]) ** 2
    variance = parts[0] * (first.alpha_bar * SPREAD**2 + 1 - first.alpha_bar) + parts[1:].sum(axis=0)
    np.testing.assert_allclose(variance, last.alpha_bar * SPREAD**2 + 1 - last.alpha_bar, rtol=0.04)
    mean = found[0] + (found[1] - found[0]) * math.sqrt(first.alpha_bar) * MEAN
    np.testing.assert_allclose(mean, math.sqrt(last.alpha_bar) * MEAN, rtol=0.02)


@given(st.integers(0, 2**31), st.sampled_from([Karras(), Exponential()]))
def test_churn_is_algorithm_2_of_karras(seed: int, spacing: Karras | Exponential) -> None:
    """Written down from the paper: its t are those that the levels asked at are raised from."""
    steps, churn, least, most, scale = 12, 4.0, 0.21, 20.0, 1.01
    sampler = EDM(steps=steps, churn=churn, sigma_min=least, sigma_max=most, noise=scale, spacing=spacing)
    levels = levels_of(TRAINING, sampler.schedule(TRAINING.alpha_bar).timesteps[::-1])
    x, *noises = np.random.default_rng(seed).standard_normal((steps + 1, 1, 3))
    found = walk(sampler, denoise, levels, TRAINING, x, noises).states

    def denoised(z: Any, t: float) -> Any:
        level = TRAINING.level_of(-2 * math.log(t))
        return denoise(z * math.sqrt(level.alpha_bar), level)[0]

    gamma = min(churn / steps, math.sqrt(2) - 1)
    raised = [level.sigma for level in levels[:-1]]
    times = [t / (1 + gamma) if least <= t / (1 + gamma) <= most else t for t in raised]
    assert 2 <= sum(t < up for t, up in zip(times, raised, strict=True)) <= steps - 2
    z = x / math.sqrt(levels[0].alpha_bar)
    for step, t in enumerate(times):
        up = t * (1 + gamma) if least <= t <= most else t
        if step:
            z = z + math.sqrt(up**2 - t**2) * scale * noises[step - 1]
            np.testing.assert_allclose(found[step - 1], z * math.sqrt(levels[step].alpha_bar), rtol=1e-6, atol=1e-9)
        following = times[step + 1] if step + 1 < steps else 0.0
        slope = (z - denoised(z, up)) / up
        ahead = z + (following - up) * slope
        if following:
            ahead = z + (following - up) * (slope + (ahead - denoised(ahead, following)) / following) / 2
        z = ahead
    np.testing.assert_allclose(found[-1], z, rtol=1e-6, atol=1e-9)


@given(
    st.lists(st.floats(0.2, 1.5), min_size=3, max_size=3),
    st.lists(st.floats(-1, 1), min_size=4, max_size=4),
    st.booleans(),
)
def test_what_a_parabola_adds_up_to_is_exact(strides: list[float], drawn: list[float], stochastic: bool) -> None:
    """Of order 3, the integral of Lu et al. 2022, proposition 4.1 and its like for the SDE, by quadrature."""
    sigmas = 5 * np.exp(-np.cumsum([0, *strides]))
    older, old, at, to = between(sigmas)
    lam = {level: level.log_snr / 2 for level in (older, old, at, to)}

    def curve(place: float) -> float:
        return float(np.polyval(drawn[:3], place - lam[at]))

    def said(level: Level) -> Estimate:
        return Estimate(np.array([[curve(lam[level])]]), None, None, None, level)

    state = State(np.array([[drawn[3]]]), (said(old), said(older)))
    sampler, rate = DPMMultistep(order=3, stochastic=stochastic), 2 if stochastic else 1
    length = lam[to] - lam[at]
    kept = math.sqrt((1 - to.alpha_bar) / (1 - at.alpha_bar)) * math.exp(length * (1 - rate))
    added = quad(lambda place: rate * math.exp(-rate * (lam[to] - place)) * curve(place), lam[at], lam[to])[0]
    expected = kept * drawn[3] + math.sqrt(to.alpha_bar) * added
    assert float(sampler.mean(state, (said(at),), at, to)[0, 0]) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@given(st.integers(0, 2**31), st.sampled_from([0.3, 1.0]))
def test_one_thing_under_several_names(seed: int, eta: float) -> None:
    """DDIM is Euler, and of first order all that takes one estimate; with noise it is Euler's ancestral form."""
    x, *noises = np.random.default_rng(seed).standard_normal((6, 1, 3))
    levels = levels_of(TRAINING, (900, 700, 400.5, 100, 3))

    def goes(sampler: Sampler) -> Any:
        return np.array(walk(sampler, denoise, levels, TRAINING, x, noises).states)

    plain = goes(cu.DDIM())
    for same in (Euler(), DPMMultistep(order=1), DPMSinglestep(order=1), DEIS(order=1)):
        np.testing.assert_allclose(goes(same), plain, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(goes(EulerAncestral(eta=eta)), goes(cu.DDIM(eta=eta)), rtol=1e-7, atol=1e-9)
    fully = goes(cu.DDIM(eta=1))
    for same in (DPMMultistep(order=1, stochastic=True), cu.DDPM(variance="small")):
        np.testing.assert_allclose(goes(same), fully, rtol=1e-7, atol=1e-9)
