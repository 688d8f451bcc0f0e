"""Hypothesis strategies for what strangers send: any JSON, valid JSON with something wrong in it, damaged bytes."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]

ODD_NUMBERS = [0, -1, 1.5, 10**18, -(10**18), 2**63, 10**400, float("nan"), float("inf"), True, False]
ODD_TEXTS = ["", ".", "..", "../x", "/etc/passwd", "\0", "\ud800", "a" * 300, "configuration", "name", "zstd", "string"]


def scalars() -> st.SearchStrategy[Any]:
    """JSON values that hold no others, with some that break careless readers."""
    odd = st.sampled_from([None, *ODD_NUMBERS, *ODD_TEXTS])
    return st.one_of(odd, st.integers(), st.floats(), st.text(max_size=20))


def values() -> st.SearchStrategy[Any]:
    """Any JSON."""
    keys = st.sampled_from(["name", "configuration", "window", "parts", "fill", "steps", "format"]) | st.text(
        max_size=5
    )
    return st.recursive(
        scalars(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
    )


def places(value: Any, path: Path = ()) -> list[Path]:
    """Where something stands in a JSON value, the whole of it left out."""
    entries: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    return [place for key, inner in entries for place in ((*path, key), *places(inner, (*path, key)))]


def at(value: Any, path: Path) -> Any:
    """What stands at a place."""
    for key in path:
        value = value[key]
    return value


def replaced(value: Any, path: Path, new: Any) -> Any:
    """A copy with something else at a place."""
    changed = copy.deepcopy(value)
    at(changed, path[:-1])[path[-1]] = new
    return changed


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with up to three things replaced, deleted, nested, repeated or added."""
    changed = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        known = places(changed)
        if not known:
            return draw(values())
        path = draw(st.sampled_from(known))
        owner, key, kind = at(changed, path[:-1]), path[-1], draw(st.sampled_from(_KINDS))
        if kind == "replace":
            owner[key] = draw(values())
        elif kind == "delete":
            del owner[key]
        elif kind == "nest":
            owner[key] = draw(st.sampled_from([lambda inner: [inner], lambda inner: {"name": inner}]))(owner[key])
        elif kind == "copy":
            owner[key] = copy.deepcopy(at(changed, draw(st.sampled_from(known))))
        elif kind == "grow" and isinstance(owner[key], int):
            owner[key] = owner[key] * draw(st.sampled_from([-1, 2, 1000, 10**9, 10**18]))
        elif kind == "add" and isinstance(owner, dict):
            owner[draw(st.text(max_size=8))] = draw(values())
        elif isinstance(owner, list):
            owner.insert(int(key), draw(values()))
    return changed


_KINDS = ["replace", "delete", "nest", "copy", "grow", "add"]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some were flipped, cut off, overwritten, taken out or added."""
    kind, position = draw(st.sampled_from(_DAMAGE)), draw(st.integers(0, max(len(content) - 1, 0)))
    changed = bytearray(content)
    if kind == "flip" and changed:
        changed[position] ^= 1 << draw(st.integers(0, 7))
    elif kind == "cut":
        del changed[position:]
    elif kind == "number":
        size = draw(st.sampled_from([4, 8]))
        number = draw(st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
        changed[position : position + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
    elif kind == "take out":
        del changed[position : position + draw(st.integers(1, 16))]
    elif kind == "add":
        changed[position:position] = draw(st.binary(min_size=1, max_size=100))
    else:
        changed = bytearray(draw(st.binary(max_size=200)))
    return bytes(changed)


_DAMAGE = ["flip", "cut", "number", "take out", "add", "replace"]
