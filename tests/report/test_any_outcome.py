"""Figures, tables and analyses of an outcome that the package has never heard of are those of SSIM, turned round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from causalunet import analysis
from causalunet.analysis import Criterion
from causalunet.analysis.described import described, thresholds_of
from causalunet.design import AblateBlock, sweep
from causalunet.design.outcomes import MSE, SSIM, EstimateDistance
from causalunet.errors import SpecError
from causalunet.report import plot_histogram, plot_pairs, plot_panels, plot_samples, plot_trend, report, table_by_start
from tests.analysis.synthetic import write_results

SWEEP = {"kind": "ablate_block", "bottom": 2}
ONE = {**SWEEP, "start": 15}
FAST = {"resamples": 99}
TOLD = {"units": "u", "better": "lower", "short_name": "Gap", "long_name": "what is missing to 1"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """With ``gap``, 100 (1 - SSIM), a distance, known by its attributes alone."""
    path = tmp_path_factory.mktemp("any") / "results.zarr"
    opened = write_results(path, sweep(AblateBlock, bottom=(2, 4), start=(20, 15, 10, 5), length=3))
    tree = xr.DataTree.from_dict({name: one.to_dataset() for name, one in opened.children.items()})
    tree.attrs = opened.attrs
    outcomes = tree["outcomes"].to_dataset()
    gap = (100 * (1 - outcomes["ssim"])).assign_attrs(TOLD)
    tree["outcomes"] = xr.DataTree(outcomes.assign(gap=gap))
    return tree


def test_effects_turn_with_the_direction(results: xr.DataTree) -> None:
    ssim, gap = analysis.effects(results, **FAST), analysis.effects(results, "gap", threshold=20, **FAST)
    for name in ("share", "p", "share_interval", "worst_sample", "p_adjusted"):
        np.testing.assert_allclose(gap[name], ssim[name], atol=1e-9)
    np.testing.assert_allclose(gap["worst"], 100 * (1 - ssim["worst"]))
    np.testing.assert_allclose(gap["noise_floor"], 100 * (1 - ssim["noise_floor"]))
    assert (gap["mean"].attrs["units"], gap.attrs["better"]) == ("u", "lower")
    with pytest.raises(SpecError, match=r"'gap' count as alike is not known. Say threshold="):
        analysis.effects(results, "gap", **FAST)


def test_an_outcome_is_given_by_name_or_itself(results: xr.DataTree) -> None:
    xr.testing.assert_identical(analysis.effects(results, SSIM(), **FAST), analysis.effects(results, "ssim", **FAST))
    xr.testing.assert_identical(
        analysis.mean_curve(results, MSE(), **SWEEP), analysis.mean_curve(results, "mse", **SWEEP)
    )
    with pytest.raises(SpecError, match="no variable 'x0_distance_3'"):
        analysis.mean_curve(results, EstimateDistance(3), **SWEEP)
    with pytest.raises(SpecError, match="give its name"):
        analysis.mean_curve(results, 3, **SWEEP)  # type: ignore[arg-type]


def test_redundancy_and_curves_know_distances(results: xr.DataTree) -> None:
    criterion = Criterion(variable="gap", threshold=20, better="lower")
    of_gap = analysis.first_redundant_step(results, criterion, kind="ablate_block", **FAST)
    of_ssim = analysis.first_redundant_step(results, kind="ablate_block", **FAST)
    np.testing.assert_array_equal(of_gap["step"], of_ssim["step"])
    for threshold in (0.2, 0.5, 0.8):
        curves = [analysis.mean_curve(results, name, **SWEEP)["mean"] for name in ("ssim", "gap")]
        reached = [
            analysis.curves.first_reached(one, at)
            for one, at in zip(curves, (threshold, 100 * (1 - threshold)), strict=True)
        ]
        assert reached[0] == reached[1]


def test_criteria_take_outcomes_that_have_parameters() -> None:
    criterion = Criterion(variable=EstimateDistance(20), threshold=0.1)
    assert (criterion.variable, criterion.sign) == ("x0_distance_20", -1)
    assert Criterion(variable=SSIM()) == Criterion()
    with pytest.raises(SpecError, match="SSIM, which lies in -1"):
        Criterion(variable=SSIM(), threshold=2)
    with pytest.raises(SpecError, match=r"MSE, which lies in 0 \.\.\. 1; give one between"):
        Criterion(variable="mse", threshold=3)


def test_trends_panels_and_histograms_draw_it(results: xr.DataTree) -> None:
    figure = plot_trend(results, {"cut": SWEEP}, variable=("gap", "ssim"), threshold={"gap": 20})
    left, right = figure.axes
    assert left.get_ylabel().startswith("Gap (u)\n")
    assert [[line.get_label() for line in ax.lines] for ax in (left, right)] == [["cut", "threshold 20"], ["cut"]]
    panels = plot_panels(results, {"kind": "ablate_block"}, variable="gap", threshold=20)
    of_ssim = plot_panels(results, {"kind": "ablate_block"})
    marks = [
        [[text.get_text() for text in ax.texts if text.get_text().isdigit()] for ax in one.axes]
        for one in (panels, of_ssim)
    ]
    assert marks[0] == marks[1]
    (ax,) = plot_histogram(results, ONE, variable="gap", threshold=20).axes
    below = plot_histogram(results, ONE).axes[0].get_title(loc="left").splitlines()[3].replace("below 0.8", "above 20")
    assert below in ax.get_title(loc="left")


def test_pairs_sheets_and_tables_are_ordered_by_it(results: xr.DataTree) -> None:
    by_gap, by_ssim = (
        [ax.get_xlabel().splitlines() for ax in plot_pairs(results, ONE, variable=name, best=2, worst=2).axes[-4:]]
        for name in ("gap", "ssim")
    )
    assert [words[1:] for words in by_gap] == [words[1:] for words in by_ssim], "the same samples in the same order"
    assert all(words[0].startswith("Gap ") and words[0].endswith(" u") for words in by_gap)
    assert plot_samples(results, ONE, variable="gap", samples=1).axes[0].get_xlabel().startswith("Gap ")
    assert str(table_by_start(results, SWEEP, variable="gap").title) == "Mean Gap (u) by start step"


@pytest.mark.thorough
def test_a_page_is_of_it(results: xr.DataTree, tmp_path: Path) -> None:
    text = report(results, tmp_path / "page.html", variable="gap", threshold=20).read_text(encoding="utf-8")
    assert "Mean Gap by start step" in text
    assert "Highest Gap (u)" in text
    left_out = text[text.index("Left out") :]
    assert left_out.count("<li>") == 1, "the estimates, which made-up results do not have"
    with pytest.raises(SpecError, match="'flops' mean that images are more alike is not known"):
        report(results, tmp_path / "other.html", variable="flops")


def test_thresholds_are_of_what_is_drawn() -> None:
    told = [described("ssim"), described("psnr"), described("unheard_of", TOLD)]
    assert thresholds_of("own", told) == [0.8, None, None]
    assert thresholds_of(0.7, told) == [0.7, None, None]
    assert thresholds_of({"unheard_of": 2}, told) == [None, None, 2]
    assert thresholds_of(None, told) == [None, None, None]
    assert (told[2].label, told[2].bound(2), told[0].bound(0.8)) == ("Gap (u)", "≤ 2", "≥ 0.8")
    for wrong in ("usual", {"mse": 1}, {"ssim": float("nan")}):
        with pytest.raises(SpecError, match=r"neither a number nor|the figure has ssim"):
            thresholds_of(wrong, told)  # type: ignore[arg-type]
