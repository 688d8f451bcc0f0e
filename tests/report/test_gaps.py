"""Every figure and table on a study of which cells failed and are missing: they show whole samples only, or refuse."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

from causalunet import analysis, report
from causalunet.design import AblateBlock, SkipSteps, sweep
from causalunet.errors import StoreError
from causalunet.report.files import encode
from tests.analysis.gaps import with_gaps, without_gaps
from tests.analysis.synthetic import write_results
from tests.report.stores import with_trajectory

INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 4), start=(20, 16, 12, 8, 5, 4), length=3),
    *sweep(SkipSteps, start=(19, 10), length=2),
)
BLOCKS = {"kind": "ablate_block", "bottom": 2}
ONE = {**BLOCKS, "start": 16}
CALLS: dict[str, Callable[..., Any]] = {
    "plot_deviation": lambda tree, **o: report.plot_deviation(tree, ONE, **o),
    "plot_estimate": report.plot_estimate,
    "plot_factors": lambda tree, **o: report.plot_factors(tree, BLOCKS, **o),
    "plot_grid": lambda tree, **o: report.plot_grid(tree, BLOCKS, rows=[20, 12], samples=3, **o),
    "plot_histogram": lambda tree, **o: report.plot_histogram(tree, ONE, **o),
    "plot_pairs": lambda tree, **o: report.plot_pairs(tree, ONE, best=1, worst=1, **o),
    "plot_panels": report.plot_panels,
    "plot_phases": lambda tree, **o: report.plot_phases(
        tree, BLOCKS, analysis.phases(tree, resamples=20, allow_incomplete=True, **BLOCKS), **o
    ),
    "plot_trend": lambda tree, **o: report.plot_trend(tree, BLOCKS, band="interval", **o),
    "table_by_start": lambda tree, **o: report.table_by_start(tree, BLOCKS, **o),
}
SHOW_WHAT_THERE_IS = {
    "plot_samples": lambda tree: report.plot_samples(tree, samples=3),
    "plot_schedule": report.plot_schedule,
    "plot_plan": lambda tree: report.plot_plan(tree, ONE),
    "series_along": lambda tree: report.series_along(tree, "start"),
}
"""Of the baseline, of the plan, or of the grid alone."""
OTHERS = {"card", "plot_anatomy", "plot_estimates", "plot_shares", "plot_tradeoff", "plot_training", "report", "save"}
"""Tested below, or without results."""


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    path = tmp_path_factory.mktemp("gaps") / "results.zarr"
    write_results(path, INTERVENTIONS, samples=8)
    return with_gaps(with_trajectory(path))


def content(made: Any) -> Any:
    """What can be compared of a figure or a table."""
    if isinstance(made, Figure):
        return encode(made, "png", dpi=40)
    if isinstance(made, dict):
        return made
    console = Console(width=160, record=True, quiet=True)
    console.print(made)
    return console.export_text()


def test_everything_of_results_is_made_here() -> None:
    assert set(CALLS) | set(SHOW_WHAT_THERE_IS) | OTHERS == set(report.__all__)
    assert {
        name for name in CALLS if "allow_incomplete" not in inspect.signature(getattr(report, name)).parameters
    } == set()


@pytest.mark.parametrize("name", CALLS)
def test_gaps_are_refused_unless_allowed(gappy: xr.DataTree, name: str) -> None:
    with pytest.raises(StoreError, match="retry_failed=True"):
        CALLS[name](gappy)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CALLS)
def test_whole_samples_only(gappy: xr.DataTree, name: str) -> None:
    some = CALLS[name](gappy, allow_incomplete=True)
    assert content(some) == content(CALLS[name](without_gaps(gappy), allow_incomplete=True))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SHOW_WHAT_THERE_IS)
def test_what_needs_no_cells_shows_what_there_is(gappy: xr.DataTree, name: str) -> None:
    make = SHOW_WHAT_THERE_IS[name]
    assert content(make(gappy)) == content(make(without_gaps(gappy)))


def test_estimates_of_a_failed_run_are_not_shown(gappy: xr.DataTree) -> None:
    report.plot_estimates(gappy, sample=4)
    with pytest.raises(StoreError, match="1 of 1 samples failed"):
        report.plot_estimates(gappy, sample=0)


@pytest.mark.thorough
def test_page_tells_failed_and_missing_apart(gappy: xr.DataTree, tmp_path: Path) -> None:
    text = report.report(gappy, tmp_path / "page.html").read_text()
    assert "4 of 8 samples are complete" in text
    assert "goes on where it was" in text
    assert "Cells of 2 samples failed" in text
    assert "4 complete, 2 with cells that failed" in text
    assert "Left out" not in text
    assert " nan" not in text
    only_failed = gappy.isel(sample=[0, 1, 4, 5, 6])
    again = report.report(only_failed, tmp_path / "failed.html").read_text()
    assert "goes on where it was" not in again
    assert "retry_failed=True" in again
