"""The figure of a plan: bars over the steps that are cut, a span over those that are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

import causalunet as cu
from causalunet.errors import SpecError
from causalunet.report import plot_plan
from tests.analysis.synthetic import write_results


def test_bars_cover_the_steps_of_every_edit(tmp_path: Path) -> None:
    whole = cu.AblateBlock(bottom=3, window=cu.cut_relax_cut(15, cut=3, relax=2)) + cu.SkipSteps(cu.Window(4, 4))
    scaled = cu.Edit("skip.0", cu.Window(9, 2), cu.Scale(0.5))
    results = write_results(tmp_path / "r.zarr", [whole + scaled], samples=2, block=2)
    (ax,) = plot_plan(results, {"kind": "composition"}).axes
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows == ["decoder block 2", "skip connection 0"]
    bars = {}
    for collection in ax.collections:
        (path,) = collection.get_paths()
        (low, bottom), (high, top) = path.get_extents().get_points()
        bars.setdefault(rows[round((bottom + top) / 2)], set()).update(range(round(low + 0.5), round(high + 0.5)))
    assert bars == {"decoder block 2": {15, 14, 13, 10, 9, 8}, "skip connection 0": {9, 8}}
    (span,) = [patch for patch in ax.patches if patch.get_hatch()]
    assert (span.get_x(), span.get_x() + span.get_width()) == (0.5, 4.5)
    assert set(ax.get_legend_handles_labels()[1]) == {
        "step skipped",
        "replaced by zeros, with all that feeds only it",
        "replaced: scale",
    }


def test_a_plan_is_of_one_intervention(tmp_path: Path) -> None:
    results = write_results(tmp_path / "r.zarr", cu.sweep(cu.SkipSteps, start=(9, 5), length=2), samples=2, block=2)
    with pytest.raises(SpecError, match="2 are selected: skip_steps 9-8, skip_steps 5-4"):
        plot_plan(results, {"kind": "skip_steps"})
