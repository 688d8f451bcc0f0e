"""Histograms, pairs, deviation and trade-off: what is drawn is what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from causalunet.design import AblateBlock, SkipSteps, sweep
from causalunet.errors import SpecError, StoreError
from causalunet.report import plot_deviation, plot_histogram, plot_pairs, plot_tradeoff
from tests.analysis.synthetic import write_results

INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 4), start=(20, 15, 10, 5), length=3),
    *sweep(SkipSteps, start=(19, 9), length=2),
)
BLOCKS = {"kind": "ablate_block", "bottom": 2}
ONE = {**BLOCKS, "start": 15}
NULL = {"kind": "null"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return write_results(tmp_path_factory.mktemp("distributions") / "results.zarr", INTERVENTIONS)


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    path = tmp_path_factory.mktemp("partial") / "results.zarr"
    return write_results(path, INTERVENTIONS, samples=12, blocks_done=2)


def values(results: xr.DataTree, variable: str = "ssim", **selection: object) -> np.ndarray:
    """Outcomes of one intervention, picked without the package's own selection."""
    outcomes = results["outcomes"].to_dataset()
    fits = np.logical_and.reduce([outcomes[name].values == value for name, value in selection.items()])
    (position,) = np.flatnonzero(fits)
    return outcomes[variable].values[position]


def bars(ax: Axes) -> tuple[list[float], list[float]]:
    return [bar.get_height() for bar in ax.patches], [bar.get_x() for bar in ax.patches]


def lines(ax: Axes) -> dict[str, float]:
    """Where every labelled vertical line stands."""
    return {str(line.get_label()): float(np.asarray(line.get_xdata())[0]) for line in ax.lines}


def test_histogram_counts_the_samples(results: xr.DataTree) -> None:
    (ax,) = plot_histogram(results, ONE).axes
    ssim = values(results, **ONE)
    heights, left = bars(ax)
    np.testing.assert_array_equal(heights, np.histogram(ssim, np.linspace(0, 1, 21))[0])
    np.testing.assert_allclose(left, np.linspace(0, 0.95, 20), atol=1e-12)
    assert sum(heights) == 12
    assert lines(ax) == {"mean": pytest.approx(ssim.mean()), "threshold 0.8": 0.8}


def test_histogram_tells_mean_deviation_and_share(results: xr.DataTree) -> None:
    ssim = values(results, **ONE)
    threshold = float(np.sort(ssim)[4:6].mean())
    (ax,) = plot_histogram(results, ONE, threshold=threshold).axes
    title = ax.get_title(loc="left")
    interval = binomtest(5, 12).proportion_ci(0.95, "wilson")
    assert title.splitlines()[0] == "ablate_block bottom=2 15-13"
    assert f"mean {ssim.mean():#.3g}\n" in title
    assert f"mean absolute deviation {np.abs(ssim - ssim.mean()).mean():.2g}\n" in title
    assert f"{100 * 5 / 12:.0f} % below {threshold:g}" in title
    assert f"[{100 * interval.low:.0f}, {100 * interval.high:.0f}]" in title


def test_histograms_of_a_selection_share_their_bins(results: xr.DataTree) -> None:
    figure = plot_histogram(results, BLOCKS, bins=[0, 0.3, 0.8, 1])
    assert len(figure.axes) == 4
    for ax, start in zip(figure.axes, (20, 15, 10, 5), strict=True):
        expected = np.histogram(values(results, **BLOCKS, start=start), [0, 0.3, 0.8, 1])[0]
        np.testing.assert_array_equal(bars(ax)[0], expected)
    assert figure.get_supylabel() == "samples, n = 12"


def test_histogram_by_names_and_of_another_variable(results: xr.DataTree) -> None:
    named = {"early": ONE, "null": NULL}
    figure = plot_histogram(results, named, variable="psnr", bins=4)
    early, null = figure.axes
    finite = values(results, "psnr", **ONE)
    assert early.get_title(loc="left").startswith(f"early\nmean {finite.mean():#.3g} dB\n")
    np.testing.assert_array_equal(bars(early)[0], np.histogram(finite, 4)[0])
    assert sum(bars(null)[0]) == 0
    assert "12 infinite, not drawn" in null.get_title(loc="left")
    assert early.get_xlabel() == "PSNR (dB)"
    assert "threshold 0.8" not in lines(early)


def test_histogram_errors(results: xr.DataTree, partial: xr.DataTree) -> None:
    with pytest.raises(SpecError, match="'blocks' selects 4"):
        plot_histogram(results, {"blocks": BLOCKS, "one": ONE})
    with pytest.raises(SpecError, match="not one number per sample"):
        plot_histogram(results, ONE, variable="image")
    with pytest.raises(SpecError, match="no variable 'lpips'"):
        plot_histogram(results, ONE, variable="lpips")
    with pytest.raises(SpecError, match="at least 1"):
        plot_histogram(results, ONE, bins=0)
    with pytest.raises(StoreError, match="not run yet"):
        plot_histogram(partial, ONE)
    assert sum(bars(plot_histogram(partial, ONE, allow_incomplete=True).axes[0])[0]) == 8


def test_too_many_histograms_are_refused(tmp_path: Path) -> None:
    many = write_results(tmp_path / "results.zarr", sweep(SkipSteps, start=range(19, 5, -1), length=2), samples=2)
    with pytest.raises(SpecError, match="14 interventions fit the selection; a figure holds 12"):
        plot_histogram(many, {"kind": "skip_steps"})


def test_pairs_show_the_extremes(results: xr.DataTree) -> None:
    figure = plot_pairs(results, ONE, best=2, worst=3, amplify=2)
    axes = np.array(figure.axes).reshape(3, 5)
    ssim, psnr = values(results, **ONE), values(results, "psnr", **ONE)
    order = np.argsort(-ssim)
    chosen = [*order[:2], *order[-3:]]
    assert [ax.get_title() for ax in axes[0]] == ["best 1", "best 2", "worst 3", "worst 2", "worst 1"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["baseline", "intervened", "|difference|\ntimes 2"]
    baseline, images = results["baseline"]["image"].values, values(results, "image", **ONE)
    for column, sample in enumerate(chosen):
        shown = [np.moveaxis(np.asarray(ax.images[0].get_array()), -1, 0) for ax in axes[:, column]]
        np.testing.assert_array_equal(shown[0], baseline[sample])
        np.testing.assert_array_equal(shown[1], images[sample])
        np.testing.assert_allclose(shown[2], np.clip(2 * np.abs(images[sample] - baseline[sample]), 0, 1), atol=1e-6)
        caption = axes[-1, column].get_xlabel()
        assert caption.startswith(f"SSIM {ssim[sample]:.3f}\nPSNR {psnr[sample]:.1f} dB\n")
        prompt = results["baseline"]["prompt"].values[sample]
        assert caption.split("\n", 2)[2].replace("\n", " ") == prompt


def test_pairs_of_few_samples_show_each_once(tmp_path: Path) -> None:
    few = write_results(tmp_path / "results.zarr", INTERVENTIONS, samples=3)
    titles = [ax.get_title() for ax in plot_pairs(few, ONE).axes[:3]]
    assert titles == ["best 1", "best 2", "worst 1"]
    assert len(plot_pairs(few, ONE, best=0, worst=2).axes) == 6
    with pytest.raises(SpecError, match="asks for no sample"):
        plot_pairs(few, ONE, best=0, worst=0)


def test_pairs_and_deviation_are_of_one_intervention(results: xr.DataTree, partial: xr.DataTree) -> None:
    for plot in (plot_pairs, plot_deviation):
        with pytest.raises(SpecError, match="4 fit the selection"):
            plot(results, BLOCKS)
        with pytest.raises(StoreError, match="not run yet"):
            plot(partial, ONE)
        assert isinstance(plot(partial, ONE, allow_incomplete=True), Figure)
    assert "identical" in plot_pairs(results, NULL).axes[-1].get_xlabel()


def test_deviation_is_the_mean_over_samples_and_channels(results: xr.DataTree, partial: xr.DataTree) -> None:
    for tree, n, options in ((results, 12, {}), (partial, 8, {"allow_incomplete": True})):
        ax, bar = plot_deviation(tree, ONE, **options).axes
        difference = np.abs(values(tree, "image", **ONE) - tree["baseline"]["image"].values)[:n]
        expected = difference.astype(np.float64).mean(axis=(0, 1))
        np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), expected, rtol=1e-5)
        assert ax.get_title(loc="left").endswith(f"mean absolute deviation {expected.mean():.3g}, n = {n}")
        assert ax.images[0].get_clim() == (0, pytest.approx(expected.max(), rel=1e-5))
        assert "[0, 1]" in bar.get_ylabel()


def tradeoff() -> xr.Dataset:
    rows = [
        ("fewer steps", "50 steps", 0.5, 0.70, 0.64, 0.74),
        ("shortcut", "cuts", 0.9, 0.95, 0.93, 0.97),
        ("fewer steps", "90 steps", 0.9, 0.97, 0.96, 0.98),
        ("fewer steps", "70 steps", 0.7, 0.88, 0.85, 0.90),
    ]
    family, label, time, ssim, low, high = zip(*rows, strict=True)
    return xr.Dataset(
        {
            "time": ("method", list(time)),
            "ssim": ("method", list(ssim)),
            "interval": (("method", "bound"), np.array([low, high]).T, {"probability": 0.9, "interval_kind": "BCa"}),
        },
        coords={"family": ("method", list(family)), "label": ("method", list(label))},
        attrs={"samples": 7},
    )


def test_tradeoff_draws_families_in_the_order_of_time() -> None:
    (ax,) = plot_tradeoff(tradeoff(), marks={"27 % less time": 0.73}).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn["fewer steps"] == [[0.5, 0.70], [0.7, 0.88], [0.9, 0.97]]
    assert drawn["shortcut"] == [[0.9, 0.95]]
    assert {point[1] for point in drawn["threshold 0.8"]} == {0.8}
    assert {point[0] for point in drawn["27 % less time"]} == {0.73}
    reach = [segment[:, 1].tolist() for bar in ax.containers for segment in bar[2][0].get_segments()]
    np.testing.assert_allclose(sorted(reach), [[0.64, 0.74], [0.85, 0.90], [0.93, 0.97], [0.96, 0.98]])
    assert {text.get_text() for text in ax.texts} == {"50 steps", "70 steps", "90 steps", "cuts"}
    assert ax.get_ylabel() == "mean SSIM to the uncut run\nwith 90 % interval (BCa), n = 7"
    low, high = ax.get_ylim()
    assert low < 0.64
    assert high > 1
    left, right = ax.get_xlim()
    assert left < 0.5
    assert right > 1


def test_tradeoff_joins_only_what_it_is_told_to() -> None:
    families = list(dict.fromkeys(tradeoff()["family"].values.tolist()))
    (ax,) = plot_tradeoff(tradeoff(), joined=families[:1]).axes
    lines = {line.get_label(): line.get_linestyle() for line in ax.lines}
    assert lines[families[0]] != "None"
    assert {lines[family] for family in families[1:]} == {"None"}


def test_tradeoff_into_axes_and_its_errors() -> None:
    figure = Figure()
    ax = figure.subplots()
    assert plot_tradeoff(tradeoff(), threshold=None, ax=ax) is figure
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["fewer steps", "shortcut"]
    for data in (tradeoff().drop_vars("family"), tradeoff().isel(method=slice(0)), tradeoff().isel(bound=[0])):
        with pytest.raises(SpecError, match="A trade-off needs"):
            plot_tradeoff(data)
