"""The study across models: what is cut of which anatomy, and which cuts of two of them are the same."""

from __future__ import annotations

import math
import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import causalunet as cu
from causalunet.script import Folder
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results
from tests.docs.blocks import find

ROOT = Path(__file__).parents[2]
WEIGHTS = os.environ.get("CAUSALUNET_WILD_WEIGHTS", "")


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "studies/across_models/study.py"))


def test_depths_are_the_nearest_to_eighths(study: dict[str, Any]) -> None:
    found = {model: study["depths"](cuts.blocks) for model, cuts in study["MODELS"].items()}
    assert found["shapes"] == found["scenes"] == [2, 4, 6, 8, 10, 12]
    assert found["shapes-flow"] == found["shapes-latent"] == [2, 3, 4, 6, 8, 9]
    assert found["digits"] == [1, 2]


def test_numbers_of_blocks_are_those_of_the_models(study: dict[str, Any]) -> None:
    for model in ("shapes", "shapes-flow", "shapes-latent"):
        cuts, anatomy = study["MODELS"][model], cu.load_model(model).anatomy
        names = [one.name for one in anatomy.components]
        blocks = len(anatomy.decoder) if cuts.place == "bottom" else sum(name.startswith("block.") for name in names)
        assert cuts.blocks == blocks
        assert cuts.top == math.ceil(len(anatomy.skips) / 8)


def test_what_is_missing_is_left_out(study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, among = Folder(tmp_path, "quick", tmp_path), study["make_studies"].__globals__
    monkeypatch.setitem(among, "WEIGHTS", "")
    assert list(study["quick"](folder)) == ["shapes", "scenes", "shapes-flow", "shapes-latent"]
    monkeypatch.setitem(among, "find_spec", lambda name: None)
    assert list(study["quick"](folder)) == ["shapes", "scenes", "shapes-flow"]
    assert "diffusers" in study["lacking"]()["shapes-latent"]


def test_blocks_of_a_transformer_are_left_out_from_the_middle(study: dict[str, Any]) -> None:
    by_label = {item.label: item for item in study["cut"](study["MODELS"]["shapes-flow"], 20, 2)}
    edits = by_label["cut, middle 3, 8"].edits()
    assert {(one.component, one.window, one.fill) for one in edits} == {
        (f"block.{index}", cu.Window(8, 2), cu.Bypass()) for index in (4, 5, 6)
    }
    assert not [label for label in by_label if "top" in label]
    of_digits = {item.label: item for item in study["cut"](study["MODELS"]["digits"], 20, 2)}
    assert of_digits["cut, bottom 2, 20"].digest == cu.AblateBlock(2, cu.Window(20, 2)).digest
    assert of_digits["cut, top 1, 4"].digest == cu.AblateSkip(1, cu.Window(4, 2)).digest


def test_depths_meet_at_the_nearest_eighth(study: dict[str, Any]) -> None:
    def cells(model: str) -> dict[int, xr.DataArray]:
        cuts = study["MODELS"][model]
        places = [f"{cuts.place} {depth}" for depth in study["depths"](cuts.blocks)]
        values = np.random.default_rng(0).uniform(size=(len(places), 10, 5))
        return study["by_eighths"](xr.DataArray(values, {"place": places}, ("place", "start", "sample")), cuts)

    assert [str(one["place"].values) for one in cells("digits").values()] == ["bottom 1", "bottom 2"]
    assert list(cells("digits")) == [3, 5]
    assert list(cells("shapes-flow")) == list(cells("shapes")) == [1, 2, 3, 4, 5, 6]
    found = study["agreement"](cells("digits"), cells("shapes"))
    both = [np.stack([one[at].values for at in (3, 5)]) for one in (cells("digits"), cells("shapes"))]
    assert float(found["tau"]) == float(cu.analysis.agreement(*both)["tau"])


@pytest.mark.thorough
def test_models_are_drawn_with_what_they_have(study: dict[str, Any], tmp_path: Path) -> None:
    cuts = study["Cuts"](6, "bottom", 1)
    study["draw"].__globals__["MODELS"].update(one=cuts, other=cuts._replace(top=0))
    results = {}
    for name, of in {"one": cuts, "other": cuts._replace(top=0)}.items():
        tree = write_results(tmp_path / f"{name}.zarr", list(study["cut"](of, 20, 2)), samples=4)
        ssim = np.random.default_rng(0).uniform(0.5, 1, tree["outcomes"]["ssim"].shape)
        results[name] = altered(tree, ssim=ssim)
    assert len(study["depths"](6)) == 4
    console = Console(width=200, record=True)
    study["draw"](results, Folder(tmp_path, "quick", tmp_path), console)
    told = console.export_text()
    (row,) = [line for line in told.splitlines() if "top skips matter most" in line]
    assert "has none" in row
    assert "agreement of one and other: tau" in told
    assert "names no folder" in told
    assert {path.name for path in (tmp_path / "quick").iterdir()} == {
        "models.png",
        "one-factors.png",
        "other-factors.png",
    }


def test_the_page_of_the_digits_still_makes_them() -> None:
    blocks = list(find((ROOT / "docs/howto/a-model-from-the-wild.md").read_text(encoding="utf-8")))
    assert "digits = cu.from_network(" in blocks[2].code


@pytest.mark.skipif(not WEIGHTS, reason="CAUSALUNET_WILD_WEIGHTS names no folder of weights")
def test_digits_are_those_of_the_page(study: dict[str, Any]) -> None:
    made = study["load_digits"]()
    assert (made.name, len(made.anatomy.decoder), len(made.anatomy.skips)) == ("digits", 3, 3)
