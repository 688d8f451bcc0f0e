"""Small U-Nets with the attributes and the forward of OpenAI's, written anew: tests need none of their packages."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (8, 8, 8, 12, 12)
"""Output channels of the encoder blocks; the fourth halves the resolution."""
EMBEDDING = 16


class Layer(nn.Module):
    """A convolution of what comes in, shifted by the embedding, beside a convolution of size one."""

    def __init__(self, inputs: int, outputs: int, text: int, resample: float = 1.0) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shift = nn.Linear(EMBEDDING, outputs)
        self.text = nn.Linear(text, outputs) if text else None
        self.straight = nn.Conv2d(inputs, outputs, 1)
        self.resample = resample

    def forward(self, x: Tensor, embedding: Tensor, sequence: Tensor | None) -> Tensor:
        if self.resample < 1:
            x = F.avg_pool2d(x, 2)
        elif self.resample > 1:
            x = F.interpolate(x, scale_factor=2.0)
        shift = self.shift(F.silu(embedding))
        if self.text is not None and sequence is not None:
            shift = shift + self.text(sequence.mean(dim=2))
        return self.straight(x) + F.silu(self.convolve(x) + shift[:, :, None, None])


class Blocks(nn.Sequential):
    def forward(self, x: Tensor, embedding: Tensor, sequence: Tensor | None = None) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, embedding, sequence)
        return x


class UNetModel(nn.Module):
    """As guided-diffusion's and improved-diffusion's: ``forward(x, timesteps, y=None)``."""

    def __init__(self, *, out_channels: int = 6, num_classes: int | None = None, text: int = 0) -> None:
        super().__init__()
        self.in_channels, self.model_channels, self.out_channels = 3, 8, out_channels
        self.num_classes, self.dtype = num_classes, torch.float32
        self.time_embed = nn.Sequential(nn.Linear(8, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, EMBEDDING)
        inputs = (3, *WIDTHS[:-1])
        self.input_blocks = nn.ModuleList(
            Blocks(Layer(a, b, text, 0.5 if index == 3 else 1.0))
            for index, (a, b) in enumerate(zip(inputs, WIDTHS, strict=True))
        )
        self.middle_block = Blocks(Layer(WIDTHS[-1], WIDTHS[-1], text), Layer(WIDTHS[-1], WIDTHS[-1], text))
        into = (WIDTHS[-1], *reversed(WIDTHS[1:]))
        self.output_blocks = nn.ModuleList(
            Blocks(Layer(a + b, b, text, 2.0 if index == 1 else 1.0))
            for index, (a, b) in enumerate(zip(into, reversed(WIDTHS), strict=True))
        )
        self.out = nn.Sequential(
            nn.GroupNorm(4, WIDTHS[0]), nn.SiLU(), nn.Conv2d(WIDTHS[0], out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        assert (y is None) == (self.num_classes is None)
        embedding = self.time_embed(sinusoids(timesteps, 8))
        return self.u(x, embedding if y is None else embedding + self.label_emb(y), None)

    def u(self, x: Tensor, embedding: Tensor, sequence: Tensor | None) -> Tensor:
        h, kept = x, []
        for block in self.input_blocks:
            h = block(h, embedding, sequence)
            kept.append(h)
        h = self.middle_block(h, embedding, sequence)
        for block in self.output_blocks:
            h = torch.cat([h, kept.pop()], dim=1)
            h = block(h, embedding, sequence)
        return self.out(h)


class Text2ImUNet(UNetModel):
    """As GLIDE's: ``forward(x, timesteps, tokens, mask)``, the text read at every call."""

    def __init__(self, tokenizer: Any, *, text_ctx: int = 6, xf_width: int = 10) -> None:
        super().__init__(text=xf_width)
        self.text_ctx, self.xf_width, self.tokenizer, self.cache_text_emb = text_ctx, xf_width, tokenizer, False
        self.transformer = nn.Linear(xf_width, xf_width)
        self.token_embedding = nn.Embedding(tokenizer.n_vocab, xf_width)
        self.transformer_proj = nn.Linear(xf_width, EMBEDDING)

    def get_text_emb(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        read = self.transformer(self.token_embedding(tokens) * mask[..., None])
        return {"xf_proj": self.transformer_proj(read[:, -1] + read[:, 0]), "xf_out": read.transpose(1, 2)}

    def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        text = self.get_text_emb(tokens, mask)
        return self.u(x, self.time_embed(sinusoids(timesteps, 8)) + text["xf_proj"], text["xf_out"])


def sinusoids(timesteps: Tensor, width: int) -> Tensor:
    angles = timesteps[:, None] * 10_000 ** (-torch.arange(width // 2, device=timesteps.device) / (width // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def randomised(module: nn.Module) -> nn.Module:
    """Set every weight at random, about as large as initialisation gives, so that nothing is zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        spread = 1 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.2
        nn.init.normal_(parameter, std=spread, generator=generator)
    return module
