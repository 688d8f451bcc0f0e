"""Logits and maps of attention as places: of attention whose heads follow from its queries, keys and values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from causalunet.design.inner import Attention, InnerPlace
from causalunet.dims import CHANNEL, HEAD, QUERY, ROW, TOKEN, X, Y
from causalunet.models.attention import disagreement, logits_of
from causalunet.models.folding import unfolded
from causalunet.models.modules import argument_of

__all__ = ["Call", "calls_of", "with_maps"]

_LIMIT = 1e-4
"""Of the largest number of the heads: by how much those that are computed may differ."""
_MASK = "attention_mask"
"""What diffusers calls that argument of attention."""
_KINDS: tuple[Literal["logits", "maps"], ...] = ("logits", "maps")


class Call(NamedTuple):
    """What a module was called with.

    Attributes
    ----------
    given : tuple
        By position.
    named : dict
        By keyword.
    """

    given: tuple[Any, ...]
    named: dict[str, Any]


def with_maps(
    places: Sequence[InnerPlace],
    owners: Mapping[str, str],
    unet: nn.Module,
    twin: nn.Module,
    calls: Mapping[str, Call],
) -> list[InnerPlace]:
    """Places, and before the heads of each attention its logits and maps, where they are known.

    They are known where the heads that follow from queries, keys and values are those of the module itself. That is
    tried on the module alone, with random weights and what it is given in a call, by random numbers: of modules that
    differ in nothing but sizes on the smallest.

    Parameters
    ----------
    places : sequence of InnerPlace
        In the order in which they are computed.
    owners : mapping of str to str
        By path of an attention's module what its places are called.
    unet : torch.nn.Module
        Weights are neither read nor changed.
    twin : torch.nn.Module
        The same on the meta device, of no use afterwards.
    calls : mapping of Call
        What its modules were called with, from `calls_of`.
    """
    by_name = {place.name: place for place in places}
    parts = {owner: there for owner, name in owners.items() if (there := _parts(by_name, name)) is not None}
    alike: dict[Any, list[str]] = {}
    for owner in sorted(parts.keys() & calls.keys(), key=lambda one: (_size(parts[one]), one)):
        alike.setdefault(_kind(unet.get_submodule(owner), calls[owner], parts[owner]), []).append(owner)
    found: dict[str, Attention] = {}
    for same in alike.values():
        module, own = twin.get_submodule(same[0]), unet.get_submodule(same[0])
        tried = _tried(own, same[0], owners[same[0]], parts[same[0]], calls[same[0]])
        right = _right(module, own, calls[same[0]], tried)
        for owner in same if right is not None else ():
            every = _tried(unet.get_submodule(owner), owner, owners[owner], parts[owner], calls[owner])
            found[parts[owner].heads.name] = list(every)[right]  # type: ignore[index]
    return [one for place in places for one in (*_made(found.get(place.name)), place)]


class _Parts(NamedTuple):
    queries: InnerPlace
    keys: tuple[InnerPlace, ...]
    values: tuple[InnerPlace, ...]
    heads: InnerPlace


def _parts(places: Mapping[str, InnerPlace], name: str) -> _Parts | None:
    """The places of one attention; those of the text are first."""
    queries, heads = places.get(f"{name}.queries"), places.get(f"{name}.heads")
    keys, values = (
        tuple(places[one] for one in (f"{name}.text_{what}", f"{name}.{what}") if one in places)
        for what in ("keys", "values")
    )
    if queries is None or heads is None or not keys or len(keys) != len(values):
        return None
    return _Parts(queries, keys, values, heads)


def _tokens(parts: _Parts) -> int:
    of_keys = (zip(key.dims, key.shape, strict=True) for key in parts.keys)
    return sum(math.prod(size for dim, size in one if dim not in (HEAD, CHANNEL)) for one in of_keys)


def _size(parts: _Parts) -> int:
    return math.prod(parts.queries.shape) * _tokens(parts)


@contextmanager
def calls_of(twin: nn.Module, paths: Collection[str]) -> Iterator[dict[str, Call]]:
    """What modules are called with first while the context lasts, by path.

    Parameters
    ----------
    twin : torch.nn.Module
    paths : collection of str
        Of its modules.
    """
    calls: dict[str, Call] = {}

    def watch(path: str) -> Any:
        def note(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            calls.setdefault(path, Call(given, named))

        return twin.get_submodule(path).register_forward_pre_hook(note, with_kwargs=True)

    with ExitStack() as hooks:
        for path in paths:
            hooks.callback(watch(path).remove)
        yield calls


def _kind(module: nn.Module, call: Call, parts: _Parts) -> Any:
    """What attention modules have to have in common to be one kind: all but sizes."""
    plain = {key: value for key, value in vars(module).items() if isinstance(value, bool | str) or value is None}
    classes = tuple((name, type(one)) for name, one in module.named_modules())
    processor = type(getattr(module, "processor", None))
    said = tuple(sorted(name for name, value in call.named.items() if value is not None))
    form = tuple(place.layout for place in (parts.queries, *parts.keys, *parts.values, parts.heads))
    return type(module), classes, processor, tuple(sorted(plain.items(), key=str)), said, len(call.given), form


def _tried(module: Any, owner: str, name: str, parts: _Parts, call: Call) -> Iterator[Attention]:
    """What the attention may be: it goes by its own scale, or by that of its channels, or by none."""
    mask = call.named.get(_MASK)
    if mask is not None and not (isinstance(mask, Tensor) and mask.is_floating_point() and mask.ndim == 3):
        return
    of_keys = ("norm_added_k", "norm_k") if len(parts.keys) > 1 else ("norm_k",)
    norms = tuple(norm if _has(module, norm) else "" for norm in ("norm_q", *of_keys))
    scale = getattr(module, "scale", None)
    channels = dict(zip(parts.queries.dims, parts.queries.shape, strict=True))[CHANNEL]
    own = [float(scale)] if isinstance(scale, float | int) and not isinstance(scale, bool) else [1.0]
    for by in (channels**-0.5, *own, 1.0):
        yield Attention(
            what="maps",
            name=name,
            owner=owner,
            queries=parts.queries,
            keys=parts.keys,
            values=parts.values,
            heads=parts.heads,
            scale=by,
            norms=norms if any(norms) else (),
            mask=None if mask is None else _mask(name, owner, parts, mask.shape[-1]),
            memory="mem_kv" if isinstance(getattr(module, "mem_kv", None), nn.Parameter) else "",
        )


def _has(module: Any, name: str) -> bool:
    return isinstance(getattr(module, name, None), nn.Module)


def _mask(name: str, owner: str, parts: _Parts, tokens: int) -> InnerPlace:
    return InnerPlace(
        name=f"{name}.mask",
        component=parts.heads.component,
        module=owner,
        dims=(TOKEN,),
        shape=(tokens,),
        layout=f"{ROW} 1 {TOKEN}",
        argument=_MASK,
    )


def _right(twin: nn.Module, own: nn.Module, call: Call, tried: Iterator[Attention]) -> int | None:
    """Which of the attentions a module is; None if none, or if it cannot be run alone."""
    forms = list(tried)
    if not forms:
        return None
    numbers = torch.Generator().manual_seed(0)
    # whatever a foreign forward makes of being called alone
    try:
        module = _with_numbers(twin, own, numbers)
        values = _values(module, call, forms[0], numbers)
        heads = values[forms[0].heads.name]
        for number, form in enumerate(forms):
            logits = logits_of(form, values, module)
            if float(heads.abs().max()) and disagreement(form, logits, values, module, heads) < _LIMIT:
                return number
    except Exception:
        return None
    return None


def _with_numbers(twin: nn.Module, own: nn.Module, numbers: torch.Generator) -> nn.Module:
    """A module with random weights, of a size at which attention is neither even nor all on one."""
    module = twin.to_empty(device="cpu").float().eval()
    buffers = dict(own.named_buffers())
    for weight in module.parameters():
        weight.data.copy_(_random(weight.data, numbers) * max(1, weight[0].numel() if weight.ndim else 1) ** -0.5)
    for name, buffer in module.named_buffers():
        given = buffers[name]
        buffer.copy_(_random(buffer, numbers) if given.is_meta else given.cpu())
    return module


def _random(like: Tensor, numbers: torch.Generator) -> Tensor:
    if not like.is_floating_point():
        return torch.ones(like.shape, dtype=like.dtype)
    return torch.randn(like.shape, generator=numbers)


def _materialised(value: Any, numbers: torch.Generator) -> Any:
    if isinstance(value, Tensor):
        return _random(value, numbers)
    if isinstance(value, dict):
        return {key: _materialised(part, numbers) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_materialised(part, numbers) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _values(module: nn.Module, call: Call, attention: Attention, numbers: torch.Generator) -> dict[str, Tensor]:
    """What is at the places of an attention in a call of its module alone."""
    values: dict[str, Tensor] = {}
    before = f"{attention.owner}." if attention.owner else ""

    def watch(place: InnerPlace) -> Any:
        path = "" if place.module == attention.owner else place.module.removeprefix(before)
        where, there = place.argument, module.get_submodule(path)
        if where is None:
            return there.register_forward_hook(
                lambda _, given, output: values.__setitem__(place.name, unfolded(output, place).clone())
            )
        return there.register_forward_pre_hook(
            lambda _, given, named: values.__setitem__(
                place.name, unfolded(argument_of(where, given, named), place).clone()
            ),
            with_kwargs=True,
        )

    with ExitStack() as hooks, torch.no_grad():
        for place in (*attention.sources, attention.heads):
            hooks.callback(watch(place).remove)
        given, named = _materialised(call.given, numbers), _materialised(call.named, numbers)
        module(*given, **named)
    return values


def _made(attention: Attention | None) -> Iterator[InnerPlace]:
    if attention is None:
        return
    queries = dict(zip(attention.queries.dims, attention.queries.shape, strict=True))
    pixels = {Y, X} <= queries.keys()
    asking = (Y, X) if pixels else (QUERY,)
    sizes = [queries[Y], queries[X]] if pixels else [queries[TOKEN]]
    parts = _Parts(attention.queries, attention.keys, attention.values, attention.heads)
    for what in _KINDS:
        yield InnerPlace(
            name=f"{attention.name}.{what}",
            component=attention.heads.component,
            module=attention.heads.module,
            dims=(HEAD, *asking, TOKEN),
            shape=(queries[HEAD], *sizes, _tokens(parts)),
            layout=" ".join((ROW, HEAD, *asking, TOKEN)),
            argument=attention.heads.argument,
            attention=replace(attention, what=what),
        )
