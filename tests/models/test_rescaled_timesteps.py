"""Timesteps of U-Nets that were trained on other numbers of them: those of the official samplers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.execute.walk.generate import generate
from causalunet.models import from_unet
from causalunet.noise import initial_noise, step_noise
from causalunet.schedule import cosine_alpha_bar
from tests.execute.reference import draw
from tests.models import stand_ins
from tests.models.test_openai_unets import (
    SIZE,
    STEPS,
    make,
)


def official_timesteps(num_timesteps: int, steps: int, *, rescale: bool) -> list[float]:
    """What improved-diffusion hands to the U-Net at steps 1 ... T: its respacing and ``_scale_timesteps``, by hand."""
    stride = (num_timesteps - 1) / (steps - 1)
    current, taken = 0.0, []
    for _ in range(steps):
        taken.append(round(current))
        current += stride
    kept = torch.tensor(sorted(set(taken)))
    scaled = kept.float() * (1000.0 / num_timesteps) if rescale else kept.float()
    return [float(t) for t in scaled]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("timesteps", [4000, 1000, 250])
@pytest.mark.parametrize("kind", ["text", "classes", "plain"])
def test_timesteps_are_those_of_the_official_sampler(kind: str, timesteps: int, rescale: bool) -> None:
    case = make(kind)
    alpha_bar = cosine_alpha_bar(timesteps)
    model = replace(case, options={**case.options, "alpha_bar": alpha_bar, "rescale_timesteps": rescale}).model
    seen: list[float] = []
    case.unet.time_embed.register_forward_pre_hook(  # of a width of 8, whose first cosine is that of the timestep
        lambda _m, given: seen.append(float(torch.atan2(given[0][0, 4], given[0][0, 0])))
    )
    sampler = cu.DDPM(steps=STEPS, guidance_scale=case.scale)
    generate(case.prompts[:1], [3], model=model, sampler=sampler)
    expected = official_timesteps(timesteps, STEPS, rescale=rescale)[::-1]
    assert (timesteps, rescale) != (4000, True) or (expected[0], expected[-1]) == (999.75, 0.0)
    angles = torch.tensor(expected)
    np.testing.assert_allclose(seen[-STEPS:], torch.atan2(angles.sin(), angles.cos()), rtol=0, atol=1e-3)


def test_a_model_of_4000_rescaled_timesteps_is_sampled_as_by_hand() -> None:
    unet = stand_ins.randomised(stand_ins.UNetModel(out_channels=3))
    alpha_bar = cosine_alpha_bar(4000)
    images = {
        rescale: generate(
            ["one"],
            [3],
            model=from_unet(unet, name="x", image_size=SIZE, alpha_bar=alpha_bar, rescale_timesteps=rescale),
            sampler=cu.DDPM(steps=STEPS, guidance_scale=1),
        )[0]
        for rescale in (True, False)
    }
    x = torch.from_numpy(initial_noise([3], (3, SIZE, SIZE)))
    taken = [round(i * 3999 / (STEPS - 1)) for i in range(STEPS)]
    share = [1.0, *(float(alpha_bar[t]) for t in taken)]
    for step in range(STEPS, 0, -1):
        with torch.no_grad():
            eps = unet(x, torch.tensor([taken[step - 1] * 1000.0 / 4000]))
        x0 = ((x - math.sqrt(1 - share[step]) * eps) / math.sqrt(share[step])).clamp(-1, 1)
        noise = torch.from_numpy(step_noise([3], step, (3, SIZE, SIZE)))
        x = draw(x, x0, torch.ones_like(x), noise, a=share[step], b=share[step - 1])
    np.testing.assert_allclose(images[True], ((x[0].clamp(-1, 1) + 1) / 2).numpy(), rtol=0, atol=2e-5)
    assert np.abs(images[True] - images[False]).max() > 1e-2


def test_rescaled_timesteps_change_the_fingerprint_and_others_do_not() -> None:
    unet = stand_ins.randomised(stand_ins.UNetModel())

    def found(timesteps: int, rescale: bool | None) -> str:
        given: dict[str, Any] = {"alpha_bar": cosine_alpha_bar(timesteps), "rescale_timesteps": rescale}
        return from_unet(unet, name="x", image_size=SIZE, **given).fingerprint

    assert found(4000, True) != found(4000, False)
    assert found(1000, True) == found(1000, False) == found(1000, None)
