"""DeepFloyd IF, and thresholds of estimates, compared with what diffusers makes of the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.deepfloyd_if import pipeline_if
from diffusers.schedulers import scheduling_ddpm
from numpy.typing import NDArray

import causalunet as cu
from causalunet.errors import ModelError
from causalunet.noise import initial_noise, step_noise
from causalunet.thresholding import Thresholding
from tests.models.pipelines import tiny
from tests.models.pipelines.hooks import by_hand
from tests.models.pipelines.tiny import PROMPTS, deepfloyd_if, pixels

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own

STEPS, SCALE, SEEDS = 4, 4.0, [3, 3]
WIDE = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 3.0}


def own_images(pipe: Any, shape: tuple[int, int, int]) -> NDArray:
    """Images that the pipeline makes of the noise of seeds, (sample, channel, y, x)."""
    first = torch.from_numpy(initial_noise(SEEDS, shape))
    later = [torch.from_numpy(step_noise(SEEDS, step, shape)) for step in range(STEPS, 1, -1)]
    with (
        mock.patch.object(pipeline_if, "randn_tensor", return_value=first),
        mock.patch.object(scheduling_ddpm, "randn_tensor", side_effect=later),
    ):
        images = pipe(
            PROMPTS, guidance_scale=SCALE, num_inference_steps=STEPS, output_type="np", clean_caption=False
        ).images
    return np.moveaxis(np.asarray(images), -1, 1)


def study(model: Any, *edits: Any, scale: float = SCALE) -> cu.Study:
    return cu.Study(
        name="thresholds",
        model=model.name,
        prompts=PROMPTS,
        seeds=SEEDS[:1],
        sampler=model.sampler(STEPS, scale),
        interventions=edits or [cu.SkipSteps(cu.Window(2, 1))],
    )


@pytest.mark.thorough
def test_deepfloyd_if_with_cuts_of_every_place(tmp_path: Path) -> None:
    pipe = deepfloyd_if()
    model = cu.from_pipeline(pipe, name="tiny")
    assert str(model.prediction) == "noise and variance"
    whole, anatomy = cu.Window(STEPS, STEPS), model.anatomy
    asked = [(place, False) for place in (*anatomy.by_name, *anatomy.skips)]
    asked += [(place, True) for place in anatomy.passable]
    edits = [cu.Edit(place, whole, cu.Bypass() if bypass else cu.Zero()) for place, bypass in asked]
    results = study(model, *edits).run(tmp_path / "s.zarr", model=model, progress=False)
    uncut = own_images(pipe, model.image_shape)
    np.testing.assert_allclose(results["baseline/image"], uncut, rtol=0, atol=1e-5)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    for (place, bypass), image in zip(asked, results.outcomes.image.sel(kind="edit").values, strict=True):
        with by_hand(model, place, bypass=bypass):
            np.testing.assert_allclose(image, own_images(pipe, model.image_shape), rtol=0, atol=1e-5, err_msg=place)
        assert np.abs(image - uncut).max() > 1e-5, place


def test_thresholds_count(tmp_path: Path) -> None:
    pipe = deepfloyd_if()
    other = pipe.scheduler.from_config(pipe.scheduler.config, thresholding=False)
    images = [own_images(one, (3, 16, 16)) for one in (pipe, deepfloyd_if(other))]
    assert np.abs(images[0] - images[1]).max() > 1e-3
    models = [cu.from_pipeline(one, name="tiny") for one in (pipe, deepfloyd_if(other))]
    assert [one.clip for one in models] == [False, True]
    assert models[0].fingerprint != models[1].fingerprint


@pytest.mark.thorough
def test_other_schedulers_threshold_too(tmp_path: Path) -> None:
    betas = {"beta_schedule": "squaredcos_cap_v2", **WIDE}
    pipe = deepfloyd_if(diffusers.DPMSolverMultistepScheduler(**betas))
    model = cu.from_pipeline(pipe, name="tiny")
    results = study(model).run(tmp_path / "if.zarr", model=model, progress=False)
    np.testing.assert_allclose(results["baseline/image"], own_images(pipe, model.image_shape), rtol=0, atol=1e-5)
    pipe = pixels(scheduler=diffusers.DDIMScheduler(**betas))
    model = cu.from_pipeline(pipe, name="tiny")
    results = study(model, scale=1.0).run(tmp_path / "ddim.zarr", model=model, progress=False)
    own = tiny.own_images(pipe, model.image_shape, SEEDS, steps=STEPS)
    np.testing.assert_allclose(results["baseline/image"], own, rtol=0, atol=1e-5)


def test_it_is_that_of_diffusers() -> None:
    x0 = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 0.5, 1, 2, 9]).view(
        -1, 1, 1, 1
    )
    scheduler = diffusers.DDPMScheduler(**WIDE)
    ours = Thresholding(0.9, 3.0)
    assert torch.equal(ours(x0), scheduler._threshold_sample(x0))
    torch.testing.assert_close(ours(x0[3:4]), ours(x0)[3:4], rtol=0, atol=0)
    assert torch.equal(Thresholding(0.9, 1.0)(x0), x0.clamp(-1, 1))


def test_what_is_none_is_told(tmp_path: Path) -> None:
    for given in ({"quantile": 0.0}, {"quantile": 1.5}, {"most": 0.5}, {"most": float("nan")}):
        with pytest.raises(ModelError, match="give a share above 0"):
            Thresholding(**given)
    assert cu.from_pipeline(pixels(scheduler=diffusers.DDIMScheduler(**WIDE))).thresholding == Thresholding(0.9, 3.0)
