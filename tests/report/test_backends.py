"""Figures for browsers hold the numbers and images of those on paper."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from causalunet.analysis import curve, mean_curve
from causalunet.design import AblateBlock, sweep
from causalunet.errors import CausalUNetError, MissingExtraError, SpecError
from causalunet.report import plot_grid, plot_trend
from causalunet.report.chosen import baseline_images
from tests.analysis.synthetic import write_results

BLOCKS = {"kind": "ablate_block", "bottom": 2}
Draw = Callable[..., Any]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    interventions = sweep(AblateBlock, bottom=(2, 4), start=(20, 15, 10, 5), length=3)
    return write_results(tmp_path_factory.mktemp("backends") / "results.zarr", tuple(interventions))


def columns(drawn: Any, *names: str) -> list[dict[str, Any]]:
    """Sources of a figure of Bokeh that have some columns."""
    from bokeh.models import GlyphRenderer

    sources = [one.data_source.data for one in drawn.select({"type": GlyphRenderer})]
    return [source for source in sources if set(names) <= set(source)]


def test_trends_for_browsers_have_the_same_means(results: xr.DataTree) -> None:
    pytest.importorskip("bokeh")
    selections = {"two": BLOCKS, "four": {**BLOCKS, "bottom": 4}}
    panels = plot_trend(results, selections, variable=("ssim", "psnr"), band="interval", backend="bokeh")
    assert len(panels.children) == 2
    for panel, variable in zip(panels.children, ("ssim", "psnr"), strict=True):
        for name, selection in selections.items():
            expected = mean_curve(results, variable, **selection)
            (found,) = {id(one): one for one in columns(panel, "mean", "start") if one["name"][0] == name}.values()
            np.testing.assert_array_equal(found["start"], expected["start"])
            np.testing.assert_array_equal(found["mean"], expected["mean"])
            low, high = expected["interval"].values[0]
            assert found["told"][0] == f"{low:.4f} to {high:.4f}"


def test_one_variable_is_one_figure(results: xr.DataTree) -> None:
    pytest.importorskip("bokeh")
    from bokeh.embed import file_html
    from bokeh.plotting import figure

    drawn = plot_trend(results, BLOCKS, backend="bokeh")
    assert isinstance(drawn, figure)
    assert "bokeh" in file_html(drawn, "inline")


def test_grids_for_browsers_have_the_same_images(results: xr.DataTree) -> None:
    pytest.importorskip("bokeh")
    sheet = plot_grid(results, BLOCKS, samples=2, rows=(15, 5), backend="bokeh")
    (images,) = columns(sheet, "image")
    expected = curve(results, "image", **BLOCKS).sel(start=[15, 5]).isel(sample=slice(2))
    before = baseline_images(results, expected["sample"]).values
    every = np.concatenate([before[None], expected["image"].transpose("start", "sample", ...).values])
    flat = every.reshape(-1, *every.shape[2:])
    assert len(images["image"]) == len(flat) == 6
    for found, image in zip(images["image"], flat, strict=True):
        channels = np.ascontiguousarray(found).view(np.uint8).reshape(*found.shape, 4)[::-1, :, :3]
        np.testing.assert_array_equal(channels, np.round(255 * np.moveaxis(image, 0, -1)).astype(np.uint8))
    (tiles,) = columns(sheet, "told")
    assert [one.split(":")[0] for one in tiles["told"]] == ["baseline"] * 2 + ["steps 15-13"] * 2 + ["steps 5-3"] * 2


@pytest.mark.parametrize(
    ("draw", "into"), [(plot_trend, {"ax": lambda: plt.figure().subplots()}), (plot_grid, {"figure": plt.figure})]
)
def test_what_cannot_be_drawn_is_told(
    draw: Draw, into: dict[str, Callable[[], Any]], results: xr.DataTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(error: type[CausalUNetError], **options: Any) -> str:
        with pytest.raises(error) as raised:
            draw(results, BLOCKS, **options)
        return str(raised.value)

    assert "there are 'matplotlib' and 'bokeh'" in told(SpecError, backend="plotly")
    given = {name: make() for name, make in into.items()}
    assert "without ax= or figure=" in told(SpecError, backend="bokeh", **given)
    plt.close("all")
    monkeypatch.setitem(sys.modules, "bokeh", None)
    assert "pip install 'causalunet[explore]'" in told(MissingExtraError, backend="bokeh")
