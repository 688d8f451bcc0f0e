"""EVODiff against numbers of its authors' code, and what holds of it by itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import causalunet as cu
from causalunet.design.samplers import Estimate, State
from causalunet.errors import SpecError
from causalunet.schedule import Level, TrainingSchedule, linear_alpha_bar
from tests.samplers.walks import levels_of, walk

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "evodiff.json").read_text())
TRAINING = TrainingSchedule(linear_alpha_bar())
TIMES = (900, 700, 400.5, 100, 3)


def exploding(sigma: float) -> Level:
    """As of a model whose states are x_0 + sigma e."""
    return Level(0.0, 1 / (1 + sigma**2), math.sqrt(1 + sigma**2))


def denoise(x: Any, level: Level) -> tuple[Any, Any]:
    """What the exact denoiser of the Gaussian says."""
    mean, variance = np.array(GOLDEN["mean"]), np.array(GOLDEN["variance"])
    share = level.alpha_bar
    gain = math.sqrt(share) * variance / (share * variance + 1 - share)
    x0 = mean + gain * (x - math.sqrt(share) * mean)
    return x0, (x - math.sqrt(share) * x0) / math.sqrt(1 - share)


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda run: f"{run['steps']} steps")
def test_runs_are_those_of_its_authors(run: dict[str, Any]) -> None:
    """What the U-Net is given at each step, and the image."""
    levels = [*map(exploding, run["sigmas"]), Level(-1.0, 1.0)]
    sampler = cu.EVODiff(steps=run["steps"], sigma_max=GOLDEN["sigma_max"], official=True)
    found = walk(sampler, denoise, levels, TRAINING, np.array(GOLDEN["x"]) / levels[0].scale).states
    states = [x * level.scale for x, level in zip(found, levels[1:], strict=True)]
    np.testing.assert_allclose(states, [*run["asked"][1:], run["image"]], rtol=0, atol=1e-7)


def test_what_hangs_on_the_number_of_steps_is_official() -> None:
    """Otherwise the weights are those of few steps, and the image is the last estimate."""
    few, many = GOLDEN["runs"]
    for run, as_official in ((few, True), (many, False)):
        levels = [*map(exploding, run["sigmas"]), Level(-1.0, 1.0)]
        x = np.array(GOLDEN["x"]) / levels[0].scale
        kinds = [
            cu.EVODiff(steps=run["steps"], sigma_max=GOLDEN["sigma_max"], official=official)
            for official in (False, True)
        ]
        plain, official = (np.array(walk(sampler, denoise, levels, TRAINING, x).states) for sampler in kinds)
        assert np.array_equal(plain[:-1], official[:-1]) == as_official
        assert np.abs(plain[-1] - official[-1]).max() > 1e-3
        np.testing.assert_allclose(plain[-1], denoise(plain[-2], levels[-2])[0], rtol=1e-12)


@given(arrays(np.float64, (2, 2, 2, 2), elements=st.floats(-2, 2)))
def test_of_order_1_it_is_ddim(x: NDArray[np.float64]) -> None:
    levels = levels_of(TRAINING, TIMES)
    found = walk(cu.EVODiff(order=1), denoise, levels, TRAINING, x).states
    np.testing.assert_allclose(found, walk(cu.DDIM(), denoise, levels, TRAINING, x).states, rtol=1e-7, atol=1e-9)


@given(st.floats(0.01, 5), st.integers(0, 2**31))
def test_samples_and_channels_are_apart_and_images_of_nothing_are_finite(size: float, seed: int) -> None:
    """A channel that is 0 has no direction to be projected on; the others are as they are without it."""
    levels = levels_of(TRAINING, TIMES)

    def walked(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array(walk(cu.EVODiff(), flat, levels, TRAINING, x).states)

    def flat(x: Any, level: Level) -> tuple[Any, Any]:
        x0 = np.tanh(size * x)
        x0[:, 1] = 0
        return x0, (x - math.sqrt(level.alpha_bar) * x0) / math.sqrt(1 - level.alpha_bar)

    x = np.random.default_rng(seed).standard_normal((2, 2, 3, 3))
    found, other = walked(x), walked(x * np.array([1, 3.0])[:, None, None])
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[:, :, 0], other[:, :, 0])
    np.testing.assert_array_equal(found[:, :1], walked(x[:1]))


@pytest.mark.parametrize("one", [False, True])
def test_estimates_that_agree_are_gone_along(one: bool) -> None:
    """Where the U-Net says the same everywhere and levels are equally far, the balanced difference is nothing."""
    image = np.random.default_rng(0).standard_normal((1, 2, 3, 3))
    levels = [exploding(sigma) for sigma in (8.0, 4.0, 2.0, 1.0)]
    past = tuple(Estimate(image, None, None, None, level) for level in levels[1::-1][: 1 if one else 2])
    x = np.random.default_rng(1).standard_normal(image.shape)
    found, line = (
        sampler.mean(State(x, past), (Estimate(image, None, None, x, levels[2]),), *levels[2:])
        for sampler in (cu.EVODiff(), cu.EVODiff(order=1))
    )
    np.testing.assert_allclose(found, line, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"order": 3}, "EVODiff got order=3; it is 1 or 2"),
        ({"sigma_max": 0}, "sigma_max=0; it is a number above 0"),
        ({"official": "yes"}, "official='yes'"),
    ],
)
def test_what_it_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        cu.EVODiff(**fields)
