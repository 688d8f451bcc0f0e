"""What is asked of a model before a study runs on it: looked at, encoded, and called once."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from causalunet.design.limits import shown
from causalunet.design.study import StudySpec
from causalunet.errors import CausalUNetError, CausalUNetWarning, ModelError, PromptError
from causalunet.models.alone import alone
from causalunet.models.base import DiffusionModel
from causalunet.models.modules import watched
from causalunet.models.wiring import read_wiring
from causalunet.prompts import NO_PROMPT

__all__ = ["check_model", "check_samples", "check_values", "device_of", "encoded", "rehearse"]

_KNOWN = ". If one of its classes stands for none, say which when the model is made: from_unet(..., null_class=)"
_MOST_NAMED = 3
_DIFFERENCE = 1e-3
"""Between two equal calls; rounding alone gives less."""
_ROUNDING = 1e-5
"""Of images beyond 0 and 1; what is further out, verifying the store would call unsound."""
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
    model.check_prompts(spec.prompts)
    if spec.sampler.rows_per_sample > 1 and not guidable:
        raise ModelError(
            f"Nothing that is known of the model {model.name!r} stands for its condition left out, so classifier-free "
            f"guidance has nothing to guide from. Give the study sampler=DDPM(guidance_scale=1){_KNOWN}."
        )


def encoded(model: DiffusionModel, prompts: Sequence[str]) -> tuple[Tensor, ...]:
    """Encode prompts, and check that every tensor has one row per prompt.

    Raises
    ------
    ModelError
        It has not.
    """
    parts: Any = model.encode(prompts)
    if not isinstance(parts, tuple | list) or not all(isinstance(part, Tensor) for part in parts):
        kinds = ", ".join(dict.fromkeys(type(part).__name__ for part in parts)) if isinstance(parts, tuple) else ""
        raise ModelError(
            f"The model {model.name!r}: encode() gave a {type(parts).__name__}{f' of {kinds}' if kinds else ''}; it "
            "has to give a tuple of tensors, those that its U-Net takes after x and the timesteps, or an empty tuple."
        )
    if any(part.ndim == 0 or len(part) != len(prompts) for part in parts):
        raise ModelError(
            f"The model {model.name!r}: encode() gave tensors of shapes {_shapes(parts)} for {len(prompts)} prompts; "
            "it has to give one row per prompt, in their order."
        )
    return tuple(parts)


def device_of(unet: nn.Module) -> torch.device:
    """Where a U-Net computes; the CPU if it has neither parameters nor buffers."""
    return next((value.device for value in (*unet.parameters(), *unet.buffers())), torch.device("cpu"))


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
    context = _context(model, spec)
    modules = _modules(model)
    shapes = tuple((part.shape[1:], part.dtype) for part in context)
    training = any(module.training for module in model.unet.modules())
    key = (type(model), model.image_shape, model.anatomy, shapes, training, tuple(model.factors))
    passed = _REHEARSED.setdefault(model.unet, set())
    if key in passed:
        return
    device, rows = device_of(model.unet), spec.sampler.rows_per_sample
    x = torch.randn(rows, *model.image_shape, generator=torch.Generator().manual_seed(0)).to(device)
    arguments = (x, torch.full((rows,), float(len(model.alpha_bar) - 1), device=device), *context)
    with alone(model.unet), torch.inference_mode():
        output, put_out = _watched_call(model, arguments, modules)
        row = tuple(part[:1] for part in arguments)
        read_wiring(model.unet, model.anatomy, row, put_out, f"The U-Net of the model {model.name!r}")
        again = _call(model, arguments)
        _check_images(model, x[:1].clamp(-1, 1) if model.clip else x[:1])
    difference = float((output.float() - again.float()).abs().max())
    if difference > _DIFFERENCE:
        warnings.warn(
            f"Two equal calls of the U-Net of the model {model.name!r} differ by {difference:.2g}: something in it is "
            "random, such as dropout. What a run differs by is then no effect of an intervention. Call unet.eval(), or "
            "make it give the same for the same.",
            CausalUNetWarning,
            stacklevel=4,
        )
    passed.add(key)


def _shapes(parts: Sequence[Tensor]) -> str:
    return ", ".join(str(tuple(part.shape)) for part in parts)


def _context(model: DiffusionModel, spec: StudySpec) -> tuple[Tensor, ...]:
    """Context of one sample's rows; prompts as different as there are must give rows of one shape."""
    distinct = list(dict.fromkeys(spec.prompts))
    if spec.sampler.rows_per_sample > 1:
        distinct.append("")
    one, *others = sorted(set(distinct), key=lambda prompt: (len(prompt.split()), len(prompt)))
    asked = [one, *others[-1:]]
    with torch.inference_mode():
        alone, together = [encoded(model, [prompt]) for prompt in asked], encoded(model, asked)
        for prompt, parts in zip(asked, alone, strict=True):
            if [part.shape[1:] for part in parts] != [part.shape[1:] for part in together]:
                raise ModelError(
                    f"The model {model.name!r}: encode() gave rows of shape {_shapes([part[0] for part in parts])} for "
                    f"{prompt!r} alone and of {_shapes([part[0] for part in together])} beside other prompts. Prompts "
                    "of all lengths go through the U-Net together; pad to one length, whatever the batch."
                )
        cond = encoded(model, [spec.prompts[0]])
        if spec.sampler.rows_per_sample == 1:
            return cond
        return tuple(torch.cat(pair) for pair in zip(cond, encoded(model, [""]), strict=True))


def _modules(model: DiffusionModel) -> dict[str, nn.Module]:
    """Module of every component."""
    modules: dict[str, nn.Module] = {}
    owner: dict[nn.Module, str] = {}
    for component in model.anatomy.components:
        try:
            module = model.unet.get_submodule(component.module)
        except AttributeError as error:
            raise ModelError(
                f"The anatomy of the model {model.name!r} says that {component.name} is the module "
                f"{component.module!r}, which its U-Net does not have ({error}). Give the path below model.unet."
            ) from error
        if module in owner:
            raise ModelError(
                f"The anatomy of the model {model.name!r} says that {owner[module]} and {component.name} are one "
                f"module, {component.module!r}. A component is a module of its own."
            )
        owner[module] = component.name
        modules[component.name] = module
    return modules


def _call(model: DiffusionModel, arguments: tuple[Tensor, ...]) -> Tensor:
    """Call the U-Net; what it gives is noise and variance, (row, 2 * channel, y, x)."""
    try:
        output: Any = model.unet(*arguments)
    except (CausalUNetError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a foreign forward raises
        raise ModelError(
            f"A call of the U-Net of the model {model.name!r} with x {tuple(arguments[0].shape)} and timesteps "
            f"{tuple(arguments[1].shape)}, both float32, and the context {_shapes(arguments[2:]) or '()'} ended in "
            f"{type(error).__name__}: {' '.join(str(error).split()):.300}{_advice(model, arguments)}"
        ) from error
    rows, channels, *size = arguments[0].shape
    expected = (rows, 2 * channels, *size)
    found = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
    if found != expected:
        raise ModelError(
            f"The U-Net of the model {model.name!r} gave {found}; expected a tensor {expected}: noise, and the "
            "variance as a number from -1 to 1 between its bounds. Let the adapter's unet put out both; where only "
            "noise is predicted, torch.ones_like(noise) takes the larger bound."
        )
    return output


def _advice(model: DiffusionModel, arguments: tuple[Tensor, ...]) -> str:
    """What to do about a call that failed, where that can be told."""
    x, timesteps, *context = arguments
    kinds = {value.dtype for value in model.unet.parameters() if value.is_floating_point()} - {torch.float32}
    if kinds:
        kind = str(next(iter(kinds))).removeprefix("torch.")
        cast = {"float16": "half", "float64": "double"}.get(kind, kind)
        return f". It has {kind} weights: let its forward begin with x.{cast}() and end with .float()."
    try:
        model.unet(x, timesteps.long(), *context)
    except Exception:  # it is the first error that is told
        return ". Are its adapter's image_shape and encode() what it takes?"
    return ". It takes whole timesteps: let the adapter's unet convert them, timesteps.long()."


def _watched_call(
    model: DiffusionModel, arguments: tuple[Tensor, ...], modules: dict[str, nn.Module]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Call the U-Net and see that its components are what the anatomy says; also give what they put out, first row."""
    ran: list[str] = []
    gave: dict[str, Any] = {}
    put_out: dict[str, Tensor] = {}

    def note(name: str, output: Any) -> None:
        ran.append(name)
        gave[name] = tuple(output.shape[1:]) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        if isinstance(output, Tensor):
            put_out[name] = output[:1].clone()

    with watched(modules, note):
        output = _call(model, arguments)
    _check_components(model, ran, gave)
    return output, put_out


def _check_components(model: DiffusionModel, ran: list[str], gave: dict[str, Any]) -> None:
    names, counts = list(model.anatomy.by_name), Counter(ran)
    for count in sorted({counts[name] for name in names} - {1}):
        wrong = [name for name in names if counts[name] == count]
        raise ModelError(
            f"Components of the model {model.name!r} ran {count} times in one call: {', '.join(wrong[:_MOST_NAMED])}"
            f"{', ...' if len(wrong) > _MOST_NAMED else ''}. Each has to be a module that a call of the U-Net runs "
            "once."
        )
    if ran != names:
        first = next(index for index, pair in enumerate(zip(ran, names, strict=True)) if pair[0] != pair[1])
        some = slice(max(0, first - 1), first + _MOST_NAMED)
        raise ModelError(
            f"The components of the model {model.name!r} ran in the order {', '.join(ran[some])}, and its anatomy says "
            f"{', '.join(names[some])}. List them in the order in which they run."
        )
    for component in model.anatomy.components:
        if gave[component.name] != component.shape:
            raise ModelError(
                f"The component {component.name} of the model {model.name!r} puts out {gave[component.name]}, "
                f"(channel, y, x), and its anatomy says {component.shape}. Read the shapes off a call."
            )


def _check_images(model: DiffusionModel, x0: Tensor) -> None:
    images: Any = model.decode(x0)
    expected = tuple(x0.shape)
    if not isinstance(images, np.ndarray) or images.shape != expected:
        found = images.shape if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
        raise ModelError(
            f"The model {model.name!r}: decode() gave {found} for x_0 {expected}; stored images have the shape of x_0, "
            f"so it has to give a NumPy array {expected}."
        )
    lowest, highest = float(images.min()), float(images.max())
    if not (-_ROUNDING <= lowest <= highest <= 1 + _ROUNDING):  # nor if one of them is NaN
        raise ModelError(
            f"The model {model.name!r}: decode() gave values from {lowest:.4g} to {highest:.4g} for x_0 from "
            f"{float(x0.min()):.4g} to {float(x0.max()):.4g}; images are kept and compared in [0, 1]. Let it "
            "scale them, such as (x0 + 1) / 2, and clip what lies outside."
        )
    if not model.factors:
        return
    likely: Any = model.read_factors(images.astype(np.float32))
    wanted = (1, len(model.factors))
    if [np.shape(part) for part in likely] != [wanted, wanted]:
        raise ModelError(
            f"The model {model.name!r}: read_factors() gave {', '.join(str(np.shape(part)) for part in likely)} for "
            f"one image; with {len(model.factors)} factors it has to give index and probability, both {wanted}."
        )
