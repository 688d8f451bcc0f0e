"""Does ``scenes`` follow which group a word belongs to? What a prompt is worth for a step, with its words exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from causalunet.models.text_to_image import TextToImage
from causalunet.prediction import training_of
from causalunet.prompts import NO_PROMPT
from causalunet.schedule import Level
from causalunet.worlds.groups import Description, GroupWorld
from causalunet.worlds.painting import render

__all__ = ["evaluate_binding"]


def evaluate_binding(
    model: TextToImage,
    world: GroupWorld,
    *,
    n: int = 64,
    seed: int = 2,
    log_snrs: Sequence[float] = (-8.3, -5.1, -3.7, -2.9, -1.35),
) -> xr.DataArray:
    """Compare estimates of the image under the scene's own prompt, with words of the groups exchanged, and without.

    Parameters
    ----------
    model : TextToImage
        Trained on the world, to predict the noise or v.
    world : GroupWorld
    n : int
        Number of scenes, with prompts that say all that prompts can.
    seed : int
        Of scenes and noise.
    log_snrs : sequence of float
        Logarithms of signal variance over noise variance; of each the nearest timestep of the training is taken. By
        default those of timesteps 990, 950, 900, 850 and 700 of the squared-cosine schedule.

    Returns
    -------
    xarray.DataArray, (timestep, prompt)
        Mean squared error of the estimate of x_0, of images in [-1, 1]; prompts are ``own``, ``colours exchanged``,
        ``shapes exchanged`` (the same prompt where both groups have the same shape) and ``none``, and ``log_snr`` is
        what the timestep has.

    Raises
    ------
    SpecError
        There is more or less noise than at any timestep of the training.

    Notes
    -----
    A network that takes a prompt for a bag of words has the same error with words exchanged. Where no signal is
    left, the best estimate is the mean of the images that a prompt describes.
    """
    rng, training = np.random.default_rng(seed), training_of(model)
    levels = [training.level(round(training.level_of(log_snr).timestep)) for log_snr in log_snrs]
    told = replace(world, drop=0.0)
    codes = told.draw(n, rng, only_held_out=False)
    images, said = torch.from_numpy(render(codes, rng)), told.describe(codes, rng)
    prompts: dict[str, list[str]] = {
        "own": [one.prompt for one in said],
        "colours exchanged": [_exchanged(one, "colour").prompt for one in said],
        "shapes exchanged": [_exchanged(one, "shape").prompt for one in said],
        "none": [NO_PROMPT] * n,
    }
    encoded = {name: model.encode(words) for name, words in prompts.items()}
    errors = np.empty((len(levels), len(prompts)))
    for row, level in enumerate(levels):
        noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
        for at, text in enumerate(encoded.values()):
            errors[row, at] = _error(model, images, noise, level, text)
    return xr.DataArray(
        errors,
        {
            "timestep": [int(level.timestep) for level in levels],
            "log_snr": ("timestep", [level.log_snr for level in levels]),
            "prompt": list(prompts),
        },
        ("timestep", "prompt"),
        name="x0_error",
        attrs={"long_name": "mean squared error of the estimate of x_0", "samples": n},
    )


def _exchanged(said: Description, factor: str) -> Description:
    """The description with a factor of both groups exchanged: the same words, but for plurals, in another order."""
    first, second = ({factor: getattr(group, factor)} for group in (said.first, said.second))
    return replace(said, first=replace(said.first, **second), second=replace(said.second, **first))


def _error(model: TextToImage, images: Tensor, noise: Tensor, level: Level, text: tuple[Tensor, ...]) -> float:
    noisy = level.signal * images + level.noise * noise
    with torch.inference_mode():
        timesteps = torch.full((len(images),), int(level.timestep), device=text[0].device)
        output = model.unet(noisy.to(text[0].device), timesteps, *text).cpu()
    predicted, _ = model.prediction.split(output)
    estimate, _ = model.prediction.image_and_noise(predicted, noisy, level)
    return float((estimate - images).square().mean())
