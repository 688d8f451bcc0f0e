"""A U of another make: two blocks per level and no bottleneck, blocks of two modules, names of its own."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from causalunet.design import Anatomy, Channels, Component, Edge, Port
from causalunet.models.checkpoints import fingerprint
from tests.models.adapters import SIZE, Adapter

WIDTH = 4
PATHS = {
    "enc.0": ("levels.0.residual.0", "levels.0.attention.0"),
    "enc.1": ("levels.0.residual.1", "levels.0.attention.1"),
    "dec.0": ("levels.1.residual.0", "levels.1.attention.0"),
    "dec.1": ("levels.1.residual.1", "levels.1.attention.1"),
    "last": ("last",),
}
EDGES = [("enc.1", "dec.0", "hop.b"), ("enc.0", "dec.1", "hop.a")]


class Residual(nn.Module):
    """A convolution of what comes in, moved by the timestep; a skip connection may come as an argument of its own."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.convolve, self.shift = nn.Conv2d(inputs, WIDTH, 3, padding=1), nn.Linear(1, WIDTH)

    def forward(self, x: Tensor, time: Tensor, skip: Tensor | None = None) -> Tensor:
        x = x if skip is None else torch.cat([skip, x], dim=1)
        return torch.tanh(self.convolve(x) + self.shift(time)[..., None, None])


class Attention(nn.Module):
    """Each pixel moved by the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x.mean((-2, -1)))[..., None, None]


class Level(nn.Module):
    """Residual blocks, and the attention after each."""

    def __init__(self, *inputs: int) -> None:
        super().__init__()
        self.residual = nn.ModuleList(Residual(number) for number in inputs)
        self.attention = nn.ModuleList(Attention() for _ in inputs)


class Arms(nn.Module):
    """Down and up, without a bottleneck; the first skip is concatenated, the second an argument of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList([Level(3, WIDTH), Level(2 * WIDTH, 2 * WIDTH)])
        self.last, self.out = Residual(WIDTH), nn.Conv2d(WIDTH, 6, 1)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        time, kept, h = timesteps[:, None] / 1000, [], x
        down, up = self.levels
        for residual, attention in zip(down.residual, down.attention, strict=True):
            # What lies between two modules of a block is the U-Net's own, and in none of them.
            h = attention(residual(h, time) * 2)
            kept.append(h)
        h = up.attention[0](up.residual[0](torch.cat([h, kept.pop()], dim=1), time))
        h = up.attention[1](up.residual[1](h, time, skip=kept.pop()))
        return self.out(self.last(h, time))


def anatomy(ports: dict[str, Port | None] | None = None) -> Anatomy:
    """Describe it; ``ports`` may say something else of a skip connection."""
    said = {"hop.b": Port(0, Channels(range(WIDTH, 2 * WIDTH))), "hop.a": Port("skip"), **(ports or {})}
    components = tuple(
        Component(
            name=name,
            role="encoder" if name.startswith("enc") else "decoder",
            level=0,
            depth=0,
            shape=(WIDTH, SIZE, SIZE),
            flops=10,
            parameters=1,
            module=paths if len(paths) > 1 else paths[0],
        )
        for name, paths in PATHS.items()
    )
    path = (Edge(source, target) for source, target in itertools.pairwise([*PATHS, "out"]))
    skips = (Edge(source, target, name, said[name]) for source, target, name in EDGES)
    return Anatomy(components, (*path, *skips), 100, 10)


def arms(**ports: Any) -> Adapter:
    """Adapt it, with weights that are the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = Arms().eval().requires_grad_(False)
    names = {name.replace("_", "."): port for name, port in ports.items()}
    return Adapter(unet, anatomy(names), fingerprint=fingerprint(unet), guidable=False)
