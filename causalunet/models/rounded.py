"""Models whose weights are rounded to few bits."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from causalunet.design.fills import Quantize
from causalunet.design.fills.numbers import around_zero, grid_around_zero
from causalunet.design.limits import shown
from causalunet.errors import ModelError
from causalunet.models.base import DiffusionModel

__all__ = ["round_weights", "rounded", "rounded_for"]

Model = TypeVar("Model", bound=DiffusionModel)


def round_weights(model: Model, bits: int, *, modules: str | Iterable[str] = "*") -> Model:
    """Make a copy of a model whose weights are rounded to few bits, each output channel over its own range.

    All runs of a study are then of that network. To round the weights of some layers during some steps, edit them:
    ``Edit("up.3.weights.0.in_layers.2", window, Quantize(bits, per="channel", zero=True))`` rounds as this does.

    Parameters
    ----------
    model : DiffusionModel
        A dataclass with a field ``unet``, as the package's own are.
    bits : int
        1 to 16.
    modules : str or iterable of str
        Patterns of the modules of the U-Net whose ``weight`` is rounded, such as ``"*.emb_layers.1"``; by default all
        that have one of two dimensions or more. Biases and scales of normalisations are left as they are.

    Returns
    -------
    DiffusionModel
        Of the same name and another fingerprint.

    Raises
    ------
    ModelError
        No module of that name has such a weight, or the model does not say where its U-Net is.
    SpecError
        The number of bits is out of range.

    Notes
    -----
    Rounding to the nearest level, minimum and maximum of each channel being levels as in
    `causalunet.analysis.quantizer_range` with ``"minmax"``; methods that learn which way to round begin there.
    """
    bits = Quantize(bits).bits  # checks it
    patterns = (modules,) if isinstance(modules, str) else tuple(modules)
    if not dataclasses.is_dataclass(model) or "unet" not in {entry.name for entry in dataclasses.fields(model)}:
        raise ModelError(
            f"The model {model.name!r} is no dataclass with a field unet, so no copy of it can be given another; round "
            "the weights of its U-Net with causalunet.models.rounded.rounded()."
        )
    unet = copy.deepcopy(model.unet)
    found = [
        module
        for name, module in unet.named_modules()
        if _has_weight(module) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]
    if not found:
        raise ModelError(
            f"No module of {model.name!r} that is called {shown(patterns)} has a weight of two dimensions or more; "
            "names are those of model.unet.named_modules()."
        )
    with torch.no_grad():
        for module in found:
            weight: Tensor = module.weight
            weight.copy_(rounded(weight, bits))
    return dataclasses.replace(model, unet=unet)


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Weights as 2^bits evenly spaced levels of each output channel hold them.

    Parameters
    ----------
    weight : Tensor, (channel, ...)
    bits : int

    Returns
    -------
    Tensor, (channel, ...)
    """
    rows = weight.detach().double().flatten(1)
    return around_zero(rows, *_ends(rows), bits).reshape(weight.shape).to(weight.dtype)


def rounded_for(weight: Tensor, inputs: Tensor, bits: int) -> Tensor:
    """Weights on the levels of `rounded`, each rounded up or down so that what is made of some inputs errs less.

    Parameters
    ----------
    weight : Tensor, (channel, input)
        Of a linear layer.
    inputs : Tensor, (row, input)
        What the layer is given, such as the time embedding at every step.
    bits : int

    Returns
    -------
    Tensor, (channel, input)
        The sum of squares of its errors at these inputs is in no channel larger than that of `rounded`.

    Notes
    -----
    One input after the other, the largest first, is rounded so that the errors so far are made up for; where that does
    not end below the nearest levels, those are kept. The objective is that of adaptive rounding (Nagel et al. 2020),
    which goes down its gradient instead.
    """
    rows, given, last = weight.detach().double(), inputs.detach().double(), 2**bits - 1
    step, zero = grid_around_zero(*_ends(rows), bits)
    nearest, made = rounded(rows, bits), torch.empty_like(rows)
    below = (rows / step).floor() + zero
    down, up = (((below + more).clamp(0, last) - zero) * step for more in (0, 1))
    wrong = given.new_zeros(len(given), len(rows))
    for column in given.square().sum(0).argsort(descending=True, stable=True).tolist():
        each = [wrong + torch.outer(given[:, column], (way - rows)[:, column]) for way in (down, up)]
        higher = each[1].square().sum(0) < each[0].square().sum(0)
        made[:, column] = torch.where(higher, up[:, column], down[:, column])
        wrong = torch.where(higher, each[1], each[0])
    better = wrong.square().sum(0) < (given @ (nearest - rows).T).square().sum(0)
    return torch.where(better[:, None], made, nearest).to(weight.dtype)


def _ends(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest weight of each channel, both (channel, 1)."""
    return rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)


def _has_weight(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2
