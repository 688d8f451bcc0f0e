"""lucidrains' ``Unet``, alone or in its ``GaussianDiffusion`` (denoising_diffusion_pytorch)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from causalunet.errors import ModelError
from causalunet.models.labels import label_reader
from causalunet.models.layouts.asked import Asked, Layout, anatomy_of, checked_shares
from causalunet.models.networks import NetworkModel
from causalunet.models.u_shape import Piece

__all__ = ["LAYOUT"]

_PARTS = (
    "init_conv",
    "time_mlp",
    "downs",
    "mid_block1",
    "mid_attn",
    "mid_block2",
    "ups",
    "final_res_block",
    "final_conv",
)
_OBJECTIVES = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}


class _Joined(nn.Module):
    """The network's own modules in the order of its forward, which adds attention to its input between them.

    What is added goes on over a skip connection, and is the output of no module: here it is that of a joint, which
    does nothing else.

    Parameters
    ----------
    network : torch.nn.Module
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.joints = nn.ModuleList(nn.Identity() for _ in network.downs)

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """What it predicts, (row, channel, y, x)."""
        net = self.network
        x = top = net.init_conv(x)
        told, skips = net.time_mlp(timesteps), []
        for (first, second, attend, shrink), joint in zip(net.downs, self.joints, strict=True):
            x = first(x, told)
            skips.append(x)
            x = second(x, told)
            x = joint(attend(x) + x)
            skips.append(x)
            x = shrink(x)
        x = net.mid_block1(x, told)
        x = net.mid_block2(net.mid_attn(x) + x, told)
        for first, second, attend, grow in net.ups:
            x = first(torch.cat((x, skips.pop()), dim=1), told)
            x = second(torch.cat((x, skips.pop()), dim=1), told)
            x = grow(attend(x) + x)
        predicted: Tensor = net.final_conv(net.final_res_block(torch.cat((x, top), dim=1), told))
        return predicted


def _is_unet(module: Any) -> bool:
    return all(hasattr(module, part) for part in _PARTS)


def _knows(module: nn.Module) -> bool:
    return _is_unet(module) or (_is_unet(getattr(module, "model", None)) and hasattr(module, "objective"))


def _take_in(asked: Asked) -> NetworkModel:
    around, network = (None, asked.unet) if _is_unet(asked.unet) else (asked.unet, asked.unet.model)
    kind = type(network).__name__
    if hasattr(network, "classes_emb") or getattr(network, "self_condition", False):
        what = "classes" if hasattr(network, "classes_emb") else "its own last estimate (self_condition)"
        raise ModelError(
            f"This {kind} is also told {what}, which is not known how to give it here. Say how it is called by "
            "from_network(..., call=), with its blocks as parts."
        )
    asked.refuse("it is told no sigma and no text.", "sigmas", "tokenize", "encode", "variance", "rescale_timesteps")
    asked.refuse("it has no classes.", "null_class")
    channels, outputs = int(network.channels), int(network.out_dim)
    prediction = asked.predicted(None if around is None else _OBJECTIVES[around.objective])
    if outputs != prediction.channels(channels):
        raise ModelError(
            f"This {kind} takes {channels} channels and gives {outputs}; {prediction} would be "
            f"{prediction.channels(channels)}. With learned variance give prediction=Prediction('eps', variance=True)."
        )
    if around is None:
        shares = asked.shares()
    else:
        asked.refuse("its own is taken.", "alpha_bar")
        shares = checked_shares(around.alphas_cumprod.detach().cpu().double().numpy())
    height, width = asked.size(None if around is None else around.image_size)
    if height % network.downsample_factor or width % network.downsample_factor:
        raise ModelError(
            f"image_size={(height, width)}: this {kind} halves images {len(network.downs) - 1} times; give multiples "
            f"of {network.downsample_factor}."
        )
    unet, labels = _Joined(network.eval()), label_reader(None, asked.classes)
    shape = (channels, height, width)
    context = [torch.from_numpy(part) for part in labels([""])]
    anatomy = anatomy_of(unet, list(_pieces(network)), shape, context, kind)
    clip = True if asked.clip is None else asked.clip
    return NetworkModel(
        asked.name, unet, anatomy, shape, shares, labels, prediction, clip=clip, guidable=False, conditional=False
    )


def _pieces(network: Any) -> Iterator[Piece]:
    """The first convolution and every residual block, with the attention and the change of size after or before it."""

    def down(number: int, *paths: str) -> Piece:
        return Piece(f"down.{number}", "encoder", paths)

    yield down(0, "network.init_conv")
    shrunk: tuple[str, ...] = ()
    for level in range(len(network.downs)):
        at = f"network.downs.{level}"
        yield down(2 * level + 1, *shrunk, f"{at}.0")
        yield down(2 * level + 2, f"{at}.1", f"{at}.2", f"joints.{level}")
        shrunk = (f"{at}.3",)
    yield Piece("mid", "bottleneck", (*shrunk, "network.mid_block1", "network.mid_attn", "network.mid_block2"))
    left = 2 * len(network.downs)
    for level in range(len(network.ups)):
        at = f"network.ups.{level}"
        yield Piece(f"up.{2 * level}", "decoder", (f"{at}.0",), f"down.{left}")
        yield Piece(f"up.{2 * level + 1}", "decoder", (f"{at}.1", f"{at}.2", f"{at}.3"), f"down.{left - 1}")
        left -= 2
    yield Piece(f"up.{2 * len(network.ups)}", "decoder", ("network.final_res_block",), "down.0")


LAYOUT = Layout("Unet and GaussianDiffusion of denoising_diffusion_pytorch", _knows, _take_in)
"""What knows lucidrains' networks."""
