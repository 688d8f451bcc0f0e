"""Small U-Nets whose decoder blocks are given path and skip connection in every way that there is, and cut by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalunet.design.anatomy import Anatomy, Component, Edge, Role
from tests.models.adapters import SIZE

WIDTHS = {"down.0": 4, "down.1": 5, "mid": 6, "up.0": 7, "up.1": 4}
"""Of path and skip connection different ones, so that channels cut in the wrong place are other channels."""


class Block(nn.Module):
    """A convolution of what comes in, moved by the timestep; joins inside what comes apart."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolve, self.shift = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Linear(1, outputs)
        self.kept = torch.empty(0)

    def forward(self, x: Tensor, time: Tensor, skip: Any = None) -> Tensor:
        parts = {"Tensor": lambda: [skip], "list": lambda: [skip.pop()], "Block": lambda: [skip.kept]}
        x = torch.cat([x, *parts.get(type(skip).__name__, list)()], dim=1)
        self.kept = torch.tanh(self.convolve(x) + self.shift(time)[..., None, None])
        return self.kept


Join = Callable[[Block, Tensor, Tensor, Tensor], Tensor]


def image_of(time: Tensor, like: Tensor) -> Tensor:
    """The timestep as one channel."""
    return (time + 0.5)[..., None, None].expand(-1, 1, *like.shape[2:])


def scaled_in_place(block: Block, h: Tensor, skip: Tensor, time: Tensor) -> Tensor:
    h[:, :2] *= 1.7
    return block(torch.cat([h, skip], dim=1), time)


CUT: dict[str, Join] = {
    "skip last": lambda block, h, skip, time: block(torch.cat([h, skip], dim=1), time),
    "skip first": lambda block, h, skip, time: block(torch.cat([skip, h], dim=1), time),
    "by keyword": lambda block, h, skip, time: block(time=time, x=torch.cat([h, skip], dim=1)),
    "by keyword, first": lambda block, h, skip, time: block(time=time, x=torch.cat([skip, h], dim=1)),
    "an argument of its own": lambda block, h, skip, time: block(h, time, skip),
    "a keyword of its own": lambda block, h, skip, time: block(time=time, skip=skip, x=h),
    "before an embedding": lambda block, h, skip, time: block(torch.cat([h, skip, image_of(time, h)], dim=1), time),
    "after an embedding": lambda block, h, skip, time: block(torch.cat([image_of(time, h), h, skip], dim=1), time),
    "path scaled": scaled_in_place,
}
"""Ways that can be cut right."""

REFUSED: dict[str, tuple[Join, str]] = {
    "in a list": (lambda block, h, skip, time: block(h, time, [skip]), "no tensor that up.0 is called with depends"),
    "scaled": (
        lambda block, h, skip, time: block(torch.cat([h, 0.5 * skip], dim=1), time),
        r"channels 6-10 of argument 0 .* and are not equal to it\. .*scale, resize, .*inside down\.1 or up\.0",
    ),
    "resized": (
        lambda block, h, skip, time: block(
            torch.cat([h, F.interpolate(F.avg_pool2d(skip, 2), scale_factor=2)], dim=1), time
        ),
        r"channels 6-10 of argument 0",
    ),
    "embedding added after joining": (
        lambda block, h, skip, time: block(time=time, x=torch.cat([h, skip], dim=1) + image_of(time, h)),
        r"channels 6-10 of argument 'x'",
    ),
    "mixed into the path": (
        lambda block, h, skip, time: block(torch.cat([h + skip.mean(dim=1, keepdim=True), skip], dim=1), time),
        r"channels 0-5 of argument 0",
    ),
    "mixed into some of the path": (
        lambda block, h, skip, time: block(torch.cat([h[:, :3], h[:, 3:] + skip[:, :3], skip], dim=1), time),
        r"channels 3-5 of argument 0",
    ),
    "in the place of an embedding too": (
        lambda block, h, skip, time: block(torch.cat([h, skip], dim=1), time + skip.mean(dim=(1, 2, 3))[:, None]),
        r"channel 0 of argument 1",
    ),
    "twice": (
        lambda block, h, skip, time: block(torch.cat([h, skip, skip], dim=1), time),
        r"lies there 2 times, channels 6-10 of argument 0 and channels 11-15 of argument 0",
    ),
}
"""Ways that cannot, and what is told."""


class Joined(nn.Module):
    """Two blocks down, a bottleneck or none, two blocks up.

    Parameters
    ----------
    joins : sequence of callable
        How ``up.0`` and ``up.1`` are called.
    middle : bool
    """

    def __init__(self, joins: Sequence[Join], *, middle: bool = True) -> None:
        super().__init__()
        self.joins, width = joins, WIDTHS
        self.down = nn.ModuleList([Block(3, width["down.0"]), Block(width["down.0"], width["down.1"])])
        self.mid = Block(width["down.1"], width["mid"]) if middle else None
        into = [width["mid" if middle else "down.1"] + width["down.1"], width["up.0"] + width["down.0"]]
        self.up = nn.ModuleList(
            Block(inputs + self.more(join, inputs), width[f"up.{index}"])
            for index, (inputs, join) in enumerate(zip(into, joins, strict=True))
        )
        self.out = nn.Conv2d(width["up.1"], 6, 1)

    @staticmethod
    def more(join: Join, inputs: int) -> int:
        """Channels that a block is given besides path and skip connection."""
        if join in (CUT["before an embedding"], CUT["after an embedding"]):
            return 1
        return WIDTHS["down.1"] if join is REFUSED["twice"][0] else 0

    def forward(self, x: Tensor, timesteps: Tensor, *context: Tensor, cut: Collection[int] = ()) -> Tensor:
        """Predict; ``cut`` names skip connections, from the top, that are zero where they are joined: the true cut."""
        time, kept, h = timesteps[:, None] / 1000, [], x
        for block in self.down:
            h = block(h, time)
            kept.append(h)
        if self.mid is not None:
            h = self.mid(h, time)
        for index, (block, join) in enumerate(zip(self.up, self.joins, strict=True)):
            skip = kept.pop()
            h = join(block, h, torch.zeros_like(skip) if 1 - index in cut else skip, time)
        return self.out(h)


class AlwaysCut(nn.Module):
    """A U-Net with skip connections cut by its own forward."""

    def __init__(self, inner: Joined, cut: Collection[int]) -> None:
        super().__init__()
        self.inner, self.cut = inner, cut

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.inner(x, timesteps, cut=self.cut)


def joined(*joins: Join, **options: Any) -> Joined:
    """Build one with weights that are the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Joined(joins, **options).eval().requires_grad_(False)


def anatomy_of(unet: Joined, *, inside: str = "") -> Anatomy:
    """Describe it by hand."""
    roles: dict[str, Role] = {"down": "encoder", "mid": "bottleneck", "up": "decoder"}
    names = [name for name in WIDTHS if name != "mid" or unet.mid is not None]
    components = tuple(
        Component(
            name=name,
            role=roles[name.split(".")[0]],
            level=0,
            depth=0,
            shape=(WIDTHS[name], SIZE, SIZE),
            flops=10,
            parameters=1,
            module=inside + name,
        )
        for name in names
    )
    main = tuple(Edge(source, target) for source, target in itertools.pairwise([*names, "out"]))
    skips = Edge("down.0", "up.1", "skip.0"), Edge("down.1", "up.0", "skip.1")
    return Anatomy(components, (*main, *skips), 100, 10)
