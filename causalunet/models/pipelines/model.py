"""A pipeline of diffusers as a `DiffusionModel`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy
from causalunet.design.samplers import Sampler
from causalunet.design.words import Spelling
from causalunet.errors import ModelError
from causalunet.models.checkpoints import fingerprint
from causalunet.models.devices import device_of
from causalunet.models.factor_reader import FactorReader
from causalunet.models.inner import Text, with_inner
from causalunet.models.measured import largest_output
from causalunet.models.pipelines.anatomy import read_anatomy
from causalunet.models.pipelines.conditions import Conditions, Texts
from causalunet.models.pipelines.networks import Network
from causalunet.models.pipelines.schedulers import Asking, Noise, sampler_like
from causalunet.models.pipelines.stacks import is_stack, read_stack
from causalunet.models.pixels import MayRead
from causalunet.prediction import Prediction, training_of
from causalunet.process import Process
from causalunet.thresholding import Thresholding

if TYPE_CHECKING:  # pyright takes a cached property for none of a protocol's properties
    from builtins import property as cached_property
else:
    from functools import cached_property

__all__ = ["PipelineModel"]

_OF_ADAPTERS = ("active_adapters", "disable_adapters", "merged_adapters")
"""What layers of peft say of how their adapters count."""


@dataclass(frozen=True, eq=False, repr=False)
class PipelineModel(MayRead):
    """A model whose parts are those of a pipeline; the pipeline itself is not called.

    Parameters
    ----------
    name : str
    unet : Network
    conditions : Conditions
    noise : Noise
        As its scheduler says.
    image_shape : tuple of int
        (channel, y, x) of x_t.
    picture_shape : tuple of int
        (channel, y, x) of what x_0 is decoded to.
    decoder : callable, optional
        x_0 to pictures in [-1, 1], of latents.
    scheduler : Any
        Of the pipeline.
    parts : mapping of torch.nn.Module
        All networks of the pipeline, by name: what changes images.
    settings : mapping
        What else does, by name: plain values.
    asking : Asking, optional
        Of a pipeline of flow matching: how it asks its scheduler for steps.
    reader : FactorReader, optional
        Tells what an image shows.
    """

    name: str
    unet: Network
    conditions: Conditions
    noise: Noise
    image_shape: tuple[int, int, int]
    picture_shape: tuple[int, int, int]
    scheduler: Any
    decoder: Callable[[Tensor], Tensor] | None = None
    parts: Mapping[str, nn.Module] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    asking: Asking | None = None
    reader: FactorReader | None = None

    def __repr__(self) -> str:
        """In one line."""
        return f"<PipelineModel {self.name!r}: {type(self.unet.unet).__name__}, {type(self.scheduler).__name__}>"

    def __str__(self) -> str:
        """What was taken from the pipeline, a line each."""
        shares, images = self.alpha_bar, " x ".join(map(str, self.picture_shape))
        latents = f", decoded from latents of {' x '.join(map(str, self.image_shape))}" if self.decoder else ""
        bounded = "clipped" if self.clip else "not clipped" if self.thresholding is None else "thresholded"
        device, ends = device_of(self.unet), "" if self.noise.end == 1 else f"; runs end at {self.noise.end:.4g}"
        lines = {
            "network": f"{type(self.unet.unet).__name__}, {str(self.unet.dtype).removeprefix('torch.')}, on {device}",
            "images": f"{images} (channel, y, x){latents}",
            "prediction": f"{self.prediction}, estimates of x_0 {bounded}",
            "noise": f"{len(shares)} timesteps, alpha_bar {shares[0]:.4g} to {shares[-1]:.4g}{ends}",
            "scheduler": type(self.scheduler).__name__,
            "prompts": self.conditions.words,
            "components": f"{len(self.anatomy.components)}, and {len(self.anatomy.skips)} skip connections",
        }
        return "\n".join([self.name, *(f"  {name:10} {told}" for name, told in lines.items())])

    @property
    def alpha_bar(self) -> NDArray[np.float64]:
        """Training schedule, (timestep,)."""
        return self.noise.alpha_bar

    @property
    def end_alpha_bar(self) -> float:
        """Share of signal variance at which runs end."""
        return self.noise.end

    @property
    def prediction(self) -> Prediction:
        """What the network puts out."""
        return self.noise.prediction

    @property
    def thresholding(self) -> Thresholding | None:
        """How estimates of x_0 are bounded by their own size, if they are."""
        return self.noise.thresholding

    @property
    def process(self) -> Process:
        """How large states are."""
        return self.noise.process

    @property
    def clip(self) -> bool:
        """Whether the estimate of x_0 is clipped to [-1, 1]."""
        return self.noise.clip

    @cached_property
    def anatomy(self) -> Anatomy:
        """Read off the network at first use."""
        context = (part.to("meta") for part in self.encode([""]))
        x, timesteps = torch.empty(1, *self.image_shape, device="meta"), torch.empty(1, device="meta")
        try:
            read = read_stack if is_stack(self.unet.unet) else read_anatomy
            given = (x, timesteps, *context)
            text = Text(2, pooled=self.conditions.pooled) if isinstance(self.conditions, Texts) else None
            return with_inner(read(self.unet, given, inside="unet"), self.unet, given, text=text)
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"The network of {self.name!r} cannot be called on x_t of shape {self.image_shape}; is the image size "
                f"one that it can do? The call ended in {type(error).__name__}: {error}"
            ) from error

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that changes images: networks, their active adapters, scheduler, scaling factor."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Parts of what makes the images that not every model has, see ``causalunet.identity.identity_of``."""
        networks = {name: fingerprint(part) for name, part in self.parts.items()}
        scheduler = {key: _plain(value) for key, value in self.scheduler.config.items() if not key.startswith("_")}
        told = {"class": type(self.scheduler).__name__, **scheduler}
        adapters = {"adapters": scales} if (scales := self._adapters()) else {}
        return {
            "weights": fingerprint(self.unet.unet),
            "networks": networks,
            "scheduler": told,
            **self.settings,
            **adapters,
        }

    def _adapters(self) -> str:
        """Digest of how low-rank adapters count: their weights are among their network's, and nothing of this is.

        Scales, which of them are active, whether all are switched off, and which are merged into the weights.
        """
        networks = {"": self.unet.unet, **self.parts}
        counts = {
            f"{part} {name}": [
                sorted((str(key), float(value)) for key, value in module.scaling.items()),
                *(_plain(getattr(module, told, None)) for told in _OF_ADAPTERS),
            ]
            for part, network in networks.items()
            for name, module in network.named_modules()
            if isinstance(getattr(module, "scaling", None), dict)
        }
        return hashlib.sha256(json.dumps(counts).encode()).hexdigest()[:16] if counts else ""

    @cached_property
    def decoder_values(self) -> int:
        """Numbers of the largest tensor that the decoder makes of one latent: what its memory goes by."""
        if not isinstance(self.decoder, nn.Module):
            return 0
        return largest_output(self.decoder, torch.empty(1, *self.image_shape, device="meta"))

    def sampler(self, steps: int = 50, guidance_scale: float = 1.0, *, eta: float = 0.0) -> Sampler:
        """The sampler whose runs are those of the pipeline's own scheduler.

        Parameters
        ----------
        steps : int
        guidance_scale : float
            Weight of the conditional over the unconditional prediction; 1 means no guidance.
        eta : float
            Of DDIM.

        Raises
        ------
        ModelError
            No sampler does what the scheduler does.
        SpecError
            There are more steps than timesteps.
        """
        training = training_of(self)
        return sampler_like(
            self.scheduler, training, steps=steps, guidance_scale=guidance_scale, eta=eta, asking=self.asking
        )

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that cannot be read; warn of those that are cut."""
        self.conditions.check(prompts)

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """What prompts become before any network sees them, one row per prompt."""
        return self.conditions.tokens(prompts)

    def spelled(self, prompt: str) -> Sequence[Spelling]:
        """Which part of a prompt each token is of; nothing where prompts are labels."""
        return self.conditions.spelled(prompt) if isinstance(self.conditions, Texts) else ()

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """What the network is told, one row per prompt."""
        return self.conditions.encode(prompts, device_of(self.unet))

    @property
    def encode_beside(self) -> Callable[[Sequence[str], Sequence[str]], tuple[Tensor, ...]]:
        """As `encode` of texts, of samples with some prompts; only where these say which image is beside."""
        beside: Any = self.conditions.encode_beside  # type: ignore[attr-defined]
        return lambda texts, prompts: beside(texts, prompts, device_of(self.unet))

    def decode(self, x0: Tensor) -> NDArray[np.float32]:
        """Pictures in [0, 1], (sample, channel, y, x)."""
        if self.decoder is None:
            pictures = x0.float()
        else:
            with torch.inference_mode():
                pictures = self.decoder(x0).float()
        image: NDArray[np.float32] = (pictures / 2 + 0.5).clamp(0, 1).cpu().numpy()
        return image


def _plain(value: Any) -> Any:
    """As JSON has it, which knows no infinite numbers."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite and isinstance(value, str | int | float | bool | None) else str(value)
