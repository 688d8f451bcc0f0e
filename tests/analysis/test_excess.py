"""Effects beyond those of controls, against differences written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from causalunet.analysis.controls import excess
from causalunet.design import Edit, Null, Window, controls
from causalunet.errors import SpecError
from tests.analysis.cells import cells
from tests.analysis.synthetic import small_anatomy

OWN = Edit("up.2", Window(9, 3))
CONTROLS = controls(OWN, small_anatomy())
ITEMS = (OWN, *CONTROLS, Null(Window(9, 3)))


def test_it_is_the_difference_to_the_mean_of_the_controls() -> None:
    values = np.random.default_rng(0).normal(size=(len(ITEMS), 9))
    values[0] += 5
    found = excess(cells(ITEMS, values), OWN, CONTROLS, "y", resamples=999)
    expected = values[0] - values[1:-1].mean(axis=0)
    assert float(found["mean"]) == pytest.approx(expected.mean())
    near = scipy.stats.bootstrap((expected,), np.mean, rng=1).confidence_interval
    np.testing.assert_allclose(found["interval"], near, atol=0.1 * expected.std())
    np.testing.assert_allclose(found["control_effects"], (values[1:-1] - values[-1]).mean(axis=1))
    assert float(found["effect"]) == pytest.approx((values[0] - values[-1]).mean())
    assert float(found["rank_p"]) == float(found["least_p"]) == 1 / 6


def test_the_rank_is_even_among_draws_that_are_alike() -> None:
    rng, ranks = np.random.default_rng(1), []
    for _ in range(120):
        values = rng.normal(size=(len(ITEMS), 1)) + 0.01 * rng.normal(size=(len(ITEMS), 3))
        values[-1] = 0
        ranks.append(float(excess(cells(ITEMS, values), OWN, CONTROLS, "y", resamples=9)["rank_p"]))
    counts = np.bincount(np.round(np.array(ranks) * 6).astype(int), minlength=7)[1:]
    assert counts.sum() == 120
    assert scipy.stats.chisquare(counts).pvalue > 0.001


def test_what_is_no_control() -> None:
    data = cells(ITEMS, np.zeros((len(ITEMS), 4)))
    for given in ([], [OWN]):
        with pytest.raises(SpecError, match="none of them the intervention itself"):
            excess(data, OWN, given, "y")
    with pytest.raises(SpecError, match=r"A control, 'up\.7', is no intervention of the study"):
        excess(data, OWN, ["up.7"], "y")
