"""Tables of pandas hold the stored numbers, a row per cell or per entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from causalunet.analysis import effects, mean_curve, summary_table, to_frame
from causalunet.design import AblateBlock, SkipSteps, sweep
from causalunet.errors import SpecError
from causalunet.results import Results
from tests.analysis.synthetic import write_results

INTERVENTIONS = (*sweep(AblateBlock, bottom=(2, 4), start=(20, 10), length=3), *sweep(SkipSteps, start=9, length=2))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    tree = write_results(tmp_path_factory.mktemp("frame") / "results.zarr", INTERVENTIONS, samples=5, blocks_done=1)
    assert isinstance(tree, Results)
    return tree


def test_a_row_per_cell(results: Results) -> None:
    table, outcomes = results.to_frame(), results.outcomes.to_dataset()
    assert len(table) == outcomes.sizes["intervention"] * outcomes.sizes["sample"]
    assert {"digest", "spec", "image", "factor_code"}.isdisjoint(table.columns)
    assert table["status"].value_counts().to_dict() == {1: 6 * 4, 0: 6}
    for row in table.itertuples():
        cell = outcomes.sel(intervention=row.intervention, sample=row.sample)
        np.testing.assert_array_equal(row.ssim, cell.ssim.item())
        assert (row.kind, row.start, row.prompt, row.flops) == (
            str(cell.kind.item()),
            cell.start.item(),
            str(cell.prompt.item()),
            cell.flops.item(),
        )


def test_chosen_and_own_outcomes(results: Results, tmp_path: Path) -> None:
    table = results.to_frame("ssim")
    assert table.columns[-1] == "ssim"
    assert "psnr" not in table
    means = table.pivot_table(index="start", columns=["kind", "bottom"], values="ssim")
    expected = results.outcomes.ssim.sel(kind="ablate_block", bottom=4, start=10).mean().item()
    assert means.loc[10, ("ablate_block", 4)] == pytest.approx(expected)
    with pytest.raises(SpecError, match=r"no 'image' with one value.*ssim"):
        results.to_frame("image")


def test_analysis_as_a_table(results: Results) -> None:
    options = {"allow_incomplete": True, "resamples": 20}
    curve = mean_curve(results, kind="ablate_block", bottom=2, **options)
    table = to_frame(curve, "mean", "interval")
    assert table.columns.tolist() == ["mean", "interval lower", "interval upper"]
    assert table.index.tolist() == [20, 10]
    np.testing.assert_array_equal(table.values, np.column_stack([curve["mean"], curve["interval"]]))
    assert to_frame(effects(results, **options)).index.name == "intervention"
    with pytest.raises(SpecError, match="mean along selection, start"):
        to_frame(summary_table(results, allow_incomplete=True))
    with pytest.raises(SpecError, match="There is no median; there are mean, sd, interval"):
        to_frame(curve, "median")
