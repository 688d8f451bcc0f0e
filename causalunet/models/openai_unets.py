"""Taking in U-Net objects of OpenAI's own packages: GLIDE's, guided-diffusion's, improved-diffusion's."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from causalunet.design.limits import is_integer, plain_number, shown
from causalunet.errors import ModelError
from causalunet.models.byte_pairs import padded
from causalunet.models.checking import check_values
from causalunet.models.handed_in import HandedIn
from causalunet.models.labels import Prepare, label_reader
from causalunet.models.text_to_image import Tokenize
from causalunet.models.wrapped_unets import LabelledUNet, TextConditionedUNet, WrappedUNet
from causalunet.schedule import cosine_alpha_bar

__all__ = ["from_unet"]

_TIMES = 1000
"""Timesteps that rescaled ones are as long as, in OpenAI's packages."""
_FRACTIONS = {"large": 1.0, "small": -1.0}
_ARGUMENTS = {"self", "x", "timesteps", "tokens", "mask", "y"}  # of the forwards that are understood here


def from_unet(
    unet: nn.Module,
    *,
    name: str,
    image_size: int | tuple[int, int] | None = None,
    alpha_bar: NDArray[np.float64] | None = None,
    tokenize: Tokenize | None = None,
    classes: Sequence[str] | None = None,
    null_class: int | None = None,
    variance: Literal["large", "small"] = "large",
    rescale_timesteps: bool | None = None,
    clip: bool = True,
) -> HandedIn:
    """Make a model of a U-Net object in OpenAI's layout; its forward code is its own.

    Parameters
    ----------
    unet : torch.nn.Module
        GLIDE's ``Text2ImUNet``, or ``UNetModel`` of guided-diffusion or improved-diffusion, with class labels or
        without, that predicts the noise (and the variance). It is put into evaluation mode, and moved nowhere.
    name : str
        What results call it.
    image_size : int or tuple of int, optional
        Pixels, or (y, x); by default ``unet.image_size``, which only guided-diffusion's objects have. A U-Net of
        convolutions takes other sizes than those that it was trained with, if they can be halved as often as it does.
    alpha_bar : ndarray of float64, (timestep,), optional
        Training schedule, from ``causalunet.schedule``. By default the squared-cosine schedule for GLIDE; the other
        packages train with that or the linear one, so theirs must be said.
    tokenize : callable, optional
        For GLIDE: prompts to padded tokens and mask; by default with ``unet.tokenizer``.
    classes : sequence of str, optional
        For a class-conditional U-Net: the name of every class, so that prompts are names. Prompts may also be indices,
        such as ``"207"``. The name of `null_class` may be left out. Of an unconditional U-Net prompts only name
        samples: any text.
    null_class : int, optional
        For a class-conditional U-Net that was trained without its class now and then: the index of the class that stood
        for none. Then there is something to guide from, and samples without a prompt can be made.
    variance : {"large", "small"}
        For a U-Net that predicts noise only: which bound of the posterior variance is taken, as in Ho et al. 2020.
        OpenAI's samplers take the large one unless told otherwise.
    rescale_timesteps : bool, optional
        Whether the U-Net was trained with timesteps t * 1000 / N, where N is the length of ``alpha_bar``: the option of
        the same name of OpenAI's training scripts, which improved-diffusion sets unless told otherwise and
        guided-diffusion does not. With 1000 timesteps it makes no difference; with others it must be said.
    clip : bool
        Whether the estimate of x_0 is clipped to [-1, 1].

    Raises
    ------
    ModelError
        The object is not such a U-Net, computes in half precision, or more must be said of it.
    """
    _check_layout(unet)
    check_values(unet, f"this {type(unet).__name__}")
    wrapper, prepare = _wrap(unet, tokenize, classes, plain_number(null_class))
    wrapper.fraction = _fraction(unet, variance)
    height, width = _size(unet, image_size if image_size is not None else getattr(unet, "image_size", None))
    if alpha_bar is None and isinstance(wrapper, LabelledUNet):
        raise ModelError(
            f"A {type(unet).__name__} does not say which noise schedule it was trained with. Give alpha_bar: "
            "causalunet.schedule.cosine_alpha_bar() or linear_alpha_bar()."
        )
    schedule = _checked(cosine_alpha_bar() if alpha_bar is None else alpha_bar)
    wrapper.time_scale = _time_scale(unet, len(schedule), rescale_timesteps)
    unet.eval()
    model = HandedIn(name, wrapper, prepare, (_in_channels(unet), height, width), schedule, clip)
    model.anatomy  # noqa: B018 - read now, so that what cannot be called is told here
    return model


def _size(unet: nn.Module, given: Any) -> tuple[int, int]:
    """Pixels along y and x."""
    sides = [plain_number(side) for side in given] if isinstance(given, tuple | list) else [plain_number(given)] * 2
    if given is None:
        raise ModelError(f"A {type(unet).__name__} does not say how large its images are. Give image_size, in pixels.")
    if len(sides) != 2 or not all(is_integer(side) and side > 0 for side in sides):
        raise ModelError(f"image_size={shown(given)} is no size; give a number of pixels, or (y, x).")
    return sides[0], sides[1]


def _checked(alpha_bar: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(alpha_bar, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not (np.diff([1.0, *values, 0.0]) < 0).all():
        raise ModelError(
            "alpha_bar is the share of signal variance left at every training timestep: numbers that fall from below 1 "
            f"to above 0. Got an array of shape {values.shape}, from {values.flat[:1]} to {values.flat[-1:]}."
        )
    return values


def _check_layout(unet: Any) -> None:
    parts = ("time_embed", "input_blocks", "middle_block", "output_blocks", "out", "in_channels", "model_channels")
    missing = [part for part in parts if not hasattr(unet, part)]
    if not isinstance(unet, nn.Module) or missing:
        how = "Another U-Net enters by an adapter of its own, see causalunet.models.register."
        if type(unet).__module__.startswith("diffusers."):
            how = "Give it in a pipeline, with its scheduler: from_pipeline(diffusers.DDPMPipeline(unet, scheduler))."
        raise ModelError(
            f"A {type(unet).__name__} is not a U-Net of OpenAI's packages: it lacks {', '.join(missing) or 'forward'}. "
            + how
        )
    # Asked of the class: a module that was traced before has a forward of its own.
    extra = sorted(set(inspect.signature(type(unet).forward).parameters) - _ARGUMENTS)
    if extra:
        raise ModelError(
            f"The forward of this {type(unet).__name__} also takes {', '.join(extra)}. Models for upsampling and "
            "inpainting take more than the noisy image and its condition, which no study gives them."
        )
    kinds = {parameter.dtype for parameter in unet.parameters()} | {getattr(unet, "dtype", torch.float32)}
    if kinds != {torch.float32}:
        raise ModelError(
            f"This {type(unet).__name__} computes in {', '.join(sorted(map(str, kinds)))}; only float32 runs here. "
            "Build it with use_fp16=False, and do not call convert_to_fp16()."
        )


def _fraction(unet: Any, variance: str) -> float | None:
    """Tell whether the U-Net predicts its variance; else which bound stands for it."""
    if variance not in _FRACTIONS:
        raise ModelError(f"variance={variance!r} is not known; it is one of {', '.join(_FRACTIONS)}.")
    channels, outputs = _in_channels(unet), _out_channels(unet)
    if outputs == 2 * channels:
        return None
    if outputs == channels:
        return _FRACTIONS[variance]
    raise ModelError(
        f"This {type(unet).__name__} takes {channels} channels and gives {outputs}; expected as many, which is noise, "
        "or twice as many, noise and variance."
    )


def _time_scale(unet: Any, timesteps: int, rescale: bool | None) -> float:
    """What timesteps are multiplied by before the U-Net is given them; of which nothing in the object tells."""
    if rescale is not None and not isinstance(rescale, bool):
        raise ModelError(f"rescale_timesteps={rescale!r} is neither True nor False.")
    if rescale is None and timesteps != _TIMES:
        raise ModelError(
            f"alpha_bar has {timesteps:,} timesteps, and a {type(unet).__name__} does not say whether it was trained "
            f"with them as they are or rescaled to {_TIMES:,}. Give rescale_timesteps=True or False, as in its "
            "training script (improved-diffusion's takes True unless told otherwise, guided-diffusion's False)."
        )
    return _TIMES / timesteps if rescale else 1.0


def _in_channels(unet: Any) -> int:
    return int(unet.in_channels)


def _out_channels(unet: Any) -> int:
    return int(list(unet.out.parameters())[-1].shape[0])


def _wrap(
    unet: Any, tokenize: Tokenize | None, classes: Sequence[str] | None, null_class: int | None
) -> tuple[WrappedUNet, Prepare]:
    if not hasattr(unet, "get_text_emb"):
        prepare = label_reader(getattr(unet, "num_classes", None), classes, null_class)
        return LabelledUNet(unet, null_class), prepare
    if null_class is not None:
        raise ModelError("A Text2ImUNet has no classes, so null_class says nothing of it: the empty text is none.")
    if not unet.xf_width:
        raise ModelError("This Text2ImUNet has no text transformer (xf_width=0), so there is nothing to prompt.")
    if unet.cache_text_emb:
        raise ModelError(
            "This Text2ImUNet keeps the text of its last call (cache_text_emb=True). Build it with "
            "cache_text_emb=False: every prompt is encoded once anyway."
        )
    return TextConditionedUNet(unet), tokenize or padded(unet.tokenizer, unet.text_ctx)
