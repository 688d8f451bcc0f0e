"""Latent diffusion in diffusers' classes: the stored pipeline is what was trained; resumed runs are the same runs."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from causalunet.errors import CheckpointError, ModelError
from causalunet.models.latent_diffusion import (
    LATENT_SHAPE,
    build_autoencoder,
    build_text_encoder,
    build_unet,
    load_pipeline,
    save_pipeline,
)
from causalunet.models.vocabulary import CONTEXT, tokenize
from causalunet.scenes import draw_scenes, render
from causalunet.schedule import cosine_alpha_bar
from causalunet.training.latent import (
    AutoencoderTrainingConfig,
    LatentTrainingConfig,
    draw_latent,
    measure_scaling,
    train_autoencoder,
    train_latent,
)

pytestmark = pytest.mark.slow  # two networks are trained for each of most tests

AUTOENCODER = AutoencoderTrainingConfig(iterations=4, batch_size=2, warmup=2, decay=2)
DENOISER = LatentTrainingConfig(iterations=4, batch_size=2, warmup=2, decay=2)
PROMPTS = ["a striped red triangle on the left, dark background", ""]


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("autoencoder")
    list(train_autoencoder(AUTOENCODER, directory))
    return directory / "autoencoder.safetensors"


@pytest.fixture(scope="module")
def trained(first_stage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("latent")
    list(train_latent(DENOISER, directory, autoencoder=first_stage))
    return directory


@pytest.fixture(scope="module")
def pipeline(trained: Path) -> Any:
    return load_pipeline(trained / "pipeline")


def scenes(n: int) -> torch.Tensor:
    return torch.from_numpy(render(draw_scenes(n), np.random.default_rng(5)))


def test_the_folder_is_read_by_diffusers_itself_and_is_small(trained: Path) -> None:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    folder = trained / "pipeline"
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", low_cpu_mem_usage=False)
    assert unet.config.cross_attention_dim == 64
    whole = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, low_cpu_mem_usage=False)
    assert whole.scheduler.config.prediction_type == "v_prediction"
    files = list(folder.rglob("*.safetensors"))
    assert len(files) == 3
    assert sum(path.stat().st_size for path in files) < 8_000_000
    assert all(value.dtype == torch.float16 for path in files for value in load_file(path).values())


def test_the_pipeline_holds_the_averaged_weights(trained: Path, pipeline: Any) -> None:
    stored = load_file(trained / "denoiser.safetensors")
    for part, module in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder)):
        for name, value in module.state_dict().items():
            assert torch.equal(value, stored[f"{part}.{name}"].float()), name


def test_the_folder_says_how_both_stages_were_trained(trained: Path) -> None:
    told = json.loads((trained / "pipeline" / "training.json").read_text())
    for stage, config in {"autoencoder": AUTOENCODER, "denoiser": DENOISER}.items():
        assert told[stage].pop("iteration") == config.iterations
        assert {"begin_with": None, "autocast": None} | told[stage] == asdict(config)


def test_the_tokenizer_gives_the_tokens_of_the_training(pipeline: Any) -> None:
    prompts = [*PROMPTS, *(scene.prompt for scene in draw_scenes(50))]
    theirs = pipeline.tokenizer(prompts, padding="max_length", max_length=CONTEXT, return_tensors="np").input_ids
    np.testing.assert_array_equal(theirs, tokenize(prompts)[0])


def test_scaled_latents_have_standard_deviation_one(trained: Path, pipeline: Any) -> None:
    images = scenes(300)
    with torch.no_grad():
        latents = pipeline.vae.config.scaling_factor * pipeline.vae.encode(images).latent_dist.mean
    assert latents.std().item() == pytest.approx(1.0, abs=0.1)
    assert measure_scaling(pipeline.vae, images) == pytest.approx(pipeline.vae.config.scaling_factor, rel=0.1)


def test_a_denoiser_that_knows_the_latent_gives_back_the_reconstruction(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties schedule, sign of v, steps, scaling and decoding of the stored pipeline to those of the training."""
    images = scenes(2)
    scaling = pipeline.vae.config.scaling_factor
    with torch.no_grad():
        mean = pipeline.vae.encode(images).latent_dist.mean
        expected = pipeline.vae.decode(mean).sample
    x0 = (scaling * mean).repeat(2, 1, 1, 1)  # unconditional rows first
    alpha_bar = cosine_alpha_bar()

    def knowing(x: torch.Tensor, timestep: torch.Tensor, **given: Any) -> tuple[torch.Tensor]:
        signal, noise = (float(np.sqrt(a)) for a in (alpha_bar[int(timestep)], 1 - alpha_bar[int(timestep)]))
        return (signal * (x - signal * x0) / noise - noise * x0,)

    monkeypatch.setattr(pipeline.unet, "forward", knowing)
    told: list[int] = []
    drawn = draw_latent(pipeline, PROMPTS, [0, 1], steps=10, advance=told.append)
    np.testing.assert_allclose(drawn, ((expected.clamp(-1, 1) + 1) / 2).numpy(), atol=1e-4)
    assert told == [2] * 10


def test_resumed_runs_are_the_uninterrupted_runs(trained: Path, first_stage: Path, tmp_path: Path) -> None:
    for _ in itertools.islice(train_autoencoder(AUTOENCODER, tmp_path / "a", checkpoint_every=2, report_every=1), 3):
        pass
    list(train_autoencoder(AUTOENCODER, tmp_path / "a"))
    again, whole = load_file(tmp_path / "a" / "autoencoder.safetensors"), load_file(first_stage)
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    parts = train_latent(DENOISER, tmp_path, autoencoder=first_stage, checkpoint_every=2, report_every=1)
    for _ in itertools.islice(parts, 3):
        pass
    assert not (tmp_path / "pipeline").exists()
    list(train_latent(DENOISER, tmp_path, autoencoder=first_stage))
    again, whole = (load_file(path / "denoiser.safetensors") for path in (tmp_path, trained))
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert (tmp_path / "pipeline" / "model_index.json").exists()


def test_the_losses_fall(first_stage: Path, tmp_path: Path) -> None:
    runs = (
        train_autoencoder(
            AutoencoderTrainingConfig(iterations=16, batch_size=4, warmup=2, decay=2), tmp_path / "a", report_every=1
        ),
        train_latent(
            LatentTrainingConfig(iterations=16, batch_size=4, warmup=2, decay=2),
            tmp_path,
            autoencoder=first_stage,
            report_every=1,
        ),
    )
    for directory, records in zip((tmp_path / "a", tmp_path), runs, strict=True):
        list(records)
        losses = [json.loads(line)["loss"] for line in (directory / "log.jsonl").read_text().splitlines()]
        assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


def test_the_divergence_is_that_of_torch_distributions() -> None:
    from torch.distributions import Normal, kl_divergence

    from causalunet.training.latent import _Reconstruction

    task = _Reconstruction(AUTOENCODER)
    batch = task.draw(0, np.random.default_rng(0))
    _, numbers = task.loss(batch)
    latents = task.network.encode(batch["images"]).latent_dist
    expected = kl_divergence(Normal(latents.mean, latents.std), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(numbers["kl"], expected)


def test_saving_leaves_the_parts_as_they_are(tmp_path: Path) -> None:
    parts = {"autoencoder": build_autoencoder(), "unet": build_unet(), "text_encoder": build_text_encoder()}
    save_pipeline(tmp_path, **parts, scaling_factor=2.5)
    assert all(value.dtype == torch.float32 for part in parts.values() for value in part.parameters())
    assert parts["autoencoder"].config.scaling_factor != 2.5  # type: ignore[union-attr]
    assert load_pipeline(tmp_path).vae.config.scaling_factor == 2.5
    assert LATENT_SHAPE == (4, 16, 16)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        load_pipeline(tmp_path)
    with pytest.raises(CheckpointError, match="no weights file"):
        list(train_latent(DENOISER, tmp_path, autoencoder=tmp_path / "none.safetensors"))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModelError, match=r"pip install 'causalunet\[diffusers\]'"):
        build_unet()
