"""Taking in U-Net objects of OpenAI's own packages: GLIDE's, guided-diffusion's, improved-diffusion's."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from causalunet.errors import ModelError
from causalunet.models.byte_pairs import padded
from causalunet.models.checking import check_values
from causalunet.models.handed_in import HandedIn
from causalunet.models.labels import Prepare, label_reader
from causalunet.models.layouts.asked import Asked
from causalunet.models.wrapped_unets import LabelledUNet, TextConditionedUNet, WrappedUNet
from causalunet.schedule import cosine_alpha_bar

__all__ = ["openai_unet"]

_TIMES = 1000
"""Timesteps that rescaled ones are as long as, in OpenAI's packages."""
_FRACTIONS = {"large": 1.0, "small": -1.0}
_ARGUMENTS = {"self", "x", "timesteps", "tokens", "mask", "y"}  # of the forwards that are understood here


def openai_unet(asked: Asked, known: str) -> HandedIn:
    """Make a model of a U-Net object in OpenAI's layout; its forward code is its own.

    Parameters
    ----------
    asked : Asked
    known : str
        What else could have been given, in words.

    Raises
    ------
    ModelError
        The object is not such a U-Net, computes in half precision, or more must be said of it.
    """
    unet: Any = asked.unet
    _check_layout(unet, known)
    check_values(unet, f"this {asked.kind}")
    asked.refuse("it predicts noise; say variance=.", "prediction", "sigmas")
    asked.refuse("a text is read by its own tokenizer and transformer; say tokenize=.", "encode")
    wrapper, prepare = _wrap(asked)
    wrapper.fraction = _fraction(unet, "large" if asked.variance is None else asked.variance)
    height, width = asked.size(getattr(unet, "image_size", None))
    is_text = asked.alpha_bar is None and not isinstance(wrapper, LabelledUNet)
    schedule = cosine_alpha_bar() if is_text else asked.shares()
    wrapper.time_scale = _time_scale(unet, len(schedule), asked.rescale_timesteps)
    unet.eval()
    clip = True if asked.clip is None else asked.clip
    model = HandedIn(asked.name, wrapper, prepare, (_in_channels(unet), height, width), schedule, clip)
    model.anatomy  # noqa: B018 - read now, so that what cannot be called is told here
    return model


def _check_layout(unet: Any, known: str) -> None:
    parts = ("time_embed", "input_blocks", "middle_block", "output_blocks", "out", "in_channels", "model_channels")
    missing = [part for part in parts if not hasattr(unet, part)]
    if not isinstance(unet, nn.Module) or missing:
        raise ModelError(
            f"A {type(unet).__name__} is not a U-Net of OpenAI's packages: it lacks {', '.join(missing) or 'forward'}; "
            f"nor one of the others that are known, {known}. Say where its blocks are, from_network(...)."
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


def _wrap(asked: Asked) -> tuple[WrappedUNet, Prepare]:
    unet, null_class = asked.unet, asked.null_class
    if not hasattr(unet, "get_text_emb"):
        prepare = label_reader(getattr(unet, "num_classes", None), asked.classes, null_class)
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
    return TextConditionedUNet(unet), asked.tokenize or padded(unet.tokenizer, unet.text_ctx)
