"""A store goes on with what made it and with nothing else: every part that changes images is compared, and named."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import causalunet as cu
from causalunet.errors import ModelError, StoreError
from causalunet.execute.walk.generate import generate
from causalunet.models.text_to_image import TextToImage
from causalunet.schedule import linear_alpha_bar
from causalunet.shortcut import time_shortcut
from tests.results.identities import HANDED_IN, TINY, Pair, change, forget, handed_in, tiny_pair

CASES = [("tiny", part) for part in TINY] + [("handed in", part) for part in HANDED_IN]


def pair_of(kind: str, part: str, tiny_model: TextToImage) -> Pair:
    return tiny_pair(part, tiny_model) if kind == "tiny" else Pair(part, handed_in(), handed_in(part))


def test_a_cosine_store_does_not_grow_by_a_linear_schedule_without_clipping(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = tiny_pair("noise_schedule", tiny_model)
    pair.study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    other = replace(tiny_model, alpha_bar=linear_alpha_bar(), clip=False)
    monkeypatch.setattr(
        "causalunet.execute.fill.part_runner.run_block", lambda *given, **named: pytest.fail("it was run")
    )
    with pytest.raises(StoreError) as error:
        pair.grown.run(tmp_path / "s.zarr", model=other, progress=False)
    told = str(error.value)
    assert 'noise_schedule is "1000 timesteps, 0.99996 to ' in told
    assert 'there and "1000 timesteps, 0.9999 to 4.0358e-05, ' in told
    assert "; clip is true there and false here. Run into another path" in told
    assert told.endswith("; to go on with it, give the model that it was made with.")


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "part"), CASES)
def test_what_changes_images_is_refused_by_name(kind: str, part: str, tiny_model: TextToImage, tmp_path: Path) -> None:
    pair = pair_of(kind, part, tiny_model)
    images = [generate(pair.prompts, model=one, sampler=pair.sampler) for one in (pair.model, pair.other)]
    assert images[0].shape != images[1].shape or np.abs(images[0] - images[1]).max() > 1e-4
    pair.study.run(tmp_path / "s.zarr", model=pair.model, progress=False)
    for study in (pair.study, pair.grown):
        with pytest.raises(StoreError, match=rf"holds another study: (.*; )?{part} (of .*)?is .* there and .* here"):
            study.run(tmp_path / "s.zarr", model=pair.other, progress=False)
    with pytest.raises(StoreError, match=rf"{part} (of .*)?is "):
        pair.grown.search(tmp_path / "s.zarr", model=pair.other, progress=False)
    if pair.other.image_shape == pair.model.image_shape:
        grown = pair.grown.run(tmp_path / "s.zarr", model=pair.model, progress=False)
        assert grown.verify(quiet=True), grown.verify()


def test_the_sampler_is_known_by_its_name(tiny_model: TextToImage, tmp_path: Path) -> None:
    study = tiny_pair("clip", tiny_model).study
    study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    other = replace(study, sampler=cu.DDIM(steps=study.sampler.steps, guidance_scale=study.sampler.guidance_scale))
    with pytest.raises(StoreError, match=r'another study: sampler\.name is "ddpm" there and "ddim" here\. Run into'):
        other.run(tmp_path / "s.zarr", model=tiny_model, progress=False)


@pytest.mark.thorough
def test_replacing_a_store_replaces_its_identity(tiny_model: TextToImage, tmp_path: Path) -> None:
    pair = tiny_pair("clip", tiny_model)
    first = pair.study.run(tmp_path / "s.zarr", model=pair.model, progress=False)
    assert (first.identity["clip"], first.identity["sampler.name"]) == (True, "ddpm")
    assert set(first.identity["tokens"]) == {"", *pair.prompts}
    second = pair.study.run(tmp_path / "s.zarr", model=pair.other, overwrite=True, progress=False)
    assert second.identity["clip"] is False
    assert first.identity["clip"] is True, "what was opened stays what it was"
    pair.study.run(tmp_path / "s.zarr", model=pair.other, progress=False)


def test_tokens_of_added_prompts_are_kept(tiny_model: TextToImage, tmp_path: Path) -> None:
    pair = tiny_pair("tokens", tiny_model)
    green = replace(pair.study, prompts=["a green cross"])
    green.run(tmp_path / "s.zarr", model=pair.model, progress=False)
    both = replace(green, prompts=["a green cross", "a red circle"])
    both.run(tmp_path / "s.zarr", model=pair.other, progress=False)  # the same tokens so far
    with pytest.raises(StoreError, match='tokens of "a red circle" is'):
        both.run(tmp_path / "s.zarr", model=pair.model, progress=False)


@pytest.mark.thorough
@pytest.mark.parametrize("part", ["noise_schedule", "clip", "tokens", "model_fingerprint"])
def test_stores_of_earlier_versions_are_compared_by_what_they_hold(
    part: str, tiny_model: TextToImage, tmp_path: Path
) -> None:
    pair = tiny_pair(part, tiny_model)
    pair.study.run(tmp_path / "s.zarr", model=pair.model, progress=False)
    forget(tmp_path / "s.zarr")
    opened = cu.open_results(tmp_path / "s.zarr")
    known = {"model_fingerprint", "sampler.name", "sampler.steps", "sampler.guidance_scale", "steps", "image_shape"}
    assert set(opened.identity) == known
    assert opened.verify(quiet=True)
    told = {"noise_schedule": r'steps is "3 steps, timesteps 999 to 0, \w+" there and', "model_fingerprint": part}
    if part in told:
        for study in (pair.study, pair.grown):
            with pytest.raises(StoreError, match=told[part]):
                study.run(tmp_path / "s.zarr", model=pair.other, progress=False)
        pair.grown.run(tmp_path / "s.zarr", model=pair.model, progress=False)
    else:  # nobody knows
        pair.study.run(tmp_path / "s.zarr", model=pair.other, progress=False)
        assert set(cu.open_results(tmp_path / "s.zarr").identity) == known, "nothing was added that could be known"
        pair.grown.run(tmp_path / "s.zarr", model=pair.model, progress=False)
        with pytest.raises(StoreError, match=part):  # from when on it grew it is known
            pair.study.run(tmp_path / "s.zarr", model=pair.other, progress=False)


@pytest.mark.thorough
def test_a_store_that_lacks_one_part_is_compared_by_the_others(tiny_model: TextToImage, tmp_path: Path) -> None:
    pair = tiny_pair("clip", tiny_model)
    pair.study.run(tmp_path / "s.zarr", model=pair.model, progress=False)
    forget(tmp_path / "s.zarr", "clip")
    pair.study.run(tmp_path / "s.zarr", model=pair.other, progress=False)
    change(tmp_path / "s.zarr", lambda identity: identity | {"decoder": "v1"})  # that this model does not speak of
    pair.study.run(tmp_path / "s.zarr", model=pair.other, progress=False)
    with pytest.raises(StoreError, match="noise_schedule is"):
        pair.study.run(tmp_path / "s.zarr", model=replace(pair.other, alpha_bar=linear_alpha_bar()), progress=False)


@pytest.fixture(scope="module")
def sound(tiny_model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    path = tmp_path_factory.mktemp("sound") / "s.zarr"
    tiny_pair("clip", tiny_model).study.run(path, model=tiny_model, progress=False)
    return path


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("part", "value", "check", "message"),
    [
        ("clip", False, "baselines", "sample 0: x0_hat at step 3 does not follow from x_t and eps, not clipped"),
        ("steps", "3 steps, timesteps 999 to 0, 0123", "identity", 'steps is "3 steps, timesteps 999 to 0, 0123" in'),
        ("image_shape", [3, 8, 8], "identity", r"image_shape is \[3, 8, 8\] in what .* and \[3, 16, 16\] in what"),
        ("sampler.name", "other", "identity", 'sampler.name is "other" in what is kept .*, and "ddpm" in what'),
        ("sampler.guidance_scale", 1.0, "identity", "sampler.guidance_scale is 1.0 in what is kept"),
    ],
)
def test_verifying_compares_the_identity_with_what_was_made(
    part: str, value: Any, check: str, message: str, sound: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(sound, tmp_path / "copy.zarr"))
    assert cu.open_results(path).verify(quiet=True)
    change(path, lambda identity: identity | {part: value})
    found = cu.open_results(path).verify(quiet=True, deep=True)
    assert found.exit_code == 1
    wrong = {finding.check: " ".join(finding.problems) for finding in found.findings if finding.problems}
    assert wrong.keys() == {check}
    assert re.search(message, wrong[check])


def test_states_of_another_schedule_are_not_those_of_the_identity(
    sound: Path, tiny_model: TextToImage, tmp_path: Path
) -> None:
    """A store whose steps were replaced with those of another schedule."""
    other = tiny_pair("noise_schedule", tiny_model)
    path = tmp_path / "s.zarr"
    other.study.run(path, model=other.other, progress=False)
    kept = cu.open_results(sound).attrs["identity"]
    change(path, lambda identity: kept)
    found = cu.open_results(path).verify(quiet=True)
    (wrong,) = [finding for finding in found.findings if finding.problems]
    assert wrong.check == "identity"
    assert wrong.problems[0].startswith('steps is "3 steps, timesteps 999 to 0, ')


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("kind", "part"), CASES)
def test_a_shortcut_is_of_the_model_that_it_was_found_on(
    kind: str, part: str, tiny_model: TextToImage, tmp_path: Path
) -> None:
    pair = pair_of(kind, part, tiny_model)
    results = pair.study.run(tmp_path / "s.zarr", model=pair.model, progress=False)
    found = cu.Shortcut(
        name="short",
        intervention=cu.AblateBlock(1, cu.Window(2, 1)),
        sampler=replace(pair.sampler, steps=4),  # which it may choose for itself
        identity=results.identity,
    )
    kept = cu.Shortcut.open(found.save(tmp_path / "short.json"))
    assert kept == found
    assert kept.cost(pair.model)["unet_calls"] == 4
    for use in (
        lambda: kept.apply(pair.prompts, model=pair.other),
        lambda: kept.cost(pair.other),
        lambda: time_shortcut(kept, pair.prompts, model=pair.other),
    ):
        with pytest.raises(ModelError, match=rf"found on another model than .*: (.*; )?{part} (of .*)?is .*identity="):
            use()
    assert replace(kept, identity={}).cost(pair.other)["unet_calls"] == 4


def test_a_shortcut_of_a_store_of_an_earlier_version(tiny_model: TextToImage, sound: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sound, tmp_path / "copy.zarr"))
    forget(path)
    fields: dict[str, Any] = {
        "name": "short",
        "intervention": cu.AblateBlock(1, cu.Window(2, 1)),
        "sampler": cu.DDPM(steps=3),
        "identity": cu.open_results(path).identity,
    }
    assert cu.Shortcut(**fields).load(tiny_model) is tiny_model
    for part, told in (("model_fingerprint", "model_fingerprint"), ("noise_schedule", "steps")):
        with pytest.raises(ModelError, match=f"{told} is "):
            cu.Shortcut(**fields).load(tiny_pair(part, tiny_model).other)
    written = cu.Shortcut(**{**fields, "identity": {}}).to_json()
    assert "identity" not in written, "as earlier versions read it"
