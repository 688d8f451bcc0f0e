"""Criteria against what they say, and frontiers against loops."""

from __future__ import annotations

import itertools
import random
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from causalunet.analysis import bootstrap_mean
from causalunet.analysis.criteria import Criterion, Kind, first_passing, frontier
from causalunet.errors import SpecError

LEVELS = st.floats(0, 1).map(lambda value: round(value, 2))
CRITERIA = (
    Criterion(threshold=0.5),
    Criterion(threshold=0.5, kind="lower", resamples=99),
    Criterion(threshold=0.5, kind="share", share=0.7),
)


def frontier_by_loop(passes: list[bool]) -> int:
    hardest = -1
    for index, passed in enumerate(passes):
        if not passed:
            break
        hardest = index
    return hardest


def first_by_loop(passes: list[bool]) -> int:
    for index in reversed(range(len(passes))):
        if passes[index]:
            return index
    return -1


@pytest.mark.parametrize(("function", "loop"), [(frontier, frontier_by_loop), (first_passing, first_by_loop)])
def test_frontiers_are_those_of_a_loop(function: object, loop: object) -> None:
    for length in (1, 2, 5):
        rows = [list(row) for row in itertools.product([False, True], repeat=length)]
        expected = [loop(row) for row in rows]
        assert [function(row) for row in rows] == expected
        assert function(np.array([rows, rows])).tolist() == [expected, expected]
    assert isinstance(function([True, False]), int)
    assert function([]) == -1


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_the_first_passing_lies_at_or_beyond_the_frontier(passes: list[bool]) -> None:
    assert first_passing(passes) >= frontier(passes)


def test_mean() -> None:
    values = np.array([[0.7, 0.9, 0.81], [0.7, 0.9, 0.79]])
    assert Criterion(threshold=0.8).passes(values).tolist() == [True, False]


def test_lower_is_the_bound_of_the_interval() -> None:
    values = np.random.default_rng(0).beta(8, 2, size=(4, 30))
    bound = bootstrap_mean(values, probability=0.9, resamples=499, seed=7)[:, 0]
    options = {"kind": "lower", "probability": 0.9, "resamples": 499, "seed": 7}
    np.testing.assert_array_equal(Criterion(**options).statistic(values), bound)
    for place, exact in enumerate(bound):
        assert Criterion(threshold=exact, **options).passes(values)[place]
        assert not Criterion(threshold=np.nextafter(exact, 1), **options).passes(values)[place]
    assert (bound < values.mean(axis=1)).all()


def test_share_counts_samples_at_the_threshold() -> None:
    values = [0.8] * 9 + [0.1]
    assert Criterion(kind="share", share=0.9).passes(values)
    assert not Criterion(kind="share", share=0.91).passes(values)
    assert not Criterion(kind="share", share=0.9).passes([0.8] * 8 + [0.1] * 2)


@pytest.mark.parametrize("samples", [2, 3, 7, 10, 49, 100])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.8])
def test_constant_values_at_the_threshold_pass(samples: int, threshold: float) -> None:
    values = np.full(samples, threshold)
    for kind in ("mean", "lower", "share"):
        assert Criterion(threshold=threshold, kind=kind).passes(values)


def test_identical_images_have_infinite_psnr() -> None:
    values = np.array([np.inf, 20.0, 21.0, 22.0])
    assert Criterion(variable="psnr", threshold=40).passes(values)
    assert not Criterion(variable="psnr", threshold=22.5, kind="lower").passes(values)
    assert not Criterion(variable="psnr", threshold=40, kind="share").passes(values)
    assert Criterion(variable="psnr", threshold=40, kind="lower").passes([np.inf] * 3)


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
@settings(max_examples=30)
@given(arrays.arrays(np.float64, (3, 8), elements=LEVELS), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(criterion: Criterion, values: np.ndarray, rnd: random.Random) -> None:
    order = rnd.sample(range(8), 8)
    np.testing.assert_array_equal(criterion.statistic(values[:, order]), criterion.statistic(values))


@settings(max_examples=50)
@given(
    arrays.arrays(np.float64, (6, 5), elements=LEVELS),
    st.sampled_from(["mean", "lower", "share"]),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_higher_threshold_never_reaches_further(values: np.ndarray, kind: str, bounds: tuple[float, float]) -> None:
    low, high = sorted(bounds)
    easy, strict = (Criterion(threshold=at, kind=kind, share=0.6, resamples=49) for at in (low, high))
    assert frontier(strict.passes(values)) <= frontier(easy.passes(values))
    assert first_passing(strict.passes(values)) <= first_passing(easy.passes(values))


def test_words() -> None:
    assert str(Criterion()) == "mean SSIM >= 0.8"
    assert str(Criterion(variable="psnr", threshold=25)) == "mean PSNR >= 25 dB"
    assert str(Criterion(kind="lower", probability=0.9)) == "lower 90 % bound of mean SSIM >= 0.8"
    assert str(Criterion(kind="share", share=0.75)) == "SSIM >= 0.8 in at least 75 % of samples"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"variable": "beauty"}, "larger or smaller values of 'beauty'.*better='lower'"),
        (
            {"variable": "ssim", "better": "lower"},
            "said in two ways: the argument .*, the outcome 'ssim' says 'hi",
        ),
        ({"variable": "lpips", "better": "smaller"}, "better='smaller'.*neither 'higher' nor 'lower'"),
        ({"variable": "psnr"}, "threshold=25"),
        ({"threshold": 80.0}, "lies in -1 ... 1"),
        ({"threshold": float("nan")}, "finite"),
        ({"kind": "median"}, "'mean', 'lower', 'share'"),
        ({"share": 0.0}, "above 0"),
        ({"share": 90}, "share=90"),
        ({"probability": 95}, "probability=95"),
        ({"resamples": 0}, "at least 1"),
    ],
)
def test_errors_of_a_criterion(options: dict[str, object], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        Criterion(**options)


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        ("mean", [], "0 samples"),
        ("mean", 0.9, "0 samples"),
        ("lower", [0.9], "at least 2"),
        ("share", [0.9, np.nan], "1 of 2 values"),
        ("mean", [-np.inf, 0.9], "minus infinity"),
    ],
)
def test_errors_of_values(kind: str, values: object, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        Criterion(kind=kind).passes(values)


@pytest.mark.parametrize("name", ["threshold", "share", "probability", "resamples", "seed"])
@pytest.mark.parametrize("value", ["0.8", None, True, float("nan"), [0.8]])
def test_numbers_of_a_criterion_are_numbers(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=rf"Criterion got {name}=.*; it must be a finite number"):
        Criterion(**{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    given = Criterion(threshold=np.float64(0.75), share=np.float32(0.5), resamples=np.int64(99), seed=np.uint8(3))
    assert given == Criterion(threshold=0.75, share=0.5, resamples=99, seed=3)
    assert "np." not in repr(given)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0, 1), st.sampled_from(get_args(Kind)))
def test_a_distance_is_judged_as_the_similarity_that_it_is_the_negative_of(
    values: list[float], threshold: float, kind: Kind
) -> None:
    """Both ways of putting the same numbers pass together, by every kind of criterion."""
    options = {"kind": kind, "share": 0.5, "resamples": 50}
    distance = Criterion(variable="mine", better="lower", threshold=threshold, **options)
    similarity = Criterion(variable="negative", better="higher", threshold=-threshold, **options)
    array = np.array(values)
    assert distance.passes(array) == similarity.passes(-array)
    sign = 1 if kind == "share" else -1
    assert distance.statistic(array) == sign * similarity.statistic(-array)


def test_distances_in_words() -> None:
    assert str(Criterion(variable="mse", threshold=0.01)) == "mean MSE <= 0.01"
    lower = Criterion(variable="mine", threshold=2, better="lower", kind="lower")
    assert str(lower) == "upper 95 % bound of mean MINE <= 2"
    with pytest.raises(SpecError, match="1 of 2 values of mse are NaN or infinite"):
        Criterion(variable="mse", threshold=0.01).passes([0.0, np.inf])
