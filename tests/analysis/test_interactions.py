"""Interactions against sums written by hand, and laws of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from causalunet.analysis.compare import compare
from causalunet.analysis.interactions import interactions
from causalunet.design import AblateBlock, AblateSkip, Edit, Null, Scale, Window, factorial
from causalunet.errors import SpecError, StoreError
from causalunet.results.meaning.schema import MISSING
from tests.analysis.cells import cells
from tests.analysis.synthetic import write_results

A, B, C = Edit("up.1", Window(9, 3)), Edit("up.3", Window(9, 3), Scale(0.5)), AblateSkip(2, Window(5, 2))
NULL = Null(Window(9, 3))
FOUR = (*factorial(A, B), NULL)


def drawn(rows: int, samples: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, samples))


def test_it_is_the_sum_of_four_cells() -> None:
    values = drawn(4)
    found = interactions(cells(FOUR, values), variable="y", probability=0.9, resamples=999)
    a, b, both, neither = values
    expected = both - a - b + neither
    assert found["mean"].item() == pytest.approx(expected.mean())
    assert found["sd"].item() == pytest.approx(expected.std(ddof=1))
    near = scipy.stats.bootstrap((expected,), np.mean, confidence_level=0.9, rng=1).confidence_interval
    np.testing.assert_allclose(found["interval"][0], near, atol=0.06 * expected.std())
    exact = scipy.stats.permutation_test(
        (expected,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    assert found["p"].item() == pytest.approx(exact.pvalue, abs=0.03)
    np.testing.assert_allclose(found["cells"][0], values[[3, 0, 1, 2]].mean(axis=1))
    assert [found[name].item() for name in ("a", "b", "pair")] == [A.label, B.label, (A + B).label]
    assert found.attrs == {"variable": "y", "cluster": "sample", "samples": 12, "clusters": 12}


@settings(max_examples=8)
@given(st.integers(0, 1000), st.floats(-3, 3))
def test_effects_that_add_up_have_none(seed: int, third: float) -> None:
    neither, a, b = drawn(3, 6, seed)
    rows = [neither + a, neither + b, neither + a + b + third, neither]
    found = interactions(cells(FOUR, rows), variable="y", resamples=99)
    assert found["mean"].item() == pytest.approx(third, abs=1e-9)
    turned = interactions(cells(FOUR, rows), [(B, A)], "y", resamples=99)
    np.testing.assert_allclose(turned["interval"], found["interval"], atol=1e-12)
    assert turned["a"].item() == found["b"].item()


def test_a_prompt_counts_once_however_many_seeds_it_has() -> None:
    prompts = ["one"] * 3 + ["two"] * 2 + ["three"]
    values = drawn(4, 6)
    found = interactions(cells(FOUR, values, prompts), variable="y", cluster="prompt", resamples=99)
    each = values[2] - values[0] - values[1] + values[3]
    means = np.array([each[:3].mean(), each[3:5].mean(), each[5]])
    assert found["mean"].item() == pytest.approx(means.mean())
    assert found["sd"].item() == pytest.approx(means.std(ddof=1))
    assert (found.attrs["samples"], found.attrs["clusters"]) == (6, 3)


def test_pairs_are_found_also_of_three() -> None:
    items = (*factorial(A, B, C, order=3), NULL)
    found = interactions(cells(items, drawn(len(items))), variable="y", resamples=99)
    wanted = {(A, B), (A, C), (B, C), (A, B + C), (B, A + C), (C, A + B)}
    order = {item.label: place for place, item in enumerate(items)}
    assert {frozenset((str(a), str(b))) for a, b in zip(found["a"].values, found["b"].values, strict=True)} == {
        frozenset((a.label, b.label)) for a, b in wanted
    }
    assert all(order[a] < order[b] for a, b in zip(found["a"].values, found["b"].values, strict=True))


def test_a_store_by_label_and_by_content(tmp_path: Path) -> None:
    one, other = AblateBlock(2, Window(10, 3)), AblateSkip(2, Window(5, 2))
    results = write_results(tmp_path / "results.zarr", factorial(one, other), samples=8)
    by_label = interactions(results, [(one.label, other.label)], "mse", resamples=99)
    xr.testing.assert_identical(by_label, interactions(results, [(one, other)], "mse", resamples=99))
    xr.testing.assert_identical(by_label, interactions(results, variable="mse", resamples=99))
    pairs = [compare(results, (one + other).label, item.label, "mse", resamples=99) for item in (one, other)]
    outcomes = results["outcomes"]["mse"].values.astype(np.float64)
    rest = outcomes[2] - outcomes[3]
    assert by_label["mean"].item() == pytest.approx(
        float(pairs[0]["mean"]) + float(pairs[1]["mean"]) - rest.mean(), rel=1e-6
    )


def test_a_missing_cell_says_what_to_add() -> None:
    values = drawn(4)
    with pytest.raises(SpecError, match=r"Add a \+ b to its interventions"):
        interactions(cells((A, B, NULL), values[:3]), [(A, B)], "y")
    with pytest.raises(SpecError, match=r"'edit up.3 9-7 scale 0.5', is no intervention of the study; add it"):
        interactions(cells((A, A + B, NULL), values[:3]), [(A, B)], "y")
    with pytest.raises(SpecError, match=r"Add Null\(window=...\)"):
        interactions(cells((A, B, A + B), values[:3]), variable="y")
    with pytest.raises(SpecError, match=r"Write \*causalunet.factorial\(a, b\)"):
        interactions(cells((A, A + B, NULL), values[:3]), variable="y")
    with pytest.raises(SpecError, match="is no pair"):
        interactions(cells(FOUR, values), [A.label], "y")  # type: ignore[list-item]
    with pytest.raises(SpecError, match="cluster='seed' is not one of sample, prompt"):
        interactions(cells(FOUR, values), variable="y", cluster="seed")  # type: ignore[arg-type]
    values[0, 0] = np.inf
    with pytest.raises(SpecError, match="1 of 48 values of 'y' are not finite"):
        interactions(cells(FOUR, values), variable="y")


def test_only_the_cells_asked_for_have_to_be_whole() -> None:
    items = (*FOUR, C)
    data = cells(items, drawn(5))
    data["status"][4, 0] = MISSING
    assert interactions(data, [(A, B)], "y", resamples=99).attrs["samples"] == 12
    data["status"][1, 0] = MISSING
    with pytest.raises(StoreError, match="1 of 48 cells"):
        interactions(data, [(A, B)], "y")
    assert interactions(data, [(A, B)], "y", resamples=99, allow_incomplete=True).attrs["samples"] == 11
