"""Taking in pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from causalunet.design.limits import is_integer, shown
from causalunet.errors import ModelError
from causalunet.models.labels import label_reader
from causalunet.models.pipelines.conditions import Conditions, Labels, MaskedTexts, Texts, TwoTexts
from causalunet.models.pipelines.model import PipelineModel
from causalunet.models.pipelines.networks import (
    ClassTransformer,
    LabelledNetwork,
    MaskedTransformer,
    Network,
    PromptedNetwork,
    SizedNetwork,
)
from causalunet.models.pipelines.refusals import check_network, check_pipeline
from causalunet.models.pipelines.schedulers import read_noise

__all__ = ["PIPELINES", "from_pipeline"]

_Size = tuple[int, int]


class _Asked(NamedTuple):
    """A pipeline, and what was said of it."""

    pipe: Any
    name: str
    size: _Size | None
    classes: Sequence[str] | None
    null_class: int | None
    told_guidance: float | None

    def refuse_classes(self) -> None:
        """Raise `ModelError` if something is said of classes."""
        if self.classes is not None or self.null_class is not None:
            raise ModelError(f"A {type(self.pipe).__name__} has no classes.")

    def refuse_guidance(self) -> None:
        """Raise `ModelError` if something is said of a guidance that the network is told."""
        if self.told_guidance is not None:
            raise ModelError(f"The network of this {type(self.pipe).__name__} is told no guidance scale.")


def from_pipeline(
    pipe: Any,
    *,
    name: str | None = None,
    image_size: int | Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    null_class: int | None = None,
    told_guidance: float | None = None,
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
    told_guidance : float, optional
        For a network with distilled guidance, such as latent consistency models: the scale that it is told at every
        call. Their samplers then have none of their own, ``guidance_scale=1``.

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
    asked = _Asked(pipe, name or _named(pipe), _size(image_size), classes, null_class, told_guidance)
    model = PIPELINES[kind](asked)
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


def _in_pixels(asked: _Asked) -> PipelineModel:
    """Unconditional models, and of classes, without latents: DDPM and DDIM."""
    asked.refuse_guidance()
    unet, scheduler = asked.pipe.unet, asked.pipe.scheduler
    check_network(unet)
    channels = unet.config.in_channels
    shape = (channels, *(asked.size or _of_network(unet)))
    noise = read_noise(scheduler, variance=unet.config.out_channels == 2 * channels)
    labels = Labels(label_reader(unet.config.num_class_embeds, asked.classes, asked.null_class))
    network = LabelledNetwork(unet.eval())
    return PipelineModel(asked.name, network, labels, noise, shape, shape, scheduler, parts={"unet": unet})


def _decoder(vae: Any) -> Callable[[Tensor], Tensor]:
    """Latents to pictures in [-1, 1]."""
    config = vae.config
    mean, spread = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    shift = getattr(config, "shift_factor", None) or 0.0

    def decode(latents: Tensor) -> Tensor:
        scaled = latents / config.scaling_factor + shift
        if mean is not None and spread is not None:
            centre, width = (torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (mean, spread))
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


def _in_latents(asked: _Asked, vae: Any, network: Network, conditions: Conditions) -> PipelineModel:
    unet, scheduler = network.unet, asked.pipe.scheduler
    latents, pictures = _shapes(vae, unet, asked.size)
    noise = read_noise(scheduler, variance=unet.config.out_channels == 2 * unet.config.in_channels)
    settings: dict[str, Any] = {"scaling_factor": float(vae.config.scaling_factor)}
    if asked.told_guidance is not None:
        settings["told_guidance"] = float(asked.told_guidance)
    parts = {key: part for key, part in asked.pipe.components.items() if isinstance(part, nn.Module)}
    for part in parts.values():
        part.eval()
    return PipelineModel(
        asked.name, network, conditions, noise, latents, pictures, scheduler, _decoder(vae), parts, settings
    )


def _latent_diffusion(asked: _Asked) -> PipelineModel:
    asked.refuse_guidance()
    unet = asked.pipe.unet
    check_network(unet)
    labels = Labels(label_reader(unet.config.num_class_embeds, asked.classes, asked.null_class))
    return _in_latents(asked, asked.pipe.vqvae, LabelledNetwork(unet), labels)


def _stable_diffusion(asked: _Asked) -> PipelineModel:
    asked.refuse_classes()
    pipe = asked.pipe
    check_network(pipe.unet)
    if pipe.unet.config.time_cond_proj_dim is None:
        asked.refuse_guidance()
    elif asked.told_guidance is None:
        raise ModelError(
            "This network has distilled guidance: it is told the scale at every call (time_cond_proj_dim), as latent "
            "consistency models are. Give it, as from_pipeline(pipe, told_guidance=8.5)."
        )
    return _in_latents(asked, pipe.vae, PromptedNetwork(pipe.unet, asked.told_guidance), Texts(pipe))


def _stable_diffusion_xl(asked: _Asked) -> PipelineModel:
    asked.refuse_classes()
    asked.refuse_guidance()
    pipe = asked.pipe
    check_network(pipe.unet)
    _, (_, y, x) = _shapes(pipe.vae, pipe.unet, asked.size)
    # original size, corner of the crop, size: as the pipeline has them unless told otherwise
    network = SizedNetwork(pipe.unet, (float(y), float(x), 0.0, 0.0, float(y), float(x)))
    return _in_latents(asked, pipe.vae, network, TwoTexts(pipe))


def _dit(asked: _Asked) -> PipelineModel:
    asked.refuse_guidance()
    pipe, config = asked.pipe, asked.pipe.transformer.config
    check_network(pipe.transformer)
    # The last embedding stands for no class: what the network was trained with where its class was dropped.
    count, null = config.num_embeds_ada_norm + 1, config.num_embeds_ada_norm
    labels = Labels(label_reader(count, asked.classes, null if asked.null_class is None else asked.null_class))
    return _in_latents(asked, pipe.vae, ClassTransformer(pipe.transformer), labels)


def _pixart(asked: _Asked) -> PipelineModel:
    asked.refuse_classes()
    asked.refuse_guidance()
    pipe = asked.pipe
    check_network(pipe.transformer)
    _, (_, y, x) = _shapes(pipe.vae, pipe.transformer, asked.size)
    return _in_latents(asked, pipe.vae, MaskedTransformer(pipe.transformer, (y, x)), MaskedTexts(pipe))


PIPELINES: dict[str, Callable[[_Asked], PipelineModel]] = {
    "DDIMPipeline": _in_pixels,
    "DDPMPipeline": _in_pixels,
    "DiTPipeline": _dit,
    "LDMPipeline": _latent_diffusion,
    "LatentConsistencyModelPipeline": _stable_diffusion,
    "PixArtAlphaPipeline": _pixart,
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
}
"""Pipelines that are known, by the name of their class."""
