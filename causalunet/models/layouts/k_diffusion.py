"""k-diffusion's ``Denoiser`` around an ``ImageDenoiserModelV1`` (crowsonkb/k-diffusion)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from causalunet.errors import ModelError
from causalunet.models.labels import label_reader
from causalunet.models.layouts.asked import Asked, Layout, anatomy_of
from causalunet.models.layouts.noise_levels import NoiseLevelModel, NoiseLevels, checked_sigmas, geometric
from causalunet.models.u_shape import Piece
from causalunet.prediction import Prediction
from causalunet.process import Process

__all__ = ["LAYOUT"]

_SIGMAS = (0.01, 80.0)
"""Of its configurations of models for images."""


def _is_unet(module: Any) -> bool:
    return hasattr(getattr(module, "u_net", None), "d_blocks") and hasattr(module.u_net, "u_blocks")


def _knows(module: nn.Module) -> bool:
    return _is_unet(module) or _is_unet(getattr(module, "inner_model", None))


def _take_in(asked: Asked) -> NoiseLevelModel:
    network = asked.unet
    if _is_unet(network):
        raise ModelError(
            f"A {asked.kind} alone does not say how its input and output are scaled. Give what it was trained in, the "
            "k_diffusion.Denoiser whose inner_model it is."
        )
    inner = network.inner_model
    told = [name for name in ("unet_cond_dim",) if getattr(inner, name, 0)]
    told += ["cross_cond_dim"] * any("CrossAttention" in type(part).__name__ for part in inner.modules())
    if told:
        raise ModelError(
            f"This {type(inner).__name__} is told more than x and sigma ({', '.join(told)}), which no study gives it. "
            "Say how it is called by from_network(..., call=)."
        )
    asked.refuse("it is told sigma and gives the image; say sigmas=.", "alpha_bar", "prediction", "rescale_timesteps")
    asked.refuse("it has no conditions, and no variance is predicted.", "tokenize", "encode", "variance", "null_class")
    sigmas = checked_sigmas(asked.sigmas, _SIGMAS)
    alpha_bar, labels = geometric(sigmas), label_reader(None, asked.classes)
    unet = NoiseLevels(network.eval(), alpha_bar, _call)
    shape = (int(inner.c_in), *asked.size())
    context = [torch.from_numpy(part) for part in labels([""])]
    anatomy = anatomy_of(unet, list(_pieces(inner.u_net)), shape, context, type(inner).__name__)
    return NoiseLevelModel(
        asked.name,
        unet,
        anatomy,
        shape,
        alpha_bar,
        labels,
        Prediction("x0"),
        Process("variance-exploding"),
        clip=bool(asked.clip),
        guidable=False,
        conditional=False,
        settings={"preconditioning": asked.kind, "sigma_data": float(network.sigma_data)},
        sigmas=sigmas,
    )


def _call(network: Any, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    return network(x, sigma.to(x.dtype))


def _pieces(unet: Any) -> Iterator[Piece]:
    """Residual blocks, each with its attention; the last of every level but the lowest begins a skip connection."""
    downs, ups, ends = itertools.count(), itertools.count(), list[str]()
    for level in range(unet.skip_stages, len(unet.d_blocks)):
        for paths in _residual(unet.d_blocks[level], f"network.inner_model.u_net.d_blocks.{level}"):
            yield (piece := Piece(f"down.{next(downs)}", "encoder", paths))
        ends.append(piece.name)
    for level in range(len(ends)):
        # the first is given the path alone, and what is not asked for is not there
        skip = ends[-1 - level] if level else ""
        for number, paths in enumerate(_residual(unet.u_blocks[level], f"network.inner_model.u_net.u_blocks.{level}")):
            yield Piece(f"up.{next(ups)}", "decoder", paths, "" if number else skip)


def _residual(block: Any, at: str) -> list[tuple[str, ...]]:
    """Paths of the modules of each; what comes before the first, or after the last, belongs to it."""
    groups: list[list[str]] = [[]]
    begun = False
    for number, module in enumerate(block):
        if "Res" in type(module).__name__:
            if begun:
                groups.append([])
            begun = True
        groups[-1].append(f"{at}.{number}")
    return [tuple(group) for group in groups]


LAYOUT = Layout("Denoiser around ImageDenoiserModelV1 of k-diffusion", _knows, _take_in)
"""What knows k-diffusion's networks."""
