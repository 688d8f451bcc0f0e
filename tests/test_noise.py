"""Common random numbers: noise is a pure function of (seed, step), standard normal, without correlation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from causalunet.noise import initial_noise, step_noise

SHAPE = (3, 8, 8)
LARGE = (3, 64, 64)
SEEDS = st.integers(0, 2**63 - 1)


@given(seeds=st.lists(SEEDS, min_size=1, max_size=6), step=st.integers(1, 1000), data=st.data())
def test_noise_of_a_sample_depends_on_its_seed_and_step_only(seeds: list[int], step: int, data: st.DataObject) -> None:
    together = step_noise(seeds, step, SHAPE)
    order = data.draw(st.permutations(range(len(seeds))))
    step_noise([1, 2, 3], 7, SHAPE)
    np.testing.assert_array_equal(step_noise([seeds[i] for i in order], step, SHAPE), together[order])
    for seed, row in zip(seeds, together, strict=True):
        np.testing.assert_array_equal(step_noise([seed], step, SHAPE)[0], row)


@given(seed=SEEDS, other=SEEDS, step=st.integers(0, 1000), other_step=st.integers(0, 1000))
def test_another_seed_or_step_is_other_noise(seed: int, other: int, step: int, other_step: int) -> None:
    same = (seed, step) == (other, other_step)
    assert np.array_equal(step_noise([seed], step, SHAPE), step_noise([other], other_step, SHAPE)) == same


def test_seed_and_step_do_not_exchange() -> None:
    assert not np.array_equal(step_noise([3], 5, SHAPE), step_noise([5], 3, SHAPE))


def test_initial_noise_is_that_of_no_step() -> None:
    initial = initial_noise([4, 0], SHAPE)
    for step in (1, 2, 50, 100, 1000):
        assert not np.array_equal(initial, step_noise([4, 0], step, SHAPE))
    np.testing.assert_array_equal(initial[1], initial_noise([0], SHAPE)[0])


def test_global_random_state_plays_no_part() -> None:
    np.random.seed(0)  # noqa: NPY002
    first = step_noise([9], 3, SHAPE)
    state = np.random.get_state()[1]  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(step_noise([9], 3, SHAPE), first)
    np.random.seed(0)  # noqa: NPY002
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_layout() -> None:
    noise = step_noise(iter([5, 6]), 2, SHAPE)
    assert noise.shape == (2, *SHAPE)
    assert noise.dtype == np.float32


def test_noise_is_what_it_was() -> None:
    """Stored results can be run again only while these numbers stay; a change of them is a change of every result."""
    expected = [1.988553, 0.24585921, -2.3051894, 0.76215905, -1.2650733, 0.69889218]
    np.testing.assert_allclose(step_noise([7], 42, (1, 2, 3)).ravel(), expected, rtol=1e-6)


def test_noise_is_standard_normal() -> None:
    noise = step_noise(range(8), 17, LARGE).ravel().astype(np.float64)
    n = len(noise)
    assert abs(noise.mean()) < 4 / np.sqrt(n)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((noise**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert kstest(noise, "norm").pvalue > 1e-3


@pytest.mark.parametrize("along", ["steps", "seeds", "pixels"])
def test_noise_is_not_correlated(along: str) -> None:
    if along == "steps":
        rows = np.stack([step_noise([3], step, LARGE).ravel() for step in range(10)])
    elif along == "seeds":
        rows = step_noise(range(10), 3, LARGE).reshape(10, -1)
    else:
        noise = step_noise(range(4), 3, LARGE)
        rows = np.stack([np.roll(noise, shift, axis=(-1, -2)).ravel() for shift in range(10)])
    correlation = np.corrcoef(rows) - np.eye(10)
    assert np.abs(correlation).max() < 5 / np.sqrt(rows.shape[1])
