"""EDM's networks: ``SongUNet`` and ``DhariwalUNet`` inside their preconditioning (Karras et al. 2022; NVlabs/edm)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.errors import ModelError
from causalunet.models.labels import label_reader
from causalunet.models.layouts.asked import Asked, Layout, anatomy_of
from causalunet.models.layouts.noise_levels import NoiseLevelModel, NoiseLevels, checked_sigmas, geometric
from causalunet.models.u_shape import Piece
from causalunet.prediction import Prediction
from causalunet.process import Process

__all__ = ["LAYOUT"]

_SIGMAS = (0.002, 80.0)
"""That its sampler takes, unless the network takes less."""
_SETTINGS = ("sigma_data", "beta_d", "beta_min", "M", "C_1", "C_2")
"""Of preconditionings, which no weights tell."""


def _is_unet(module: Any) -> bool:
    """Whether it has the two dictionaries of blocks."""
    return isinstance(getattr(module, "enc", None), nn.ModuleDict) and isinstance(
        getattr(module, "dec", None), nn.ModuleDict
    )


def _knows(module: nn.Module) -> bool:
    return _is_unet(module) or _is_unet(getattr(module, "model", None))


def _take_in(asked: Asked) -> NoiseLevelModel:
    network = asked.unet
    if _is_unet(network):
        raise ModelError(
            f"A {asked.kind} alone does not say how its input and output are scaled. Give what it was trained in, the "
            f"EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond whose model it is."
        )
    asked.refuse("it is told sigma and gives the image; say sigmas=.", "alpha_bar", "prediction", "rescale_timesteps")
    asked.refuse("it is told no text, and no variance is predicted.", "tokenize", "encode", "variance", "null_class")
    alpha_bar, sigmas = _levels(asked)
    count = int(network.label_dim) or None
    labels = label_reader(count, asked.classes)
    guidable = bool(count) and bool(getattr(network.model, "label_dropout", 0))
    unet = NoiseLevels(network.eval(), alpha_bar, _call)
    shape = (int(network.img_channels), *asked.size(int(network.img_resolution)))
    context = [torch.from_numpy(part) for part in labels(["0"] if count else [""])]
    anatomy = anatomy_of(unet, list(_pieces(network.model)), shape, context, asked.kind)
    settings = {name: float(getattr(network, name)) for name in _SETTINGS if hasattr(network, name)}
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
        whole_timesteps=hasattr(network, "u"),
        guidable=guidable,
        conditional=bool(count),
        settings={"preconditioning": asked.kind, **settings},
        sigmas=sigmas,
    )


def _levels(asked: Asked) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Share of signal variance of every timestep, and the sigmas that its samplers go between."""
    network = asked.unet
    usual = (max(_SIGMAS[0], float(network.sigma_min)), min(_SIGMAS[1], float(network.sigma_max)))
    sigmas = checked_sigmas(asked.sigmas, usual)
    if not float(network.sigma_min) <= sigmas[0] or not sigmas[1] <= float(network.sigma_max) * (1 + 1e-6):
        raise ModelError(
            f"sigmas={sigmas}: this {asked.kind} was made for {float(network.sigma_min):.4g} to "
            f"{float(network.sigma_max):.4g}."
        )
    if not hasattr(network, "u"):
        return geometric(sigmas), sigmas
    # Of iDDPM's a table, from the noisiest to the image: the network takes its rows, and nothing between them.
    table = network.u.detach().cpu().double().numpy()[-2::-1]
    return 1 / (1 + table**2), sigmas


def _call(network: Any, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    """One-hot classes; zeros stand for none, as its label dropout has it."""
    if not network.label_dim:
        return network(x, sigma)
    classes = torch.arange(network.label_dim, device=labels.device)
    return network(x, sigma, (labels[:, None] == classes).float())


def _pieces(unet: Any) -> Iterator[Piece]:
    """Components in the order in which they run.

    The first convolution and every residual block of the encoder begin a skip connection. What a network of kind
    ``"residual"`` or ``"skip"`` adds to a block is a component of its own, ``aux.i``: what goes on is the sum.
    """
    skips: list[tuple[str, ...]] = []
    path: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()  # what the image on the way down, beside the path, is made of
    downs = adds = 0
    pending: list[str] = []
    for name in unet.enc:
        at = f"network.model.enc.{name}"
        if "aux_down" in name:
            pending.append(at)  # a resampling of the image, which the next convolution is given
            continue
        if "aux" in name:
            piece = Piece(f"aux.{adds}", "block", (*pending, at), inputs=aside)
            path = skips[-1] = (*path, piece.name)
            adds, pending = adds + 1, []
            aside = path if "residual" in name else ()
        else:
            piece = Piece(f"down.{downs}", "encoder", (at,), inputs=path)
            path, downs = (piece.name,), downs + 1
            skips.append(path)
        yield piece
    yield from _decoder(unet, path, skips)


def _decoder(unet: Any, path: tuple[str, ...], skips: list[tuple[str, ...]]) -> Iterator[Piece]:
    """The bottleneck, blocks with a skip connection, and those between that enlarge."""
    names = [name for name in unet.dec if "aux" not in name]
    inner = tuple(f"network.model.dec.{name}" for name in names if "_in" in name)
    yield Piece("mid", "bottleneck", inner, inputs=path)
    several = sum("aux_norm" in name for name in unet.dec) > 1  # every level has an output of its own
    ups = grown = 0
    for number, name in enumerate(names):
        if "_in" in name:
            continue
        at = f"network.model.dec.{name}"
        if name.endswith("_up"):
            yield Piece(f"upsample.{grown}", "block", (at,))
            grown += 1
            continue
        last = number + 1 < len(names) and names[number + 1].endswith("_up")
        source = skips.pop()
        alone = source[0] if len(source) == 1 else ""
        beside = () if alone else source
        yield Piece(f"up.{ups}", "decoder", (at,), alone, beside=beside, ends=several and last)
        ups += 1


LAYOUT = Layout("EDMPrecond, VPPrecond, VEPrecond and iDDPMPrecond of NVlabs/edm", _knows, _take_in)
"""What knows EDM's networks."""
