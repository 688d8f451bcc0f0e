"""Reading the anatomy off transformers of diffusers: a stack of blocks, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Edge
from causalunet.errors import ModelError
from causalunet.models.components import Place, read_components, weights_of

__all__ = ["is_stack", "read_stack"]

_LAST = (("norm_out", "proj_out_2"), ("norm_out", "proj_out"))


def is_stack(network: nn.Module) -> bool:
    """Whether a network is a stack of transformer blocks."""
    return hasattr(network, "transformer_blocks")


def read_stack(unet: nn.Module, arguments: Sequence[Tensor], *, inside: str) -> Anatomy:
    """Describe a ``DiTTransformer2DModel`` or ``PixArtTransformer2DModel`` as a graph.

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
        Components ``embedding``, ``block.i`` and ``output``, of (token, channel).

    Raises
    ------
    ModelError
        It has no output layers that are known, or what ran is not what was expected.
    """
    own, kind = unet.get_submodule(inside), type(unet.get_submodule(inside)).__name__
    last = next((paths for paths in _LAST if all(hasattr(own, path) for path in paths)), None)
    if last is None or not hasattr(own, "pos_embed"):
        raise ModelError(f"This {kind} has no pos_embed, or no output layers {' or '.join(map(' and '.join, _LAST))}.")
    count = len(own.transformer_blocks)  # type: ignore[arg-type]
    parts = [
        ("embedding", ("pos_embed",)),
        *((f"block.{number}", (f"transformer_blocks.{number}",)) for number in range(count)),
        ("output", last),
    ]
    places = [
        Place(name, "block", depth, tuple(f"{inside}.{path}" for path in paths))
        for depth, (name, paths) in enumerate(parts)
    ]
    components, flops = read_components(unet, places, arguments, owner=kind)
    edges = tuple(Edge(*pair) for pair in itertools.pairwise([*(name for name, _ in parts), "out"]))
    return Anatomy(components, edges, flops, weights_of(unet))
