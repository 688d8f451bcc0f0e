"""The model `shapes-latent` that ships: what it is, and that studies on it draw what diffusers' own pipeline draws."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import causalunet as cu
from causalunet.errors import CheckpointError, ModelError
from causalunet.models import load_shapes_latent
from causalunet.models.latent_diffusion import load_pipeline
from causalunet.models.pipelines import PipelineModel
from causalunet.scenes import draw_scenes, render
from causalunet.training.latent import AutoencoderTrainingConfig, LatentTrainingConfig, draw_latent

FOLDER = Path(str(files("causalunet") / "weights" / "shapes-latent"))
PROMPT = "a striped red triangle on the left, dark background"


@pytest.fixture(scope="module")
def model() -> PipelineModel:
    return load_shapes_latent()


def test_weights_are_small_and_say_how_they_were_made() -> None:
    weights = list(FOLDER.rglob("*.safetensors"))
    assert len(weights) == 3
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 8_000_000
    assert all(value.dtype == torch.float16 for path in weights for value in load_file(path).values())
    told = json.loads((FOLDER / "training.json").read_text())
    for stage, config in {"autoencoder": AutoencoderTrainingConfig(), "denoiser": LatentTrainingConfig()}.items():
        assert told[stage].pop("iteration") == config.iterations
        assert {"begin_with": None, "autocast": None} | told[stage] == asdict(config)


def test_what_is_decoded_shows_what_was_encoded(model: PipelineModel) -> None:
    scenes = draw_scenes(200, seed=5)
    images = torch.from_numpy(render(scenes, np.random.default_rng(5)))
    pipe = load_pipeline(FOLDER)
    with torch.no_grad():
        latents = pipe.vae.encode(images).latent_dist.mean
        decoded = model.decode(pipe.vae.config.scaling_factor * latents)
    assert np.abs(2 * decoded - 1 - images.numpy()).mean() < 0.02
    right = model.read_factors(decoded)[0] == np.array([scene.codes for scene in scenes])
    assert right.mean(axis=0).min() >= 0.99
    halves = torch.nn.functional.avg_pool2d(images, 2)
    assert (latents[:, :3] - halves).abs().mean() < 0.02  # the first three channels can be looked at


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.thorough), 3.0])
def test_a_study_draws_what_the_pipeline_itself_draws(guidance: float, model: PipelineModel, tmp_path: Path) -> None:
    study = cu.Study(
        name="latent",
        model="shapes-latent",
        prompts=[PROMPT],
        seeds=[3],
        sampler=model.sampler(5, guidance),
        interventions=[cu.AblateBlock(bottom=12, window=cu.Window(5, 3))],
    )
    results = study.run(tmp_path / "latent.zarr", progress=False)
    own = draw_latent(load_pipeline(FOLDER), [PROMPT], [3], steps=5, guidance=guidance)
    np.testing.assert_allclose(results.baseline.image.values, own, atol=2e-5)
    assert float(results.outcomes.ssim.sel(kind="ablate_block").item()) < 0.99
    assert results.outcomes.factor_changed.sizes["factor"] == 5


def test_it_reads_and_is_read_like_its_neighbours(model: PipelineModel) -> None:
    (entry,) = (one for one in cu.models.architectures() if one.name == "shapes-latent")
    assert [c.name for c in entry.anatomy.components] == [c.name for c in model.anatomy.components]
    assert entry.anatomy.parameters == model.anatomy.parameters
    assert model.factors == cu.load_model("shapes").factors
    with pytest.raises(cu.errors.PromptError, match="purple"):
        model.check_prompts(["a solid purple circle"])


@pytest.mark.thorough
def test_loading_says_nothing() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import causalunet as cu; cu.load_model('shapes-latent')"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (told.stdout, told.stderr) == ("", "")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        cu.load_model("shapes-latent", checkpoint=tmp_path)
    with pytest.raises(ModelError, match="nowhere"):
        cu.load_model("shapes-latent", device="nowhere")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModelError, match=r"pip install 'causalunet\[diffusers\]'"):
        cu.load_model("shapes-latent")
