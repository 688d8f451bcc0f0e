"""Faults of adapters, planted into a model of yours: whether the kit finds them there, and what it says of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Component
from causalunet.design.limits import shown
from causalunet.errors import SpecError
from causalunet.models.base import DiffusionModel

__all__ = ["MISFIRES", "Misfire", "plant"]

_CONSTANT = 0.3

_Forward = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Misfire:
    """A fault through which an intervention would do nothing, or something else, without a word.

    Attributes
    ----------
    name : str
    told : str
        What is wrong, in words.
    found_by : str
        Check of `check_model` that finds it.
    says : str
        What its message says, as a regular expression.
    build : callable
        Of a copy of the U-Net and the anatomy to those with the fault in them.
    """

    name: str
    told: str
    found_by: str
    says: str
    build: Callable[[nn.Module, Anatomy], tuple[nn.Module, Anatomy]]


class _Shadow(nn.Module):
    """Stands where a module stood, and does something else with it; all else is asked of the module."""

    def __init__(self, inner: nn.Module, does: _Forward) -> None:
        super().__init__()
        self.inner, self._does = inner, does

    def forward(self, *given: Any, **options: Any) -> Any:
        return self._does(self.inner, given, options)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class _Planted:
    """A model with another U-Net, or another anatomy."""

    def __init__(self, model: DiffusionModel, unet: nn.Module, anatomy: Anatomy) -> None:
        self._model, self.unet, self.anatomy = model, unet, anatomy
        self.encode, self.check_prompts = model.encode, model.check_prompts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def plant(model: DiffusionModel, misfire: str) -> DiffusionModel:
    """Plant a fault into a copy of a model.

    Parameters
    ----------
    model : DiffusionModel
        That `check_model` finds nothing wrong with; it stays as it is. Of a U the fault is in its bottleneck, of a
        stack of blocks in the one in the middle.
    misfire : str
        One of `MISFIRES`.

    Returns
    -------
    DiffusionModel
        For `check_model`, and for nothing else.

    Raises
    ------
    SpecError
        There is no misfire of that name.
    """
    if misfire not in MISFIRES:
        raise SpecError(f"No misfire is called {shown(misfire)}; there are {', '.join(MISFIRES)}.")
    unet, anatomy = MISFIRES[misfire].build(copy.deepcopy(model.unet), model.anatomy)
    planted: Any = _Planted(model, unet, anatomy)
    return planted


def _place(anatomy: Anatomy) -> Component:
    """The bottleneck, or the block in the middle."""
    bottleneck = [one for one in anatomy.components if one.role == "bottleneck"]
    return bottleneck[0] if bottleneck else anatomy.components[len(anatomy.components) // 2]


def _shadowed(does: Callable[[Component], _Forward]) -> Callable[[nn.Module, Anatomy], tuple[nn.Module, Anatomy]]:
    """Something else is done where the last module of a component is called."""

    def build(unet: nn.Module, anatomy: Anatomy) -> tuple[nn.Module, Anatomy]:
        place = _place(anatomy)
        *before, path = place.modules
        parent, _, name = path.rpartition(".")
        setattr(unet.get_submodule(parent), name, _Shadow(unet.get_submodule(path), does(place)))
        modules = (*before, f"{path}.inner")
        return unet, _with(anatomy, {place.name: replace(place, module=modules if before else modules[0])})

    return build


def _around(does: _Forward) -> Callable[[nn.Module, Anatomy], tuple[nn.Module, Anatomy]]:
    """Something is done before and after the U-Net."""

    def build(unet: nn.Module, anatomy: Anatomy) -> tuple[nn.Module, Anatomy]:
        below = {
            one.name: replace(one, module=tuple(f"inner.{path}" for path in one.modules)) for one in anatomy.components
        }
        return _Shadow(unet, does), _with(anatomy, below)

    return build


def _with(anatomy: Anatomy, others: Mapping[str, Component]) -> Anatomy:
    return replace(anatomy, components=tuple(others.get(one.name, one) for one in anatomy.components))


def _described(change: Callable[[Anatomy], Anatomy]) -> Callable[[nn.Module, Anatomy], tuple[nn.Module, Anatomy]]:
    """The U-Net is right, and what is said of it is not."""
    return lambda unet, anatomy: (unet, change(anatomy))


def _of_first(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a module puts out, changed in its first tensor."""
    return (change(output[0]), *output[1:]) if isinstance(output, tuple | list) else change(output)


def _twice(place: Component) -> _Forward:
    def forward(inner: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> Any:
        inner(*given, **options)
        return inner(*given, **options)

    return forward


def _never(place: Component) -> _Forward:
    def forward(inner: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> Any:
        like = next(part for part in (*given, *options.values()) if isinstance(part, Tensor))
        made = torch.full((len(like), *place.shape), _CONSTANT, dtype=like.dtype, device=like.device)
        return made if place.output is None else (made,)

    return forward


def _dropped(place: Component) -> _Forward:
    return lambda inner, given, options: _of_first(
        inner(*given, **options), lambda value: torch.full_like(value, _CONSTANT)
    )


def _overwritten(place: Component) -> _Forward:
    return lambda inner, given, options: _of_first(inner(*given, **options), lambda value: value.fill_(_CONSTANT))


def _exchanged(inner: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> Any:
    half = len(given[0]) // 2
    output: Tensor = inner(*(part.roll(half, dims=0) for part in given), **options)
    return output.roll(half, dims=0)


def _interleaved(inner: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> Any:
    rows = len(given[0])
    order = torch.arange(rows, device=given[0].device).reshape(-1, max(1, rows // 2)).T.flatten()
    return inner(*(part[order] for part in given), **options)[order.argsort()]


def _on_one_module(anatomy: Anatomy) -> Anatomy:
    first, second, *_ = anatomy.components
    return _with(anatomy, {second.name: replace(second, module=first.module)})


def _out_of_order(anatomy: Anatomy) -> Anatomy:
    first, second, third, *rest = anatomy.components
    return replace(anatomy, components=(first, third, second, *rest))


def _an_edge_too_few(anatomy: Anatomy) -> Anatomy:
    skips = [edge for edge in anatomy.edges if edge.name]
    left_out = skips[-1] if skips else next(edge for edge in anatomy.edges if edge.source == _place(anatomy).name)
    return replace(anatomy, edges=tuple(edge for edge in anatomy.edges if edge != left_out))


def _another_shape(anatomy: Anatomy) -> Anatomy:
    place = _place(anatomy)
    return _with(anatomy, {place.name: replace(place, shape=(place.shape[0] + 1, *place.shape[1:]))})


MISFIRES: dict[str, Misfire] = {
    one.name: one
    for one in (
        Misfire(
            "an edge too few",
            "what a block is given, the anatomy does not know of: parts that are needed would be taken for dead",
            "joints",
            r"the anatomy has no edge between them",
            _described(_an_edge_too_few),
        ),
        Misfire(
            "called twice",
            "a block runs twice in a call, so that an edit meets one of the two, or both",
            "run once",
            r"ran 2 times in one call",
            _shadowed(_twice),
        ),
        Misfire(
            "two components on one module",
            "two names stand for one block",
            "modules",
            r"are one module",
            _described(_on_one_module),
        ),
        Misfire(
            "out of order",
            "blocks run in another order than is said, so that calls are counted, or values waited for, wrongly",
            "order",
            r"ran in the order",
            _described(_out_of_order),
        ),
        Misfire(
            "never called",
            "a block is there and never runs: its hooks never fire",
            "run once",
            r"ran 0 times in one call",
            _shadowed(_never),
        ),
        Misfire(
            "changed and not used",
            "a block runs, and what it puts out goes nowhere: an edit fires and changes nothing",
            "joints",
            r"nothing depends on what .* puts out",
            _shadowed(_dropped),
        ),
        Misfire(
            "overwritten afterwards",
            "what a block puts out is overwritten in place, and an edit with it",
            "joints",
            r"nothing depends on what .* puts out",
            _shadowed(_overwritten),
        ),
        Misfire(
            "the other half",
            "the halves of a batch stand inside in the other order: an edit of the conditional rows meets the others",
            "reach",
            r"other numbers in .* change the output in rows",
            _around(_exchanged),
        ),
        Misfire(
            "interleaved halves",
            "rows with and without condition stand in turn inside, where a half is taken for one of them",
            "reach",
            r"other numbers in the conditional rows \(0 and 1\) change the output in rows",
            _around(_interleaved),
        ),
        Misfire(
            "another shape",
            "a block puts out another shape than is said: its stand-in would not fit, and its cost is another",
            "shapes",
            r"puts out .*anatomy says",
            _described(_another_shape),
        ),
    )
}
"""By name."""
