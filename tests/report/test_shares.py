"""Shares with their intervals: what is drawn is what was counted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from causalunet.report import plot_shares

COUNTS = {"read as asked": {"colour": 45, "shape": 50, "all": 40}}


def test_points_and_intervals_are_those_of_the_counts() -> None:
    (ax,) = plot_shares(COUNTS, 50, threshold=0.9).axes
    points, _, (bars,) = ax.containers[0]
    np.testing.assert_allclose(points.get_xdata(), [0.9, 1.0, 0.8])
    drawn = np.array([segment[:, 0] for segment in bars.get_segments()])
    expected = [binomtest(k, 50).proportion_ci(0.95, "wilson") for k in (45, 50, 40)]
    np.testing.assert_allclose(drawn, [[interval.low, interval.high] for interval in expected], atol=1e-9)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["colour", "shape", "all"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is on top


@pytest.mark.parametrize("probability", [0.5, 0.99])
def test_the_axis_says_the_probability(probability: float) -> None:
    (ax,) = plot_shares(COUNTS, 50, probability=probability).axes
    assert f"{probability:.0%}" in ax.get_xlabel()


def test_rows_may_be_of_different_numbers() -> None:
    totals = {"all": 40, "colour": 90, "shape": 50, "texture": 7}
    (ax,) = plot_shares(COUNTS, totals).axes
    points, _, (bars,) = ax.containers[0]
    np.testing.assert_allclose(points.get_xdata(), [0.5, 1.0, 1.0])
    drawn = np.array([segment[:, 0] for segment in bars.get_segments()])
    expected = [binomtest(k, n).proportion_ci(0.95, "wilson") for k, n in ((45, 90), (50, 50), (40, 40))]
    np.testing.assert_allclose(drawn, [[interval.low, interval.high] for interval in expected], atol=1e-9)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["colour (n = 90)", "shape (n = 50)", "all (n = 40)"]
    assert ax.get_xlabel() == "share of n, with 95% Wilson interval"
