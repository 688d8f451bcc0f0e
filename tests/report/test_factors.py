"""Factors by start: what is drawn is what `factor_changes` counts."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from causalunet.analysis import factor_changes, factor_effects
from causalunet.design import AblateBlock, SkipSteps, sweep
from causalunet.errors import StoreError
from causalunet.report import plot_factors
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results

INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 4), start=(20, 10, 5), length=3),
    *sweep(SkipSteps, start=(19, 10), length=2),
    *sweep(AblateBlock, bottom=2, start=10, length=(1, 2, 4)),
)
BLOCKS = {"kind": "ablate_block", "bottom": 4}
SAMPLES = 6


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    tree = write_results(tmp_path_factory.mktemp("factors") / "results.zarr", INTERVENTIONS, samples=SAMPLES)
    rng = np.random.default_rng(2)
    shape = tree["outcomes"]["factor_code"].shape
    return altered(
        tree,
        factor_code=rng.integers(3, size=shape),
        factor_probability=rng.uniform(0.8, 1.0, size=shape),
        baseline={"factor_code": rng.integers(3, size=shape[1:]), "factor_probability": 0.99},
    )


def test_a_panel_per_factor_and_one_for_any(results: xr.DataTree) -> None:
    changes, unrelated = factor_changes(results, **BLOCKS), factor_effects(results)["unrelated"]
    assert changes["unreadable"].any()
    figure = plot_factors(results, {"four": BLOCKS})
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == [*changes["factor"].values, "any factor"]
    for title, ax in zip(titles, figure.axes, strict=True):
        lines = {line.get_label(): line.get_xydata() for line in ax.lines}
        share = changes["any"] if title == "any factor" else changes["share"].sel(factor=title)
        interval = changes["any_interval"] if title == "any factor" else changes["interval"].sel(factor=title)
        np.testing.assert_allclose(lines["four"], np.stack([changes["start"], share], axis=1))
        drawn = ax.collections[0].get_paths()[0].vertices
        for start in changes["start"].values:
            at = drawn[drawn[:, 0] == start, 1]
            np.testing.assert_allclose([at.min(), at.max()], interval.sel(start=start))
        if title != "any factor":
            assert lines["two unrelated samples"][0, 1] == pytest.approx(float(unrelated.sel(factor=title)))
            dotted = [line for line in ax.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
            np.testing.assert_allclose(dotted[0].get_ydata(), changes["unreadable"].sel(factor=title))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["four", "two unrelated samples", "not readable"]
    assert figure.get_supylabel() == "share with another value, n = 6\nand 95 % Wilson interval"


def test_all_sweeps_and_other_coordinates(results: xr.DataTree) -> None:
    figure = plot_factors(results, {"blocks": BLOCKS, "steps": {"kind": "skip_steps"}}, min_probability=0, columns=2)
    assert {line.get_label() for line in figure.axes[0].lines} == {"blocks", "steps", "two unrelated samples"}
    by_length = plot_factors(results, {"kind": "ablate_block", "bottom": 2, "start": 10}, by="length")
    assert by_length.get_supxlabel() == "steps cut in a row"


def test_without_factors(results: xr.DataTree) -> None:
    without = results["outcomes"].to_dataset().drop_vars("factor_code")
    tree = xr.DataTree.from_dict({"outcomes": without, "baseline": results["baseline"].to_dataset()})
    with pytest.raises(StoreError, match="no factor reader"):
        plot_factors(tree, BLOCKS)
