"""Reading the anatomy off U-Nets of diffusers: one component for each residual block with its attention.

Their blocks join skip connections in their own forward, ``torch.cat([path, skip], dim=1)``, and hand the result to the
residual block: the skip connection is the last channels of its first argument.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy
from causalunet.errors import ModelError
from causalunet.models.u_shape import Piece, u_anatomy

__all__ = ["read_anatomy", "unet_pieces"]

_PARTS = ("resnets", "attentions", "downsamplers", "upsamplers")
"""Lists of modules that a block may be made of."""


def read_anatomy(unet: nn.Module, arguments: Sequence[Tensor], *, inside: str) -> Anatomy:
    """Describe a ``UNet2DModel`` or ``UNet2DConditionModel`` as a graph.

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
        Components ``down.i`` from the top: the first convolution, the residual blocks of the encoder, each with the
        attention after it, and its downsamplers; ``mid``; ``up.i`` from the bottom, the residual blocks of the
        decoder; and ``upsample.i`` between them. Every ``down.i`` begins a skip connection, 12 in Stable Diffusion 1.5.

    Raises
    ------
    ModelError
        A block is of a kind that is not known here, or what ran is not what was expected.
    """
    own = unet.get_submodule(inside)
    return u_anatomy(unet, list(unet_pieces(own, f"{inside}.")), arguments, owner=type(own).__name__)


def unet_pieces(unet: Any, prefix: str) -> Iterator[Piece]:
    """Components of such a network in the order in which they run.

    Parameters
    ----------
    unet : torch.nn.Module
        Of diffusers.
    prefix : str
        Of the paths of its modules.

    Raises
    ------
    ModelError
        A block is of a kind that is not known here.
    """
    skips = itertools.count()

    def down(*paths: str) -> Piece:
        return Piece(f"down.{next(skips)}", "encoder", tuple(prefix + path for path in paths))

    yield down("conv_in")
    for number, block in enumerate(unet.down_blocks):
        _check_block(block)
        at = f"down_blocks.{number}"
        for paths in _residual(block, at):
            yield down(*paths)
        # several downsamplers, of which there are none in diffusers' own, would leave one skip connection
        if block.downsamplers is not None:
            yield down(*(f"{at}.downsamplers.{i}" for i in range(len(block.downsamplers))))
    if unet.mid_block is not None:
        yield Piece("mid", "bottleneck", (f"{prefix}mid_block",))
    left, ups, upsamplers = next(skips), itertools.count(), itertools.count()
    for number, block in enumerate(unet.up_blocks):
        _check_block(block)
        at = f"up_blocks.{number}"
        for paths in _residual(block, at):
            left -= 1
            yield Piece(f"up.{next(ups)}", "decoder", tuple(prefix + path for path in paths), f"down.{left}")
        if block.upsamplers is not None:
            some = tuple(f"{prefix}{at}.upsamplers.{i}" for i in range(len(block.upsamplers)))
            yield Piece(f"upsample.{next(upsamplers)}", "block", some)


def _residual(block: Any, at: str) -> Iterator[tuple[str, ...]]:
    """Paths of every residual block, with that of the attention after it."""
    attentions = getattr(block, "attentions", ())
    for i in range(len(block.resnets)):
        of_attention = (f"{at}.attentions.{i}",) if i < len(attentions) else ()
        yield (f"{at}.resnets.{i}", *of_attention)


def _check_block(block: Any) -> None:
    children = {name for name, _ in block.named_children()}
    attentions = getattr(block, "attentions", ())
    if not hasattr(block, "resnets") or children - {*_PARTS} or hasattr(block, "skip_conv") or None in attentions:
        odd = ", ".join(sorted(children - {*_PARTS})) or "blocks without attention among those with"
        raise ModelError(
            f"A block of this U-Net is a {type(block).__name__}, which has {odd}. Blocks that are known are made of "
            f"{', '.join(_PARTS)}, such as DownBlock2D, CrossAttnDownBlock2D and AttnUpBlock2D. Write an adapter for "
            "this U-Net, see causalunet.models.register."
        )
