"""A U-Net object that the user built, as a `DiffusionModel`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.anatomy import Anatomy
from causalunet.design.words import Spelling, spelled_by
from causalunet.errors import ModelError
from causalunet.models.checkpoints import fingerprint
from causalunet.models.devices import device_of
from causalunet.models.inner import Text, with_inner
from causalunet.models.labels import Prepare
from causalunet.models.openai_anatomy import read_called
from causalunet.models.pixels import InPixels, WithoutReader
from causalunet.models.wrapped_unets import TextConditionedUNet, WrappedUNet

if TYPE_CHECKING:  # pyright takes a cached property for none of a protocol's properties
    from builtins import property as cached_property
else:
    from functools import cached_property

__all__ = ["HandedIn"]


@dataclass(frozen=True, repr=False)
class HandedIn(InPixels, WithoutReader):
    """A pixel-space model around a U-Net object that the user built.

    Parameters
    ----------
    name : str
    unet : WrappedUNet
    prepare : callable
        Prompts to numbers.
    image_shape : tuple of int
        (channel, y, x).
    alpha_bar : ndarray of float64, (timestep,)
        Training schedule.
    clip : bool
        Whether the estimate of x_0 is clipped to [-1, 1].
    """

    name: str
    unet: WrappedUNet
    prepare: Prepare
    image_shape: tuple[int, int, int]
    alpha_bar: NDArray[np.float64]
    clip: bool = True

    @cached_property
    def anatomy(self) -> Anatomy:
        """Read off the U-Net at first use."""
        arguments = torch.empty(1, *self.image_shape, device="meta"), torch.empty(1, device="meta")
        try:
            given, text = (*arguments, *self.unet.example()), Text(3, "row channel token", pooled=2)
            of_text = text if isinstance(self.unet, TextConditionedUNet) else None
            return with_inner(read_called(self.unet, given, inside="unet"), self.unet, given, text=of_text)
        except (RuntimeError, TypeError, AssertionError) as error:
            raise ModelError(
                f"This {type(self.unet.unet).__name__} cannot be called on an image of shape {self.image_shape}. "
                f"Is image_size right? The call ended in {type(error).__name__}: {error}"
            ) from error

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights, schedule, clipping, fixed variance and scaled timesteps: what changes the images."""
        digest = hashlib.sha256(self._weights.encode())
        digest.update(np.ascontiguousarray(self.alpha_bar, dtype=np.float64).tobytes())
        digest.update(repr((self.clip, self.unet.fraction)).encode())
        # Of models without these the digest is what it was before there were such.
        if self.unet.time_scale != 1.0:
            digest.update(repr(self.unet.time_scale).encode())
        if (null_class := getattr(self.unet, "null_class", None)) is not None:
            digest.update(f"null class {null_class}".encode())
        return digest.hexdigest()[:16]

    @cached_property
    def _weights(self) -> str:
        return fingerprint(self.unet.unet)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Parts of what makes the images that not every model has, see ``causalunet.identity.identity_of``."""
        bound = {None: "", 1.0: ", the variance at its larger bound", -1.0: ", the variance at its smaller bound"}
        return {
            "weights": self._weights,
            "prediction": f"noise{bound[self.unet.fraction] or ' and variance'}",
            "timestep_scale": self.unet.time_scale,
            "null_class": getattr(self.unet, "null_class", None),
        }

    @property
    def guidable(self) -> bool:
        """Whether the empty prompt means "no condition", so that there is something to guide from."""
        return self.unet.guidable

    @property
    def unprompted(self) -> bool:
        """Whether a sample without a prompt can be made: also of a U-Net that never has a condition."""
        return self.guidable or self.unet.unconditional

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that the model cannot read."""
        self.prepare(prompts)

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """What prompts become: tokens and mask of a text model, or labels, (prompt,)."""
        return self.prepare(prompts)

    def spelled(self, prompt: str) -> Sequence[Spelling]:
        """Which part of a prompt each token is of; nothing of a tokenizer that does not tell, and of labels."""
        return spelled_by(self.prepare, prompt)

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Encode prompts, each once: text embeddings, or labels, (prompt,)."""
        device = device_of(self.unet)
        parts = tuple(torch.from_numpy(part).to(device) for part in self.tokens(prompts))
        if isinstance(self.unet, TextConditionedUNet):
            with torch.inference_mode():
                return self.unet.encode_text(*parts)
        return parts
