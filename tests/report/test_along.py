"""Trends along other numbers than the start, the series that they are found in, and phases."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalunet.analysis import mean_curve
from causalunet.analysis.phases import phases
from causalunet.design import AblateBlock, Edit, SkipSteps, Window, cut_relax_cut, sweep
from causalunet.errors import SpecError, StoreError
from causalunet.report import plot_grid, plot_phases, plot_trend, series_along
from tests.analysis.synthetic import write_results

RELAX = (0, 2, 4, 6)
INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 3, 4), start=(20, 10), length=3),
    *sweep(AblateBlock, bottom=2, start=15, length=(1, 2, 3, 8)),
    *(AblateBlock(bottom=2, window=cut_relax_cut(15, cut=3, relax=relax)) for relax in RELAX),
    *(Edit(component, Window(10, length)) for component in ("up.1", "up.2") for length in (2, 5)),
    *sweep(SkipSteps, start=range(19, 1, -1), length=1),
)
RELAXED = ["15-10", "15-13 10-8", "15-13 8-6", "15-13 6-4"]
LABELS = [f"ablate_block bottom=2 {windows}" for windows in RELAXED]
SKIPS = {"kind": "skip_steps"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return write_results(tmp_path_factory.mktemp("along") / "results.zarr", INTERVENTIONS)


def points(ax: Axes, label: str) -> np.ndarray:
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return np.asarray(line.get_xydata())


def mean_of(results: xr.DataTree, label: str) -> float:
    outcomes = results["outcomes"].to_dataset()
    return float(outcomes["ssim"].values[outcomes["intervention"].values.tolist().index(label)].mean())


def test_rows_of_a_grid_name_the_steps_that_are_edited(results: xr.DataTree, tmp_path: Path) -> None:
    sums = (
        Edit("skip.1", Window(9, 2)) + Edit("skip.0", Window(5, 1)),
        Edit("skip.1", Window(12, 3)) + Edit("skip.0", Window(11, 3)),
        Edit("skip.1", Window(4, 1)) + Edit("skip.0", Window(4, 1)),
    )
    chosen = {"intervention": [item.label for item in sums]}
    figure = plot_grid(write_results(tmp_path / "sums.zarr", sums), chosen, samples=1)
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == ["baseline", "steps 12-9", "from step 9", "step 4"]
    cuts = plot_grid(results, {"intervention": LABELS[:2]}, by="length", samples=1)
    assert [ax.get_ylabel() for ax in cuts.axes] == ["baseline", "from step 15", "steps 15-10"]


def test_trend_along_length(results: xr.DataTree) -> None:
    selection = {"kind": "ablate_block", "bottom": 2, "start": 15, "cuts": 1}
    ax = plot_trend(results, selection, by="length").axes[0]
    labels = [f"ablate_block bottom=2 {window}" for window in ("15-15", "15-14", "15-13", "15-10", "15-8")]
    expected = [[length, mean_of(results, label)] for length, label in zip((1, 2, 3, 6, 8), labels, strict=True)]
    np.testing.assert_allclose(points(ax, "ablate_block bottom=2 start=15 cuts=1"), expected)
    assert ax.get_xlabel() == "steps cut in a row"
    left, right = ax.get_xlim()
    assert left < 1
    assert right > 8
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_trend_along_relaxation_begins_with_one_joined_window(results: xr.DataTree) -> None:
    ax = plot_trend(results, {"intervention": LABELS}, by="relax").axes[0]
    expected = [[relax, mean_of(results, label)] for relax, label in zip(RELAX, LABELS, strict=True)]
    np.testing.assert_allclose(points(ax, "selected interventions"), expected)
    assert ax.get_xlabel() == "steps of relaxation between the cuts"
    named = plot_trend(results, {"bottom 2": {"intervention": LABELS}}, by="relax").axes[0]
    np.testing.assert_array_equal(points(named, "bottom 2"), points(ax, "selected interventions"))


def test_trend_along_depth(results: xr.DataTree) -> None:
    selection = {"kind": "ablate_block", "start": 20, "length": 3}
    ax = plot_trend(results, selection, by="bottom", variable="psnr").axes[0]
    assert points(ax, "ablate_block start=20 length=3")[:, 0].tolist() == [2, 3, 4]
    assert ax.get_xlabel() == "decoder blocks removed, from the bottom"


def test_trend_along_finds_its_series(results: xr.DataTree) -> None:
    name = "ablate_block, bottom=2, from step 15, length 3, 2 cuts"
    assert series_along(results, "relax") == {name: {"intervention": LABELS}}
    ax = plot_trend(results, by="relax").axes[0]
    assert points(ax, name)[:, 0].tolist() == list(RELAX)
    lengths = series_along(results, "length")
    assert list(lengths) == ["ablate_block, bottom=2, from step 15"]
    assert len(lengths["ablate_block, bottom=2, from step 15"]["intervention"]) == 5
    assert list(series_along(results, "length", fewest=2))[1:] == [
        "edit up.1 zero, from step 10",
        "edit up.2 zero, from step 10",
    ]
    depths = series_along(results, "bottom")
    assert list(depths) == ["ablate_block, from step 20, length 3", "ablate_block, from step 10, length 3"]
    assert len(series_along(results, "bottom", most=1)) == 1
    with pytest.raises(StoreError, match="no 3 interventions that differ in top only"):
        series_along(results, "top")
    with pytest.raises(SpecError, match="no series along 'depth'"):
        series_along(results, "depth")


def test_trend_of_the_samples_that_are_whole(tmp_path: Path) -> None:
    partial = write_results(tmp_path / "results.zarr", INTERVENTIONS, blocks_done=2)
    with pytest.raises(StoreError, match="not run yet"):
        plot_trend(partial, SKIPS)
    ax = plot_trend(partial, SKIPS, allow_incomplete=True).axes[0]
    assert ax.get_ylabel().endswith("n = 8")
    assert np.isfinite(points(ax, "skip_steps")).all()


def test_dollar_signs_are_not_mathematics(tmp_path: Path) -> None:
    priced = AblateBlock(bottom=2, window=Window(10, 2), label="from $5_ to $6")
    results = write_results(tmp_path / "results.zarr", [priced])
    figure = plot_trend(results, {"$x^": {"kind": "ablate_block"}})
    figure.canvas.draw()
    assert figure.legends[0].get_texts()[0].get_text() == "$x^"


@pytest.fixture(scope="module")
def found(results: xr.DataTree) -> xr.Dataset:
    return phases(results, segments=3, resamples=50, **SKIPS)


def test_phases_are_shaded_and_named(results: xr.DataTree, found: xr.Dataset) -> None:
    ax = plot_phases(results, SKIPS, found, threshold=0.8).axes[0]
    curve = mean_curve(results, probability=None, **SKIPS)
    np.testing.assert_allclose(points(ax, "mean SSIM"), np.stack([curve["start"], curve["mean"]], axis=1))
    spans = sorted(((p.get_x(), p.get_x() + p.get_width()) for p in ax.patches), key=max, reverse=True)
    edges = [19, *found["boundary"].values.tolist(), 2]
    assert [{float(a), float(b)} for a, b in spans] == [{float(a), float(b)} for a, b in itertools.pairwise(edges)]
    names = {text.get_text(): text.xy[0] for text in ax.texts}
    assert list(names) == ["composition", "transition", "denoising"]
    for name, begin, end in zip(names, edges, edges[1:], strict=False):
        assert names[name] == pytest.approx((begin + end) / 2)
    assert ax.get_xlim()[0] > ax.get_xlim()[1]


def test_phases_have_boundaries_with_intervals_and_fits(results: xr.DataTree, found: xr.Dataset) -> None:
    ax = plot_phases(results, SKIPS, found).axes[0]
    bars = [container[2][0].get_segments()[0][:, 0].tolist() for container in ax.containers]
    np.testing.assert_allclose(np.sort(bars, axis=1), np.sort(found["interval"].values, axis=1))
    upright = [set(np.asarray(line.get_xdata()).tolist()) for line in ax.lines if line.get_linestyle() == "--"]
    for boundary in found["boundary"].values.tolist():
        assert {boundary} in upright
    black = [np.asarray(line.get_xydata()) for line in ax.lines if line.get_color() == "black"]
    np.testing.assert_allclose(np.concatenate(black), np.stack([found["start"], found["fit"]], axis=1))


def test_phases_into_axes_and_of_another_sweep(results: xr.DataTree, found: xr.Dataset) -> None:
    figure = Figure()
    ax = figure.subplots()
    assert plot_phases(results, SKIPS, found, ax=ax) is figure
    with pytest.raises(SpecError, match="Give the selection that the phases were found of"):
        plot_phases(results, {"kind": "ablate_block", "bottom": 3}, found)
