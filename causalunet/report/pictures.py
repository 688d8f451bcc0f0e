"""Images in figures: shown pixel by pixel, with captions that fit their width."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from causalunet.design.limits import plain_number
from causalunet.dims import SAMPLE
from causalunet.errors import SpecError

__all__ = ["captions", "line_height", "pack", "prompt_name", "sample_positions", "show", "wrap"]

_GLYPH = 0.6  # mean width of a letter, as a share of the font size


def show(ax: Axes, image: NDArray[np.floating], anchor: Literal["NW", "S"]) -> None:
    """Show an image in [0, 1], (channel, y, x), with one channel or three, and nothing around it.

    Parameters
    ----------
    ax : matplotlib Axes
    image : ndarray
    anchor : {"NW", "S"}
        Side of its cell that the image keeps to: that of its captions, whose room is else misjudged.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise SpecError(f"An image has 1 or 3 channels, (channel, y, x); got an array of shape {image.shape}.")
    pixels = np.clip(np.moveaxis(image, 0, -1), 0, 1)
    ax.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_anchor(anchor)


def wrap(text: str, width: float, fontsize: float, lines: int) -> str:
    """Break a text into lines of a width, and cut it off after some lines.

    Parameters
    ----------
    text : str
    width : float
        Inches.
    fontsize : float
        Points.
    lines : int
        The most lines.
    """
    letters = max(4, int(width * 72 / (_GLYPH * fontsize)))
    return "\n".join(textwrap.wrap(text, letters, max_lines=lines, placeholder=" …"))


def line_height(fontsize: float) -> float:
    """Height of a line of text in inches, from its size in points."""
    return 1.25 * fontsize / 72


def captions(dataset: xr.Dataset) -> list[str]:
    """Prompt of every sample, or "no prompt", with its seed where it occurs more than once."""
    prompts = [prompt_name(prompt) for prompt in dataset["prompt"].values]
    seeds = dataset["seed"].values
    return [
        f"{prompt} (seed {seed})" if prompts.count(prompt) > 1 else prompt
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]


def prompt_name(prompt: object) -> str:
    """What figures and tables call a stored prompt; the empty one is that of a sample without a condition."""
    return str(prompt) or "no prompt"


def sample_positions(dataset: xr.Dataset, samples: int | Sequence[int]) -> list[int]:
    """Positions along ``sample``: the first so many, or those of the named samples.

    Raises
    ------
    SpecError
        A named sample is not there, or none is asked for.
    """
    known = dataset[SAMPLE].values.tolist()
    samples = plain_number(samples)
    wanted = known[:samples] if isinstance(samples, int) else [int(sample) for sample in samples]
    unknown = [sample for sample in wanted if sample not in known]
    if unknown or not wanted:
        raise SpecError(
            f"samples={samples!r} cannot be shown; there are {len(known)} samples, {known[0]} ... {known[-1]}."
        )
    return [known.index(sample) for sample in wanted]


def pack(figure: Figure) -> None:
    """Set images of a figure close together."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)  # type: ignore[call-arg]
