"""What the executor asks of a model, and the registry of models by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy
from causalunet.design.registry import register_name
from causalunet.design.study import StudySpec
from causalunet.errors import ModelError, PromptError
from causalunet.prompts import NO_PROMPT

__all__ = ["DiffusionModel", "check_samples", "load_model", "model_names", "register"]


@runtime_checkable
class DiffusionModel(Protocol):
    """A text-to-image diffusion model whose U-Net can be intervened on."""

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
        """Called as ``unet(x, timesteps, *context)``; returns noise and variance fraction, (row, 2 * channel, y, x)."""
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
        """Encode prompts, each once; every tensor has one row per prompt. The empty prompt is "no condition"."""
        ...

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that the model cannot read."""
        ...

    def decode(self, x0: Tensor) -> NDArray[np.float32]:
        """Turn x_0, (sample, channel, y, x), into images in [0, 1] of the same layout."""
        ...

    def read_factors(self, images: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Read the factors of images in [0, 1]: index and probability of the likeliest value, (sample, factor)."""
        ...


Loader = TypeVar("Loader", bound=Callable[..., DiffusionModel])

_LOADERS: dict[str, Callable[..., DiffusionModel]] = {}


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
        loaders: dict[str, Any] = _LOADERS
        register_name(loaders, "model", name, loader, ModelError)
        return loader

    return enter


def model_names() -> tuple[str, ...]:
    """Registered model names."""
    return tuple(sorted(_LOADERS))


def load_model(name: str, **options: Any) -> DiffusionModel:
    """Load a registered model.

    Parameters
    ----------
    name : str
    **options
        What the model's loader takes, such as ``checkpoint=``.

    Raises
    ------
    ModelError
        The name is not registered.
    """
    if name not in _LOADERS:
        raise ModelError(
            f"No model is called {name!r}; there are {', '.join(model_names())}. "
            "Another model enters by causalunet.models.register, see the how-to on model adapters."
        )
    return _LOADERS[name](**options)


_KNOWN = ". If one of its classes stands for none, say which when the model is made: from_unet(..., null_class=)"


def check_samples(model: DiffusionModel, spec: StudySpec) -> None:
    """Check that a model can make the samples of a study: its prompts, those without one, and the guidance.

    Parameters
    ----------
    model : DiffusionModel
        May say that it cannot be guided by an attribute ``guidable`` that is False, and that it makes samples without
        a condition, or none, by an attribute ``unprompted``; by default it does if it can be guided.
    spec : StudySpec

    Raises
    ------
    PromptError
        The model cannot read a prompt, or makes no samples without one.
    ModelError
        Classifier-free guidance is asked of a model that has nothing to guide from.
    """
    guidable = getattr(model, "guidable", True)
    if NO_PROMPT in spec.prompts and not getattr(model, "unprompted", guidable):
        raise PromptError(
            f"The study has samples without a prompt (NO_PROMPT), and nothing that is known of the model "
            f"{model.name!r} stands for its condition left out. Give every sample a prompt{_KNOWN}."
        )
    model.check_prompts(spec.prompts)
    if spec.sampler.rows_per_sample > 1 and not guidable:
        raise ModelError(
            f"Nothing that is known of the model {model.name!r} stands for its condition left out, so classifier-free "
            f"guidance has nothing to guide from. Give the study sampler=DDPM(guidance_scale=1){_KNOWN}."
        )
