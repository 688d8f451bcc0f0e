"""Components of a network that says where they are: order, shapes and costs, read off one call."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from causalunet.design.anatomy import Component, Role
from causalunet.dims import CHANNEL, X, Y
from causalunet.errors import ModelError
from causalunet.models.measured import Measured, input_of, measure, on_meta
from causalunet.models.modules import part_of

__all__ = ["Place", "read_components", "weights_of"]

_DIMS = {3: (CHANNEL, Y, X), 2: ("token", CHANNEL)}
"""By their number, of what components put out."""


class Place(NamedTuple):
    """A component, before it is measured.

    Attributes
    ----------
    name : str
    role : {"encoder", "bottleneck", "decoder", "block"}
    depth : int
        Blocks between it and the top of the U, or before it.
    paths : tuple of str
        Of its modules, in the order in which they run.
    joint : tuple of str
        Of a block of several streams: keywords of those that it is given, in the order in which it puts them out; empty
        for one that goes nowhere.
    """

    name: str
    role: Role
    depth: int
    paths: tuple[str, ...]
    joint: tuple[str, ...] = ()


def read_components(
    unet: nn.Module,
    places: Sequence[Place],
    arguments: Sequence[Tensor],
    *,
    owner: str,
    dims: Mapping[int, tuple[str, ...]] | None = None,
) -> tuple[tuple[Component, ...], int]:
    """Call a network on the meta device, and say what its components put out.

    Parameters
    ----------
    unet : torch.nn.Module
        Weights are neither read nor changed.
    places : sequence of Place
        In the order in which they run.
    arguments : sequence of Tensor
        Of its forward, for one row, on the meta device; the first is x_t, (1, channel, y, x).
    owner : str
        What errors call the network.
    dims : mapping, optional
        Names of the dimensions of what components put out, by how many there are; by default images have three and
        tokens two.

    Returns
    -------
    components : tuple of Component
    flops : int
        Of the whole call.

    Raises
    ------
    ModelError
        Modules did not run once each in that order, or a component puts out no tensor.
    """
    paths = [path for place in places for path in place.paths]
    seen = measure(on_meta(unet), paths, arguments)
    if seen.ran != paths:
        ran, listed = next(pair for pair in itertools.zip_longest(seen.ran, paths) if pair[0] != pair[1])
        raise ModelError(
            f"Modules of this {owner} did not run once each in the expected order: {ran or 'nothing'} ran where "
            f"{listed or 'nothing'} was expected."
        )
    width = arguments[0].shape[-1]
    names = _DIMS if dims is None else dims
    return tuple(_component(place, seen, unet, width, names) for place in places), seen.total


def _component(
    place: Place, seen: Measured, unet: nn.Module, width: int, names: Mapping[int, tuple[str, ...]]
) -> Component:
    whole: Any = seen.outputs[place.paths[-1]]
    output: int | tuple[int, ...] | None = 0 if isinstance(whole, tuple | list) else None
    entrance: int | str | tuple[int | str, ...] | None = None
    if place.joint:
        output, entrance = _of_streams(place.joint, whole)
    value = part_of(whole, output)
    if not isinstance(value, Tensor):
        raise ModelError(f"{place.name} puts out a {type(value).__name__}; a component puts out a tensor.")
    shape = tuple(value.shape[1:])
    dims = names.get(len(shape), tuple(f"axis_{axis}" for axis in range(len(shape))))
    return Component(
        name=place.name,
        role=place.role,
        level=max(0, round(width / max(1, shape[-1])).bit_length() - 1) if X in dims else 0,
        depth=place.depth,
        shape=shape,
        dims=dims,
        flops=sum(seen.flops[path] for path in place.paths),
        parameters=sum(weights_of(unet.get_submodule(path)) for path in place.paths),
        module=place.paths if len(place.paths) > 1 else place.paths[0],
        output=output,
        input=entrance or input_of(seen.inputs[place.paths[0]], value),
    )


def _of_streams(keywords: Sequence[str], whole: Any) -> tuple[int | tuple[int, ...], str | tuple[str, ...]]:
    """Places of the streams that go on, in what is put out, and keywords of what they change."""
    places = tuple(place for place, keyword in enumerate(keywords) if keyword and isinstance(whole[place], Tensor))
    names = tuple(keywords[place] for place in places)
    return (places, names) if len(places) > 1 else (places[0], names[0])


def weights_of(module: nn.Module) -> int:
    """Number of weights."""
    return sum(value.numel() for value in module.parameters())
