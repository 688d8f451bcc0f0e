"""Pipelines whose network is told an image beside x_t: inpainting and upscaling."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.calls import clear_calls
from causalunet.design.limits import is_integer, shown
from causalunet.errors import ModelError
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
    """An image that a network is told beside x_t, the same for all samples of a model.

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
    """What prompts become, and the image beside: the same for every prompt, the empty one too.

    Parameters
    ----------
    texts : Conditions
    image : Tensor, (1, channel, y, x)
        As the network is told it.
    """

    texts: Conditions
    image: Tensor

    @property
    def words(self) -> str:
        """What prompts are, in words."""
        return f"{self.texts.words}; beside a given image"

    def check(self, prompts: Sequence[str]) -> None:
        """As of the texts."""
        self.texts.check(prompts)

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """As of the texts."""
        return self.texts.tokens(prompts)

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, ...]:
        """States, (prompt, token, width), and the image, (prompt, channel, y, x)."""
        image = self.image.to(device).expand(len(prompts), *self.image.shape[1:])
        return (*self.texts.encode(prompts, device), image)


def inpainting(asked: Asked) -> PipelineModel:
    """Of texts and an image of which a part is made anew: a mask, and the latents of the rest, beside x_t."""
    given = _given(asked)
    pipe = asked.pipe
    if given.mask is None:
        raise ModelError("Inpainting makes a part of an image anew: give GivenImage(pixels, mask), 1 where it is that.")
    latent = pipe.vae.config.latent_channels
    check_network(pipe.unet, beside=latent + 1)
    shapes = shapes_of(pipe.vae, pipe.unet, given.pixels.shape[1:], channels=latent)
    mask = torch.from_numpy(np.asarray(given.mask, dtype=np.float32))[None, None]
    with torch.inference_mode():
        kept = (given.scaled * (mask < 0.5)).to(pipe.vae.device, pipe.vae.dtype)
        latents = pipe.vae.encode(kept).latent_dist.sample(given.generator) * pipe.vae.config.scaling_factor
    small = torch.nn.functional.interpolate(mask, size=shapes[0][1:])
    beside = torch.cat([small, latents.float().cpu()], dim=1)
    return _made(asked, beside, BesideNetwork(pipe.unet), shapes, {})


def upscaling(asked: Asked) -> PipelineModel:
    """Of texts and a small image, noisy by a level that the network is told, beside x_t."""
    given = _given(asked)
    pipe, most = asked.pipe, asked.pipe.config.max_noise_level
    if given.mask is not None:
        raise ModelError("Upscaling takes the image as a whole; leave the mask out.")
    if given.noise_level > most:
        raise ModelError(f"GivenImage has noise_level={given.noise_level}; this pipeline takes {most} at most.")
    latent, factor = pipe.vae.config.latent_channels, 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    check_network(pipe.unet, beside=len(given.pixels))
    y, x = given.pixels.shape[1:]
    shapes = shapes_of(pipe.vae, pipe.unet, (y * factor, x * factor), channels=latent)
    noise = torch.randn(given.scaled.shape, generator=given.generator)
    level = torch.tensor([given.noise_level])
    beside = pipe.low_res_scheduler.add_noise(given.scaled, noise, level)
    network = BesideNetwork(pipe.unet, given.noise_level)
    return _made(asked, beside, network, shapes, {"noise_level": int(given.noise_level)})


def _given(asked: Asked) -> GivenImage:
    asked.refuse_classes()
    asked.refuse_guidance()
    kind = type(asked.pipe).__name__
    if not isinstance(asked.given, GivenImage):
        raise ModelError(
            f"The network of a {kind} is told an image beside x_t: give it, from_pipeline(pipe, given=GivenImage("
            "pixels, ...)) of causalunet.models."
        )
    if asked.size is not None:
        raise ModelError(f"The size of images of a {kind} is that of the given image; leave image_size out.")
    return asked.given


def _made(asked: Asked, beside: Tensor, network: BesideNetwork, shapes: Any, more: dict[str, Any]) -> PipelineModel:
    digest = hashlib.sha256(beside.contiguous().numpy().tobytes()).hexdigest()[:16]
    conditions = Beside(Texts(asked.pipe), beside)
    return in_latents(asked, asked.pipe.vae, network, conditions, shapes=shapes, more={"given_image": digest, **more})
