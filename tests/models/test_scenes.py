"""The model `scenes` that ships: what it draws, what its reader reads, and a study on it with its twelve factors."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors import safe_open

import causalunet as cu
from causalunet.analysis import factor_changes, factor_effects
from causalunet.models import load_scenes, model_names
from causalunet.models.factor_reader import SCENES_READER, load_reader
from causalunet.models.text_to_image import TextToImage
from causalunet.report import plot_factors, report
from causalunet.training.factor_reader import (
    ReaderTrainingConfig,
    ScenesReaderTrainingConfig,
    evaluate_scenes_reader,
)
from causalunet.training.loop import LoopConfig
from causalunet.training.scenes import ScenesTrainingConfig, candidate
from causalunet.training.scenes_evaluation import evaluate_depth, evaluate_scenes
from causalunet.training.shapes import ShapesTrainingConfig
from causalunet.worlds.groups import FACTORS, GroupWorld
from causalunet.worlds.painting import render

WORLD = candidate(ScenesTrainingConfig().candidate).world
SHIPPED: dict[str, LoopConfig] = {
    "shapes": ShapesTrainingConfig(),
    "reader": ReaderTrainingConfig(),
    "scenes": ScenesTrainingConfig(),
    "scenes-reader": ScenesReaderTrainingConfig(),
}


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return load_scenes()


@pytest.fixture(scope="module")
def results(model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """Three interventions on two open samples and one that is told something."""
    study = cu.Study(
        name="groups",
        model="scenes",
        prompts=[cu.NO_PROMPT, cu.NO_PROMPT, "two red squares above something blue"],
        sampler=cu.DDPM(steps=10, guidance_scale=1.0),
        interventions=[
            *cu.sweep(cu.AblateBlock, bottom=8, start=(10, 4), length=3),
            cu.SkipSteps(window=cu.Window(9, 2)),
        ],
    )
    return study.run(tmp_path_factory.mktemp("scenes") / "groups.zarr", model=model, progress=False)


def shipped(name: str) -> Path:
    return Path(str(files("causalunet") / "weights" / f"{name}.safetensors"))


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_are_small_and_say_how_they_were_made(name: str) -> None:
    path, config = shipped(name), asdict(SHIPPED[name])
    assert path.stat().st_size <= 8_000_000
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["training"])
        assert all(file.get_tensor(key).dtype == torch.float16 for key in list(file.keys())[:5])
    assert told.pop("iteration") == config["iterations"]
    begun = told.pop("begin_with", None)
    assert begun is None or re.fullmatch("[0-9a-f]{64}", begun), "the digest of the weights that a run went on from"
    # what weights of before there was such a choice do not tell
    before = {"ema": 0.0, "prediction": "eps", "log_snr_shift": 0.0, "layout_until": 0}
    asked = {name: value for name, value in config.items() if value is not None}
    assert asked == {name: before[name] for name in before.keys() & asked.keys()} | told


@pytest.mark.thorough
def test_the_model_has_a_name_and_is_described(model: TextToImage) -> None:
    assert "scenes" in model_names()
    assert cu.load_model("scenes").fingerprint == model.fingerprint
    (entry,) = (one for one in cu.models.architectures() if one.name == "scenes")
    assert entry.anatomy.parameters == sum(p.numel() for p in model.unet.parameters())
    assert [c.name for c in entry.anatomy.components] == [c.name for c in model.anatomy.components]


def test_the_reader_reads_scenes_that_it_never_saw() -> None:
    reader = load_reader(SCENES_READER)
    clean = evaluate_scenes_reader(reader, 500, seed=2024)
    assert min(clean.values()) >= 0.99, clean
    imperfect = evaluate_scenes_reader(reader, 500, seed=2025, augmented=True)
    assert imperfect["all"] >= 0.97, imperfect


def test_the_reader_follows_what_is_done_to_an_image() -> None:
    """An image turned by a quarter has its groups beside each other; one whose colours change places, other colours."""
    reader, names = load_reader(SCENES_READER), list(FACTORS)
    codes = GroupWorld().draw(200, np.random.default_rng(5))
    images = torch.from_numpy(render(codes, np.random.default_rng(5)))
    read, turned = reader.read(images), reader.read(images.transpose(2, 3))
    relation = names.index("relation")
    assert np.mean(turned[:, relation] == 1 - read[:, relation]) >= 0.97
    mixed = reader.read(images[:, [2, 0, 1]])
    turn = {"red": "green", "green": "blue", "blue": "red", "yellow": "cyan", "cyan": "magenta", "magenta": "yellow"}
    for group in ("first", "second"):
        column, colours = names.index(f"{group} colour"), FACTORS["first colour"]
        expected = [colours.index(turn[colours[code]]) for code in read[:, column]]
        assert np.mean(mixed[:, column] == expected) >= 0.97
        assert np.mean(mixed[:, names.index(f"{group} shape")] == read[:, names.index(f"{group} shape")]) >= 0.97


@pytest.mark.thorough
def test_factors_of_a_study_have_the_names_of_the_world(results: xr.DataTree, tmp_path: Path) -> None:
    assert results["baseline"]["factor"].values.tolist() == list(FACTORS)
    read, _ = load_scenes().read_factors(results["baseline"]["image"].values)
    np.testing.assert_array_equal(results["baseline"]["factor_code"].values, read)
    changes = factor_changes(results, kind="ablate_block", bottom=8, min_probability=0)
    code, before = (results[group]["factor_code"].values for group in ("outcomes", "baseline"))
    labels = results["outcomes"]["intervention"].values.tolist()
    rows = [labels.index(f"ablate_block bottom=8 {window}") for window in ("10-8", "4-2")]
    changed = code[rows] != before
    np.testing.assert_allclose(changes["share"].sel(start=[10, 4]), changed.mean(axis=1))
    np.testing.assert_allclose(changes["any"].sel(start=[10, 4]), changed.any(axis=2).mean(axis=1))
    effects = factor_effects(results)
    assert effects["factor"].values.tolist() == list(FACTORS)
    titles = [ax.get_title(loc="left") for ax in plot_factors(results).axes]
    assert [title for title in titles if title] == [*FACTORS, "any factor"]
    page = report(results, tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(name in page for name in FACTORS)


@pytest.mark.thorough
def test_results_verify(results: xr.DataTree) -> None:
    assert results.verify(quiet=True, deep=True)
    assert results.audit.null_difference.values.max() < 1e-4


@pytest.mark.slow
def test_images_show_more_of_their_prompts_than_those_of_others_do(model: TextToImage) -> None:
    """Of 200 prompts 92 % of single factors are read as asked, by chance 36 % would be."""
    found = evaluate_scenes(model, WORLD, n=8, sampler=cu.DDPM(steps=20, guidance_scale=3.0))
    right, asked = found.counts["single factors"]
    assert right / asked >= max(0.7, found.chance()["single factors"] + 0.2)
    read, probability = model.read_factors(found.images)
    np.testing.assert_array_equal(read, found.read)
    assert np.median(probability) >= 0.99  # images of the world, not noise


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_bars_of_prompts(model: TextToImage) -> None:
    """All 200 prompts of docs/models.md, some minutes: of fewer the share of single factors may fall below its bar."""
    found = evaluate_scenes(model, WORLD, n=200, sampler=cu.DDPM(steps=50, guidance_scale=3.0))
    shares = {kind: right / asked for kind, (right, asked) in found.counts.items()}
    assert shares["single factors"] >= 0.9, shares
    assert shares["relation"] >= 0.75, shares
    assert 0.5 <= shares["all"] <= 0.8, shares


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("world", "bar"), [(None, 0.7), (WORLD, 0.3)], ids=["open", "full"])
def test_bars_of_depth(model: TextToImage, world: GroupWorld | None, bar: float) -> None:
    """The 200 samples of docs/models.md, of which 75 % and 62 % change."""
    assert evaluate_depth(model, world, n=200).counts["any"] >= bar * 200
