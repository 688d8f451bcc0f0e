"""Networks that are told an image beside x_t: inpainting and upscaling, compared with the pipelines themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import causalunet as cu
from causalunet.errors import ModelError, PromptError
from causalunet.models import GivenImage
from causalunet.noise import initial_noise
from tests.models.pipelines.hooks import by_hand
from tests.models.pipelines.tiny import PROMPTS, inpainting, stable_diffusion, upscaling

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own

RNG = np.random.default_rng(0)
PIXELS, SMALL = RNG.random((3, 16, 24)), RNG.random((3, 8, 12))
MASK = np.zeros((16, 24), dtype=bool)
MASK[:, 10:] = True
SCALE, STEPS, DRAWN = 3.0, 3, 7
Case = tuple[Callable[..., Any], GivenImage, dict[str, Any]]
CASES: dict[str, Case] = {
    "inpainting": (
        inpainting,
        GivenImage(PIXELS, MASK, seed=DRAWN),
        {
            "image": torch.from_numpy(PIXELS).float()[None],
            "mask_image": torch.from_numpy(MASK).float()[None, None],
            "height": 16,
            "width": 24,
        },
    ),
    "upscaling": (
        upscaling,
        GivenImage(SMALL, noise_level=30, seed=DRAWN),
        {"image": torch.from_numpy(SMALL).float()[None] * 2 - 1, "noise_level": 30},
    ),
}


def own_images(pipe: Any, shape: tuple[int, int, int], given: dict[str, Any]) -> NDArray:
    """One by one, since the noise of a given image is drawn anew in each call."""
    made = [
        pipe(
            prompt,
            latents=torch.from_numpy(initial_noise([3], shape)),
            guidance_scale=SCALE,
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(DRAWN),
            output_type="np",
            **given,
        ).images[0]
        for prompt in PROMPTS
    ]
    return np.moveaxis(np.asarray(made), -1, 1)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_pipelines_own_image_with_cuts_of_every_place_too(name: str, tmp_path: Path) -> None:
    make, given, told = CASES[name]
    pipe = make()
    model = cu.from_pipeline(pipe, name="tiny", given=given)
    assert (model.image_shape, model.picture_shape) == ((4, 8, 12), (3, 16, 24))
    whole = cu.Window(STEPS, STEPS)
    anatomy = model.anatomy
    asked = [(place, False) for place in (*anatomy.by_name, *anatomy.skips)]
    asked += [(place, True) for place in anatomy.passable]
    study = cu.Study(
        name="given",
        model="tiny",
        prompts=PROMPTS,
        seeds=[3],
        sampler=model.sampler(STEPS, SCALE),
        interventions=[cu.Edit(place, whole, cu.Bypass() if by else cu.Zero()) for place, by in asked],
    )
    results = study.run(tmp_path / "s.zarr", model=model, progress=False)
    uncut = own_images(pipe, model.image_shape, told)
    np.testing.assert_allclose(results["baseline/image"], uncut, rtol=0, atol=1e-5)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    for (place, bypass), image in zip(asked, results.outcomes.image.sel(kind="edit").values, strict=True):
        with by_hand(model, place, bypass=bypass):
            np.testing.assert_allclose(
                image, own_images(pipe, model.image_shape, told), rtol=0, atol=1e-5, err_msg=place
            )
        assert np.abs(image - uncut).max() > 1e-5, place


@pytest.mark.thorough
def test_each_prompt_has_its_own_image_and_guidance_keeps_it(tmp_path: Path) -> None:
    """Each sample is the pipeline's own run with the sample's image in both rows of the guided call."""
    pipe = inpainting()
    images = [GivenImage(PIXELS, MASK, seed=DRAWN), GivenImage(PIXELS[:, ::-1], ~MASK, seed=DRAWN)]
    model = cu.from_pipeline(pipe, name="tiny", given=dict(zip(PROMPTS, images, strict=True)))
    study = cu.Study(
        name="given",
        model="tiny",
        prompts=PROMPTS,
        seeds=[3],
        sampler=model.sampler(STEPS, SCALE),
        interventions=[cu.Edit("mid", cu.Window(2, 2)), cu.Edit("mid", cu.Window(2, 2), cu.Patch(prompt=PROMPTS[0]))],
    )
    results = study.run(tmp_path / "s.zarr", model=model, progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    for number, one in enumerate(images):
        told = {
            "image": torch.from_numpy(one.pixels.copy()).float()[None],
            "mask_image": torch.from_numpy(np.asarray(one.mask)).float()[None, None],
            "height": 16,
            "width": 24,
        }
        own = own_images(pipe, model.image_shape, told)[number]
        np.testing.assert_allclose(results["baseline/image"][number], own, rtol=0, atol=1e-5)
    alone = cu.from_pipeline(pipe, name="tiny", given=images[1])
    assert alone.fingerprint != model.fingerprint
    with pytest.raises(PromptError, match=r"No image is given for 'a cat'; there are images for 'a red square', "):
        model.check_prompts(["a cat"])


@pytest.mark.thorough
def test_what_is_given_is_part_of_the_model() -> None:
    pipe = inpainting()
    others = [GivenImage(PIXELS, MASK), GivenImage(PIXELS, MASK, seed=1), GivenImage(PIXELS, ~MASK)]
    assert len({cu.from_pipeline(pipe, given=one).fingerprint for one in others}) == 3


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no image": (lambda: cu.from_pipeline(inpainting()), r"is told an image beside x_t: give it, .*given=GivenImage\("),
    "no images": (lambda: cu.from_pipeline(inpainting(), given={}), "or one for each prompt"),
    "two sizes": (
        lambda: cu.from_pipeline(
            inpainting(), given={"a": GivenImage(PIXELS, MASK), "b": GivenImage(PIXELS[:, :8], MASK[:8])}
        ),
        r"are of sizes \(16, 24\) and \(8, 24\)",
    ),
    "two levels": (
        lambda: cu.from_pipeline(
            upscaling(), given={"a": GivenImage(SMALL, noise_level=1), "b": GivenImage(SMALL, noise_level=2)}
        ),
        "noise_level=2 and 1; the network is told one for all",
    ),
    "no mask": (lambda: cu.from_pipeline(inpainting(), given=GivenImage(PIXELS)), "makes a part of an image anew"),
    "a mask": (lambda: cu.from_pipeline(upscaling(), given=GivenImage(PIXELS, MASK)), "leave the mask out"),
    "too much noise": (
        lambda: cu.from_pipeline(upscaling(), given=GivenImage(SMALL, noise_level=400)),
        "noise_level=400; this pipeline takes 350 at most",
    ),
    "a network that is told none": (
        lambda: cu.from_pipeline(stable_diffusion(), given=GivenImage(PIXELS)),
        "StableDiffusionPipeline is told no image; leave given out",
    ),
    "masked between steps": (
        lambda: cu.from_pipeline(inpainting(in_channels=4), given=GivenImage(PIXELS, MASK)),
        "takes 4 channels and puts out 4; of a network that is told an image of 5 beside x_t 9 are expected",
    ),
    "a size": (
        lambda: cu.from_pipeline(inpainting(), given=GivenImage(PIXELS, MASK), image_size=16),
        "is that of the given image",
    ),
    "half a latent": (
        lambda: cu.from_pipeline(inpainting(), given=GivenImage(PIXELS[:, 1:], MASK[1:])),
        "give multiples of 2",
    ),
    "other pixels": (lambda: GivenImage(PIXELS * 255), r"floating-point numbers in \[0, 1\]"),
    "another mask": (lambda: GivenImage(PIXELS, MASK.T), r"a mask of shape \(24, 16\); give 0 and 1"),
    "another seed": (lambda: GivenImage(PIXELS, seed=-1), "seed=-1; give an integer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_given_wrongly_is_told(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(ModelError, match=said):
        make()
