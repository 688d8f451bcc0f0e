"""Values inside components: as they lie in tensors, and as edits see them, with a dimension for each meaning."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from causalunet.design.inner import InnerPlace
from causalunet.dims import ROW

__all__ = ["folded", "unfolded"]


def unfolded(tensor: Tensor, place: InnerPlace) -> Tensor:
    """A place's value of a module's tensor.

    Parameters
    ----------
    tensor : Tensor
        As the module has it, see `causalunet.design.inner.InnerPlace.layout`.
    place : InnerPlace

    Returns
    -------
    Tensor, (row, ...)
        Of the dimensions of the place.
    """
    value = rearrange(tensor, f"{place.layout} -> {_apart(place)}", **_sizes(place))
    return value if place.part is None else value[place.part[1]]


def folded(tensor: Tensor, place: InnerPlace, value: Tensor) -> Tensor:
    """A module's tensor with another value at a place; what lies beside it in the tensor is as it was.

    Parameters
    ----------
    tensor : Tensor
        It is not written into.
    place : InnerPlace
    value : Tensor, (row, ...)
        Of the dimensions of the place.
    """
    if place.part is not None:
        parts = rearrange(tensor, f"{place.layout} -> {_apart(place)}", **_sizes(place)).clone()
        parts[place.part[1]] = value
        value = parts
    return rearrange(value, f"{_apart(place)} -> {place.layout}", **_sizes(place))


def _apart(place: InnerPlace) -> str:
    return " ".join([*([place.part[0]] if place.part else []), ROW, *place.dims])


def _sizes(place: InnerPlace) -> dict[str, int]:
    sizes = dict(zip(place.dims, place.shape, strict=True))
    return sizes | ({place.part[0]: place.part[2]} if place.part else {})
