"""What the executor asks of a model, and the registry of models by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.calls import misfit
from causalunet.design.anatomy import Anatomy
from causalunet.errors import ModelError
from causalunet.registry import Registry

__all__ = ["MODELS", "DiffusionModel", "load_model", "loader_of", "model_names", "register"]


@runtime_checkable
class DiffusionModel(Protocol):
    """A text-to-image diffusion model whose U-Net can be intervened on.

    Beside what is listed here a model may have

    - an attribute ``prediction``, a `causalunet.prediction.Prediction`: what its U-Net puts out, if not noise and
      variance;
    - an attribute ``picture_shape``, (channel, y, x) of what `decode` gives, if that is not the shape of x_t: so it is
      of models of latents;
    - an attribute ``process``, a `causalunet.process.Process`: how large the states are that its U-Net is given, if
      their variance is not preserved;
    - an attribute ``end_alpha_bar``, share of signal variance at which its runs end, if not the image itself;
    - an attribute ``thresholding``, a `causalunet.thresholding.Thresholding`, if its estimates of x_0 are
      bounded by their own size, whatever ``clip`` says;
    - a method ``tokens(prompts)`` and an attribute ``identity``, which say more of what changes its images, see
      ``causalunet.identity.identity_of``;
    - a method ``spelled(prompt)``, a `causalunet.design.words.Spelling` for every tokenizer whose tokens the U-Net
      attends to: which part of the prompt each token is of, so that words name tokens;
    - an attribute ``whole_timesteps`` that is True where ``unet`` takes whole timesteps only, such as rows of a table:
      samplers that ask between them are then refused when a study is planned;
    - an attribute ``device``, the ``torch.device`` that states and context are on, where that is not the one of its
      U-Net's first weight.
    """

    @property
    def name(self) -> str:
        """What results call it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of the weights."""
        ...

    @property
    def anatomy(self) -> Anatomy:
        """Of ``unet``."""
        ...

    @property
    def unet(self) -> nn.Module:
        """Called as ``unet(x, timesteps, *context)``; returns noise and variance fraction, (row, 2 * channel, y, x).

        Another ``prediction`` has other channels.

        x and timesteps, (row,), are float32, whatever the weights are; timesteps count from 0 as ``alpha_bar`` does.
        """
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of x_t."""
        ...

    @property
    def alpha_bar(self) -> NDArray[np.float64]:
        """Training schedule, (timestep,)."""
        ...

    @property
    def clip(self) -> bool:
        """Whether the estimate of x_0 is clipped to [-1, 1]."""
        ...

    @property
    def factors(self) -> Mapping[str, tuple[str, ...]]:
        """What the model's factor reader tells apart, each with its values; empty without a reader."""
        ...

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Encode prompts, each once: a tuple of tensors, one row per prompt, of one shape whatever the batch.

        The empty prompt is "no condition"; it is encoded only for guidance and for samples without a prompt.
        """
        ...

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that the model cannot read."""
        ...

    def decode(self, x0: Tensor) -> NDArray[np.float32]:
        """Turn x_0, (sample, channel, y, x), into images in [0, 1] of that shape, or of ``picture_shape``."""
        ...

    def read_factors(self, images: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Read the factors of images in [0, 1]: index and probability of the likeliest value, (sample, factor)."""
        ...


Loader = TypeVar("Loader", bound=Callable[..., DiffusionModel])

MODELS: Registry[Callable[..., DiffusionModel]] = Registry("model", "causalunet.models", ModelError)
"""Loaders of models, by name."""


def register(name: str) -> Callable[[Loader], Loader]:
    """Enter a loader under a name that studies can use.

    Parameters
    ----------
    name : str
        Such as ``"shapes"``.

    Raises
    ------
    ModelError
        Another loader has the name. One that is defined again, as by a cell that is run twice, takes its place.
    """

    def enter(loader: Loader) -> Loader:
        MODELS.register(name, loader)
        return loader

    return enter


def model_names() -> tuple[str, ...]:
    """Registered model names."""
    return tuple(MODELS)


def load_model(name: str, **options: Any) -> DiffusionModel:
    """Load a registered model, or a pipeline of diffusers.

    Parameters
    ----------
    name : str
        Registered; or with a slash, of a pipeline on the model hub or in a folder.
    **options
        What the model's loader takes, such as ``checkpoint=`` and ``device=``; of a pipeline those of
        `causalunet.models.load_pretrained`.

    Raises
    ------
    ModelError
        The name is not registered, or the loader does not take an option.
    """
    loader = loader_of(name)
    if told := misfit(f"The model {name!r}", signature(loader), (), options):
        raise ModelError(told)
    return loader(**options)


def loader_of(name: str) -> Callable[..., DiffusionModel]:
    """Find what loads a registered model.

    Raises
    ------
    ModelError
        The name is not registered.
    """
    loader = MODELS.get(name)
    if loader is None and isinstance(name, str) and "/" in name:
        from causalunet.models.pipelines.hub import load_pretrained  # diffusers is an extra, and slow to import

        return partial(load_pretrained, name)
    if loader is None:
        raise ModelError(
            f"No model is called {name!r}; there are {', '.join(model_names())}. A pipeline of diffusers is named as "
            "on the model hub, 'organisation/name', or by its folder, './folder'; another model enters by "
            "causalunet.models.register, see the how-to on model adapters."
        )
    return loader
