"""Studies on pipelines of diffusers, compared with what the pipelines make themselves, whole and with hooks by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch
from diffusers.hooks import LayerSkipConfig, apply_layer_skip
from diffusers.schedulers import scheduling_lcm
from numpy.typing import NDArray

import causalunet as cu
from causalunet.errors import ModelError
from causalunet.models.pipelines import PipelineModel
from causalunet.models.pipelines.networks import ClassTransformer
from causalunet.noise import step_noise
from causalunet.testing import check_model
from tests.models.pipelines.hooks import by_hand
from tests.models.pipelines.tiny import (
    BETAS,
    GUIDANCE,
    PROMPTS,
    ddim,
    dit,
    flux,
    latent_consistency,
    latent_diffusion,
    own_images,
    pixart,
    pixels,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own

SEEDS = [3, 4]
SD = {**BETAS, "steps_offset": 1}

Made = Callable[[], Any]
BASELINES: dict[str, tuple[Made, float]] = {
    "DDIM in pixels": (pixels, 1.0),
    "DDIM in pixels, clipped": (lambda: pixels(scheduler=diffusers.DDIMScheduler()), 1.0),
    "DDIM, a network of three channels and one level": (
        lambda: pixels(
            block_out_channels=(8,), down_block_types=("AttnDownBlock2D",), up_block_types=("AttnUpBlock2D",)
        ),
        1.0,
    ),
    "a network that is not square": (lambda: pixels("DDPMPipeline", ddim(), sample_size=(16, 24)), 1.0),
    "Stable Diffusion, DDIM": (stable_diffusion, 5.0),
    "Stable Diffusion without guidance": (stable_diffusion, 1.0),
    "Stable Diffusion, DDIM that ends at the first timestep": (
        lambda: stable_diffusion(ddim(set_alpha_to_one=False)),
        5.0,
    ),
    "Stable Diffusion, PNDM": (
        lambda: stable_diffusion(diffusers.PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **SD)),
        5.0,
    ),
    "Stable Diffusion, v": (lambda: stable_diffusion(ddim(prediction_type="v_prediction")), 5.0),
    "Stable Diffusion, v, zero terminal SNR": (
        lambda: stable_diffusion(
            ddim(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
        ),
        5.0,
    ),
    "Stable Diffusion, DPM-Solver++": (lambda: stable_diffusion(diffusers.DPMSolverMultistepScheduler(**BETAS)), 5.0),
    "Stable Diffusion, UniPC": (lambda: stable_diffusion(diffusers.UniPCMultistepScheduler(**BETAS)), 5.0),
    "Stable Diffusion, Euler": (
        lambda: stable_diffusion(diffusers.EulerDiscreteScheduler(timestep_spacing="leading", **SD)),
        5.0,
    ),
    "Stable Diffusion, Heun": (
        lambda: stable_diffusion(diffusers.HeunDiscreteScheduler(timestep_spacing="leading", **SD)),
        5.0,
    ),
    "Stable Diffusion XL": (stable_diffusion_xl, 5.0),
    "latent diffusion without conditions": (latent_diffusion, 1.0),
    "DiT": (dit, 4.0),
    "PixArt": (pixart, 4.5),
    "Stable Diffusion 3 without T5, shifted by the image's size": (
        lambda: stable_diffusion_3(
            diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02), third=False
        ),
        1.0,
    ),
    "Flux with guidance of its own, Karras' noise": (
        lambda: flux(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_karras_sigmas=True)),
        2.0,
    ),
}


def model_of(pipe: Any) -> PipelineModel:
    told = {"told_guidance": GUIDANCE} if isinstance(pipe, diffusers.FluxPipeline) else {}
    return cu.from_pipeline(pipe, name="tiny", **told)


def prompts_of(model: PipelineModel) -> list[str]:
    if hasattr(model.conditions, "pipe"):
        return PROMPTS
    return ["207", "360"] if isinstance(model.unet, ClassTransformer) else ["one"]


def study(model: PipelineModel, *interventions: Any, steps: int = 5, scale: float = 1.0) -> cu.Study:
    """Of a prompt with each seed."""

    several = prompts_of(model)
    return cu.Study(
        name="pipelines",
        model=model.name,
        prompts=several,
        seeds=[3] if len(several) > 1 else SEEDS,
        sampler=model.sampler(steps, scale),
        interventions=interventions or [cu.SkipSteps(cu.Window(2, 1))],
    )


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", BASELINES)
def test_the_baseline_is_the_pipelines_own_image(name: str, tmp_path: Path) -> None:
    make, scale = BASELINES[name]
    pipe = make()
    model = model_of(pipe)
    asked = study(model, scale=scale)
    results = asked.run(tmp_path / "s.zarr", model=model, progress=False)
    seeds = [3, 3] if len(asked.prompts) > 1 else SEEDS
    own = own_images(pipe, model.image_shape, seeds, steps=5, scale=scale)
    np.testing.assert_allclose(results["baseline/image"].values, own, rtol=0, atol=1e-5)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    if model.image_shape != model.picture_shape:
        assert results["baseline/x0_hat"].dims == ("sample", "step", "latent_channel", "latent_y", "latent_x")
        assert results["outcomes/image"].shape[2:] == model.picture_shape == (3, 16, 16)


@pytest.mark.thorough
def test_a_distilled_guidance_is_told_to_the_network_with_cuts_of_every_place_too(tmp_path: Path) -> None:
    pipe = latent_consistency()
    with pytest.raises(ModelError, match=r"told the scale at every call .* told_guidance=8\.5"):
        cu.from_pipeline(pipe)
    model = cu.from_pipeline(pipe, name="tiny", told_guidance=8.5)
    places = (*model.anatomy.by_name, *model.anatomy.skips)
    edits = [cu.Edit(place, cu.Window(4, 4)) for place in places]
    results = study(model, *edits, steps=4).run(tmp_path / "s.zarr", model=model, progress=False)
    noises = [torch.from_numpy(step_noise([3, 3], step, model.image_shape)) for step in (4, 3, 2)]

    def own() -> NDArray:
        with mock.patch.object(scheduling_lcm, "randn_tensor", side_effect=noises):
            return own_images(pipe, model.image_shape, [3, 3], steps=4, scale=8.5)

    np.testing.assert_allclose(results["baseline/image"].values, own(), rtol=0, atol=1e-5)
    for place, image in zip(places, results.outcomes.image.sel(kind="edit").values, strict=True):
        with by_hand(model, place):
            np.testing.assert_allclose(image, own(), rtol=0, atol=1e-5, err_msg=place)
    assert model.fingerprint != cu.from_pipeline(pipe, told_guidance=7.5).fingerprint


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "make",
    [
        pixels,
        stable_diffusion,
        stable_diffusion_xl,
        latent_diffusion,
        dit,
        pixart,
        stable_diffusion_3,
        flux,
    ],
    ids=lambda make: make.__name__,
)
def test_every_cut_and_bypass_is_the_one_by_hooks_in_the_original_forward(make: Made, tmp_path: Path) -> None:
    pipe = make()
    model = model_of(pipe)
    whole, anatomy = cu.Window(2, 2), model.anatomy
    asked = [(place, False) for place in (*anatomy.by_name, *anatomy.skips)]
    asked += [(place, True) for place in anatomy.passable]
    edits = [cu.Edit(place, whole, cu.Bypass() if bypass else cu.Zero()) for place, bypass in asked]
    made = study(model, *edits, steps=2, scale=3.0)
    results = made.run(tmp_path / "s.zarr", model=model, progress=False)
    seeds = [3, 3] if len(made.prompts) > 1 else SEEDS
    uncut = own_images(pipe, model.image_shape, seeds, steps=2, scale=3.0)
    np.testing.assert_allclose(results["baseline/image"], uncut, rtol=0, atol=1e-5)
    images = results.outcomes.image.sel(kind="edit").values
    for (place, bypass), image in zip(asked, images, strict=True):
        with by_hand(model, place, bypass=bypass):
            own = own_images(pipe, model.image_shape, seeds, steps=2, scale=3.0)
        np.testing.assert_allclose(image, own, rtol=0, atol=1e-5, err_msg=place)
        assert np.abs(image - results["baseline/image"].values).max() > 1e-5, place


@pytest.mark.sampled(1)
@pytest.mark.parametrize("make", [dit, pixart], ids=lambda make: make.__name__)
def test_a_bypass_is_the_layer_skip_of_diffusers(make: Made, tmp_path: Path) -> None:
    pipe = make()
    model = cu.from_pipeline(pipe, name="tiny")
    assert model.anatomy.passable == ("block.0", "block.1", "block.2")
    whole = cu.Window(2, 2)
    several = cu.Edit("block.0", whole, cu.Bypass()) + cu.Edit("block.1", whole, cu.Bypass())
    asked = study(model, cu.Edit("block.1", whole, cu.Bypass()), several, steps=2, scale=3.0)
    results = asked.run(tmp_path / "s.zarr", model=model, progress=False)
    for indices, image in zip([[1], [0, 1]], results.outcomes.image.sel(kind=["edit", "composition"]), strict=True):
        skipped = make()
        apply_layer_skip(skipped.transformer, LayerSkipConfig(indices=indices, fqn="transformer_blocks"))
        own = own_images(skipped, model.image_shape, [3, 3], steps=2, scale=3.0)
        np.testing.assert_allclose(image, own, rtol=0, atol=1e-5)
        assert np.abs(image - results["baseline/image"].values).max() > 1e-5
    flops, block = results.outcomes.flops.sel(kind="edit"), model.anatomy.by_name["block.1"].flops
    assert int(flops[0]) == 2 * 2 * (model.anatomy.flops - block)  # two steps of two branches


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "make",
    [pixels, pytest.param(stable_diffusion_xl, marks=pytest.mark.slow), pixart],
    ids=lambda make: make.__name__,
)
def test_it_is_what_studies_take_it_for(make: Made) -> None:
    model = cu.from_pipeline(make())
    told = check_model(model, prompts_of(model))
    assert told, str(told)


@pytest.mark.thorough
def test_components_of_stable_diffusion_are_those_of_its_layout() -> None:
    pipe = stable_diffusion(
        block_out_channels=(16, 16, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )
    anatomy = cu.from_pipeline(pipe).anatomy
    assert list(anatomy.skips) == [f"skip.{number}" for number in range(12)]
    assert [component.name for component in anatomy.decoder] == [f"up.{number}" for number in range(12)]
    assert anatomy.by_name["down.3"].module == "unet.down_blocks.0.downsamplers.0"
    assert anatomy.by_name["up.11"].modules == ("unet.up_blocks.3.resnets.2", "unet.up_blocks.3.attentions.2")
    assert anatomy.dead({"up.2"}) == {"down.9", "down.10", "down.11", "mid", "up.0", "up.1", "up.2"}
