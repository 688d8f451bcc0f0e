"""What is asked of a model before a study runs on it: looked at, encoded, and called once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from causalunet.design.guidance import Guidance
from causalunet.design.limits import shown
from causalunet.design.study import StudySpec
from causalunet.errors import CausalUNetWarning, ModelError, PromptError
from causalunet.models.alone import alone
from causalunet.models.base import DiffusionModel
from causalunet.models.demands import (
    call_unet,
    check_counts,
    check_images,
    check_order,
    check_shapes,
    modules_of,
    observed_call,
    shapes_of,
)
from causalunet.models.devices import device_of
from causalunet.models.given import as_put_in
from causalunet.models.rounding import rounding
from causalunet.models.tf32 import exact_float32
from causalunet.models.wiring import read_wiring
from causalunet.prompts import NO_PROMPT

__all__ = ["check_model", "check_samples", "check_values", "context_of", "encoded", "rehearse", "told"]

_KNOWN = ". If one of its classes stands for none, say which when the model is made: from_unet(..., null_class=)"
_REHEARSED: WeakKeyDictionary[nn.Module, set[Any]] = WeakKeyDictionary()
"""Calls that a U-Net has passed in this process."""


def check_model(model: object) -> None:
    """Check that what was given for a model is one, as far as its class says.

    Raises
    ------
    ModelError
        It is not.
    """
    # Not isinstance with the protocol, which would read the anatomy.
    lacking = [name for name in ("unet", "anatomy", "encode", "check_prompts") if not _has(model, name)]
    if lacking:
        raise ModelError(
            f"{shown(model)} is no model: it lacks {', '.join(lacking)}. Give an object, such as load_model('shapes') "
            "or from_unet(...); see the how-to on model adapters."
        )


def _has(model: object, name: str) -> bool:
    return hasattr(type(model), name) or name in getattr(model, "__dict__", ())


def check_samples(model: DiffusionModel, spec: StudySpec) -> None:
    """Check that a model can make the samples of a study. Nothing of it is run; `rehearse` does that.

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
    model.check_prompts(spec.encoded_prompts)
    if spec.sampler.rows_per_sample > 1 and not guidable:
        raise ModelError(
            f"Nothing that is known of the model {model.name!r} stands for its condition left out, so classifier-free "
            f"guidance has nothing to guide from. Give the study sampler=DDPM(guidance_scale=1){_KNOWN}."
        )


def told(model: DiffusionModel, guidance: Guidance, prompts: Sequence[str]) -> tuple[tuple[Tensor, ...], ...]:
    """What a U-Net is told of samples in each branch of a guidance, one row per sample; what is alike is encoded once.

    Parameters
    ----------
    model : DiffusionModel
        Whose branches are not told of a text alone, but of an image of the sample as well, has ``encode_beside``: as
        ``encode``, and given the prompts of the samples besides.
    guidance : Guidance
    prompts : sequence of str
        Of the samples.
    """
    found = []
    for texts in zip(*map(guidance.prompts, prompts), strict=True):
        pairs = list(zip(texts, prompts if hasattr(model, "encode_beside") else texts, strict=True))
        distinct = list(dict.fromkeys(pairs))
        rows = torch.tensor([distinct.index(pair) for pair in pairs])
        parts = encoded(model, [text for text, _ in distinct], [prompt for _, prompt in distinct])
        found.append(tuple(part[rows.to(part.device)] for part in parts))
    return tuple(found)


def encoded(model: DiffusionModel, prompts: Sequence[str], of: Sequence[str] | None = None) -> tuple[Tensor, ...]:
    """Encode prompts, and check that every tensor has one row per prompt.

    Parameters
    ----------
    model : DiffusionModel
    prompts : sequence of str
    of : sequence of str, optional
        Prompts of the samples whose rows are told these instead; by default their own.

    Raises
    ------
    ModelError
        It has not.
    """
    with exact_float32():
        beside: Any = getattr(model, "encode_beside", None) if of is not None else None
        parts: Any = model.encode(prompts) if beside is None else beside(prompts, of)
    if not isinstance(parts, tuple | list) or not all(isinstance(part, Tensor) for part in parts):
        kinds = ", ".join(dict.fromkeys(type(part).__name__ for part in parts)) if isinstance(parts, tuple) else ""
        raise ModelError(
            f"The model {model.name!r}: encode() gave a {type(parts).__name__}{f' of {kinds}' if kinds else ''}; it "
            "has to give a tuple of tensors, those that its U-Net takes after x and the timesteps, or an empty tuple."
        )
    if any(part.ndim == 0 or len(part) != len(prompts) for part in parts):
        raise ModelError(
            f"The model {model.name!r}: encode() gave tensors of shapes {shapes_of(parts)} for {len(prompts)} prompts; "
            "it has to give one row per prompt, in their order."
        )
    return tuple(parts)


def check_values(unet: nn.Module, owner: str) -> None:
    """Raise `ModelError` if weights have no values, as on PyTorch's meta device."""
    empty = [name for name, value in (*unet.named_parameters(), *unet.named_buffers()) if value.is_meta]
    if empty:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise ModelError(
            f"The weights of {owner} are on the meta device, without values ({empty[0]}{more}). Load them first, as "
            "with unet.to_empty(device='cpu') and unet.load_state_dict(...)."
        )


def rehearse(model: DiffusionModel, spec: StudySpec) -> None:
    """Call a model's parts once, as a run would, and compare what they give with what the model says of itself.

    A U-Net that has passed is not called again in this process for studies that call it likewise.

    Parameters
    ----------
    model : DiffusionModel
    spec : StudySpec
        Gives prompts and guidance.

    Raises
    ------
    ModelError
        Weights have no values; rows of prompts differ in shape; the U-Net cannot be called, or gives something else
        than noise and variance; components do not run once each, in the order and with the shapes of the anatomy; what
        joins them is not what the anatomy says, or a skip connection cannot be told from what else a block is given
        (`read_wiring`); an image or its factors have another shape, or an image leaves [0, 1].

    Warns
    -----
    CausalUNetWarning
        Two equal calls differ, as with dropout left on.
    """
    check_values(model.unet, f"the model {model.name!r}")
    context = context_of(model, spec.encoded_prompts, spec.sampler.rows_per_sample)
    modules = modules_of(model)
    shapes = tuple((part.shape[1:], part.dtype) for part in context)
    training = any(module.training for module in model.unet.modules())
    key = (type(model), model.image_shape, model.anatomy, shapes, training, tuple(model.factors))
    passed = _REHEARSED.setdefault(model.unet, set())
    if key in passed:
        return
    device, rows = device_of(model), spec.sampler.rows_per_sample
    x = torch.randn(rows, *model.image_shape, generator=torch.Generator().manual_seed(0)).to(device)
    put_in, time = as_put_in(model, x, len(model.alpha_bar) - 1)
    arguments = (put_in, torch.full((rows,), float(time), device=device), *context)
    with alone(model.unet), torch.inference_mode(), exact_float32():
        seen = observed_call(model, arguments, modules)
        check_counts(model, seen)
        check_order(model, seen)
        check_shapes(model, seen)
        row = tuple(part[:1] for part in arguments)
        owner = f"The U-Net of the model {model.name!r}"
        read_wiring(model.unet, model.anatomy, row, seen.put_out, owner, seen.wholes)
        again = call_unet(model, arguments)
        check_images(model, x[:1].clamp(-1, 1) if model.clip else x[:1])
    difference = float((seen.output.float() - again.float()).abs().max())
    if difference > rounding(model.unet, again):
        warnings.warn(
            f"Two equal calls of the U-Net of the model {model.name!r} differ by {difference:.2g}: something in it is "
            "random, such as dropout. What a run differs by is then no effect of an intervention. Call unet.eval(), or "
            "make it give the same for the same.",
            CausalUNetWarning,
            stacklevel=4,
        )
    passed.add(key)


def context_of(model: DiffusionModel, prompts: Sequence[str], rows_per_sample: int) -> tuple[Tensor, ...]:
    """Context of one sample's rows; prompts as different as there are must give rows of one shape.

    Parameters
    ----------
    model : DiffusionModel
    prompts : sequence of str
        Of which the first is the sample's.
    rows_per_sample : int
        Two under guidance.
    """
    distinct = list(dict.fromkeys(prompts))
    if rows_per_sample > 1:
        distinct.append("")
    one, *others = sorted(set(distinct), key=lambda prompt: (len(prompt.split()), len(prompt)))
    asked = [one, *others[-1:]]
    with torch.inference_mode():
        alone, together = [encoded(model, [prompt]) for prompt in asked], encoded(model, asked)
        for prompt, parts in zip(asked, alone, strict=True):
            if [part.shape[1:] for part in parts] != [part.shape[1:] for part in together]:
                raise ModelError(
                    f"The model {model.name!r}: encode() gave rows of shape {shapes_of([part[0] for part in parts])} "
                    f"for {prompt!r} alone and of {shapes_of([part[0] for part in together])} beside other prompts. "
                    "Prompts of all lengths go through the U-Net together; pad to one length, whatever the batch."
                )
        cond = encoded(model, [prompts[0]])
        if rows_per_sample == 1:
            return cond
        return tuple(torch.cat(pair) for pair in zip(cond, encoded(model, [""], [prompts[0]]), strict=True))
