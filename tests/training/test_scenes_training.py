"""Training and evaluation of `scenes`: candidates, resumed runs, and what the bars count."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.special import expit, logit

import causalunet as cu
from causalunet.errors import CheckpointError, PromptError, SpecError
from causalunet.models.factor_reader import SCENES_READER, FactorReader, load_reader
from causalunet.models.openai_layout import TextUNet
from causalunet.models.scenes import load_scenes
from causalunet.models.text_to_image import TextToImage
from causalunet.models.vocabulary import SCENES_VOCABULARY
from causalunet.prediction import LEARNED, Prediction
from causalunet.schedule import cosine_alpha_bar
from causalunet.training.denoising import Denoising, draw_timesteps
from causalunet.training.diffusion import noise_weight
from causalunet.training.scenes import CANDIDATES, ScenesTrainingConfig, candidate, draw_batch, train_scenes
from causalunet.training.scenes_evaluation import DepthEffect, ScenesEvaluation, evaluate_depth, evaluate_scenes
from causalunet.worlds.groups import FACTORS, Description, GroupWorld, held_out

TINY = ScenesTrainingConfig(
    iterations=4,
    batch_size=2,
    warmup=2,
    decay=2,
    focus_from=3,
    prediction="eps",
    text_iterations=0,
    layout_until=0,
    log_snr_shift=0.0,
    autocast="float32",
)
NAMES = list(FACTORS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of four iterations, and an untrained reader."""
    folder = tmp_path_factory.mktemp("scenes")
    for _ in train_scenes(TINY, folder, checkpoint_every=2, report_every=1):
        pass
    torch.manual_seed(0)
    save_file(FactorReader(SCENES_READER).state_dict(), folder / "reader.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(trained: Path) -> TextToImage:
    """Disturbed, so that blocks do something: after four iterations most put out nearly nothing."""
    loaded = load_scenes(trained / "scenes.safetensors", reader=trained / "reader.safetensors")
    generator = torch.Generator().manual_seed(1)
    for value in loaded.unet.parameters():
        value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return loaded


@pytest.mark.thorough
def test_a_resumed_run_is_the_uninterrupted_run(trained: Path, tmp_path: Path) -> None:
    for _ in itertools.islice(train_scenes(TINY, tmp_path, checkpoint_every=2, report_every=1), 3):
        pass
    for _ in train_scenes(TINY, tmp_path, checkpoint_every=2, report_every=1):
        pass
    whole, parts = (load_file(folder / "scenes.safetensors") for folder in (trained, tmp_path))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert (trained / "scenes.safetensors").stat().st_size < 8 << 20


def test_the_anatomy_is_that_of_shapes_and_factors_are_those_of_the_world(model: TextToImage) -> None:
    shapes = cu.load_model("shapes").anatomy
    assert [(c.name, c.shape, c.role) for c in model.anatomy.components] == [
        (c.name, c.shape, c.role) for c in shapes.components
    ]
    assert model.factors == FACTORS
    with pytest.raises(PromptError, match="has words that the model does not know: purple"):
        model.check_prompts(["a purple square above a circle"])


def test_batches_are_scenes_of_the_candidate_that_are_not_held_out() -> None:
    """Read off the images by the reader, and off the tokens by the vocabulary."""
    batch = draw_batch(ScenesTrainingConfig(batch_size=200, candidate="mirrored"))(0, np.random.default_rng(0))
    codes = load_reader(SCENES_READER).read(batch["images"])
    assert not held_out(codes).any()
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top", "centre": "centre"}
    places = [
        [FACTORS["first place"][code] for code in codes[:, NAMES.index(f"{g} place")]] for g in ("first", "second")
    ]
    assert np.mean([opposite[here] == there for here, there in zip(*places, strict=True)]) >= 0.99
    tokens = [row[kept].tolist() for row, kept in zip(batch["tokens"], batch["mask"], strict=True)]
    words = np.array(["?", *SCENES_VOCABULARY.words])
    prompts = [" ".join(words[row]) for row in tokens]
    said = [(Description.parse(text), row) for text, row in zip(prompts, codes, strict=True) if text]
    assert 0.8 <= len(said) / len(codes) <= 0.97  # one in ten has no prompt
    assert np.mean([one.right(row)[1].all() for one, row in said]) >= 0.99


def test_candidates_have_worlds_and_networks(tmp_path: Path) -> None:
    config = replace(TINY, candidate="bottom", iterations=1, batch_size=1)
    for _ in train_scenes(config, tmp_path):
        pass
    trained = load_file(tmp_path / "scenes.safetensors")
    assert trained.keys() == TextUNet(candidate("bottom").unet).state_dict().keys()
    assert trained.keys() != TextUNet(candidate("free").unet).state_dict().keys()
    assert ScenesTrainingConfig().candidate in CANDIDATES
    assert candidate("bottom").unet.attention_resolutions == (4,)
    with pytest.raises(SpecError, match="No candidate is called 'best'; there are free, aligned, mirrored"):
        ScenesTrainingConfig(candidate="best")


def test_weights_tell_what_they_predict(tmp_path: Path, trained: Path) -> None:
    *_, last = train_scenes(replace(TINY, prediction="v"), tmp_path, report_every=1)
    assert "v_mse" in last
    of_v, of_noise = (load_scenes(folder / "scenes.safetensors") for folder in (tmp_path, trained))
    assert (of_v.prediction, of_noise.prediction) == (Prediction("v", variance=True), LEARNED)
    study = cu.Study(
        name="v",
        model="scenes",
        prompts=["a circle and a cross"],
        sampler=cu.DDPM(steps=3),
        interventions=[cu.AblateBlock(2, cu.Window(3, 1))],
    )
    results = study.run(tmp_path / "v.zarr", model=of_v, progress=False)
    assert np.isfinite(results.outcomes.ssim).all()
    batch = draw_batch(replace(TINY, prediction="v"))(3, np.random.default_rng(0))
    assert (batch["weight"] == 1).all()
    with pytest.raises(SpecError, match="prediction is eps, that of the noise, or v; got 'x'"):
        replace(TINY, prediction="x")  # type: ignore[arg-type]


def test_weights_are_asked_on_the_schedule_that_they_were_trained_for(tmp_path: Path, trained: Path) -> None:
    for _ in train_scenes(replace(TINY, log_snr_shift=2.5), tmp_path):
        pass
    plain, shifted = (load_scenes(folder / "scenes.safetensors").alpha_bar for folder in (trained, tmp_path))
    np.testing.assert_array_equal(plain, cosine_alpha_bar())
    np.testing.assert_allclose(logit(shifted) - logit(plain), 2.5)
    untold = load_file(trained / "scenes.safetensors")
    save_file(untold, tmp_path / "untold.safetensors")
    np.testing.assert_array_equal(load_scenes(tmp_path / "untold.safetensors").alpha_bar, plain)
    for odd in ("much", None, float("nan")):
        save_file(untold, tmp_path / "odd.safetensors", metadata={"training": json.dumps({"log_snr_shift": odd})})
        with pytest.raises(CheckpointError, match=r"odd\.safetensors says that log SNR was shifted by .*, which is no"):
            load_scenes(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_noisy_images_are_those_of_the_schedule(prediction: Literal["eps", "v"]) -> None:
    """Before training the network's output is 0, so that the error is the mean square of what it should be."""
    config = replace(TINY, batch_size=8, prediction=prediction, log_snr_shift=3.0)
    batch = draw_batch(config)(0, np.random.default_rng(0))
    _, told = Denoising("scenes", candidate("free").unet, draw_batch(config)).loss(batch)
    share = expit(logit(cosine_alpha_bar()) + 3)[batch["timesteps"].numpy()][:, None, None, None]
    images, noise = batch["images"].numpy(), batch["noise"].numpy()
    truth = noise if prediction == "eps" else np.sqrt(share) * noise - np.sqrt(1 - share) * images
    assert float(told["v_mse" if prediction == "v" else "noise_mse"]) == pytest.approx((truth**2).mean(), rel=1e-5)
    if prediction == "eps":
        weight = noise_weight(expit(logit(cosine_alpha_bar()) + 3))[batch["timesteps"].numpy()]
        np.testing.assert_allclose(batch["weight"], weight, rtol=1e-6)


@given(shift=st.floats(0, 12), iteration=st.integers(0, 8))
def test_a_layout_is_learned_where_there_is_as_much_noise_as_without_a_shift(shift: float, iteration: int) -> None:
    config = replace(TINY, batch_size=1000, log_snr_shift=shift, focus_from=2, layout_until=5)
    share = config.noisiest(iteration)
    assert (share is None) == (iteration < 2)
    timesteps = draw_timesteps(1000, np.random.default_rng(iteration), noisiest=share)
    log_snr = logit(cosine_alpha_bar()) + shift
    limit = max(logit(cosine_alpha_bar())[800], log_snr[-1]) if 2 <= iteration < 5 else log_snr[800]
    noisy = (log_snr <= limit + 1e-9).sum() / 1000  # of all timesteps
    asked = noisy if share is None else 0.5 + noisy / 2
    assert (log_snr[timesteps] <= limit + 1e-9).mean() == pytest.approx(asked, abs=0.002)


def test_without_a_shift_a_layout_is_learned_in_the_same_timesteps() -> None:
    unshifted = [replace(TINY, focus_from=0, layout_until=until) for until in (0, 9)]
    first, second = (draw_batch(config)(0, np.random.default_rng(0)) for config in unshifted)
    assert torch.equal(first["timesteps"], second["timesteps"])
    shifted = replace(unshifted[1], log_snr_shift=3.0)
    assert not torch.equal(first["timesteps"], draw_batch(shifted)(0, np.random.default_rng(0))["timesteps"])


def test_a_shift_is_a_finite_number() -> None:
    odd: Any
    for odd in (float("inf"), float("nan"), "3"):
        with pytest.raises(SpecError, match="log_snr_shift is a finite number; got"):
            replace(TINY, log_snr_shift=odd)


def test_a_file_that_tells_its_training_in_no_json_is_told(tmp_path: Path, trained: Path) -> None:
    save_file(load_file(trained / "scenes.safetensors"), tmp_path / "odd.safetensors", metadata={"training": "{"})
    with pytest.raises(CheckpointError, match="tells its training in words that are no JSON"):
        load_scenes(tmp_path / "odd.safetensors")


def evaluation(*pairs: tuple[str, str]) -> ScenesEvaluation:
    """Prompts, and the whole description of what was read."""
    said = [Description.parse(asked) for asked, _ in pairs]
    read = np.stack([np.maximum(Description.parse(shown).readings[0], 0) for _, shown in pairs])
    asked = np.stack([one.right(codes)[0] for one, codes in zip(said, read, strict=True)])
    return ScenesEvaluation(said, np.zeros((len(pairs), 3, 32, 32), np.float32), asked, read)


def test_what_is_asked_and_read_is_counted() -> None:
    shown = "two striped red squares above a solid blue circle"
    counts = evaluation(
        (shown, shown),
        ("a blue shape below something", shown),
        ("a blue shape and something red", shown),
        ("a blue shape above something red", shown),
        ("two red circles left of a blue circle", shown),
        ("something above something", shown),
    ).counts
    assert counts["relation"] == (3, 5)  # exchanged, and beside each other, are wrong
    assert counts["colour"] == (2 + 1 + 2 + 0 + 2, 2 + 1 + 2 + 2 + 2)
    assert counts["shape"] == (2 + 1, 2 + 2)
    assert counts["count"] == (2 + 1 + 1 + 0 + 2, 2 + 1 + 1 + 1 + 2)
    assert counts["texture"] == (2, 2)
    assert counts["single factors"] == (8 + 2 + 3 + 0 + 5, 8 + 2 + 3 + 3 + 6)
    assert counts["all"] == (4, 6)


def test_chance_is_that_of_images_of_other_prompts() -> None:
    shown = "two striped red squares above a solid blue circle", "a red square left of a solid cyan cross"
    found = evaluation((shown[0], shown[0]), (shown[1], shown[1]))
    assert found.counts["single factors"] == (15, 15)  # of the second, one texture is not said
    exchanged = evaluation((shown[0], shown[1]), (shown[1], shown[0])).counts
    assert 0 < exchanged["single factors"][0] < 15
    assert found.chance() == {kind: right / asked for kind, (right, asked) in exchanged.items()}
    three = evaluation(*zip(shown, shown, strict=True), (shown[0], shown[1]))
    by_hand = [
        evaluation((shown[0], shown[1]), (shown[1], shown[1]), (shown[0], shown[0])).counts["colour"],
        evaluation((shown[0], shown[1]), (shown[1], shown[0]), (shown[0], shown[1])).counts["colour"],
    ]
    right, asked = (sum(both[i] for both in by_hand) for i in range(2))
    assert three.chance()["colour"] == right / asked
    assert three.chance(1)["colour"] == by_hand[0][0] / by_hand[0][1]


def test_changes_are_counted_where_both_images_are_readable() -> None:
    read = np.zeros((3, len(NAMES)), dtype=np.int64)
    other = read.copy()
    read[0, 2], other[1, 3], other[2, [0, 1]] = -1, -1, 1
    images = np.zeros((3, 3, 32, 32), np.float32)
    counts = DepthEffect(images, images, read, other).counts
    assert counts["any"] == 1
    assert [name for name, count in counts.items() if count] == ["any", "relation", "position"]


@pytest.mark.thorough
def test_evaluation_is_that_of_a_study(model: TextToImage, tmp_path: Path) -> None:
    open_samples = evaluate_depth(model, n=3, steps=10, min_probability=0.0)
    cut = cu.AblateBlock(bottom=4, window=cu.Window(10, 1))
    study = cu.Study(
        name="depth",
        model="scenes",
        prompts=[cu.NO_PROMPT] * 3,
        sampler=cu.DDPM(steps=10, guidance_scale=1.0),
        interventions=[cut],
    )
    results = study.run(tmp_path / "depth.zarr", model=model, progress=False)
    np.testing.assert_allclose(results["baseline"]["image"], open_samples.images, atol=1e-5)
    assert not np.allclose(open_samples.images, open_samples.cut_images, atol=1e-3)
    changes = cu.analysis.factor_changes(results, min_probability=0.0, kind="ablate_block")
    assert [round(3 * share) for share in changes["share"].values[0]] == list(open_samples.counts.values())[1:]
    assert round(3 * float(changes["any"][0])) == open_samples.counts["any"] > 0
    told = evaluate_depth(model, GroupWorld(), n=2, steps=4)
    assert told.images.shape == (2, 3, 32, 32)
    assert not np.allclose(told.images, open_samples.images[:2], atol=1e-3)


def test_evaluation_asks_prompts_of_the_world(model: TextToImage) -> None:
    found = evaluate_scenes(model, GroupWorld(), n=3, sampler=cu.DDPM(steps=2))
    assert [one.prompt for one in found.descriptions] == GroupWorld().draw_prompts(3)
    assert found.images.shape == (3, 3, 32, 32)
    assert found.counts["all"][1] == 3
    prompts = found.as_results()["baseline"]["prompt"].values
    assert all(prompt.removeprefix("(misread) ") for prompt in prompts)
