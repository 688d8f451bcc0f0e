"""Samplers under processes, against what papers and codes say of each: the steps written out, and closed forms."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import causalunet as cu
from causalunet.design.samplers import Estimate, Sampler, State
from causalunet.errors import ModelError
from causalunet.prediction import Prediction
from causalunet.process import (
    PROCESSES,
    AddedImage,
    AddedResidual,
    AroundResidual,
    Bridge,
    Process,
    Pyramid,
    ShortestPath,
)
from causalunet.schedule import Level, TrainingSchedule, linear_alpha_bar
from causalunet.stepping import Stepping, grown, shrunk

SHAPE = (2, 3, 8, 8)
DDPM, DDIM = (kind(steps=5, guidance_scale=1) for kind in (cu.DDPM, cu.DDIM))
LINEAR = linear_alpha_bar(20)[:12]
EXPLODING = 1 / (1 + np.linspace(0.1, 1, 10) ** 2)
ALL: list[Process] = [
    AroundResidual(),
    AddedResidual(noise=1.3),
    AddedImage(),
    Bridge(spread=0.7),
    ShortestPath(),
    Pyramid(signals=(0.9, 0.5), noises=(0.3, 0.9)),
]


def random(*seeds: int, shape: tuple[int, ...] = SHAPE) -> list[NDArray[np.float64]]:
    return [np.random.default_rng(seed).standard_normal(shape) for seed in seeds]


def stepping(
    process: Process, sampler: Sampler = DDPM, of: str = "x0", alpha_bar: NDArray[np.float64] = LINEAR
) -> Stepping:
    return Stepping(sampler, TrainingSchedule(alpha_bar, process), Prediction(of))


def taken(one: Stepping, value: Any, x: Any, at: Level, to: Level, noise: Any = None, u: Any = None) -> Any:
    """One step of one call, states in what the U-Net is given."""
    state = x / at.scale
    said = one.estimated(value, state, at, u)
    return one.step(State(state), (Estimate(*said, None, state, at),), at, to, noise, u).x * to.scale


@pytest.mark.parametrize("process", ALL, ids=lambda process: process.name)
def test_processes_are_read_back(process: Process) -> None:
    assert Process.from_json(process.to_json()) == process
    assert hash(Process.from_json(process.to_json())) == hash(process)
    assert PROCESSES[process.name] is type(process)
    assert process.weights(1.0)[:2] == (1.0, 0.0)


@pytest.mark.parametrize("process", ALL[:4], ids=lambda process: process.name)
@given(share=st.floats(0.3, 0.97), of=st.sampled_from(["eps", "x0", "v", "velocity", "score", "residual", "resnoise"]))
def test_image_and_noise_come_back_from_every_prediction(process: Process, share: float, of: str) -> None:
    """Of x that is made of image, given image and noise as the process says."""
    x0, eps, u = random(1, 2, 3)
    level = Level(5.0, share, process.scale(share))
    a, b, c = process.weights(share)
    change, kept = process.change(share), LINEAR[5] / LINEAR[4]
    ratio = share / LINEAR[4] if of == "resnoise" else kept
    value = {
        "eps": eps,
        "x0": x0,
        "v": a * eps - c * x0,
        "velocity": change.image * x0 + change.given * u + change.noise * eps,
        "score": -eps / c,
        "residual": u - x0,
        "resnoise": eps + (1 - math.sqrt(ratio)) * c / (1 - ratio) * (u - x0),
    }[of]
    if abs(a) < 1e-2 or (of == "velocity" and abs(a * change.noise - c * change.image) < 1e-2):
        return
    x = (a * x0 + b * u + c * eps) / level.scale
    found = stepping(process, of=of).estimated(value, x, level, u)
    for one, expected in zip(found, (x0, eps), strict=True):
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-6)


def test_of_residual_and_noise_apart_the_image_is_what_is_left() -> None:
    process, (x, residual, eps, u) = AddedResidual(noise=1.0), random(1, 2, 3, 4)
    level = Level(3.0, 0.6, process.scale(0.6))
    b = math.sqrt(1 / 0.6 - 1)
    value = np.concatenate([residual, eps], axis=1)
    found = stepping(process, of="residual_eps").estimated(value, x / level.scale, level, u)
    np.testing.assert_allclose(found[0], x - process.added(b) * residual - b * eps, atol=1e-12)
    assert found[1] is not eps
    np.testing.assert_array_equal(found[1], eps)


def test_ddpm_around_the_residual_is_resfusion() -> None:
    """Formula 33 of Shi et al. 2023: DDPM's step with the resnoise in place of the noise."""
    one, (x, u) = stepping(AroundResidual(), of="resnoise"), random(1, 2)
    for t in range(11, 0, -1):
        at, to = one.training.level(t), one.training.level(t - 1)
        resnoise, z = random(10 + t, 50 + t)
        alpha = at.alpha_bar / to.alpha_bar
        sigma = math.sqrt((1 - to.alpha_bar) / (1 - at.alpha_bar) * (1 - alpha))
        expected = (x - (1 - alpha) / math.sqrt(1 - at.alpha_bar) * resnoise) / math.sqrt(alpha) + sigma * z
        np.testing.assert_allclose(taken(one, resnoise, x, at, to, z, u), expected, rtol=0, atol=1e-9)
        x = expected


def test_resfusion_by_the_image_is_its_formula_44() -> None:
    one, (x, u, x0, z) = stepping(AroundResidual()), random(1, 2, 3, 4)
    at, to = one.training.level(9), one.training.level(8)
    residual, alpha = u - x0, at.alpha_bar / to.alpha_bar
    plain = math.sqrt(alpha) * (1 - to.alpha_bar) * (x - residual)
    plain = (plain + math.sqrt(to.alpha_bar) * (1 - alpha) * (x0 - residual)) / (1 - at.alpha_bar)
    sigma = math.sqrt((1 - to.alpha_bar) / (1 - at.alpha_bar) * (1 - alpha))
    np.testing.assert_allclose(taken(one, x0, x, at, to, z, u), plain + residual + sigma * z, atol=1e-9)


def test_resfusion_begins_where_nothing_of_the_image_is_left() -> None:
    process = AroundResidual()
    assert process.weights(0.25) == pytest.approx((0.0, 0.5, math.sqrt(0.75)))
    noise, u = random(1, 2)
    level = Level(11.0, 0.25)
    np.testing.assert_allclose(stepping(process).first(noise, level, u), u / 2 + math.sqrt(0.75) * noise)


@pytest.mark.parametrize("process", [AroundResidual(), AddedImage()], ids=lambda process: process.name)
def test_without_residual_or_given_image_it_is_ddpm(process: Process) -> None:
    x, x0, z = random(1, 2, 3)
    u = x0 if process.name == "around-residual" else 0.0 * x0
    plain = stepping(Process())
    at, to = plain.training.level(9), plain.training.level(4)
    expected = taken(plain, x0, x, at, to, z)
    np.testing.assert_allclose(taken(stepping(process), x0, x, at, to, z, u), expected, rtol=0, atol=1e-12)


def test_the_second_form_of_diffusevae_is_ddpm_around_the_given_image() -> None:
    """c1 x_0 + c2 x_t + (1 - c2) u, with u taken off again in the end."""
    x, x0, z, u = random(1, 2, 3, 4)
    one = stepping(AddedImage())
    at, to = one.training.level(9), one.training.level(4)
    beta = 1 - at.alpha_bar / to.alpha_bar
    c1 = beta * math.sqrt(to.alpha_bar) / (1 - at.alpha_bar)
    c2 = (1 - to.alpha_bar) * math.sqrt(1 - beta) / (1 - at.alpha_bar)
    spread = math.sqrt(beta * (1 - to.alpha_bar) / (1 - at.alpha_bar))
    expected = c1 * x0 + c2 * x + (1 - c2) * u + spread * z
    np.testing.assert_allclose(taken(one, x0, x, at, to, z, u), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(taken(one, x0, x, at, Level(-1.0, 1.0), z, u), x0, rtol=0, atol=1e-12)


def test_steps_with_an_added_residual_are_those_of_rddm() -> None:
    """The posterior of Liu et al. 2023 and their implicit step, of residual and noise that were predicted apart."""
    process, (x, residual, eps, z, u) = AddedResidual(noise=1.0), random(1, 2, 3, 4, 5)
    value = np.concatenate([residual, eps], axis=1)
    one = stepping(process, of="residual_eps", alpha_bar=EXPLODING)
    at, to = one.training.level(8), one.training.level(5)
    (a_t, b_t), (a_s, b_s) = ((process.added(level.noise), level.noise) for level in (at, to))
    x0 = x - a_t * residual - b_t * eps
    b2 = b_t**2 - b_s**2
    mean = b_s**2 / b_t**2 * x + (b2 * a_s - b_s**2 * (a_t - a_s)) / b_t**2 * residual + b2 / b_t**2 * x0
    expected = mean + math.sqrt(b2) * b_s / b_t * z
    np.testing.assert_allclose(taken(one, value, x, at, to, z, u), expected, rtol=0, atol=1e-9)
    implicit = stepping(process, DDIM, "residual_eps", EXPLODING)
    expected = x - (a_t - a_s) * residual - (b_t - b_s) * eps
    np.testing.assert_allclose(taken(implicit, value, x, at, to, None, u), expected, rtol=0, atol=1e-9)


@given(power=st.floats(1, 4), count=st.integers(1, 6))
def test_it_does_not_matter_what_is_removed_first(power: float, count: int) -> None:
    """Residual and noise that are always predicted the same are gone in the end, on whatever way."""
    process, (x, residual, eps, u) = AddedResidual(noise=1.0, power=power), random(1, 2, 3, 4)
    value = np.concatenate([residual, eps], axis=1)
    one = stepping(process, DDIM, "residual_eps", EXPLODING)
    levels = [one.training.level(time) for time in np.linspace(9, 0, count)] + [Level(-1.0, 1.0)]
    levels = levels if count > 1 else [levels[0], levels[-1]]
    found = x
    for at, to in itertools.pairwise(levels):
        found = taken(one, value, found, at, to, None, u)
    np.testing.assert_allclose(found, x - residual - levels[0].noise * eps, rtol=0, atol=1e-9)


def test_rddm_of_nothing_given_is_ddim() -> None:
    """With A = 1 - sqrt(1 - B^2) and u = 0 (their transform of coefficients)."""

    with PROCESSES.scoped():

        @dataclass(frozen=True, slots=True)
        class Transformed(AddedResidual):
            name: ClassVar[str] = "transformed"

            def added(self, noise: float) -> float:
                return 1 - math.sqrt(1 - noise**2)

        process, (x, x0) = Transformed(), random(1, 2)
        levels = [TrainingSchedule(EXPLODING, process).level(time) for time in (8, 3)]
        at, to = levels
        found = taken(stepping(process, DDIM, alpha_bar=EXPLODING), x0, x, at, to, None, 0.0 * x)
        plain = [Level(level.timestep, 1 - level.noise**2) for level in levels]
        np.testing.assert_allclose(found, taken(stepping(Process(), DDIM), x0, x, *plain), rtol=0, atol=1e-12)


@given(t=st.floats(0.01, 0.99), spread=st.floats(0.1, 4))
def test_a_bridge_is_the_interpolant_of_two_images(t: float, spread: float) -> None:
    process = Bridge(spread=spread)
    share = process.alpha_bar(t)
    assert process.time(share) == pytest.approx(t)
    g = math.sqrt(spread * t * (1 - t))
    assert process.weights(share) == pytest.approx((1 - t, t, g), abs=1e-9)
    step = 1e-6
    slopes = [
        (after - before) / (2 * step)
        for before, after in zip(*(process.weights(process.alpha_bar(t + by)) for by in (-step, step)), strict=True)
    ]
    assert process.change(share) == pytest.approx(tuple(slopes), abs=1e-3)


def test_a_step_along_a_bridge_goes_from_interpolant_to_interpolant() -> None:
    process, (x0, eps, u) = Bridge(spread=0.5), random(1, 2, 3)
    one = stepping(process, DDIM, "velocity")
    shares = {time: process.alpha_bar(t) for time, t in ((9.0, 0.8), (4.0, 0.3))}
    at, to = (Level(time, share, process.scale(share)) for time, share in shares.items())
    x, expected = ((1 - t) * x0 + t * u + math.sqrt(0.5 * t * (1 - t)) * eps for t in (0.8, 0.3))
    velocity = u - x0 + 0.5 * (1 - 1.6) / (2 * math.sqrt(0.5 * 0.16)) * eps
    np.testing.assert_allclose(taken(one, velocity, x, at, to, None, u), expected, rtol=0, atol=1e-9)


@given(tau=st.floats(0.02, 0.98))
def test_the_shortest_path_has_states_of_variance_s0_to_the_tau(tau: float) -> None:
    process = ShortestPath()
    variance = process.variance(np.sqrt(np.unique(np.add.outer(np.arange(5) ** 2, np.arange(5) ** 2))))
    share = process.shares(tau, 8, 8)
    np.testing.assert_allclose(share * variance + 1 - share, variance**tau, rtol=1e-9)
    np.testing.assert_allclose(ShortestPath(c1=1.0, c2=1.0, power=1e-9).shares(tau, 8, 8), tau, rtol=1e-6)


@pytest.mark.parametrize("sampler", [DDPM, DDIM], ids=["ddpm", "ddim"])
def test_steps_along_the_shortest_path_are_those_of_every_frequency(sampler: Sampler) -> None:
    """Written out with the Fourier transform of NumPy, which is orthonormal too."""
    process, (x, eps, z) = ShortestPath(), random(1, 2, 3)
    tau = 1 - np.arange(1, 11) / 11
    one = stepping(process, sampler, "eps", tau)
    at, to = one.training.level(6), one.training.level(4)
    found = taken(one, eps, x, at, to, z if sampler is DDPM else None)
    frequency = np.fft.fftfreq(8, 1 / 8)
    s0 = process.variance(np.hypot(frequency[:, None], frequency))
    a, b = ((1 - s0**share) / (1 - s0) for share in (tau[6], tau[4]))
    of_x, of_eps, of_z = (np.fft.fft2(part, norm="ortho") for part in (x, eps, z))
    of_x0 = (of_x - np.sqrt(1 - a) * of_eps) / np.sqrt(a)
    if sampler is DDIM:
        expected = np.sqrt(b) * of_x0 + np.sqrt(1 - b) * of_eps
    else:
        beta = 1 - a / b
        mean = (beta * np.sqrt(b) * of_x0 + (1 - b) * np.sqrt(1 - beta) * of_x) / (1 - a)
        expected = mean + np.sqrt(beta * (1 - b) / (1 - a)) * of_z
    expected = np.fft.ifft2(expected, norm="ortho")
    assert np.abs(expected.imag).max() < 1e-12
    np.testing.assert_allclose(found, expected.real, rtol=0, atol=1e-9)


def test_a_gaussian_of_these_variances_comes_out_of_white_noise() -> None:
    """The flow multiplies every frequency by the root of its variance; the error falls with the steps."""
    process, errors = ShortestPath(c2=1.0), []
    frequency = np.fft.fftfreq(8, 1 / 8)
    s0 = process.variance(np.hypot(frequency[:, None], frequency))
    (noise,) = random(1)
    expected = np.fft.ifft2(np.sqrt(s0) * np.fft.fft2(noise)).real
    for steps in (20, 40, 80):
        one = stepping(process, DDIM, alpha_bar=1 - np.arange(1, steps + 1) / steps)
        x, levels = noise, [one.training.level(time) for time in range(steps - 1, -1, -1)]
        for at, to in itertools.pairwise([*levels, Level(-1.0, 1.0)]):
            share = (1 - s0**at.alpha_bar) / (1 - s0)
            denoised = np.sqrt(share) * s0 / (share * s0 + 1 - share) * np.fft.fft2(x)
            x = taken(one, np.fft.ifft2(denoised).real, x, at, to)
        errors.append(np.abs(x - expected).max())
    assert errors[0] > 1.7 * errors[1] > 2.9 * errors[2]


def _down(size: int) -> NDArray[np.float64]:
    """H as a matrix."""
    pairs = np.kron(np.eye(size // 2), [1, 1]) / math.sqrt(2)
    return np.kron(pairs, pairs)


def test_steps_down_a_pyramid_are_the_posterior_of_udpm() -> None:
    """Abu-Hussein & Giryes 2023: Sigma^-1 = a^2 / s^2 H'H + I / sb^2, by matrices."""
    signals, sigmas = (0.9, 0.5), (0.3, 0.7)
    alphas = (0.9, 0.5 / 0.9)
    noises = tuple(signals[n] * math.sqrt(sum((sigmas[k] / signals[k]) ** 2 for k in range(n + 1))) for n in range(2))
    process = Pyramid(signals=signals, noises=noises)
    one = stepping(process, DDPM, alpha_bar=process.alpha_bars)
    at, to = one.training.level(1), one.training.level(0)
    h = _down(4)  # from level 1, 4 by 4, to level 2, 2 by 2
    through = h.T @ h
    a, s, sb = alphas[1], sigmas[1], noises[0]
    sigma = np.linalg.inv(a**2 / s**2 * through + np.eye(16) / sb**2)
    np.testing.assert_allclose(
        sigma, sb**2 * (np.eye(16) - through) + through / (a**2 / s**2 + 1 / sb**2), rtol=0, atol=1e-12
    )
    full, predicted = random(1, 2, shape=(1, 1, 8, 8))
    coarse, predicted = shrunk(full, 2), shrunk(predicted, 1)  # x_2, and what is said of H x_0
    inner = a / s**2 * h.T @ coarse.ravel() + signals[0] / sb**2 * predicted.ravel()
    mean = shrunk(taken(one, predicted, full, at, to, 0.0 * full), 1)
    np.testing.assert_allclose(mean.ravel(), sigma @ inner, rtol=0, atol=1e-9)
    columns = []
    for pixel in range(64):
        noise = np.eye(64)[pixel].reshape(1, 1, 8, 8)
        columns.append((shrunk(taken(one, predicted, full, at, to, noise), 1) - mean).ravel())
    root = np.stack(columns, axis=1)
    np.testing.assert_allclose(root @ root.T, sigma, rtol=0, atol=1e-9)


def test_what_a_pyramid_does_not_show_is_not_changed_and_not_given() -> None:
    process = Pyramid(signals=(0.9, 0.6, 0.3), noises=(0.3, 0.9, 0.9))
    one = stepping(process, DDPM, alpha_bar=process.alpha_bars)
    at, to = one.training.level(2), one.training.level(1)
    x, other, z = random(1, 2, 3)
    finer = other - grown(shrunk(other, 2), 2)
    np.testing.assert_allclose(one.put_in(x + finer, at), one.put_in(x, at), atol=1e-12)
    value = random(4, shape=(2, 3, 2, 2))[0]
    first, second = (taken(one, value, x + more, at, to, z) / to.scale for more in (0.0, finer * at.scale))
    np.testing.assert_allclose(second - first, finer, rtol=0, atol=1e-12)
    assert one.put_in(x, at).shape == (2, 3, 1, 1)


@pytest.mark.parametrize("process", ALL[4:], ids=lambda process: process.name)
@pytest.mark.parametrize("size", [(8, 8), (12, 4)])
def test_coordinates_are_orthonormal_and_of_one_band(process: Process, size: tuple[int, int]) -> None:
    for length in size:
        basis = process.basis(length)
        np.testing.assert_allclose(basis @ basis.T, np.eye(length), atol=1e-12)
    bands = process.bands(*size)
    assert bands.shape == size
    assert {*bands.ravel()} == {*range(len(process.shares(0.4, *size)))}
    assert (process.shares(1.0, *size) == 1).all()


def test_tensors_and_arrays_take_the_same_steps() -> None:
    for process in ALL:
        x, value, z, u = random(1, 2, 3, 4)
        alpha_bar = process.alpha_bars if isinstance(process, Pyramid) else LINEAR
        one = stepping(process, DDPM, alpha_bar=alpha_bar)
        at, to = one.training.level(1), one.training.level(0)
        if process.resized:
            value = shrunk(value, 1)
        arrays = (value, x, z, u)
        told = u if process.shifted else None
        expected = taken(one, value, x, at, to, z, told)
        tensors = [torch.from_numpy(part) for part in arrays]
        found = taken(one, tensors[0], tensors[1], at, to, tensors[2], tensors[3] if process.shifted else None)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AddedResidual(noise=0), "AddedResidual got noise=0; give a finite number above 0"),
        (lambda: AddedResidual(power=0.5), "power=0.5; give a number of at least 1"),
        (lambda: AddedResidual(of="straight"), "its signal stays as it is"),
        (lambda: Bridge(spread=True), "Bridge got spread=True"),
        (lambda: ShortestPath(c1=-1.0), "ShortestPath got c1=-1.0"),
        (Pyramid, "signals of 0 levels"),
        (lambda: Pyramid(signals=(0.5, 0.9), noises=(1, 1)), "whose ratio falls"),
        (lambda: Pyramid(signals=(0.9, 0.5), noises=(1, 1)).basis(6), "an image of 6 pixels"),
        (lambda: Process.from_json({"name": "flow", "configuration": {}}), "No process is called 'flow'; there are"),
        (lambda: Process.from_json({"name": "bridge", "configuration": {"a": 1}}), "'bridge' cannot be read"),
        (lambda: Process.from_json(3), "3 is no process"),
        (lambda: Prediction("residual_eps", variance=True), "has no variance beside"),
    ],
)
def test_what_processes_cannot_be(make: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        make()
