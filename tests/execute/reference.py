"""A second implementation of intervened sampling, as plain as can be: each sample alone, from noise, with torch hooks.

It shares with the package the U-Net, the text encoder and the noise. Schedule, guidance, posterior, jumps and edits are
written again here, from the papers; what an edit makes useless runs all the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.models.text_to_image import TextToImage
from causalunet.noise import initial_noise, step_noise

ROWS = {"both": slice(0, 2), "cond": slice(0, 1), "uncond": slice(1, 2)}
"""Rows of the guided batch of one sample."""


@dataclass(frozen=True)
class Change:
    """Multiply one tensor by a factor: a block's output, or a skip connection where it enters the decoder.

    ``place`` is down, mid, up or skip; ``number`` counts up from the bottom, the others from the top. ``part`` says
    which channels, rows of pixels and columns, by default all.
    """

    place: str
    number: int = 0
    factor: float = 0.0
    branch: str = "both"
    part: tuple[slice, ...] = (slice(None),)


@dataclass
class Trajectory:
    """All that a run passes through, by step; activations are those of the conditional row, by (step, block)."""

    x: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    x0: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    eps: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    activations: dict[tuple[int, str], NDArray[np.float32]] = field(default_factory=dict)
    image: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


def sample(
    model: TextToImage,
    prompt: str,
    seed: int,
    *,
    steps: int,
    scale: float,
    changes: Mapping[int, Sequence[Change]] | None = None,
    absent: Collection[int] = (),
) -> Trajectory:
    """Draw one image.

    ``changes`` names what is changed at each step, ``absent`` the steps whose U-Net call does not happen.
    """
    timesteps, alpha_bar = spaced_schedule(steps)
    texts = [model.encode([prompt]), model.encode([""])]
    context = [torch.cat(parts) for parts in zip(*texts, strict=True)]
    called = [step for step in range(steps, 0, -1) if step not in absent]
    trajectory = Trajectory()
    x = torch.from_numpy(initial_noise([seed], model.image_shape))
    for step, target in zip(called, [*called[1:], 0], strict=True):
        with torch.no_grad(), changed(model.unet, (changes or {}).get(step, ())), watched(model.unet) as outputs:
            t = torch.tensor([timesteps[step - 1]] * 2)
            (cond, fraction), (uncond, _) = (
                row.double().split(3) for row in model.unet(torch.cat([x, x]), t, *context)
            )
        eps = uncond + scale * (cond - uncond)
        a, b = alpha_bar[step], alpha_bar[target]
        x0 = ((x.double() - math.sqrt(1 - a) * eps) / math.sqrt(a)).clamp(-1, 1)
        trajectory.x[step], trajectory.eps[step] = x[0].numpy(), eps.float().numpy()
        trajectory.x0[step] = x0[0].float().numpy()
        trajectory.activations |= {(step, name): value[0].numpy() for name, value in outputs.items()}
        noise = torch.from_numpy(step_noise([seed], step, model.image_shape)).double()
        x = draw(x.double(), x0, fraction, noise, a=a, b=b).float()
    trajectory.image = ((x[0].clamp(-1, 1) + 1) / 2).numpy()
    return trajectory


def draw(x: Tensor, x0: Tensor, fraction: Tensor, noise: Tensor, *, a: float, b: float) -> Tensor:
    """From alpha_bar a to b: Ho et al. 2020, equation 7, with the variance of Nichol & Dhariwal 2021, equation 15."""
    ratio = a / b
    mean = (math.sqrt(b) * (1 - ratio) * x0 + math.sqrt(ratio) * (1 - b) * x) / (1 - a)
    largest = 1 - ratio
    smallest = largest * (1 - b) / (1 - a)
    share = (fraction + 1) / 2
    variance = largest**share * smallest ** (1 - share)
    return mean + variance.sqrt() * noise if b < 1 else x0


@cache
def spaced_schedule(steps: int) -> tuple[list[int], list[float]]:
    """Training timestep of step 1, 2, ..., and alpha_bar of step 0, 1, 2, ..., on the squared-cosine schedule."""
    training, product = [], 1.0
    for t in range(1000):
        now, after = (math.cos((s / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for s in (t, t + 1))
        product *= 1 - min(1 - after / now, 0.999)
        training.append(product)
    timesteps = [round(999 * i / (steps - 1)) for i in range(steps)]
    return timesteps, [1.0, *(training[t] for t in timesteps)]


@contextmanager
def changed(unet: nn.Module, changes: Sequence[Change], rows: Mapping[str, slice] = ROWS) -> Iterator[None]:
    """Hook the changes into the U-Net; ``rows`` says which rows are of which branch."""
    widths: dict[int, int] = {}
    handles = [
        block.register_forward_hook(lambda _m, _i, output, n=n: widths.update({n: output.shape[1]}))
        for n, block in enumerate(unet.input_blocks)
    ]
    for change in changes:
        if change.place == "skip":
            block = unet.output_blocks[len(unet.output_blocks) - 1 - change.number]
            handles.append(block.register_forward_pre_hook(_entering(change, rows, widths)))
        else:
            handles.append(blocks(unet)[_name(change)].register_forward_hook(_leaving(change, rows)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watched(unet: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the output of every block, in the order in which they run."""
    outputs: dict[str, Tensor] = {}
    handles = [
        block.register_forward_hook(lambda _m, _i, output, name=name: outputs.update({name: output}))
        for name, block in blocks(unet).items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def blocks(unet: nn.Module) -> dict[str, nn.Module]:
    """Every block of the U by its name."""
    return {
        **{f"down.{n}": block for n, block in enumerate(unet.input_blocks)},
        "mid": unet.middle_block,
        **{f"up.{n}": block for n, block in enumerate(unet.output_blocks)},
    }


def _name(change: Change) -> str:
    return change.place if change.place == "mid" else f"{change.place}.{change.number}"


def _entering(change: Change, rows: Mapping[str, slice], widths: Mapping[int, int]) -> Any:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h = arguments[0].clone()
        h[:, h.shape[1] - widths[change.number] :][rows[change.branch]][:, *change.part] *= change.factor
        return (h, *arguments[1:])

    return hook


def _leaving(change: Change, rows: Mapping[str, slice]) -> Any:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = output.clone()
        output[rows[change.branch]][:, *change.part] *= change.factor
        return output

    return hook
