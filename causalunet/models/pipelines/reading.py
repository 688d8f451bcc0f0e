"""Taking in pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from causalunet.design.limits import is_integer, shown
from causalunet.errors import ModelError
from causalunet.models.labels import label_reader
from causalunet.models.pipelines.conditions import Conditions, Labels, Texts, TwoTexts
from causalunet.models.pipelines.model import PipelineModel
from causalunet.models.pipelines.networks import LabelledNetwork, Network, PromptedNetwork, SizedNetwork
from causalunet.models.pipelines.refusals import check_network, check_pipeline
from causalunet.models.pipelines.schedulers import read_noise

__all__ = ["PIPELINES", "from_pipeline"]

_Size = tuple[int, int]


def from_pipeline(
    pipe: Any,
    *,
    name: str | None = None,
    image_size: int | Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    null_class: int | None = None,
) -> PipelineModel:
    """Make a model of a pipeline of diffusers; its networks are used as they are, and moved nowhere.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Of a class in `PIPELINES`, with its scheduler; that says noise schedule, prediction and clipping, and
        `PipelineModel.sampler` makes the sampler that equals it.
    name : str, optional
        What results call it; by default the pipeline's ``_name_or_path`` or class.
    image_size : int or (int, int), optional
        Pixels along y and x of the images; by default those that the network was made for.
    classes : sequence of str, optional
        For a network with class labels: the name of every class.
    null_class : int, optional
        Of those the one that stands for none.

    Returns
    -------
    PipelineModel
        ``str()`` of it says what was taken from the pipeline.

    Raises
    ------
    ModelError
        The class of the pipeline or of its scheduler is not known; a part is missing, or does what a study could not
        tell: a safety checker, an IP adapter, a compiled network, weights that are not there or of several precisions;
        an image size that the network cannot do.
    """
    kind = type(pipe).__name__
    if kind not in PIPELINES:
        raise ModelError(
            f"{shown(pipe) if kind in ('str', 'dict') else kind} is no pipeline that is known; known are "
            f"{', '.join(PIPELINES)}. A network by itself enters by from_unet or an adapter of its own."
        )
    check_pipeline(pipe)
    model = PIPELINES[kind](pipe, name or _named(pipe), _size(image_size), classes, null_class)
    model.anatomy  # noqa: B018 - read now, so that what cannot be called is told here
    return model


def _named(pipe: Any) -> str:
    return str(pipe.config.get("_name_or_path") or type(pipe).__name__)


def _size(given: Any) -> _Size | None:
    if given is None:
        return None
    sides = (given, given) if is_integer(given) else given
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(is_integer(n) and n > 0 for n in sides):
        raise ModelError(f"image_size={shown(given)}: give pixels, an integer, or two for y and x.")
    return int(sides[0]), int(sides[1])


def _of_network(unet: Any) -> _Size:
    """_Size that a network was made for, in its own pixels."""
    size = unet.config.sample_size
    if size is None:
        raise ModelError(f"This {type(unet).__name__} does not say for which size it was made; give image_size.")
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _in_pixels(
    pipe: Any, name: str, size: _Size | None, classes: Sequence[str] | None, null_class: int | None
) -> PipelineModel:
    """Unconditional models, and of classes, without latents: DDPM and DDIM."""
    unet = pipe.unet
    check_network(unet)
    channels = unet.config.in_channels
    shape = (channels, *(size or _of_network(unet)))
    noise = read_noise(pipe.scheduler, variance=unet.config.out_channels == 2 * channels)
    prepare = label_reader(unet.config.num_class_embeds, classes, null_class)
    return PipelineModel(
        name, LabelledNetwork(unet.eval()), Labels(prepare), noise, shape, shape, pipe.scheduler, parts={"unet": unet}
    )


def _decoder(vae: Any) -> Callable[[Tensor], Tensor]:
    """Latents to pictures in [-1, 1]."""
    config = vae.config
    mean, spread = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)

    def decode(latents: Tensor) -> Tensor:
        scaled = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        if mean is not None and spread is not None:
            of_channels = (torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (mean, spread))
            centre, width = of_channels
            scaled = latents * width / config.scaling_factor + centre
        pictures: Tensor = vae.decode(scaled.to(vae.dtype), return_dict=False)[0]
        return pictures

    return decode


def _shapes(vae: Any, unet: Any, size: _Size | None) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(channel, y, x) of latents and of pictures."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if size is not None and (size[0] % factor or size[1] % factor):
        raise ModelError(
            f"image_size={size}: a latent stands for {factor} x {factor} pixels; give multiples of {factor}."
        )
    y, x = _of_network(unet) if size is None else (size[0] // factor, size[1] // factor)
    return (unet.config.in_channels, y, x), (vae.config.out_channels, y * factor, x * factor)


def _in_latents(pipe: Any, name: str, size: _Size | None, network: Network, conditions: Conditions) -> PipelineModel:
    unet, vae = pipe.unet, pipe.vae
    latents, pictures = _shapes(vae, unet, size)
    noise = read_noise(pipe.scheduler, variance=unet.config.out_channels == 2 * unet.config.in_channels)
    settings = {"scaling_factor": float(vae.config.scaling_factor)}
    parts = {key: part for key, part in pipe.components.items() if isinstance(part, nn.Module)}
    for part in parts.values():
        part.eval()
    return PipelineModel(
        name, network, conditions, noise, latents, pictures, pipe.scheduler, _decoder(vae), parts, settings
    )


def _stable_diffusion(
    pipe: Any, name: str, size: _Size | None, classes: Sequence[str] | None, null_class: int | None
) -> PipelineModel:
    _no_classes(pipe, classes, null_class)
    check_network(pipe.unet)
    return _in_latents(pipe, name, size, PromptedNetwork(pipe.unet), Texts(pipe))


def _stable_diffusion_xl(
    pipe: Any, name: str, size: _Size | None, classes: Sequence[str] | None, null_class: int | None
) -> PipelineModel:
    _no_classes(pipe, classes, null_class)
    check_network(pipe.unet)
    _, (_, y, x) = _shapes(pipe.vae, pipe.unet, size)
    # original size, corner of the crop, size: as the pipeline has them unless told otherwise
    network = SizedNetwork(pipe.unet, (float(y), float(x), 0.0, 0.0, float(y), float(x)))
    return _in_latents(pipe, name, size, network, TwoTexts(pipe))


def _no_classes(pipe: Any, classes: Sequence[str] | None, null_class: int | None) -> None:
    if classes is not None or null_class is not None:
        raise ModelError(f"A {type(pipe).__name__} reads text, and has no classes.")


PIPELINES: dict[str, Callable[..., PipelineModel]] = {
    "DDIMPipeline": _in_pixels,
    "DDPMPipeline": _in_pixels,
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
}
"""Pipelines that are known, by the name of their class."""
