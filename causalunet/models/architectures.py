"""The architectures that the package knows, whether or not their weights are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch

from causalunet.calls import clear_calls
from causalunet.design.anatomy import Anatomy
from causalunet.models.flow_transformer import FLOW_CONFIG
from causalunet.models.glide import GLIDE_CONFIG
from causalunet.models.latent_diffusion import LATENT_SHAPE, TEXT_SHAPE, build_unet
from causalunet.models.openai_anatomy import read_anatomy
from causalunet.models.openai_layout import TextUNet, UNetConfig
from causalunet.models.pipelines.anatomy import read_anatomy as read_conditional
from causalunet.models.pipelines.networks import PromptedNetwork
from causalunet.models.scenes import SCENES_CONFIG
from causalunet.models.shapes import SHAPES_CONFIG
from causalunet.models.shapes_flow import read_flow_anatomy
from causalunet.scenes import IMAGE_SIZE

__all__ = ["Architecture", "architectures"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Architecture:
    """A known U-Net, or another network.

    Parameters
    ----------
    name : str
    image_size : int
        Pixels.
    anatomy : Anatomy
        Read off the network, built without weights.
    weights : str
        Where weights come from.
    """

    name: str
    image_size: int
    anatomy: Anatomy
    weights: str


def architectures() -> tuple[Architecture, ...]:
    """Describe every known architecture; allocates no weights.

    ``shapes-latent`` is made of parts of diffusers and transformers, and left out where one of them is not installed.
    """
    own, flow = "in the package", FLOW_CONFIG
    there = all(find_spec(name) for name in ("diffusers", "transformers"))
    latent = (Architecture("shapes-latent", IMAGE_SIZE, _of_latents(), own),) if there else ()
    return (
        _describe("shapes", SHAPES_CONFIG, own),
        Architecture("shapes-flow", flow.image_size, read_flow_anatomy(flow), own),
        *latent,
        _describe("scenes", SCENES_CONFIG, own),
        _describe("glide", GLIDE_CONFIG, "official base.pt, by its path or by the extra glide"),
    )


def _describe(name: str, config: UNetConfig, weights: str) -> Architecture:
    with torch.device("meta"):
        unet = TextUNet(config)
    return Architecture(name, config.image_size, read_anatomy(unet), weights)


def _of_latents() -> Anatomy:
    with torch.device("meta"):
        unet = PromptedNetwork(build_unet())
        given = torch.empty(1, *LATENT_SHAPE), torch.empty(1), torch.empty(1, *TEXT_SHAPE)
    return read_conditional(unet, given, inside="unet")
