"""Reading the anatomy off transformers of diffusers: a stack of blocks, one after the other.

Joint blocks, of Stable Diffusion 3 and Flux, are given text and image and put out both: two streams that no edge tells
apart, since each block mixes them. Such a block is one component whose tensor is the text's tokens and then the
image's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Edge
from causalunet.errors import ModelError
from causalunet.models.components import Place, read_components, weights_of

__all__ = ["is_stack", "read_stack"]

_LAST = (("norm_out", "proj_out_2"), ("norm_out", "proj_out"))
_FIRST = ("x_embedder", "pos_embed")
_TEXT = "context_embedder"
_STREAMS = ("encoder_hidden_states", "hidden_states")
"""Keywords of text and image, which joint blocks put out in this order."""


def is_stack(network: nn.Module) -> bool:
    """Whether a network is a stack of transformer blocks."""
    return hasattr(network, "transformer_blocks")


def read_stack(unet: nn.Module, arguments: Sequence[Tensor], *, inside: str) -> Anatomy:
    """Describe a transformer as a graph: that of DiT, PixArt, Stable Diffusion 3 or Flux.

    Parameters
    ----------
    unet : torch.nn.Module
        Weights are neither read nor changed.
    arguments : sequence of Tensor
        Of its forward, for one row, on the meta device; the first is x_t, (1, channel, y, x).
    inside : str
        Path of the submodule that is diffusers' own.

    Returns
    -------
    Anatomy
        Components ``embedding``, ``block.i`` and ``output``, of (token, channel). Of joint blocks also
        ``text_embedding``, beside the first, and ``single.i``, after the others; text tokens are the first, and of the
        last block, from which no text goes on, there are none.

    Raises
    ------
    ModelError
        It has no output layers that are known, or what ran is not what was expected.
    """
    own, kind = unet.get_submodule(inside), type(unet.get_submodule(inside)).__name__
    last = next((paths for paths in _LAST if all(hasattr(own, path) for path in paths)), None)
    first = next((path for path in _FIRST if hasattr(own, path)), None)
    if last is None or first is None:
        raise ModelError(
            f"This {kind} has no {' nor '.join(_FIRST)}, or no output layers {' or '.join(map(' and '.join, _LAST))}."
        )
    blocks = list(_blocks(own))
    parts = [("embedding", (first,)), *blocks, ("output", last)]
    names = [name for name, _ in parts]
    edges = [Edge(*pair) for pair in itertools.pairwise([*names, "out"])]
    joint = hasattr(own, _TEXT)
    if joint:
        parts.insert(1, ("text_embedding", (_TEXT,)))
        edges.insert(1, Edge("text_embedding", blocks[0][0]))
    streams = dict.fromkeys((name for name, _ in blocks), _STREAMS) if joint else {}
    streams |= {blocks[-1][0]: ("", _STREAMS[1])} if joint else {}  # nothing reads the text that it may put out
    places = [
        Place(
            name,
            "block",
            names.index(name) if name in names else 0,
            tuple(f"{inside}.{path}" for path in paths),
            streams.get(name, ()),
        )
        for name, paths in parts
    ]
    components, flops = read_components(unet, places, arguments, owner=kind)
    return Anatomy(components, tuple(edges), flops, weights_of(unet))


def _blocks(own: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and path of every block, in the order in which they run."""
    for name, stack in (("block", "transformer_blocks"), ("single", "single_transformer_blocks")):
        for number in range(len(getattr(own, stack, ()))):
            yield f"{name}.{number}", (f"{stack}.{number}",)
