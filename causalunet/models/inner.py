"""Places inside components: found in the modules, and measured by a call on the meta device."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Component
from causalunet.design.inner import WEIGHTS, InnerPlace
from causalunet.dims import CHANNEL, HEAD, INPUT, ROW, TAP_X, TAP_Y, TOKEN, X, Y
from causalunet.models.inner_maps import calls_of, with_maps
from causalunet.models.inner_values import PART, PIXELS, InnerValue, inner_values
from causalunet.models.measured import on_meta

__all__ = ["Text", "with_inner"]

_ORDER = (HEAD, TOKEN, CHANNEL, Y, X)
_ODD = (nn.Embedding, nn.ConvTranspose1d, nn.ConvTranspose2d)
"""Modules whose weights have another first dimension than channels that they give."""
_EMBEDDINGS = ("time_embed", "time_embedding")
"""Names of the module whose output all blocks are told of the time."""


class Text(NamedTuple):
    """Which arguments of a U-Net are what a text encoder made of the text.

    Attributes
    ----------
    argument : int
        Position of the states.
    layout : str
        ``row token channel``, or in another order.
    pooled : int, optional
        Position of one vector for the whole text, (row, channel), where there is one.
    """

    argument: int
    layout: str = f"{ROW} {TOKEN} {CHANNEL}"
    pooled: int | None = None


class _Found(NamedTuple):
    """A value and where it is: in which component, below which module."""

    component: Component | None
    owner: str
    value: InnerValue

    @property
    def module(self) -> str:
        return ".".join(filter(None, (self.owner, self.value.module)))


class _Event(NamedTuple):
    """A module's argument, or what it put out."""

    module: str
    argument: int | str | None
    value: Any


def with_inner(anatomy: Anatomy, unet: nn.Module, arguments: Sequence[Tensor], *, text: Text | None = None) -> Anatomy:
    """An anatomy with the places inside its components, and those that all of them are given.

    Modules that run never in a call, or several times, give no place.

    Parameters
    ----------
    anatomy : Anatomy
    unet : torch.nn.Module
        Weights are neither read nor changed.
    arguments : sequence of Tensor
        Of its forward, for one row, on the meta device; the first is x_t, (1, channel, y, x).
    text : Text, optional
        Where the text is.
    """
    begin = anatomy.components[0].modules[0]
    found = [*_beside(unet, anatomy), *_inside(unet, anatomy)]
    twin, names = on_meta(unet), list(_names(found))
    owners = {one.owner: name.removesuffix(".heads") for one, name in zip(found, names, strict=True) if _gives(one)}
    with calls_of(twin, owners) as calls:
        events = _events(twin, {begin, *(one.module for one in found)}, arguments)
    first = next((at for at, event in enumerate(events) if event.module == begin), 0)
    image = tuple(arguments[0].shape[2:])
    when: dict[tuple[str, int | str | None], list[int]] = {}
    for number, event in enumerate(events):
        when.setdefault(event[:2], []).append(number)
    places = []
    for one, name in zip(found, names, strict=True):
        at = when.get((one.module, one.value.argument), [])
        # What all components are given is edited before any of them.
        if len(at) != 1 or (one.component is None and at[0] > first):
            continue
        place = _place(name, one, events[at[0]].value, image)
        places += [(at[0], place)] if place is not None else []
    told = [] if text is None else list(_told(text, arguments))
    ordered = [place for _, place in sorted(places, key=lambda pair: pair[0])]
    weights = _weights(unet, anatomy)
    return replace(anatomy, inner=(*told, *with_maps(ordered, owners, unet, twin, calls), *weights))


def _weights(unet: nn.Module, anatomy: Anatomy) -> Iterator[InnerPlace]:
    """Weights of the layers of components; those that several modules share are no place, as they are of none."""
    owners = Counter(id(one) for _, one in unet.named_parameters(remove_duplicate=False))
    for component in anatomy.components:
        apart = _apart(component.modules)
        for path in component.modules:
            for below, module in unet.get_submodule(path).named_modules():
                weight = module._parameters.get("weight")
                dims = (CHANNEL, INPUT, *((TAP_Y, TAP_X) if weight is not None and weight.ndim == 4 else ()))
                known = weight is not None and weight.ndim == len(dims) and weight.is_floating_point()
                if weight is None or not known or owners[id(weight)] > 1 or isinstance(module, _ODD):
                    continue
                yield InnerPlace(
                    name=".".join(filter(None, (component.name, WEIGHTS, apart[path], below))),
                    component=component.name,
                    module=".".join(filter(None, (path, below))),
                    dims=dims,
                    shape=tuple(weight.shape),
                    layout="",
                    weight="weight",
                )


def _apart(paths: Sequence[str]) -> dict[str, str]:
    """Paths without what they have in common; of one path nothing is left."""
    split = [path.split(".") for path in paths]
    same = next((at for at, parts in enumerate(zip(*split, strict=False)) if len({*parts}) > 1), len(split[0]))
    return {path: ".".join(parts[same:]) for path, parts in zip(paths, split, strict=True)}


def _inside(unet: nn.Module, anatomy: Anatomy) -> Iterator[_Found]:
    for component in anatomy.components:
        for path in component.modules:
            for below, module in unet.get_submodule(path).named_modules():
                owner = ".".join(filter(None, (path, below)))
                yield from (_Found(component, owner, value) for value in inner_values(module))


def _beside(unet: nn.Module, anatomy: Anatomy) -> Iterator[_Found]:
    within = tuple(f"{path}." for component in anatomy.components for path in component.modules)
    for path, _ in unet.named_modules():
        if path.rpartition(".")[2] in _EMBEDDINGS and not f"{path}.".startswith(within):
            yield _Found(None, path, InnerValue("time", "", "", f"{ROW} {CHANNEL}"))


def _names(found: Sequence[_Found]) -> Iterator[str]:
    """Component, group and value, with a number where a component has several such groups."""
    owners: dict[tuple[str, str], list[str]] = {}
    for one in found:
        several = owners.setdefault((_home(one), one.value.group), [])
        if one.owner not in several:
            several.append(one.owner)
    for one in found:
        several = owners[_home(one), one.value.group]
        number = str(several.index(one.owner)) if len(several) > 1 else ""
        yield ".".join(filter(None, (_home(one), one.value.group, number, one.value.what)))


def _gives(one: _Found) -> bool:
    return one.value.what == "heads" and one.component is not None


def _home(one: _Found) -> str:
    return one.component.name if one.component is not None else ""


def _events(twin: nn.Module, paths: Collection[str], arguments: Sequence[Tensor]) -> list[_Event]:
    """What modules were given and put out, in that order."""
    events: list[_Event] = []

    def watch(path: str) -> list[Any]:
        module = twin.get_submodule(path)
        return [
            module.register_forward_pre_hook(
                lambda _, given, named: events.extend(
                    _Event(path, where, value) for where, value in (*enumerate(given), *named.items())
                ),
                with_kwargs=True,
            ),
            module.register_forward_hook(lambda _, given, output: events.append(_Event(path, None, output))),
        ]

    handles = [handle for path in paths for handle in watch(path)]
    try:
        with torch.no_grad():
            twin(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    return events


def _place(name: str, one: _Found, value: Any, image: tuple[int, ...]) -> InnerPlace | None:
    """A value with its sizes; none if it is not of as many dimensions as is known of such modules."""
    spatial = one.component is not None and {Y, X} <= {*one.component.dims}
    layout = one.value.layout
    groups = [group.strip("()").split() for group in re.findall(r"\([^)]*\)|\S+", layout)]
    if not isinstance(value, Tensor) or value.ndim != len(groups):
        return None
    sizes: dict[str, int] = {HEAD: one.value.heads, PART: one.value.part[1] if one.value.part else 1}
    for group, size in zip(groups, value.shape, strict=True):
        if group == [PIXELS]:
            grid = _grid(size, image) if spatial else None
            layout = layout.replace(PIXELS, TOKEN if grid is None else f"({Y} {X})")
            sizes |= {TOKEN: size} if grid is None else dict(zip((Y, X), grid, strict=True))
        elif group != [ROW]:
            known = [dim for dim in group if dim in (HEAD, PART)]
            sizes |= {dim: size // math.prod(sizes[dim] for dim in known) for dim in group if dim not in known}
    dims = tuple(dim for dim in _ORDER if dim in layout.replace("(", " ").replace(")", " ").split())
    part = one.value.part
    return InnerPlace(
        name=name,
        component=_home(one),
        module=one.module,
        dims=dims,
        shape=tuple(sizes[dim] for dim in dims),
        layout=layout,
        argument=one.value.argument,
        part=None if part is None else (PART, *part),
        added=one.value.added,
    )


def _grid(tokens: int, image: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns of so many tokens of an image of that size."""
    height, width = image
    rows = round(math.sqrt(tokens * height / width))
    return (rows, tokens // rows) if rows and rows * (tokens // rows) == tokens else None


def _told(text: Text, arguments: Sequence[Tensor]) -> Iterator[InnerPlace]:
    """What all components are given of the text."""
    given = [("text", text.argument, text.layout)]
    given += [] if text.pooled is None else [("pooled", text.pooled, f"{ROW} {CHANNEL}")]
    for name, argument, layout in given:
        sizes = dict(zip(layout.split(), arguments[argument].shape, strict=True))
        dims = tuple(dim for dim in _ORDER if dim in sizes)
        shape = tuple(sizes[dim] for dim in dims)
        yield InnerPlace(name=name, component="", module="", dims=dims, shape=shape, layout=layout, argument=argument)
