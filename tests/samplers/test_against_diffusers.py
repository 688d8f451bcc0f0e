"""Every sampler that diffusers has too: whole trajectories, and the number of U-Net calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from causalunet.models.exact import ImageBank, load_gaussian
from causalunet.models.text_to_image import TextToImage
from causalunet.prediction import Prediction
from causalunet.schedule import Level
from tests.samplers.against import CASES, TRAINING, Case, further_noise
from tests.samplers.walks import Denoise, levels_of, walk

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

SHAPE = (1, 3, 8, 8)


def of_unet(call: Callable[[Tensor, Tensor], Tensor]) -> Denoise:
    """Without clipping, by the noise that a U-Net predicts."""

    def denoise(x: Tensor, level: Level) -> tuple[Any, Any]:
        with torch.inference_mode():
            eps = call(x.float(), torch.tensor([level.timestep], dtype=torch.float32)).double()
        return Prediction("eps").image_and_noise(eps, x, level)

    return denoise


@pytest.fixture(scope="module", params=["text to image", "UNet2DModel", "exact Gaussian"])
def denoise(request: pytest.FixtureRequest) -> Denoise:
    """Two U-Nets of random weights, and a model that is exact."""
    if request.param == "text to image":
        tiny: TextToImage = request.getfixturevalue("tiny_model")
        context = tiny.encode(["a red circle"])
        return of_unet(lambda x, time: tiny.unet(x.repeat(1, 1, 2, 2), time, *context)[:, :3, :8, :8])
    if request.param == "UNet2DModel":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet = diffusers.UNet2DModel(
                sample_size=8,
                block_out_channels=(8, 16),
                norm_num_groups=4,
                layers_per_block=1,
                down_block_types=("DownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "UpBlock2D"),
            ).eval()
        return of_unet(lambda x, time: unet(x, time).sample)
    images = np.random.default_rng(0).uniform(size=(5, *SHAPE[1:])).astype(np.float32)
    bank = ImageBank(images, [f"image {number}" for number in range(5)])
    model = load_gaussian(bank, groups=4, alpha_bar=TRAINING.alpha_bar)
    matches = model.encode([""])

    def exact(x: Tensor, level: Level) -> tuple[Any, Any]:
        with torch.inference_mode():
            value = model.unet(x, torch.tensor([level.timestep], dtype=torch.float64), *matches).double()
        return model.prediction.image_and_noise(model.prediction.split(value)[0], x, level)

    return exact


@pytest.mark.sampled(7)
@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_trajectories_are_those_of_diffusers(case: Case, steps: int, denoise: Denoise) -> None:
    sampler = case.made(steps)
    levels = levels_of(TRAINING, sampler.schedule(TRAINING.alpha_bar).timesteps[::-1])
    drawn = torch.Generator().manual_seed(0)
    x, *noises = (torch.randn(SHAPE, generator=drawn, dtype=torch.float64) for _ in range(steps + 1))
    ours = walk(sampler, denoise, levels, TRAINING, x, noises, between=lambda *of: further_noise(noises, *of))
    assert len(ours.asked) == case.calls(steps)
    theirs = case.follow(case.theirs(), denoise, levels, x, noises)
    assert len(theirs) == len(ours.asked)
    ends = itertools.accumulate(sampler.calls_along(levels))
    for found, end in zip(ours.states, ends, strict=True):
        torch.testing.assert_close(found, theirs[end - 1], rtol=1e-5, atol=1e-5)


def test_calls_are_those_that_are_known() -> None:
    assert {name: CASES[name].calls(20) for name in ("Heun", "PNDM")} == {"Heun": 39, "PNDM": 21}
