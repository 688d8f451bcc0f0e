"""The U-Net layout of OpenAI's diffusion models, as GLIDE uses it.

``input_blocks`` (encoder), ``middle_block`` (bottleneck) and ``output_blocks`` (decoder), joined by one skip
connection per encoder block. Source: Nichol & Dhariwal 2021 (improved DDPM), Dhariwal & Nichol 2021 (scale-shift,
residual up/down blocks), Nichol et al. 2022 (text keys and values appended in attention). Written anew; the
parameter names are those of the official checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from causalunet.calls import clear_calls
from causalunet.models.text_transformer import TextConfig, TextEmbedding, Transformer, replace_padding

__all__ = ["TextUNet", "UNetConfig", "timestep_embedding"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """Sizes of a text-conditional U-Net in OpenAI's layout.

    Parameters
    ----------
    image_size : int
        Height and width of the image in pixels.
    model_channels : int
        Channels of the first level; ``channel_mult`` scales them.
    channel_mult : tuple of int
        One multiplier per level, from the top of the U.
    num_res_blocks : int
        Residual blocks per level on the encoder side; the decoder has one more.
    attention_resolutions : tuple of int
        Sizes in pixels at which attention follows the residual block.
    head_channels : int
        Channels per attention head.
    norm_groups : int
        Groups of every group normalisation (32 in OpenAI's models).
    in_channels, out_channels : int
        Image channels in; predicted noise and variance out.
    dropout : float
        Dropout inside residual blocks, active in training only.
    text : TextConfig
        The text transformer.
    """

    image_size: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    head_channels: int
    text: TextConfig
    norm_groups: int = 32
    in_channels: int = 3
    out_channels: int = 6
    dropout: float = 0.0


def timestep_embedding(timesteps: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of timesteps, cosines first.

    Parameters
    ----------
    timesteps : Tensor, (batch,)
        Training timesteps, 0 to 999.
    width : int
        Even number of channels.

    Returns
    -------
    Tensor, (batch, width)
    """
    half = width // 2
    exponent = -math.log(max_period) / half * torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * exponent.exp()
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Resample(nn.Module):
    """Halve (average) or double (nearest neighbour) height and width, without parameters."""

    def __init__(self, *, up: bool) -> None:
        super().__init__()
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        """Resample ``x``, (batch, channel, y, x)."""
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else F.avg_pool2d(x, 2)


class ResidualBlock(nn.Module):
    """Two convolutions; the timestep embedding scales and shifts the second normalisation."""

    def __init__(self, config: UNetConfig, inputs: int, outputs: int, resample: Resample | None = None) -> None:
        super().__init__()
        groups = config.norm_groups
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.resample = resample
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.model_channels, 2 * outputs))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, outputs),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            _zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor, sequence: Tensor) -> Tensor:
        """Map ``x``, (batch, inputs, y, x), to (batch, outputs, y', x'); ``sequence`` is not used."""
        norm, activation, convolve = self.in_layers
        h = activation(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = convolve(h)
        scale, shift = rearrange(self.emb_layers(embedding), "b (two c) -> two b c 1 1", two=2)
        norm, *rest = self.out_layers
        h = norm(h) * (1 + scale) + shift
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Self-attention over pixels, with keys and values of the text put before those of the image."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.heads = channels // config.head_channels
        self.norm = nn.GroupNorm(config.norm_groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.encoder_kv = nn.Conv1d(config.text.width, 2 * channels, 1)
        self.proj_out = _zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, embedding: Tensor, sequence: Tensor) -> Tensor:
        """Map ``x``, (batch, channel, y, x), to the same shape; ``embedding`` is not used."""
        pixels = rearrange(self.norm(x), "b c y x -> b c (y x)")
        query, key, value = rearrange(self.qkv(pixels), "b (h three c) n -> three b h n c", three=3, h=self.heads)
        text_key, text_value = rearrange(self.encoder_kv(sequence), "b (h two c) n -> two b h n c", two=2, h=self.heads)
        attended = F.scaled_dot_product_attention(
            query, torch.cat([text_key, key], dim=2), torch.cat([text_value, value], dim=2)
        )
        out = self.proj_out(rearrange(attended, "b h n c -> b (h c) n"))
        return x + rearrange(out, "b c (y x) -> b c y x", y=x.shape[2])


class Block(nn.Sequential):
    """One block of the U: layers called in turn, the embeddings passed to those that take them."""

    def forward(self, x: Tensor, embedding: Tensor, sequence: Tensor) -> Tensor:  # type: ignore[override]
        """Map ``x``, (batch, channel, y, x), through the layers."""
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, embedding, sequence)
        return x


class TextUNet(nn.Module):
    """Text-conditional U-Net that predicts noise and variance; loads GLIDE's base state dict strictly.

    Parameters
    ----------
    config : UNetConfig

    Notes
    -----
    `encode_text` is separate from `forward`, so that the text transformer runs once per prompt.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        text, width = config.text, 4 * config.model_channels
        self.time_embed = nn.Sequential(nn.Linear(config.model_channels, width), nn.SiLU(), nn.Linear(width, width))
        self.transformer = Transformer(text)
        self.final_ln = nn.LayerNorm(text.width)
        self.token_embedding = nn.Embedding(text.vocabulary, text.width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(text.context, text.width))
        self.padding_embedding = nn.Parameter(0.01 * torch.randn(text.context, text.width))
        self.transformer_proj = nn.Linear(text.width, width)
        self.input_blocks, widths = _encoder(config)
        channels = widths[-1]
        self.middle_block = Block(
            ResidualBlock(config, channels, channels),
            AttentionBlock(config, channels),
            ResidualBlock(config, channels, channels),
        )
        self.output_blocks = _decoder(config, widths)
        self.out = nn.Sequential(
            nn.GroupNorm(config.norm_groups, widths[0]),
            nn.SiLU(),
            _zeroed(nn.Conv2d(widths[0], config.out_channels, 3, padding=1)),
        )

    def encode_text(self, tokens: Tensor, mask: Tensor) -> TextEmbedding:
        """Run the text transformer.

        Parameters
        ----------
        tokens : Tensor of int, (batch, context)
        mask : Tensor of bool, (batch, context)
            True for real tokens; padding is replaced by learned vectors.
        """
        embedded = self.token_embedding(tokens) + self.positional_embedding
        embedded = replace_padding(embedded, mask, self.padding_embedding)
        sequence = self.final_ln(self.transformer(embedded))
        return TextEmbedding(self.transformer_proj(sequence[:, -1]), rearrange(sequence, "b n c -> b c n"))

    def forward(self, x: Tensor, timesteps: Tensor, pooled: Tensor, sequence: Tensor) -> Tensor:
        """Predict noise and variance.

        Parameters
        ----------
        x : Tensor, (batch, in_channels, y, x)
            Noisy images.
        timesteps : Tensor, (batch,)
            Training timesteps.
        pooled, sequence : Tensor
            The two parts of a `TextEmbedding`.

        Returns
        -------
        Tensor, (batch, out_channels, y, x)
        """
        embedding = self.time_embed(timestep_embedding(timesteps, self.config.model_channels)) + pooled
        h, skips = x, []
        for block in self.input_blocks:
            h = block(h, embedding, sequence)
            skips.append(h)
        h = self.middle_block(h, embedding, sequence)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding, sequence)
        return self.out(h)


def _zeroed(module: nn.Module) -> nn.Module:
    """Start the last layer of a residual branch at zero, so that the branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def _level_block(config: UNetConfig, inputs: int, outputs: int, size: int) -> list[nn.Module]:
    layers: list[nn.Module] = [ResidualBlock(config, inputs, outputs)]
    if size in config.attention_resolutions:
        layers.append(AttentionBlock(config, outputs))
    return layers


def _encoder(config: UNetConfig) -> tuple[nn.ModuleList, list[int]]:
    """Build the encoder; also return the channels of every skip connection, from the top."""
    channels = config.model_channels * config.channel_mult[0]
    blocks = [Block(nn.Conv2d(config.in_channels, channels, 3, padding=1))]
    widths, size = [channels], config.image_size
    for level, multiplier in enumerate(config.channel_mult):
        for _ in range(config.num_res_blocks):
            outputs = config.model_channels * multiplier
            blocks.append(Block(*_level_block(config, channels, outputs, size)))
            channels = outputs
            widths.append(channels)
        if level < len(config.channel_mult) - 1:
            blocks.append(Block(ResidualBlock(config, channels, channels, Resample(up=False))))
            widths.append(channels)
            size //= 2
    return nn.ModuleList(blocks), widths


def _decoder(config: UNetConfig, skip_widths: list[int]) -> nn.ModuleList:
    """Build the decoder from the bottom up."""
    widths, channels = list(skip_widths), skip_widths[-1]
    size = config.image_size >> (len(config.channel_mult) - 1)
    blocks = []
    for level, multiplier in reversed(list(enumerate(config.channel_mult))):
        outputs = config.model_channels * multiplier
        for index in range(config.num_res_blocks + 1):
            layers = _level_block(config, channels + widths.pop(), outputs, size)
            channels = outputs
            if level and index == config.num_res_blocks:
                layers.append(ResidualBlock(config, channels, channels, Resample(up=True)))
                size *= 2
            blocks.append(Block(*layers))
    return nn.ModuleList(blocks)
