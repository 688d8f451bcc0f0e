"""What modules compute inside, told by their parts: U-Nets of many packages are made of the same few kinds of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from causalunet.dims import CHANNEL, HEAD, ROW, TOKEN, X, Y

__all__ = ["PART", "PIXELS", "InnerValue", "inner_values"]

PIXELS = "pixels"
"""In layouts: tokens of the image, which are ``(y x)`` in a component of pixels, and tokens in others."""
PART = "part"
"""In layouts: what tells values apart that a tensor holds side by side."""


class InnerValue(NamedTuple):
    """A value that a module computes inside.

    Attributes
    ----------
    group : str
        ``self``, ``cross`` or ``joint`` attention, ``mlp``, ``time``, ``gate``.
    what : str
        Of the group; empty for what it puts out.
    module : str
        Path below the module; empty for itself.
    layout : str
        As in `causalunet.design.inner.InnerPlace`, with `PIXELS`.
    argument : int or str, optional
        Position or keyword, of what a module is given.
    part : tuple of (int, int), optional
        Which of several values side by side, and how many there are.
    heads : int
        Number of heads, of values that have them.
    added : str
        As in `causalunet.design.inner.InnerPlace`.
    """

    group: str
    what: str
    module: str
    layout: str
    argument: int | str | None = None
    part: tuple[int, int] | None = None
    heads: int = 0
    added: str = ""


def inner_values(module: nn.Module) -> tuple[InnerValue, ...]:
    """What is known of a module's inside; nothing of most. EDM has attention and the time in one module.

    Parameters
    ----------
    module : torch.nn.Module
    """
    return tuple(value for known in _KNOWN for value in known(module))


def _has(module: nn.Module, *names: str) -> bool:
    return all(isinstance(getattr(module, name, None), nn.Module) for name in names)


def _number(module: Any, *names: str) -> int:
    return next((int(getattr(module, name)) for name in names if getattr(module, name, None)), 1)


def _openai_attention(module: Any) -> tuple[InnerValue, ...]:
    """Of OpenAI's packages, and of the embedded models: one convolution for queries, keys and values."""
    if not _has(module, "qkv", "proj_out"):
        return ()
    heads, group = _number(module, "heads", "num_heads"), "joint" if _has(module, "encoder_kv") else "self"
    # guided-diffusion has two orders, and names the newer one QKVAttention; the others have that of the older one
    order = type(getattr(module, "attention", None))
    parts_first = order.__name__ == "QKVAttention" and order.__module__.startswith("guided_diffusion")
    side = f"({PART} {HEAD} {CHANNEL})" if parts_first else f"({HEAD} {PART} {CHANNEL})"
    image, text = f"{ROW} {side} {PIXELS}", f"{ROW} {side} {TOKEN}"
    of_text = [("text_keys", 0), ("text_values", 1)] if group == "joint" else []
    return (
        *(
            InnerValue(group, what, "qkv", image, part=(number, 3), heads=heads)
            for number, what in enumerate(("queries", "keys", "values"))
        ),
        *(InnerValue(group, what, "encoder_kv", text, part=(number, 2), heads=heads) for what, number in of_text),
        InnerValue(group, "heads", "proj_out", f"{ROW} ({HEAD} {CHANNEL}) {PIXELS}", argument=0, heads=heads),
        InnerValue(group, "", "proj_out", f"{ROW} {CHANNEL} {PIXELS}"),
    )


def _pixel_attention(module: Any) -> tuple[InnerValue, ...]:
    """Of EDM, k-diffusion and lucidrains: convolutions on pixels, whose channels lie in an order of their own each."""
    if _has(module, "qkv", "proj") and hasattr(module, "num_heads"):
        paths, heads, order = ("qkv", "proj"), module.num_heads, f"{HEAD} {CHANNEL} {PART}"
    elif _has(module, "qkv_proj", "out_proj") and hasattr(module, "n_head"):
        paths, heads, order = ("qkv_proj", "out_proj"), module.n_head, f"{PART} {HEAD} {CHANNEL}"
    elif isinstance(getattr(module, "to_qkv", None), nn.Conv2d) and _has(module, "to_out") and hasattr(module, "heads"):
        paths, heads, order = ("to_qkv", "to_out"), module.heads, f"{PART} {HEAD} {CHANNEL}"
    else:
        return ()
    asked, projection = paths
    return (
        *(
            InnerValue("self", what, asked, f"{ROW} ({order}) {Y} {X}", part=(number, 3), heads=heads)
            for number, what in enumerate(("queries", "keys", "values"))
        ),
        InnerValue("self", "heads", projection, f"{ROW} ({HEAD} {CHANNEL}) {Y} {X}", argument=0, heads=heads),
        InnerValue("self", "", projection, f"{ROW} {CHANNEL} {Y} {X}"),
    )


def _own_self_attention(module: Any) -> tuple[InnerValue, ...]:
    if not _has(module, "c_qkv", "c_proj"):
        return ()
    side = f"{ROW} {PIXELS} ({HEAD} {PART} {CHANNEL})"
    return (
        *(
            InnerValue("self", what, "c_qkv", side, part=(number, 3), heads=module.heads)
            for number, what in enumerate(("queries", "keys", "values"))
        ),
        *_projected("self", "c_proj", module.heads),
    )


def _own_cross_attention(module: Any) -> tuple[InnerValue, ...]:
    if not _has(module, "query", "key_value", "projection"):
        return ()
    pair = f"{ROW} {TOKEN} ({PART} {HEAD} {CHANNEL})"
    return (
        InnerValue("cross", "queries", "query", f"{ROW} {PIXELS} ({HEAD} {CHANNEL})", heads=module.heads),
        InnerValue("cross", "keys", "key_value", pair, part=(0, 2), heads=module.heads),
        InnerValue("cross", "values", "key_value", pair, part=(1, 2), heads=module.heads),
        *_projected("cross", "projection", module.heads),
    )


def _diffusers_attention(module: Any) -> tuple[InnerValue, ...]:
    """Of diffusers, with projections of its own for queries, keys and values, or one for several."""
    if not (_has(module, "to_q", "to_k", "to_v") or _fused(module)) or not hasattr(module, "heads"):
        return ()
    heads, added = module.heads, _has(module, "add_k_proj", "add_v_proj")
    group = "joint" if added else "cross" if getattr(module, "is_cross_attention", False) else "self"
    asked = TOKEN if group == "cross" else PIXELS
    found = [*_asked(module, group, asked, heads)]
    if added:
        texts = [("text_queries", "add_q_proj"), ("text_keys", "add_k_proj"), ("text_values", "add_v_proj")]
        if getattr(module, "context_pre_only", None):  # of a last block: nothing reads what text asks for
            del texts[0]
        side = f"{ROW} {TOKEN} ({HEAD} {CHANNEL})"
        found += [InnerValue(group, what, path, side, heads=heads) for what, path in texts if _has(module, path)]
    if isinstance(getattr(module, "to_out", None), nn.ModuleList):
        found += _projected(group, "to_out.0", heads)
    if _has(module, "to_add_out"):
        found.append(
            InnerValue(group, "text_heads", "to_add_out", f"{ROW} {TOKEN} ({HEAD} {CHANNEL})", argument=0, heads=heads)
        )
    return tuple(found)


def _fused(module: Any) -> bool:
    return bool(getattr(module, "fused_projections", False)) and isinstance(
        getattr(module, "to_qkv", None) or getattr(module, "to_kv", None), nn.Linear
    )


def _asked(module: Any, group: str, asked: str, heads: int) -> tuple[InnerValue, ...]:
    """Queries of the image, and keys and values of what is asked."""

    def side(tokens: str, *, parts: bool = False) -> str:
        return f"{ROW} {tokens} ({f'{PART} ' if parts else ''}{HEAD} {CHANNEL})"

    if _fused(module):
        fused, count = ("to_qkv", 3) if _has(module, "to_qkv") and group == "self" else ("to_kv", 2)
        first = () if count == 3 else (InnerValue(group, "queries", "to_q", side(PIXELS), heads=heads),)
        names = ("queries", "keys", "values")[3 - count :]
        return first + tuple(
            InnerValue(group, what, fused, side(asked, parts=True), part=(number, count), heads=heads)
            for number, what in enumerate(names)
        )
    return (
        InnerValue(group, "queries", "to_q", side(PIXELS), heads=heads),
        InnerValue(group, "keys", "to_k", side(asked), heads=heads),
        InnerValue(group, "values", "to_v", side(asked), heads=heads),
    )


def _projected(group: str, path: str, heads: int) -> tuple[InnerValue, ...]:
    """What heads give, and what the projection behind them makes of it."""
    return (
        InnerValue(group, "heads", path, f"{ROW} {PIXELS} ({HEAD} {CHANNEL})", argument=0, heads=heads),
        InnerValue(group, "", path, f"{ROW} {PIXELS} {CHANNEL}"),
    )


def _mlp(module: Any) -> tuple[InnerValue, ...]:
    """Two layers: neurons are what the second is given."""
    if _has(module, "c_fc", "c_proj"):
        last = "c_proj"
    elif type(module).__name__ == "FeedForward" and _has(module, "net"):
        last = f"net.{max(i for i, one in enumerate(module.net) if isinstance(one, nn.Linear))}"
    else:
        return ()
    layout = f"{ROW} {PIXELS} {CHANNEL}"
    return (InnerValue("mlp", "neurons", last, layout, argument=0), InnerValue("mlp", "", last, layout))


def _time(module: Any) -> tuple[InnerValue, ...]:
    """Of residual blocks: what they are told of the time, and of what was added to it."""
    names = [name for name in ("emb_layers", "time_emb_proj", "affine") if _has(module, name)]
    return tuple(InnerValue("time", "", name, f"{ROW} {CHANNEL}") for name in names)


_GATES: dict[str, tuple[int, dict[str, int]]] = {
    "AdaLayerNormZero": (6, {"attention": 2, "mlp": 5}),
    "SD35AdaLayerNormZeroX": (9, {"attention": 2, "mlp": 5, "second_attention": 8}),
    "AdaLayerNormZeroSingle": (3, {"": 2}),
}
"""Of diffusers' norms: how many vectors the layer of the time gives, and which of them are gates."""
_BY_TABLE = {"attention": 2, "mlp": 5}
"""Gates among six vectors that all blocks are given, and to which each adds a table of its own."""


def _gates(module: Any) -> tuple[InnerValue, ...]:
    """Of blocks with adaLN-zero: the factors, one for each channel, of what attention and feed-forward add."""
    found = []
    for name, of_text in (("norm", ""), ("norm1", ""), ("norm1_context", "text_")):
        norm: Any = getattr(module, name, None)
        count, gates = _GATES.get(type(norm).__name__, (0, {}))
        if gates and _has(norm, "linear"):
            side = f"{ROW} ({PART} {CHANNEL})"
            found += [
                InnerValue("gate", f"{of_text}{what}", f"{name}.linear", side, part=(number, count))
                for what, number in gates.items()
            ]
    return tuple(found)


def _gates_by_table(module: Any) -> tuple[InnerValue, ...]:
    """Of PixArt's blocks and the embedded ones: one projection of the time for all, and a table in each."""
    if vars(module).get("norm_type") == "ada_norm_single" and hasattr(module, "scale_shift_table"):
        told: tuple[str, int | str, str] = ("scale_shift_table", "timestep", f"{ROW} ({PART} {CHANNEL})")
    elif isinstance(getattr(module, "table", None), nn.Parameter) and _has(module, "attention", "feed_forward"):
        told = ("table", 1, f"{ROW} {PART} {CHANNEL}")
    else:
        return ()
    table, argument, layout = told
    return tuple(
        InnerValue("gate", what, "", layout, argument=argument, part=(number, 6), added=table)
        for what, number in _BY_TABLE.items()
    )


_KNOWN = (
    _openai_attention,
    _pixel_attention,
    _own_self_attention,
    _own_cross_attention,
    _diffusers_attention,
    _mlp,
    _time,
    _gates,
    _gates_by_table,
)
