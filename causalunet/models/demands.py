"""What is asked of each part of a model, one function for each; none of them knows of studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from causalunet.errors import CausalUNetError, ModelError
from causalunet.models.base import DiffusionModel
from causalunet.models.modules import first_row, part_of, watched
from causalunet.prediction import prediction_of, process_of

__all__ = [
    "Observed",
    "call_unet",
    "check_counts",
    "check_images",
    "check_order",
    "check_shapes",
    "modules_of",
    "observed_call",
    "shapes_of",
]

_MOST_NAMED = 3
_ROUNDING = 1e-5
"""Of images beyond 0 and 1; what is further out, verifying the store would call unsound."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What a call of a U-Net showed.

    Attributes
    ----------
    output : Tensor, (row, 2 * channel, y, x)
    ran : list of str
        Components, each time that one ran.
    shapes : dict
        What each put out: (channel, y, x), or what it was instead of a tensor.
    put_out : dict of Tensor
        First row of what each put out.
    wholes : dict
        First row of all parts of it, of modules that put out several.
    """

    output: Tensor
    ran: list[str]
    shapes: dict[str, Any]
    put_out: dict[str, Tensor]
    wholes: dict[str, Any]


def shapes_of(parts: Sequence[Tensor]) -> str:
    """Shapes of some tensors, in words."""
    return ", ".join(str(tuple(part.shape)) for part in parts)


def modules_of(model: DiffusionModel) -> dict[str, nn.Module]:
    """Every module of the components, by the names of `Anatomy.modules`.

    Raises
    ------
    ModelError
        The U-Net has no such module, or two components are one.
    """
    modules: dict[str, nn.Module] = {}
    owner: dict[nn.Module, str] = {}
    anatomy = model.anatomy
    inside = {module: name for name in anatomy.by_name for module in anatomy.modules_of(name)}
    for name, path in anatomy.modules.items():
        try:
            module = model.unet.get_submodule(path)
        except AttributeError as error:
            raise ModelError(
                f"The anatomy of the model {model.name!r} says that {inside[name]} is the module "
                f"{path!r}, which its U-Net does not have ({error}). Give the path below model.unet."
            ) from error
        if module in owner:
            raise ModelError(
                f"The anatomy of the model {model.name!r} says that {owner[module]} and {inside[name]} are one "
                f"module, {path!r}. A component is a module of its own."
            )
        owner[module] = inside[name]
        modules[name] = module
    return modules


def call_unet(model: DiffusionModel, arguments: tuple[Tensor, ...]) -> Tensor:
    """Call the U-Net; what it gives is what the model says that it predicts, (row, channel, y, x).

    Raises
    ------
    ModelError
        The call fails, or it gives something else.
    """
    try:
        output: Any = model.unet(*arguments)
    except (CausalUNetError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a foreign forward raises
        raise ModelError(
            f"A call of the U-Net of the model {model.name!r} with x {tuple(arguments[0].shape)} and timesteps "
            f"{tuple(arguments[1].shape)}, both float32, and the context {shapes_of(arguments[2:]) or '()'} ended in "
            f"{type(error).__name__}: {' '.join(str(error).split()):.300}{_advice(model, arguments)}"
        ) from error
    rows, channels, *size = arguments[0].shape
    prediction = prediction_of(model)
    if process_of(model).resized:  # at timestep 0, where images of full size are predicted
        size = list(model.image_shape[1:])
    expected = (rows, prediction.channels(channels), *size)
    found = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
    if found != expected:
        raise ModelError(
            f"The U-Net of the model {model.name!r} gave {found}; expected a tensor {expected}: {prediction}, as its "
            "prediction says (without one it is noise, and the variance as a number from -1 to 1 between its bounds). "
            'Where only noise is predicted, give the adapter prediction = Prediction("eps").'
        )
    return output


def _advice(model: DiffusionModel, arguments: tuple[Tensor, ...]) -> str:
    """What to do about a call that failed, where that can be told."""
    x, timesteps, *context = arguments
    if elsewhere := {str(part.device) for part in context} - {str(x.device)}:
        return (
            f". encode() gives tensors on {', '.join(sorted(elsewhere))}, and the weights are on {x.device}: move them."
        )
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


def observed_call(model: DiffusionModel, arguments: tuple[Tensor, ...], modules: dict[str, nn.Module]) -> Observed:
    """Call the U-Net, and see what its components do.

    Parameters
    ----------
    model : DiffusionModel
    arguments : tuple of Tensor
    modules : dict of torch.nn.Module
        From `modules_of`.
    """
    ran: list[str] = []
    shapes: dict[str, Any] = {}
    put_out: dict[str, Tensor] = {}
    wholes: dict[str, Any] = {}
    ports = model.anatomy.output_ports

    def note(name: str, output: Any) -> None:
        ran.append(name)
        part = part_of(output, ports.get(name))
        shapes[name] = tuple(part.shape[1:]) if isinstance(part, Tensor) else f"a {type(part).__name__}"
        if isinstance(part, Tensor):
            put_out[name] = part[:1].clone()
            if name in ports:
                wholes[name] = first_row(output)

    with watched(modules, note):
        output = call_unet(model, arguments)
    return Observed(output, ran, shapes, put_out, wholes)


def check_counts(model: DiffusionModel, seen: Observed) -> None:
    """Raise `ModelError` unless every component ran once."""
    names, counts = list(model.anatomy.modules), Counter(seen.ran)
    for count in sorted({counts[name] for name in names} - {1}):
        wrong = [name for name in names if counts[name] == count]
        raise ModelError(
            f"Components of the model {model.name!r} ran {count} times in one call: {', '.join(wrong[:_MOST_NAMED])}"
            f"{', ...' if len(wrong) > _MOST_NAMED else ''}. Each has to be a module that a call of the U-Net runs "
            "once."
        )


def check_order(model: DiffusionModel, seen: Observed) -> None:
    """Raise `ModelError` unless components, which ran once each, ran in the order of the anatomy."""
    ran, names = seen.ran, list(model.anatomy.modules)
    if ran != names:
        first = next(index for index, pair in enumerate(zip(ran, names, strict=True)) if pair[0] != pair[1])
        some = slice(max(0, first - 1), first + _MOST_NAMED)
        raise ModelError(
            f"The components of the model {model.name!r} ran in the order {', '.join(ran[some])}, and its anatomy says "
            f"{', '.join(names[some])}. List them in the order in which they run."
        )


def check_shapes(model: DiffusionModel, seen: Observed) -> None:
    """Raise `ModelError` unless what components put out, if they ran, has the shapes of the anatomy."""
    for component in model.anatomy.components:
        found = seen.shapes.get(component.name, component.shape)
        if found != component.shape:
            advice = "Read the shapes off a call."
            if isinstance(found, str):
                advice = "Of a module that puts out a tuple say which tensor is meant, Component(..., output=0)."
            raise ModelError(
                f"The component {component.name} of the model {model.name!r} puts out {found}, "
                f"({', '.join(component.dims)}), and its anatomy says {component.shape}. {advice}"
            )


def check_images(model: DiffusionModel, x0: Tensor) -> None:
    """Raise `ModelError` unless x_0 is decoded to images of its shape in [0, 1], and factors can be read."""
    images: Any = model.decode(x0)
    expected = (len(x0), *getattr(model, "picture_shape", tuple(x0.shape[1:])))
    if not isinstance(images, np.ndarray) or images.shape != expected:
        found = images.shape if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
        raise ModelError(
            f"The model {model.name!r}: decode() gave {found} for x_0 {tuple(x0.shape)}; stored images have the "
            f"shape of x_0, or the model's picture_shape, so it has to give a NumPy array {expected}."
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
