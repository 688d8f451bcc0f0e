"""The embedded model ``shapes-flow``: a transformer without skip connections, trained by flow matching."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Edge
from causalunet.design.words import Spelling
from causalunet.models.base import register
from causalunet.models.checkpoints import fingerprint, load_weights, read_weights
from causalunet.models.components import Place, read_components, weights_of
from causalunet.models.devices import usable_device
from causalunet.models.factor_reader import FactorReader, load_reader
from causalunet.models.flow_transformer import FLOW_CONFIG, FlowConfig, FlowTransformer
from causalunet.models.inner import Text, with_inner
from causalunet.models.pixels import InPixels, MayRead
from causalunet.models.vocabulary import tokenize
from causalunet.paths import given_path
from causalunet.prediction import Prediction
from causalunet.process import Process
from causalunet.schedule import straight_alpha_bar

if TYPE_CHECKING:  # pyright takes a cached property for none of a protocol's properties
    from builtins import property as cached_property
else:
    from functools import cached_property

__all__ = ["FlowModel", "OnTimesteps", "load_flow", "load_shapes_flow", "read_flow_anatomy"]

TIMESTEPS = 1000
"""Into which the way from image to noise is cut: timestep i is t = (i + 1) / 1000, and between them t is told too."""


class OnTimesteps(nn.Module):
    """A flow transformer that is asked at timesteps instead of t.

    Parameters
    ----------
    network : FlowTransformer
        In evaluation mode.
    """

    def __init__(self, network: FlowTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timesteps: Tensor, pooled: Tensor, sequence: Tensor) -> Tensor:
        """Predict the velocity, noise minus image, (row, channel, y, x).

        Parameters
        ----------
        x : Tensor, (row, channel, y, x)
            (1 - t) image + t noise.
        timesteps : Tensor, (row,)
        pooled, sequence : Tensor
            The two parts of a `TextEmbedding`.
        """
        velocity: Tensor = self.network(x, (timesteps + 1) / TIMESTEPS, pooled, sequence)
        return velocity


@dataclass(frozen=True, repr=False)
class FlowModel(MayRead, InPixels):
    """A pixel-space text-to-image model by flow matching. Estimates of x_0 are not clipped.

    Parameters
    ----------
    name : str
    unet : OnTimesteps
        The transformer; it is called so because studies call every network so.
    reader : FactorReader
        Tells what an image shows.
    """

    name: str
    unet: OnTimesteps
    reader: FactorReader

    prediction = Prediction("velocity")
    process = Process("straight")

    @property
    def clip(self) -> bool:
        """Not: the flow is followed as it is."""
        return False

    @property
    def alpha_bar(self) -> NDArray[np.float64]:
        """Share of signal variance on the straight path, (timestep,)."""
        return straight_alpha_bar(TIMESTEPS)

    @cached_property
    def anatomy(self) -> Anatomy:
        """Embedding of the patches, blocks, output."""
        return read_flow_anatomy(self.unet.network.config)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights."""
        return fingerprint(self.unet)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of an image."""
        config = self.unet.network.config
        return (config.channels, config.image_size, config.image_size)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that the vocabulary does not cover."""
        tokenize(prompts)

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What the text transformer is given: tokens and mask, both (prompt, token)."""
        return tokenize(prompts)

    def spelled(self, prompt: str) -> Sequence[Spelling]:
        """Which word of a prompt each token is."""
        return tokenize.spelled(prompt)

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Run the text transformer once for every prompt.

        Returns
        -------
        pooled : Tensor, (prompt, width)
        sequence : Tensor, (prompt, text width, context)
        """
        network = self.unet.network
        device = network.positional_embedding.device
        tokens, mask = (torch.from_numpy(part).to(device) for part in tokenize(prompts))
        with torch.inference_mode():
            return tuple(network.encode_text(tokens, mask))


@cache
def read_flow_anatomy(config: FlowConfig) -> Anatomy:
    """Describe a flow transformer as a graph: ``embedding``, ``block.0`` ..., ``output``, one after the other.

    Parameters
    ----------
    config : FlowConfig

    Returns
    -------
    Anatomy
        Outputs are (token, channel); those of ``output`` are the pixels of a patch, (token, pixel).
    """
    with torch.device("meta"):
        unet = OnTimesteps(FlowTransformer(config))
        row = (
            torch.empty(1, config.channels, config.image_size, config.image_size),
            torch.empty(1),
            torch.empty(1, config.width),
            torch.empty(1, config.text.width, config.text.context),
        )
    blocks = [(f"block.{index}", (f"network.blocks.{index}",)) for index in range(config.depth)]
    parts = [
        ("embedding", ("network.patch_embed",)),
        *blocks,
        ("output", ("network.out_norm", "network.out")),
    ]
    places = [Place(name, "block", depth, paths) for depth, (name, paths) in enumerate(parts)]
    (*others, output), flops = read_components(unet, places, row, owner="flow transformer")
    components = (*others, replace(output, dims=("token", "pixel"), input=None))
    edges = tuple(Edge(*pair) for pair in itertools.pairwise([*(name for name, _ in parts), "out"]))
    anatomy = Anatomy(components, edges, flops, weights_of(unet))
    return with_inner(anatomy, unet, row, text=Text(3, "row channel token", pooled=2))


def load_flow(path: Path | None = None, device: str = "cpu") -> FlowTransformer:
    """Load the transformer, ready to predict.

    Parameters
    ----------
    path : Path, optional
        Weights; by default those that ship with the package.
    device : str
        Where the transformer runs, such as ``cuda``.

    Raises
    ------
    CheckpointError
        The file is not a checkpoint of this architecture.
    ModelError
        The device is not there.
    """
    place = usable_device(device)
    network = FlowTransformer(FLOW_CONFIG)
    if path is not None:
        load_weights(network, read_weights(path), str(path))
    else:
        with as_file(files("causalunet") / "weights" / "shapes-flow.safetensors") as shipped:
            load_weights(network, read_weights(shipped), shipped.name)
    return network.to(place).eval().requires_grad_(False)


@register("shapes-flow")
def load_shapes_flow(checkpoint: str | Path | None = None, device: str = "cpu") -> FlowModel:
    """Load the embedded model of the world of ``shapes`` that was trained by flow matching.

    Parameters
    ----------
    checkpoint : path, optional
        Weights of the same architecture; by default those that ship with the package.
    device : str
        Where the transformer runs, such as ``cuda``.

    Raises
    ------
    CheckpointError
        The file is not a checkpoint of this architecture.
    ModelError
        The device is not there, or PyTorch cannot use it.
    """
    network = load_flow(None if checkpoint is None else given_path(checkpoint), device)
    return FlowModel("shapes-flow", OnTimesteps(network).eval().requires_grad_(False), load_reader())
