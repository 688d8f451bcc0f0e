"""Pipelines whose network is told an image beside x_t: inpainting and upscaling."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.calls import clear_calls
from causalunet.design.limits import is_integer, shown
from causalunet.errors import ModelError, PromptError
from causalunet.models.pipelines.asked import Asked
from causalunet.models.pipelines.conditions import Conditions, Texts
from causalunet.models.pipelines.latents import in_latents, shapes_of
from causalunet.models.pipelines.model import PipelineModel
from causalunet.models.pipelines.networks import BesideNetwork
from causalunet.models.pipelines.refusals import check_network

__all__ = ["Beside", "GivenImage", "inpainting", "upscaling"]


@clear_calls
@dataclass(frozen=True, eq=False)
class GivenImage:
    """An image that a network is told beside x_t.

    Parameters
    ----------
    pixels : ndarray, (3, y, x)
        In [0, 1].
    mask : ndarray, (y, x), optional
        For inpainting: 1 or True where the image is to be made anew, 0 or False where it is kept.
    noise_level : int
        For upscaling: how much noise is added to the image, as the timestep of the pipeline's ``low_res_scheduler``,
        which the network is told.
    seed : int
        Of that noise, and of what the encoder of latents draws.

    Raises
    ------
    ModelError
        They have other shapes or values.
    """

    pixels: NDArray[Any]
    mask: NDArray[Any] | None = None
    noise_level: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        pixels = np.asarray(self.pixels)
        if (
            pixels.ndim != 3
            or len(pixels) != 3
            or pixels.dtype.kind != "f"
            or not 0 <= pixels.min() <= pixels.max() <= 1
        ):
            raise ModelError(
                f"GivenImage got pixels of shape {pixels.shape} and type {pixels.dtype}; give an array (3, y, x) of "
                "floating-point numbers in [0, 1]."
            )
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.shape != pixels.shape[1:] or not np.isin(mask, (0, 1)).all():
                raise ModelError(
                    f"GivenImage got a mask of shape {mask.shape}; give 0 and 1, or truth values, of shape "
                    f"{pixels.shape[1:]}, (y, x) of the pixels."
                )
        for name in ("noise_level", "seed"):
            if not is_integer(getattr(self, name)) or getattr(self, name) < 0:
                raise ModelError(f"GivenImage got {name}={shown(getattr(self, name))}; give an integer of at least 0.")

    @property
    def scaled(self) -> Tensor:
        """Pixels in [-1, 1], (1, 3, y, x)."""
        return torch.from_numpy(np.asarray(self.pixels, dtype=np.float32))[None] * 2 - 1

    @property
    def generator(self) -> torch.Generator:
        """Of all that is drawn."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Beside:
    """What prompts become, and the image beside, which stays where the text is left out.

    Parameters
    ----------
    texts : Conditions
    images : mapping of Tensor, (1, channel, y, x)
        As the network is told them, by prompt; the one of all prompts by None.
    """

    texts: Conditions
    images: Mapping[str | None, Tensor]

    @property
    def words(self) -> str:
        """What prompts are, in words."""
        each = "" if None in self.images else f" each, of {len(self.images)} prompts"
        return f"{self.texts.words}; beside a given image{each}"

    def check(self, prompts: Sequence[str]) -> None:
        """As of the texts; raise `PromptError` where a prompt has no image."""
        without = [prompt for prompt in prompts if None not in self.images and prompt not in self.images]
        if without:
            raise PromptError(
                f"No image is given for {shown(without[0])}; there are images for "
                f"{', '.join(map(shown, self.images))}. Give from_pipeline one for each prompt of the study, or one "
                "GivenImage for all."
            )
        self.texts.check(prompts)

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """As of the texts."""
        return self.texts.tokens(prompts)

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """States, (prompt, token, width), and images, (prompt, channel, y, x)."""
        return self.encode_beside(prompts, prompts, device)

    def encode_beside(self, texts: Sequence[str], prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """States of texts, and images of the prompts of the samples that are told them."""
        some = next(iter(self.images.values()))  # of a text that is no sample's, such as the empty one by itself
        images = [self.images.get(prompt, self.images.get(None, some)) for prompt in prompts]
        return (*self.texts.encode(texts, device), torch.cat(images).to(device))


def inpainting(asked: Asked) -> PipelineModel:
    """Of texts and an image of which a part is made anew: a mask, and the latents of the rest, beside x_t."""
    given = _given(asked)
    pipe = asked.pipe
    if any(one.mask is None for one in given.values()):
        raise ModelError("Inpainting makes a part of an image anew: give GivenImage(pixels, mask), 1 where it is that.")
    latent = pipe.vae.config.latent_channels
    check_network(pipe.unet, beside=latent + 1)
    shapes = shapes_of(pipe.vae, pipe.unet, _size(given), channels=latent)

    def beside(one: GivenImage) -> Tensor:
        mask = torch.from_numpy(np.asarray(one.mask, dtype=np.float32))[None, None]
        with torch.inference_mode():
            kept = (one.scaled * (mask < 0.5)).to(pipe.vae.device, pipe.vae.dtype)
            latents = pipe.vae.encode(kept).latent_dist.sample(one.generator) * pipe.vae.config.scaling_factor
        small = torch.nn.functional.interpolate(mask, size=shapes[0][1:])
        return torch.cat([small, latents.float().cpu()], dim=1)

    return _made(asked, {prompt: beside(one) for prompt, one in given.items()}, BesideNetwork(pipe.unet), shapes, {})


def upscaling(asked: Asked) -> PipelineModel:
    """Of texts and a small image, noisy by a level that the network is told, beside x_t."""
    given = _given(asked)
    pipe, most = asked.pipe, asked.pipe.config.max_noise_level
    if any(one.mask is not None for one in given.values()):
        raise ModelError("Upscaling takes the image as a whole; leave the mask out.")
    noise_level, *others = sorted({one.noise_level for one in given.values()}, reverse=True)
    if noise_level > most:
        raise ModelError(f"GivenImage has noise_level={noise_level}; this pipeline takes {most} at most.")
    if others:
        raise ModelError(f"Images have noise_level={noise_level} and {others[0]}; the network is told one for all.")
    latent, factor = pipe.vae.config.latent_channels, 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    check_network(pipe.unet, beside=3)
    y, x = _size(given)
    shapes = shapes_of(pipe.vae, pipe.unet, (y * factor, x * factor), channels=latent)
    level = torch.tensor([noise_level])

    def beside(one: GivenImage) -> Tensor:
        noise = torch.randn(one.scaled.shape, generator=one.generator)
        noisy: Tensor = pipe.low_res_scheduler.add_noise(one.scaled, noise, level)
        return noisy

    images = {prompt: beside(one) for prompt, one in given.items()}
    return _made(asked, images, BesideNetwork(pipe.unet, noise_level), shapes, {"noise_level": int(noise_level)})


def _given(asked: Asked) -> dict[str | None, GivenImage]:
    """Images by prompt, or the one of all."""
    asked.refuse_classes()
    asked.refuse_guidance()
    kind = type(asked.pipe).__name__
    given = dict(asked.given) if isinstance(asked.given, Mapping) else {None: asked.given}
    if not given or not all(isinstance(one, GivenImage) for one in given.values()):
        raise ModelError(
            f"The network of a {kind} is told an image beside x_t: give it, from_pipeline(pipe, given=GivenImage("
            "pixels, ...)) of causalunet.models, or one for each prompt, given={prompt: GivenImage(...)}."
        )
    if asked.size is not None:
        raise ModelError(f"The size of images of a {kind} is that of the given image; leave image_size out.")
    return given


def _size(given: Mapping[str | None, GivenImage]) -> tuple[int, int]:
    """Pixels along y and x, which are those of all."""
    sizes = list(dict.fromkeys(one.pixels.shape[1:] for one in given.values()))
    if len(sizes) > 1:
        raise ModelError(f"Given images are of sizes {sizes[0]} and {sizes[1]}, (y, x); give them all in one size.")
    y, x = sizes[0]
    return int(y), int(x)


def _made(
    asked: Asked, beside: Mapping[str | None, Tensor], network: BesideNetwork, shapes: Any, more: dict[str, Any]
) -> PipelineModel:
    told = b"".join(repr(key).encode() + one.contiguous().numpy().tobytes() for key, one in beside.items())
    digest = hashlib.sha256(told).hexdigest()[:16]
    conditions = Beside(Texts(asked.pipe), beside)
    return in_latents(asked, asked.pipe.vae, network, conditions, shapes=shapes, more={"given_image": digest, **more})
