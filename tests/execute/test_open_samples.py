"""Samples without a condition: planned, run, stored, grown, searched and drawn like any other, told apart by seed."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import causalunet as cu
from causalunet.errors import PromptError, SpecError
from causalunet.execute.walk.generate import generate
from causalunet.models.text_to_image import TextToImage
from causalunet.prompts import NoPrompt
from causalunet.report.pictures import captions
from tests.execute.reference import Change, sample

STEPS = 8
PROMPTS = (cu.NO_PROMPT, "a red circle")
SAMPLER = cu.DDPM(steps=STEPS, guidance_scale=1)
CUT = cu.AblateBlock(bottom=2, window=cu.Window(6, 2))
OPEN_AND_TOLD: dict[str, Any] = {"prompts": PROMPTS, "seeds": (3, 0), "guidance_scale": 1}


def study(*interventions: cu.design.Intervention, **fields: Any) -> cu.Study:
    return cu.Study(
        **{"name": "open", "prompts": [cu.NO_PROMPT], "sampler": SAMPLER, "interventions": interventions or [CUT]}
        | fields
    )


@pytest.fixture(scope="module")
def results(run_study: Callable[..., xr.DataTree]) -> xr.DataTree:
    return run_study(CUT, cu.SkipSteps(cu.Window(7, 1)), **OPEN_AND_TOLD)


def test_there_is_one_value_of_it() -> None:
    assert cu.NO_PROMPT is NoPrompt() is pickle.loads(pickle.dumps(cu.NO_PROMPT)) is copy.deepcopy(cu.NO_PROMPT)
    assert repr(cu.NO_PROMPT) == "NO_PROMPT"
    assert cu.NO_PROMPT == ""  # so stored results can be compared with it


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", [3, 0])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_images_are_those_of_the_conditional_rows_alone(
    results: xr.DataTree, tiny_model: Any, prompt: str, seed: int
) -> None:
    outcomes, baseline = results["outcomes"].to_dataset(), results["baseline"].to_dataset()
    here = int(np.flatnonzero((outcomes["prompt"] == prompt) & (outcomes["seed"] == seed))[0])
    plain = sample(tiny_model, prompt, seed, steps=STEPS, scale=1.0)
    np.testing.assert_allclose(baseline["image"].isel(sample=here), plain.image, atol=1e-5)
    cut = sample(tiny_model, prompt, seed, steps=STEPS, scale=1.0, changes=dict.fromkeys((6, 5), (Change("up", 1),)))
    np.testing.assert_allclose(outcomes["image"].isel(intervention=0, sample=here), cut.image, atol=1e-5)
    skipped = sample(tiny_model, prompt, seed, steps=STEPS, scale=1.0, absent=(7,))
    np.testing.assert_allclose(outcomes["image"].isel(intervention=1, sample=here), skipped.image, atol=1e-5)


def test_they_are_selected_and_named(results: xr.DataTree) -> None:
    outcomes = results["outcomes"].to_dataset()
    assert outcomes["prompt"].values.tolist() == ["", "", "a red circle", "a red circle"]
    assert outcomes.isel(sample=np.flatnonzero(outcomes["prompt"] == cu.NO_PROMPT))["seed"].values.tolist() == [3, 0]
    assert captions(outcomes) == [
        "no prompt (seed 3)",
        "no prompt (seed 0)",
        "a red circle (seed 3)",
        "a red circle (seed 0)",
    ]
    assert results.verify()


def test_a_spec_with_them_goes_through_json() -> None:
    asked = study(prompts=[cu.NO_PROMPT, "a red circle"], seeds=range(4))
    written = json.loads(json.dumps(asked.to_json()))
    assert written["prompts"] == [None, "a red circle"]
    read = cu.Study.from_json(written)
    assert read == asked
    assert read.digest == asked.digest
    assert read.prompts[0] is cu.NO_PROMPT


@pytest.mark.thorough
def test_a_store_of_them_grows_and_is_reopened(tiny_model: TextToImage, tmp_path: Path) -> None:
    path = tmp_path / "open.zarr"
    study(seeds=range(2)).run(path, model=tiny_model, progress=False)
    grown = study(CUT, cu.SkipSteps(cu.Window(3, 1)), seeds=range(3), prompts=[cu.NO_PROMPT, "a red circle"])
    results = grown.run(path, model=tiny_model, progress=False)
    assert results["outcomes"].sizes["sample"] == 6
    assert bool((results["outcomes"]["status"] == 1).all())
    with pytest.raises(cu.CausalUNetError, match="NO_PROMPT with seed"):
        study(seeds=[0]).run(path, model=tiny_model, progress=False)


def test_without_seeds_they_count_up() -> None:
    assert [item.seed for item in study(prompts=[cu.NO_PROMPT] * 3).samples] == [0, 1, 2]
    with pytest.raises(SpecError, match="twice"):
        study(prompts=[cu.NO_PROMPT] * 2, seeds=[0, 1])


@pytest.mark.thorough
def test_search_finds_what_the_sweep_says(tiny_model: TextToImage, tmp_path: Path) -> None:
    swept = cu.sweep(cu.AblateBlock, bottom=2, start=range(STEPS, 2, -1), length=2)
    asked = study(*swept, seeds=range(3))
    whole = asked.run(tmp_path / "sweep.zarr", model=tiny_model, progress=False)
    means = whole["outcomes"]["ssim"].sel(kind="ablate_block").mean("sample")
    threshold = float(np.sort(means.values)[2:4].mean())
    found = asked.search(tmp_path / "search.zarr", threshold=threshold, model=tiny_model, progress=False)
    answer = cu.analysis.first_redundant_step(whole, threshold=threshold, kind="ablate_block")
    np.testing.assert_equal(found["step"].values.ravel(), answer["step"].values.ravel())


def test_shortcuts_and_single_runs_take_them(results: xr.DataTree, tiny_model: TextToImage) -> None:
    shortcut = cu.Shortcut(name="cut", intervention=CUT, sampler=SAMPLER, model="tiny")
    images = shortcut.apply([cu.NO_PROMPT], [3, 0], model=tiny_model)
    np.testing.assert_allclose(images, results["outcomes"]["image"][0, :2], atol=1e-5)
    plain = generate([cu.NO_PROMPT], [3], model=tiny_model, sampler=SAMPLER)
    np.testing.assert_allclose(plain[0], results["baseline"]["image"][0], atol=1e-5)


def test_recorded_activations_are_theirs(tiny_model: TextToImage, run_study: Callable[..., xr.DataTree]) -> None:
    results = run_study(CUT, **OPEN_AND_TOLD, record=cu.Record(activations="mid", steps=(5,), dtype="float32"))
    plain = sample(tiny_model, "", 3, steps=STEPS, scale=1.0)
    recorded = results["activations/mid"]["baseline"].isel(sample=0, step=0)
    np.testing.assert_allclose(recorded, plain.activations[5, "mid"], atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1.5, 3.0])
def test_guidance_is_refused_with_them(scale: float) -> None:
    with pytest.raises(SpecError, match=r"NO_PROMPT.*guidance_scale=.*DDPM\(guidance_scale=1\)"):
        study(sampler=cu.DDPM(steps=STEPS, guidance_scale=scale))
    shortcut = cu.Shortcut(name="cut", intervention=CUT, sampler=cu.DDPM(steps=STEPS, guidance_scale=scale))
    with pytest.raises(SpecError, match="NO_PROMPT"):
        shortcut.apply([cu.NO_PROMPT])


@pytest.mark.parametrize("prompt", ["", "  ", None])
def test_an_empty_prompt_is_still_a_mistake(prompt: Any) -> None:
    with pytest.raises(PromptError, match=r"(empty prompt|no text).*causalunet\.NO_PROMPT"):
        study(prompts=[prompt])
