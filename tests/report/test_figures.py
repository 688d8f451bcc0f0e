"""Figures hold what the analysis says, with labels, and need no display; tables and files."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from causalunet.analysis import curve, factor_changes, first_redundant_step, mean_curve
from causalunet.design import AblateBlock, AblateSkip, Edit, Scale, SkipSteps, Window, sweep
from causalunet.errors import SpecError, StoreError
from causalunet.report import plot_factors, plot_grid, plot_panels, plot_samples, plot_trend, save, table_by_start
from causalunet.report.pictures import wrap
from causalunet.report.style import ShownFigure, look, step_ticks
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results

INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 4), start=(20, 15, 10, 5), length=3),
    *sweep(AblateSkip, top=2, start=(20, 10), length=5),
    *sweep(SkipSteps, start=(19, 9), length=2),
)
BLOCKS = {"kind": "ablate_block", "bottom": 2}
SKIPS = {"kind": "ablate_skip"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return write_results(tmp_path_factory.mktemp("figures") / "results.zarr", INTERVENTIONS)


def labelled(ax: Axes) -> dict[str, np.ndarray]:
    """Points of every line by its label."""
    return {line.get_label(): line.get_xydata() for line in ax.lines}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for entry in figure.legends for text in entry.get_texts()]


def test_trend_draws_the_mean_curves(results: xr.DataTree) -> None:
    figure = plot_trend(results, {"blocks": BLOCKS, "skips": SKIPS}, variable=("ssim", "psnr"))
    left, right = figure.axes
    for ax, variable in ((left, "ssim"), (right, "psnr")):
        for name, selection in (("blocks", BLOCKS), ("skips", SKIPS)):
            expected = mean_curve(results, variable, probability=None, **selection)
            np.testing.assert_array_equal(labelled(ax)[name], np.stack([expected["start"], expected["mean"]], axis=1))
        assert len(ax.collections) == 2
        first, last = ax.get_xlim()
        assert first > 20
        assert last < 1
        assert ax.get_xlabel() == "step at which the intervention starts"
    assert left.get_ylabel() == "SSIM\nmean ± 1 SD, n = 12"
    assert right.get_ylabel() == "PSNR (dB)\nmean ± 1 SD, n = 12"
    assert set(labelled(left)) == {"blocks", "skips", "threshold 0.8"}
    assert set(labelled(right)) == {"blocks", "skips"}
    assert legend(figure) == ["blocks", "skips", "threshold 0.8"]


@pytest.mark.parametrize("band", ["sd", "interval"])
def test_trend_draws_the_band(results: xr.DataTree, band: str) -> None:
    ax = plot_trend(results, BLOCKS, band=band, threshold=None).axes[0]
    data = mean_curve(results, **BLOCKS)
    deviation = data["mean"] + data["sd"] * xr.DataArray([-1, 1], dims="bound")
    interval = data["interval"] if band == "interval" else deviation
    drawn = ax.collections[0].get_paths()[0].vertices
    for start in data["start"].values:
        at = drawn[drawn[:, 0] == start, 1]
        np.testing.assert_allclose([at.min(), at.max()], interval.sel(start=start))
    assert list(labelled(ax)) == ["ablate_block bottom=2"]
    assert ("95 % interval" in ax.get_ylabel()) == (band == "interval")


def test_trend_of_everything(results: xr.DataTree) -> None:
    figure = plot_trend(results)
    assert legend(figure) == [
        "ablate_block bottom=2",
        "ablate_block bottom=4",
        "ablate_skip top=2",
        "skip_steps",
        "threshold 0.8",
    ]


def test_infinite_psnr_is_left_out_and_told(results: xr.DataTree) -> None:
    ax = plot_trend(results, {"null": {"kind": "null"}, "blocks": BLOCKS}, variable="psnr").axes[0]
    assert len(labelled(ax)["null"]) == 0
    assert np.isfinite(labelled(ax)["blocks"]).all()
    assert ax.get_xlabel().endswith("\ninfinite, not drawn: null at 1 of 1 starts")


def test_trend_into_given_axes(results: xr.DataTree) -> None:
    figure = Figure()
    axes = figure.subplots(1, 2)
    assert plot_trend(results, BLOCKS, ax=axes[0]) is figure
    assert plot_trend(results, BLOCKS, variable="psnr", ax=[axes[1]]) is figure
    assert [len(ax.lines) for ax in axes] == [2, 1]
    assert all(ax.get_legend() is not None for ax in axes)
    with pytest.raises(SpecError, match="1 axes given for 2 variables"):
        plot_trend(results, BLOCKS, variable=("ssim", "psnr"), ax=axes[0])


def test_notebooks_show_figures(results: xr.DataTree) -> None:
    """Without pyplot nothing registers figures with IPython, so they say themselves what they look like."""
    figure = plot_trend(results, {"kind": "skip_steps"})
    assert isinstance(figure, ShownFigure)
    image = np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"))
    assert image.shape[1] == round(figure.get_figwidth() * 150)
    assert image.std() > 10


def test_users_settings_are_left_alone(results: xr.DataTree) -> None:
    before = dict(mpl.rcParams)
    plot_trend(results, BLOCKS)
    assert dict(mpl.rcParams) == before


def test_looks_differ_in_all_three() -> None:
    looks = [look(position) for position in range(12)]
    assert len({str(one) for one in looks}) == 12
    assert all(a.color != b.color and a.marker != b.marker for a, b in itertools.pairwise(looks))


def test_panels_mark_the_start_from_which_on_the_threshold_is_kept(results: xr.DataTree) -> None:
    early = {"kind": "ablate_block", "start": slice(10, 20)}
    means = {bottom: mean_curve(results, bottom=bottom, **early)["mean"] for bottom in (2, 4)}
    assert [start for start in (20, 15, 10) if means[2].sel(start=start) >= 0.75] == [10]
    assert float(means[4].max()) < 0.75
    figure = plot_panels(results, {"kind": "ablate_block", **early}, threshold=0.75)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["(a) bottom = 2", "(b) bottom = 4"]
    for mean, ax in zip(means.values(), figure.axes, strict=True):
        np.testing.assert_array_equal(labelled(ax)["mean SSIM"], np.stack([[20, 15, 10], mean], axis=1))
    reached, never = figure.axes
    mark = labelled(reached)["mean SSIM ≥ 0.75 from this start on"]
    np.testing.assert_array_equal(mark, [[10, float(means[2].sel(start=10))]])
    assert [text.get_text() for text in reached.texts] == ["10"]
    assert [text.get_text() for text in never.texts] == ["threshold not reached"]
    assert figure.get_supxlabel() == "step at which the intervention starts"
    assert figure.get_supylabel() == "SSIM, mean ± 1 SD, n = 12"
    assert legend(figure) == ["mean SSIM", "threshold 0.75", "mean SSIM ≥ 0.75 from this start on"]


def test_panels_and_the_first_redundant_step_agree(results: xr.DataTree) -> None:
    """What passes early and fails late is redundant from no start on; the paper's reading has to be asked for."""
    means = {
        (2, 20): 0.94,
        (2, 15): 0.92,
        (2, 10): 0.88,
        (2, 5): 0.49,
        (4, 20): 0.3,
        (4, 15): 0.9,
        (4, 10): 0.8,
        (4, 5): 1,
    }
    ssim = results["outcomes"]["ssim"].values.copy()
    coordinates = (results["outcomes"][name].values.tolist() for name in ("bottom", "start"))
    for row, key in enumerate(zip(*coordinates, strict=True)):
        ssim[row] = means.get(key, 0.0)
    changed = altered(results, ssim=ssim)
    for lasting in (True, False):
        steps = first_redundant_step(changed, kind="ablate_block", lasting=lasting, resamples=9)["step"].values
        figure = plot_panels(changed, lasting=lasting)
        marked = [[int(text.get_text()) for text in ax.texts if text.get_text().isdigit()] for ax in figure.axes]
        assert marked == [[] if np.isnan(step) else [step] for step in steps]
        assert marked == ([[], [15]] if lasting else [[20], [15]])
        words = [text.get_text() for text in figure.axes[0].texts]
        assert words == (["threshold reached, but not kept"] if lasting else ["20"])
    assert legend(figure)[-1] == "first start with mean SSIM ≥ 0.8"


def test_panels_of_another_kind_and_shape(results: xr.DataTree) -> None:
    figure = Figure()
    assert plot_panels(results, {"kind": "ablate_skip"}, panel="top", band="interval", figure=figure) is figure
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["(a) top = 2"]
    assert len(plot_panels(results, {"bottom": [2, 4]}, columns=1).axes) == 2
    with pytest.raises(SpecError, match="no coordinate 'depth'"):
        plot_panels(results, panel="depth")


def test_grid_shows_baseline_and_runs(results: xr.DataTree) -> None:
    figure = plot_grid(results, BLOCKS, rows=[5, 20], samples=[3, 0])
    axes = np.array(figure.axes).reshape(3, 2)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["baseline", "steps 20-18", "steps 5-3"]
    prompts = results["baseline"]["prompt"].values
    assert [ax.get_title().replace("\n", " ") for ax in axes[0]] == [prompts[3], prompts[0]]
    shown = [[np.moveaxis(ax.images[0].get_array(), -1, 0) for ax in row] for row in axes]
    np.testing.assert_array_equal(shown[0], results["baseline"]["image"].values[[3, 0]])
    expected = curve(results, "image", **BLOCKS)["image"].sel(start=[20, 5], sample=[3, 0])
    np.testing.assert_array_equal(shown[1:], expected)
    assert {ax.images[0].get_interpolation() for ax in figure.axes} == {"nearest"}


def test_grid_by_default_and_its_errors(results: xr.DataTree) -> None:
    assert len(plot_grid(results, SKIPS).axes) == 3 * 6
    with pytest.raises(SpecError, match=r"has start \[7\]; there are \[20, 10\]"):
        plot_grid(results, SKIPS, rows=[7, 20])
    with pytest.raises(SpecError, match=r"12 samples, 0 \.\.\. 11"):
        plot_grid(results, SKIPS, samples=[12])


def test_samples_of_the_baseline_and_of_a_run(results: xr.DataTree) -> None:
    figure = plot_samples(results, samples=5, columns=3)
    assert len(figure.axes) == 6
    assert [ax.axison for ax in figure.axes] == [True] * 5 + [False]
    assert figure.axes[4].get_xlabel().replace("\n", " ") == results["baseline"]["prompt"].values[4]
    run = plot_samples(results, {**BLOCKS, "start": 10}, samples=[2])
    ssim = float(curve(results, **BLOCKS)["ssim"].sel(start=10, sample=2))
    assert run.axes[0].get_xlabel().startswith(f"SSIM {ssim:.2f}\n")
    with pytest.raises(SpecError, match="4 fit the selection"):
        plot_samples(results, BLOCKS)


def test_samples_that_were_not_run_are_not_shown(tmp_path: Path) -> None:
    partial = write_results(tmp_path / "results.zarr", INTERVENTIONS, samples=6, blocks_done=1)
    assert len(plot_samples(partial).axes) == 4
    with pytest.raises(StoreError, match="not run yet"):
        plot_grid(partial, BLOCKS)


def test_captions_fit() -> None:
    wrapped = wrap("a striped red triangle on the left, dark background", 1.0, 6.5, 3)
    assert len(wrapped.splitlines()) == 3
    assert wrapped.endswith(" …")
    assert max(map(len, wrapped.splitlines())) <= 20


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 27, 50, 100, 250, 1000])
def test_ticks_name_both_ends_and_keep_apart(steps: int) -> None:
    ticks = step_ticks(steps)
    assert (ticks[0], ticks[-1]) == (steps, 1)
    assert ticks == sorted(set(ticks), reverse=True)
    assert len(ticks) <= 8
    assert min(np.abs(np.diff(ticks)), default=1) >= 0.05 * (steps - 1)


def test_save_is_reproducible(results: xr.DataTree, tmp_path: Path) -> None:
    for ending in ("png", "pdf", "svg"):
        paths = [tmp_path / name / f"trend.{ending}" for name in ("a", "b")]
        written = [save(plot_trend(results, BLOCKS), path, dpi=60) for path in paths]
        assert written == paths
        assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(SpecError, match="known format"):
        save(Figure(), tmp_path / "figure.docs")


def test_table_by_start(results: xr.DataTree) -> None:
    table = table_by_start(results, {"blocks": BLOCKS, "[skips]": SKIPS, "null": {"kind": "null"}})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "Mean SSIM by start step" in text
    assert "In brackets the 95 % interval (bootstrap BCa); n = 12" in text
    assert "[skips]" in text
    assert "1.000 [1.000, 1.000]" in text
    mean, interval = (mean_curve(results, **BLOCKS)[name].sel(start=15).values for name in ("mean", "interval"))
    row = next(line for line in text.splitlines() if re.match(r"│ +15 │", line))
    found = [float(number) for number in re.findall(r"\d\.\d+", row)]
    assert found[0] == pytest.approx(mean, abs=5e-4)
    assert found[1] <= interval[0] <= interval[1] <= found[2]
    assert found[2] - found[1] <= interval[1] - interval[0] + 0.02
    assert [cell.strip() for cell in row.split("│")[3:5]] == ["-", "-"]


def test_table_of_infinite_psnr(results: xr.DataTree) -> None:
    table = table_by_start(results, {"null": {"kind": "null"}}, variable="psnr")
    assert [str(cell) for cell in table.columns[1].cells] == ["inf [inf, inf]"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """Interventions of one start: edits, compositions, and some that only their labels tell apart."""
    window = Window(10, 3)
    interventions = (
        Edit("up.3", window, label="one block"),
        Edit("up.4", window, label="another block, with a name too long for one line"),
        AblateBlock(2, window) + AblateSkip(2, window),
        AblateSkip(2, window) + SkipSteps(Window(7, 2)),
        Edit("up.3", window, Scale(0.5)),
        Edit("up.4", window, Scale(0.5)),
    )
    return write_results(tmp_path_factory.mktemp("mixed") / "results.zarr", interventions, samples=3)


def test_grid_of_any_interventions_by_label(mixed: xr.DataTree) -> None:
    """What the error advises works, for what differs in its label only as for compositions."""
    labels = mixed["outcomes"]["intervention"].values.tolist()
    with pytest.raises(SpecError, match="by='intervention'"):
        plot_grid(mixed, {"intervention": labels[:2]})
    with pytest.raises(SpecError, match="by='intervention'"):
        plot_grid(mixed, {"kind": "composition"})
    for chosen in (labels[:2], labels[3:1:-1], [labels[5], labels[0], labels[2]]):
        figure = plot_grid(mixed, {"intervention": chosen}, by="intervention", samples=2)
        axes = np.array(figure.axes).reshape(len(chosen) + 1, 2)
        assert [ax.get_ylabel().replace("\n", " ") for ax in axes[:, 0]] == ["baseline", *chosen]
        for label, of_row in zip(chosen, axes[1:], strict=True):
            images = mixed["outcomes"]["image"].values[labels.index(label)]
            for image, ax in zip(images, of_row, strict=False):
                np.testing.assert_array_equal(np.moveaxis(ax.images[0].get_array(), -1, 0), image)
    every = plot_grid(mixed, {}, by="intervention", samples=1)
    assert len(every.axes) == 1 + len(labels)
    some = plot_grid(mixed, {}, by="intervention", rows=[labels[4], labels[1]], samples=1)
    assert [ax.get_ylabel().replace("\n", " ") for ax in some.axes] == ["baseline", labels[4], labels[1]]
    with pytest.raises(SpecError, match="has intervention \\['nothing'\\]; there are \\['one block'"):
        plot_grid(mixed, {}, by="intervention", rows=["nothing"])


def test_any_interventions_side_by_side_in_numbers(mixed: xr.DataTree) -> None:
    labels = mixed["outcomes"]["intervention"].values.tolist()
    chosen = [labels[3], labels[0]]
    means = mean_curve(mixed, by="intervention", intervention=chosen)
    assert means["intervention"].values.tolist() == chosen
    for label in chosen:
        expected = mixed["outcomes"]["ssim"].values[labels.index(label)].mean()
        assert float(means["mean"].sel(intervention=label)) == pytest.approx(expected)
    changes = factor_changes(mixed, by="intervention", min_probability=0)
    np.testing.assert_allclose(changes["share"], mixed["outcomes"]["factor_changed"].mean("sample"))
    for figure in (plot_trend, plot_factors):
        with pytest.raises(SpecError, match="plot_grid\\(by='intervention'\\)"):
            figure(mixed, {"intervention": chosen}, by="intervention")
