"""The study of fills: which cuts it makes, how it reads them, and what it says of two fills."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import causalunet as cu
from causalunet.script import Folder, by_place
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results

PLACES = ("top 2", "bottom 4", "bottom 8", "bottom 12")
STARTS = np.array([10, 8, 6, 4, 2])


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parents[2] / "studies/fills/study.py"))


def cells(means: Any, noise: float = 0.0, samples: int = 8) -> xr.DataArray:
    """(place, start, sample): means, and noise that is 0 on average over the samples."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(4, 5, samples)) * noise
    values = np.asarray(means, dtype=float)[..., None] + drawn - drawn.mean(-1, keepdims=True)
    return xr.DataArray(values, {"place": list(PLACES), "start": STARTS}, ("place", "start", "sample"))


DEEPER_LATER = [
    [0.9, 0.9, 0.8, 0.7, 0.5],
    [0.7, 0.9, 1.0, 1.0, 1.0],
    [0.5, 0.6, 0.9, 1.0, 1.0],
    [0.2, 0.3, 0.4, 0.9, 1.0],
]


def test_cuts_are_alike_but_for_what_is_put_in_place(study: dict[str, Any]) -> None:
    made = list(study["cuts"]((4, 8, 12), 10, 2))
    assert len(made) == len({item.digest for item in made}) == 4 * 5 * 3 + 4 * 4
    by_label = {item.label: {(one.component, one.window, one.fill) for one in item.edits()} for item in made}
    assert "hold, bottom 4, 10" not in by_label
    for fill, value in study["FILLS"].items():
        assert by_label[f"{fill}, bottom 8, 4"] == {("up.7", cu.Window(4, 2), value)}
    for named, item in {
        "zero, bottom 8, 4": cu.AblateBlock(bottom=8, window=cu.Window(4, 2)),
        "zero, top 2, 6": cu.AblateSkip(top=2, window=cu.Window(6, 2)),
    }.items():
        assert by_label[named] == {(one.component, one.window, one.fill) for one in item.edits()}


def test_numbers_are_those_of_the_curves(study: dict[str, Any]) -> None:
    whole = cells(DEEPER_LATER).mean("sample").values
    found = {name: one.of(whole) for name, one in study["conclusions"](cells(DEEPER_LATER)).items()}
    assert [found[f"bottom {depth} matter most at step"] for depth in (4, 8, 12)] == [10, 10, 10]
    assert [found[f"bottom {depth} redundant from step"] for depth in (4, 8, 12)] == [8, 6, 4]
    assert found["top 2 skips matter most at step"] == 2
    assert found["tau of depth and first redundant window"] == pytest.approx(1)
    lost = "top 2 skips matter more than bottom 8, by SSIM: first third"
    assert (found[lost], found["the same, last third"]) == (pytest.approx(-0.4), pytest.approx(0.5))


def test_verdicts_tell_same_other_and_unclear(study: dict[str, Any]) -> None:
    zero = cells(DEEPER_LATER, noise=0.01)
    assert {same for _, same in study["described"](zero, zero).values()} == {"same"}
    never = cells(np.full((4, 5), 0.5))
    assert study["described"](never, never)["bottom 8 redundant from step"][0] == "none [none, none]"
    other = cells(np.asarray(DEEPER_LATER)[:, ::-1], noise=0.01)
    verdicts = {name: same for name, (_, same) in study["described"](other, zero).items()}
    assert verdicts["bottom 8 matter most at step"] == "not the same"
    assert verdicts["top 2 skips matter most at step"] == "not the same"
    assert verdicts["the same, last third"] == "not the same"
    noisy = cells(DEEPER_LATER, noise=2.0)
    verdicts = {name: same for name, (_, same) in study["described"](noisy, zero).items()}
    assert verdicts["top 2 skips matter most at step"] == "undecided"
    assert study["ranked"](zero, zero, paired=True)[1] == "same"
    assert study["ranked"](other, zero, paired=True)[1] == "not the same"
    assert study["verdict"](np.array([1.0, 2.0]), 2.0) == "same"
    assert study["verdict"](np.array([1.0, 2.5]), 2.0) == "not the same"
    assert study["verdict"](np.array([-3.0, 2.5]), 2.0) == "undecided"


@pytest.mark.thorough
def test_stores_are_read_by_fill_and_place_and_drawn(study: dict[str, Any], tmp_path: Path) -> None:
    tree = write_results(tmp_path / "s.zarr", list(study["cuts"]((2, 4), 20, 4)), samples=4)
    outcomes = tree["outcomes"]
    known = np.random.default_rng(0).uniform(size=outcomes["ssim"].shape)
    results = altered(tree, ssim=known)
    found = by_place(results, "hold")
    assert found.dims == ("place", "start", "sample")
    assert found["start"].values.tolist() == [16, 12, 8, 4]
    at = outcomes["intervention"].values.tolist().index("hold, bottom 4, 8")
    np.testing.assert_allclose(found.sel(place="bottom 4", start=8), known[at], rtol=1e-6)
    study["draw"].__globals__["HALF"] = "bottom 4"
    console = Console(width=200, record=True)
    study["draw"]({"shapes": results}, Folder(tmp_path, "quick", tmp_path), console)
    told = console.export_text()
    assert all(word in told for word in ("zero, in the windows of hold", "resample", "bottom 2 redundant from step"))
    assert (tmp_path / "quick" / "fills.png").stat().st_size > 10_000
