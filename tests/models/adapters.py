"""A model handed in by an adapter of the user's own, around small networks that are no U-Nets of OpenAI's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Component, Edge, Role
from causalunet.models.checkpoints import fingerprint
from causalunet.schedule import cosine_alpha_bar

SIZE = 12


class Layer(nn.Module):
    """A convolution of what comes in, moved by the timestep."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolve, self.shift = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Linear(1, outputs)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(self.convolve(x) + self.shift(time)[..., None, None])


class Network(nn.Module):
    """Layers in a row, joined across by skip connections or not; with words for a condition or not."""

    def __init__(self, *, skips: bool, middle: bool, words: int = 0) -> None:
        super().__init__()
        self.skips = skips
        self.down = nn.ModuleList([Layer(3, 4), Layer(4, 4)])
        self.mid = Layer(4, 4) if middle else None
        self.up = nn.ModuleList([Layer(8 if skips else 4, 4) for _ in range(2)])
        self.read = nn.Linear(words, 1) if words else None
        self.out = nn.Conv2d(4, 6, 1)

    def forward(self, x: Tensor, timesteps: Tensor, *context: Tensor) -> Tensor:
        time, kept, h = timesteps[:, None] / 1000, [], x
        if self.read is not None:
            time = time + self.read(context[0])
        for layer in self.down:
            h = layer(h, time)
            kept.append(h)
        if self.mid is not None:
            h = self.mid(h, time)
        for layer in self.up:
            h = layer(torch.cat([h, kept.pop()], dim=1) if self.skips else h, time)
        return self.out(h)


def network(**options: Any) -> Network:
    """Build one with weights that are the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network(**options).eval().requires_grad_(False)


def anatomy_of(unet: Network, size: int = SIZE) -> Anatomy:
    """Describe it by hand."""
    names: list[tuple[str, Role]] = [
        ("down.0", "encoder"),
        ("down.1", "encoder"),
        *([("mid", "bottleneck")] if unet.mid is not None else []),  # type: ignore[list-item]
        ("up.0", "decoder"),
        ("up.1", "decoder"),
    ]
    components = tuple(
        Component(
            name=name, role=role, level=0, depth=0, shape=(4, size, size), flops=10, parameters=1, module=f"{name}"
        )
        for name, role in names
    )
    path = [*(name for name, _ in names), "out"]
    edges = [Edge(source, target) for source, target in itertools.pairwise(path)]
    if unet.skips:
        edges += [Edge("down.0", "up.1", "skip.0"), Edge("down.1", "up.0", "skip.1")]
    return Anatomy(components, tuple(edges), 100, 10)


class Adapter:
    """What `causalunet.models.DiffusionModel` asks for, and nothing else; fields can be given other values."""

    def __init__(self, unet: nn.Module, anatomy: Anatomy, **fields: Any) -> None:
        self.name, self.unet, self.anatomy = "adapted", unet, anatomy
        self.image_shape, self.clip = (3, SIZE, SIZE), True
        self.alpha_bar: NDArray[np.float64] = cosine_alpha_bar()
        self.factors: dict[str, tuple[str, ...]] = {}
        self.fingerprint = "not said"
        vars(self).update(fields)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        pass

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        return ()

    def decode(self, x0: Tensor) -> NDArray[np.float32]:
        return ((x0.float().clamp(-1, 1) + 1) / 2).cpu().numpy()

    def read_factors(self, images: NDArray[np.float32]) -> Any:
        raise NotImplementedError("no reader")


def adapter(*, skips: bool = True, middle: bool = True, words: int = 0, **fields: Any) -> Adapter:
    """Adapt a network with weights that are the same every time."""
    unet = network(skips=skips, middle=middle, words=words)
    return Adapter(unet, anatomy_of(unet), **{"fingerprint": fingerprint(unet), **fields})


class Around(nn.Module):
    """The network with another forward; components keep their modules, one level down."""

    def __init__(self, inner: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self._forward = inner, forward

    def forward(self, x: Tensor, timesteps: Tensor, *context: Tensor) -> Any:
        return self._forward(self.inner, x, timesteps, *context)


def around(forward: Callable[..., Any], **options: Any) -> Any:
    """Adapt a plain U with another forward, which is given the network and the arguments."""
    inner = network(skips=True, middle=True)
    anatomy = anatomy_of(inner)
    components = tuple(replace(c, module=f"inner.{c.module}") for c in anatomy.components)
    return Adapter(Around(inner, forward), replace(anatomy, components=components), fingerprint="x", **options)
