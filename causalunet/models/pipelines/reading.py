"""Taking in pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from causalunet.design.limits import is_integer, shown
from causalunet.errors import ModelError
from causalunet.models.labels import label_reader
from causalunet.models.pipelines.asked import Asked, Size, size_of_network
from causalunet.models.pipelines.conditions import Labels, LowerTexts, Texts, TwoTexts
from causalunet.models.pipelines.given import GivenImage, inpainting, upscaling
from causalunet.models.pipelines.latents import in_latents, shapes_of
from causalunet.models.pipelines.model import PipelineModel
from causalunet.models.pipelines.networks import LabelledNetwork, PromptedNetwork, SizedNetwork
from causalunet.models.pipelines.refusals import check_network, check_pipeline
from causalunet.models.pipelines.schedulers import read_noise
from causalunet.models.pipelines.transformers import dit, flux, pixart, stable_diffusion_3

__all__ = ["PIPELINES", "from_pipeline"]


def from_pipeline(
    pipe: Any,
    *,
    name: str | None = None,
    image_size: int | Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    null_class: int | None = None,
    told_guidance: float | None = None,
    given: GivenImage | Mapping[str, GivenImage] | None = None,
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
    given : GivenImage or mapping of str to GivenImage, optional
        For a network that is told an image beside x_t, as for inpainting and upscaling: that image, with its mask or
        its noise; one for all samples, or one for each prompt of the study. Guidance leaves out the text alone.

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
    asked = Asked(pipe, name or _named(pipe), _size(image_size), classes, null_class, told_guidance, given)
    if kind not in _GIVEN:
        asked.refuse_given()
    model = PIPELINES[kind](asked)
    model.anatomy  # noqa: B018 - read now, so that what cannot be called is told here
    return model


def _named(pipe: Any) -> str:
    return str(pipe.config.get("_name_or_path") or type(pipe).__name__)


def _size(given: Any) -> Size | None:
    if given is None:
        return None
    sides = (given, given) if is_integer(given) else given
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(is_integer(n) and n > 0 for n in sides):
        raise ModelError(f"image_size={shown(given)}: give pixels, an integer, or two for y and x.")
    return int(sides[0]), int(sides[1])


def _in_pixels(asked: Asked) -> PipelineModel:
    """Unconditional models, and of classes, without latents: DDPM and DDIM."""
    asked.refuse_guidance()
    unet, scheduler = asked.pipe.unet, asked.pipe.scheduler
    check_network(unet)
    channels = unet.config.in_channels
    shape = (channels, *(asked.size or size_of_network(unet)))
    noise = read_noise(scheduler, variance=unet.config.out_channels == 2 * channels)
    labels = Labels(label_reader(unet.config.num_class_embeds, asked.classes, asked.null_class))
    network = LabelledNetwork(unet.eval())
    return PipelineModel(asked.name, network, labels, noise, shape, shape, scheduler, parts={"unet": unet})


def _deepfloyd_if(asked: Asked) -> PipelineModel:
    """Of texts, in pixels: the first stage of DeepFloyd IF."""
    asked.refuse_classes()
    asked.refuse_guidance()
    asked.require("text_encoder", "tokenizer")
    pipe, unet = asked.pipe, asked.pipe.unet
    check_network(unet)
    shape = (unet.config.in_channels, *(asked.size or size_of_network(unet)))
    noise = read_noise(pipe.scheduler, variance=unet.config.out_channels == 2 * unet.config.in_channels)
    parts = {"unet": unet.eval(), "text_encoder": pipe.text_encoder.eval()}
    network = PromptedNetwork(unet)
    return PipelineModel(asked.name, network, LowerTexts(pipe), noise, shape, shape, pipe.scheduler, parts=parts)


def _latent_diffusion(asked: Asked) -> PipelineModel:
    asked.refuse_guidance()
    unet = asked.pipe.unet
    check_network(unet)
    labels = Labels(label_reader(unet.config.num_class_embeds, asked.classes, asked.null_class))
    return in_latents(asked, asked.pipe.vqvae, LabelledNetwork(unet), labels)


def _stable_diffusion(asked: Asked) -> PipelineModel:
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
    return in_latents(asked, pipe.vae, PromptedNetwork(pipe.unet, asked.told_guidance), Texts(pipe))


def _stable_diffusion_xl(asked: Asked) -> PipelineModel:
    asked.refuse_classes()
    asked.refuse_guidance()
    pipe = asked.pipe
    check_network(pipe.unet)
    _, (_, y, x) = shapes_of(pipe.vae, pipe.unet, asked.size)
    # original size, corner of the crop, size: as the pipeline has them unless told otherwise
    network = SizedNetwork(pipe.unet, (float(y), float(x), 0.0, 0.0, float(y), float(x)))
    return in_latents(asked, pipe.vae, network, TwoTexts(pipe))


_GIVEN: dict[str, Callable[[Asked], PipelineModel]] = {
    "StableDiffusionInpaintPipeline": inpainting,
    "StableDiffusionUpscalePipeline": upscaling,
}

PIPELINES: dict[str, Callable[[Asked], PipelineModel]] = {
    "DDIMPipeline": _in_pixels,
    "DDPMPipeline": _in_pixels,
    "DiTPipeline": dit,
    "FluxPipeline": flux,
    "IFPipeline": _deepfloyd_if,
    "LDMPipeline": _latent_diffusion,
    "LatentConsistencyModelPipeline": _stable_diffusion,
    "PixArtAlphaPipeline": pixart,
    "StableDiffusion3Pipeline": stable_diffusion_3,
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
    **_GIVEN,
}
"""Pipelines that are known, by the name of their class."""
