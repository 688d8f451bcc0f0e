"""A model of another shape in one file: a stack of transformer blocks, with neither skip connections nor arms."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.design import Anatomy, Component, Edge
from causalunet.models.checkpoints import fingerprint
from causalunet.schedule import cosine_alpha_bar

SIZE, PATCH, WIDTH, BLOCKS = 12, 3, 8, 3
TOKENS = (SIZE // PATCH) ** 2


class Block(nn.Module):
    """Attention over tokens, then a layer for each, both added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor, time: Tensor) -> Tensor:
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return tokens + torch.tanh(self.layer(tokens + time))


class Stack(nn.Module):
    """Patches to tokens, blocks, tokens to patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.time = nn.Conv2d(3, WIDTH, PATCH, PATCH), nn.Linear(1, WIDTH)
        self.place = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.out = nn.ConvTranspose2d(WIDTH, 6, PATCH, PATCH)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            tokens = block(tokens, self.time(timesteps[:, None, None] / 1000))
        return self.out(tokens.transpose(1, 2).unflatten(2, (SIZE // PATCH, -1)))


def anatomy() -> Anatomy:
    """Blocks one after the other; what they put out has tokens and channels, and no pixels."""
    names = [f"block.{number}" for number in range(BLOCKS)]
    blocks = (
        Component(
            name=name,
            role="block",
            level=0,
            depth=number,
            shape=(TOKENS, WIDTH),
            dims=("token", "channel"),
            flops=2 * TOKENS * WIDTH * WIDTH,
            parameters=5 * WIDTH * WIDTH,
            module=f"blocks.{number}",
        )
        for number, name in enumerate(names)
    )
    edges = (Edge(source, target) for source, target in itertools.pairwise([*names, "out"]))
    return Anatomy(tuple(blocks), tuple(edges), flops=10 * TOKENS * WIDTH * WIDTH, parameters=20 * WIDTH * WIDTH)


class StackModel:
    """What is asked of a model."""

    name, image_shape, clip, guidable = "guests.stack", (3, SIZE, SIZE), True, False
    factors: dict[str, tuple[str, ...]] = {}  # noqa: RUF012

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.unet = Stack().eval().requires_grad_(False)
        self.anatomy, self.alpha_bar, self.fingerprint = anatomy(), cosine_alpha_bar(), fingerprint(self.unet)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Prompts tell it nothing."""

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Nothing is made of them."""
        return ()

    def decode(self, x0: Tensor) -> NDArray[np.float32]:
        """From -1 ... 1 to 0 ... 1."""
        return ((x0.float().clamp(-1, 1) + 1) / 2).cpu().numpy()

    def read_factors(self, images: NDArray[np.float32]) -> Any:
        """There is no reader."""
        raise NotImplementedError("no reader")


def load_stack(device: str = "cpu") -> StackModel:
    """Make it, with weights drawn at random."""
    return StackModel()
