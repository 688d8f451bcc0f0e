"""Logits and maps of attention from its queries and keys, and heads from maps and values: no module need hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from causalunet.design.inner import Attention, InnerPlace
from causalunet.dims import CHANNEL, X, Y

__all__ = ["attended", "disagreement", "logits_of"]


def logits_of(attention: Attention, values: Mapping[str, Tensor], owner: nn.Module) -> Tensor:
    """What a softmax makes maps of.

    Parameters
    ----------
    attention : Attention
    values : mapping of Tensor
        By place.
    owner : torch.nn.Module
        Of whose weights norms and memory are; it is not called.

    Returns
    -------
    Tensor, (row, head, query, token) or (row, head, y, x, token)
        At least of single precision.
    """
    names = attention.norms or ("",) * (1 + len(attention.keys))
    queries, *keys = (
        _normed(owner, name, _sequence(values[place.name], place))
        for name, place in zip(names, (attention.queries, *attention.keys), strict=True)
    )
    every = _joined(attention, keys, owner, 0, queries)
    logits = attention.scale * (queries @ every.transpose(-1, -2))
    if attention.mask is not None:
        logits = logits + values[attention.mask.name].to(logits)[:, None, None]
    sizes = [logits.shape[2]]
    if Y in attention.queries.dims:
        sizes = list(values[attention.queries.name].shape[-2:])
    return logits.unflatten(2, sizes)


def attended(attention: Attention, maps: Tensor, values: Mapping[str, Tensor], owner: nn.Module) -> Tensor:
    """What heads give that attend by such maps.

    Parameters
    ----------
    attention : Attention
    maps : Tensor, (row, head, query, token) or (row, head, y, x, token)
    values, owner
        As for `logits_of`.

    Returns
    -------
    Tensor, (row, ...)
        Of the dimensions of the heads.
    """
    parts = [_sequence(values[place.name], place) for place in attention.values]
    given = maps.flatten(2, -2)
    made = given @ _joined(attention, parts, owner, 1, given)
    dims = attention.heads.dims
    if Y not in dims:
        return made
    grid = maps.shape[2:-1] if maps.ndim == 5 else attention.heads.shape[-2:]
    return made.transpose(-1, -2).unflatten(-1, grid)


def disagreement(
    attention: Attention, logits: Tensor, values: Mapping[str, Tensor], owner: nn.Module, heads: Tensor
) -> float:
    """Largest difference, in parts of their size, between a module's heads and what follows from logits: of one row.

    Parameters
    ----------
    attention : Attention
    logits : Tensor
        From `logits_of`.
    values, owner
        As for `logits_of`.
    heads : Tensor, (row, ...)
        As the module has them.
    """
    first = {place.name: values[place.name][:1] for place in attention.values}
    made = attended(attention, logits[:1].softmax(dim=-1), first, owner)
    size = heads[:1].abs().max().float()
    return float((made.float() - heads[:1].float()).abs().max() / size.clamp(min=1e-12))


def _sequence(value: Tensor, place: InnerPlace) -> Tensor:
    """As (row, head, token, channel), of at least single precision."""
    last = value.movedim(1 + place.dims.index(CHANNEL), -1)
    return _precise(last.flatten(2, -2) if {Y, X} <= {*place.dims} else last)


def _precise(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def _normed(owner: nn.Module, name: str, value: Tensor) -> Tensor:
    if not name:
        return value
    norm: Any = owner.get_submodule(name)
    # Past its hooks, which belong to the module's own call.
    return _precise(type(norm).forward(norm, value))


def _joined(attention: Attention, parts: Sequence[Tensor], owner: nn.Module, which: int, like: Tensor) -> Tensor:
    """Keys (0) or values (1) of text, image and memory, one for each head that asks."""
    every = list(parts)
    if attention.memory:
        memory: Any = owner.get_parameter(attention.memory)
        every.insert(0, memory[which].to(every[0]).expand(len(every[0]), -1, -1, -1))
    joined = torch.cat(every, dim=2)
    times = like.shape[1] // joined.shape[1]
    return joined if times == 1 else joined.repeat_interleave(times, dim=1)
