"""Networks of diffusers by themselves: ``UNet2DModel``, ``UNet2DConditionModel`` and ``UNet1DModel``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.dims import CHANNEL, X
from causalunet.errors import ModelError
from causalunet.models.checking import check_values
from causalunet.models.inner import Text
from causalunet.models.labels import Prepare, label_reader
from causalunet.models.layouts.asked import Asked, Layout, anatomy_of
from causalunet.models.networks import NetworkModel
from causalunet.models.pipelines.anatomy import unet_pieces
from causalunet.models.pipelines.networks import LabelledNetwork, Network, PromptedNetwork
from causalunet.models.pipelines.refusals import check_network
from causalunet.models.u_shape import Piece

__all__ = ["LAYOUT"]

_STRIP = 16
"""Rows of pixels that a sequence is shown in."""


class _Sequences(Network):
    """A network of sequences, called with images of one row: ``UNet1DModel``."""

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict for rows, (row, channel, 1, x)."""
        output: Tensor = self.unet(self.cast(x[:, :, 0]), timesteps, return_dict=False)[0]
        return output.float()[:, :, None]


@dataclass(frozen=True, eq=False)
class _OfSequences(NetworkModel):
    """A model of sequences; as pictures these are strips, every row of which is the sequence."""

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of a strip."""
        return self.image_shape[0], _STRIP, self.image_shape[2]

    def decode(self, x0: Tensor) -> NDArray[np.float32]:
        """Strips in [0, 1], (sample, channel, y, x)."""
        return np.repeat(super().decode(x0), _STRIP, axis=2)


def _knows(module: nn.Module) -> bool:
    return type(module).__module__.startswith("diffusers.") and hasattr(module, "down_blocks")


def _take_in(asked: Asked) -> NetworkModel:
    network = asked.unet
    asked.refuse("say alpha_bar= and prediction=.", "sigmas", "tokenize", "variance", "rescale_timesteps")
    check_values(network, f"this {asked.kind}")
    if asked.kind == "UNet1DModel":
        return _of_sequences(asked)
    if asked.kind not in ("UNet2DModel", "UNet2DConditionModel"):
        raise ModelError(
            f"A {asked.kind} by itself is not known; UNet2DModel, UNet2DConditionModel and UNet1DModel are. Give it in "
            "a pipeline, from_pipeline(pipe), or say where its blocks are, from_network(...)."
        )
    check_network(network)
    prediction = asked.predicted()
    shape = (int(network.config.in_channels), *asked.size(network.config.sample_size))
    prompted = asked.kind == "UNet2DConditionModel"
    prepare = _states(asked) if prompted else _labels(asked)
    unet = PromptedNetwork(network.eval()) if prompted else LabelledNetwork(network.eval())
    classes = not prompted and network.config.num_class_embeds is not None
    context = [torch.from_numpy(part) for part in prepare(["0"] if classes and asked.null_class is None else [""])]
    text = Text(2) if prompted else None
    anatomy = anatomy_of(unet, list(unet_pieces(network, "unet.")), shape, context, asked.kind, text=text)
    return NetworkModel(
        asked.name,
        unet,
        anatomy,
        shape,
        asked.shares(),
        prepare,
        prediction,
        clip=True if asked.clip is None else asked.clip,
        guidable=prompted or asked.null_class is not None,
        conditional=prompted or classes,
    )


def _labels(asked: Asked) -> Prepare:
    asked.refuse("it is told no text.", "encode")
    return label_reader(asked.unet.config.num_class_embeds, asked.classes, asked.null_class)


def _states(asked: Asked) -> Prepare:
    """Prompts to the states of a text encoder, (prompt, token, width)."""
    asked.refuse("it has no classes.", "classes", "null_class")
    config = asked.unet.config
    more = {
        "time_cond_proj_dim": config.time_cond_proj_dim,
        "addition_embed_type": config.addition_embed_type,
        "class_embed_type": config.class_embed_type or config.num_class_embeds,
    }
    if told := [name for name, value in more.items() if value is not None]:
        raise ModelError(
            f"This UNet2DConditionModel is told more than the states of a text encoder ({', '.join(told)}). Give it in "
            "its pipeline, from_pipeline(pipe), which knows what."
        )
    if asked.encode is None:
        raise ModelError(
            "A UNet2DConditionModel is told the states of a text encoder. Give encode, of prompts to these, (prompt, "
            f"token, {config.cross_attention_dim}); or the network in its pipeline, from_pipeline(pipe)."
        )

    def prepare(prompts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        with torch.inference_mode():
            states = asked.encode(list(prompts))
        found = states.detach().cpu().float().numpy() if isinstance(states, Tensor) else np.asarray(states, np.float32)
        if found.ndim != 3 or len(found) != len(prompts) or found.shape[2] != config.cross_attention_dim:
            raise ModelError(
                f"encode gave {found.shape} for {len(prompts)} prompts; this UNet2DConditionModel is told (prompt, "
                f"token, {config.cross_attention_dim})."
            )
        return (found,)

    return prepare


def _of_sequences(asked: Asked) -> NetworkModel:
    asked.refuse("it is told neither text nor class.", "encode", "classes", "null_class")
    network, config = asked.unet, asked.unet.config
    if config.in_channels != config.out_channels or config.extra_in_channels not in (0, _of_time(network)):
        raise ModelError(
            f"This UNet1DModel takes {config.in_channels} channels and puts out {config.out_channels}: it is told more "
            "than x and the time, or predicts something else than a sequence."
        )
    length = asked.image_size if asked.image_size is not None else config.sample_size
    if isinstance(length, tuple | list):
        raise ModelError(f"image_size={tuple(length)}: a UNet1DModel is of sequences; give their length.")
    _, length = asked.size(length)
    shape, labels = (int(config.in_channels), 1, length), label_reader(None, None)
    context = [torch.from_numpy(part) for part in labels([""])]
    unet = _Sequences(network.eval())
    anatomy = anatomy_of(unet, list(_sequence_pieces(network)), shape, context, asked.kind, dims={2: (CHANNEL, X)})
    return _OfSequences(
        asked.name,
        unet,
        anatomy,
        shape,
        asked.shares(),
        labels,
        asked.predicted(),
        clip=True if asked.clip is None else asked.clip,
        guidable=False,
        conditional=False,
    )


def _of_time(network: Any) -> int:
    """Channels of the embedded time, which such a network without an embedding of its own is given beside x."""
    return 0 if network.config.use_timestep_embedding else 2 * network.config.block_out_channels[0]


def _sequence_pieces(network: Any) -> Iterator[Piece]:
    """Blocks of several residual ones each, which have one skip connection together."""
    shrunk: tuple[str, ...] = ()
    for number, block in enumerate(network.down_blocks):
        at = f"unet.down_blocks.{number}"
        first = (f"{at}.down",) if hasattr(block, "down") else ()
        yield Piece(f"down.{number}", "encoder", (*shrunk, *first, *_residual(block, at)))
        shrunk = (f"{at}.downsample",) if getattr(block, "downsample", None) is not None else ()
    if network.mid_block is not None:
        yield Piece("mid", "bottleneck", (*shrunk, "unet.mid_block"))
    left = itertools.count(len(network.down_blocks) - 1, -1)
    for number, block in enumerate(network.up_blocks):
        at = f"unet.up_blocks.{number}"
        last = tuple(f"{at}.{name}" for name in ("up", "upsample") if getattr(block, name, None) is not None)
        yield Piece(f"up.{number}", "decoder", (*_residual(block, at), *last), f"down.{next(left)}")


def _residual(block: Any, at: str) -> Iterator[str]:
    """Paths of residual blocks, each with the attention after it."""
    for number in range(len(block.resnets)):
        yield f"{at}.resnets.{number}"
        if hasattr(block, "attentions"):
            yield f"{at}.attentions.{number}"


LAYOUT = Layout("UNet2DModel, UNet2DConditionModel and UNet1DModel of diffusers", _knows, _take_in)
"""What knows networks of diffusers."""
