"""Intervals against scipy called directly, their coverage on simulated data, and cells that scipy cannot do."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from causalunet.analysis import bootstrap_mean
from causalunet.analysis.intervals import wilson_share
from causalunet.errors import SpecError


def skewed(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).gamma(2.0, size=shape)


def test_bounds_are_scipys() -> None:
    values = skewed(3, 4, 20)
    bounds = bootstrap_mean(values, probability=0.9, resamples=999, seed=3)
    assert bounds.shape == (3, 4, 2)
    expected = scipy.stats.bootstrap(
        (np.sort(values, axis=-1),),
        np.mean,
        axis=-1,
        method="BCa",
        confidence_level=0.9,
        n_resamples=999,
        rng=np.random.default_rng(3),
    ).confidence_interval
    np.testing.assert_allclose(bounds[..., 0], expected.low, rtol=1e-12)
    np.testing.assert_allclose(bounds[..., 1], expected.high, rtol=1e-12)


def test_bounds_do_not_depend_on_how_the_work_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(7, 11)
    whole = bootstrap_mean(values, resamples=499)
    monkeypatch.setattr("causalunet.analysis.intervals._MOST_CELLS", 2)
    monkeypatch.setattr("causalunet.analysis.intervals._MOST_VALUES", 100)
    np.testing.assert_allclose(bootstrap_mean(values, resamples=499), whole, rtol=1e-12)
    np.testing.assert_allclose(bootstrap_mean(values[4], resamples=499), whole[4], rtol=1e-12)


def test_coverage_of_a_normal_mean() -> None:
    # Student's interval covers 95 % exactly, so how often it does here says how lucky these data are: what is left is
    # the coverage of BCa, 93 % with 30 samples, to within half a point.
    values = np.random.default_rng(0).normal(2.0, 3.0, size=(1000, 30))
    lower, upper = bootstrap_mean(values).T
    student = scipy.stats.ttest_1samp(values, 2.0, axis=1).confidence_interval(0.95)
    covered = np.mean((lower <= 2.0) & (upper >= 2.0))
    luck = np.mean((student.low <= 2.0) & (student.high >= 2.0)) - 0.95
    assert 0.92 <= covered - luck <= 0.97


def test_a_wider_probability_gives_a_wider_interval() -> None:
    values = skewed(5, 25)
    narrow, wide = (np.diff(bootstrap_mean(values, probability=p, resamples=999)) for p in (0.5, 0.99))
    assert (wide > narrow).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.7e200])
def test_constant_cells_have_their_value_as_bounds(value: float) -> None:
    values = np.stack([np.full(9, value), np.arange(9.0)])
    bounds = bootstrap_mean(values, resamples=99)
    assert bounds[0].tolist() == [value, value]
    assert bounds[1, 0] < 4 < bounds[1, 1]


def test_constant_but_for_rounding() -> None:
    values = np.full(30, 0.1)
    values[7] = np.nextafter(0.1, 1)
    assert bootstrap_mean(values).tolist() == [0.1, values[7]]


def test_infinite_values_leave_a_lower_bound() -> None:
    values = skewed(12)
    values[[2, 5]] = np.inf
    lower, upper = bootstrap_mean(values, resamples=999)
    assert upper == np.inf
    assert lower == bootstrap_mean(values[np.isfinite(values)], resamples=999)[0]
    assert bootstrap_mean([3.0, np.inf]).tolist() == [3.0, np.inf]
    assert bootstrap_mean([np.inf, np.inf]).tolist() == [np.inf, np.inf]


@given(arrays.arrays(np.float64, (2, 6), elements=st.floats(-1, 1).map(lambda value: round(value, 2))), st.randoms())
def test_bounds_lie_within_the_data_and_know_no_order(values: np.ndarray, random: object) -> None:
    bounds = bootstrap_mean(values, resamples=99)
    assert np.isfinite(bounds).all()
    assert (values.min(axis=-1) <= bounds[:, 0]).all()
    assert (bounds[:, 0] <= bounds[:, 1]).all()
    assert (bounds[:, 1] <= values.max(axis=-1)).all()
    order = list(range(6))
    random.shuffle(order)
    np.testing.assert_array_equal(bootstrap_mean(values[:, order], resamples=99), bounds)


@pytest.mark.parametrize(
    ("values", "options", "told"),
    [
        ([1.0], {}, "at least 2"),
        (np.zeros((3, 0)), {}, "0 samples"),
        (2.0, {}, "at least 2"),
        ([1.0, np.nan], {}, "1 of 2 values"),
        ([1.0, -np.inf], {}, "minus infinity"),
        ([1.0, 2.0], {"probability": 95}, "probability=95"),
        ([1.0, 2.0], {"resamples": 0}, "at least 1"),
    ],
)
def test_errors_say_what_to_do(values: object, options: dict[str, float], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        bootstrap_mean(values, **options)


def test_wilson_is_scipys() -> None:
    successes = np.arange(11)
    bounds = wilson_share(successes, 10, probability=0.9)
    for count, (lower, upper) in zip(successes, bounds, strict=True):
        expected = scipy.stats.binomtest(int(count), 10).proportion_ci(0.9, method="wilson")
        assert (lower, upper) == pytest.approx((expected.low, expected.high), abs=1e-12)
    with pytest.raises(SpecError, match="at least 1"):
        wilson_share(0, 0)
