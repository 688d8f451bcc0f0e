"""Does the embedded model draw what its prompts say? Read by the factor reader, which never saw its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from causalunet.design.samplers import Sampler
from causalunet.execute import generate
from causalunet.models.factor_reader import load_reader
from causalunet.models.shapes_flow import load_flow
from causalunet.models.shapes_latent import load_latent
from causalunet.models.text_to_image import TextToImage
from causalunet.results.meaning.schema import COMPLETE
from causalunet.scenes import FACTORS, Scene, draw_scenes
from causalunet.training.flow import draw_flow
from causalunet.training.latent import draw_latent

__all__ = ["Evaluation", "as_baseline", "evaluate_anatomy", "evaluate_images", "evaluate_shapes"]


def as_baseline(prompts: Sequence[str], images: NDArray[np.float32], right: NDArray[np.bool_]) -> xr.DataTree:
    """Images as a baseline group, for the report; prompts of images read otherwise are marked.

    Parameters
    ----------
    prompts : sequence of str
    images : ndarray of float32, (sample, channel, y, x)
        In [0, 1].
    right : ndarray of bool, (sample,)
        Whether all that was asked was read.
    """
    told = [prompt if good else f"(misread) {prompt}" for prompt, good in zip(prompts, right, strict=True)]
    baseline = xr.Dataset(
        {
            "image": (("sample", "channel", "y", "x"), images),
            "status": ("sample", np.full(len(right), COMPLETE, np.int8)),
        },
        coords={
            "sample": np.arange(len(right)),
            "prompt": ("sample", told),
            "seed": ("sample", np.arange(len(right))),
        },
    )
    return xr.DataTree.from_dict({"/baseline": baseline})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Generated images and how they were read.

    Parameters
    ----------
    scenes : list of Scene
        What was asked.
    images : ndarray of float32, (sample, channel, y, x)
        What came, in [0, 1].
    correct : ndarray of bool, (sample, factor)
        Whether the value asked was read.
    """

    scenes: list[Scene]
    images: NDArray[np.float32]
    correct: NDArray[np.bool_]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images with the value asked, by factor, and with all of them (``all five``)."""
        by_factor = dict(zip(FACTORS, self.correct.sum(axis=0).tolist(), strict=True))
        return {**by_factor, "all five": int(self.correct.all(axis=1).sum())}

    @property
    def shares(self) -> dict[str, float]:
        """Share of images with the value asked, by factor and for all of them."""
        return {name: count / len(self.scenes) for name, count in self.counts.items()}

    def as_results(self) -> xr.DataTree:
        """The images as a baseline group, for the report; prompts of images read otherwise are marked."""
        right: NDArray[np.bool_] = np.asarray(self.correct.all(axis=1))
        return as_baseline([scene.prompt for scene in self.scenes], self.images, right)


def evaluate_shapes(
    model: TextToImage,
    *,
    n: int = 200,
    seed: int = 0,
    only_held_out: bool = False,
    sampler: Sampler | None = None,
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """Generate images of random prompts and read them.

    Parameters
    ----------
    model : TextToImage
        The embedded model.
    n : int
        Number of prompts.
    seed : int
        Of the draw of prompts; the noise of prompt i has seed i.
    only_held_out : bool
        Only prompts that training never saw.
    sampler : Sampler, optional
        By default 100 steps at guidance 3.
    advance : callable, optional
        Told the number of samples after every U-Net call.
    """
    scenes = draw_scenes(n, seed=seed, only_held_out=only_held_out)
    images = generate([scene.prompt for scene in scenes], model=model, sampler=sampler, advance=advance)
    codes, _ = model.read_factors(images)
    return Evaluation(scenes, images, codes == np.array([scene.codes for scene in scenes]))


def evaluate_images(
    draw: Callable[[Sequence[str], Sequence[int]], NDArray[np.float32]],
    *,
    n: int = 200,
    seed: int = 0,
    only_held_out: bool = False,
) -> Evaluation:
    """Have images of random prompts drawn and read them.

    Parameters
    ----------
    draw : callable
        Prompts and seeds to images in [0, 1], (sample, channel, y, x).
    n : int
        Number of prompts.
    seed : int
        Of the draw of prompts; the noise of prompt i has seed i.
    only_held_out : bool
        Only prompts that training never saw.
    """
    scenes = draw_scenes(n, seed=seed, only_held_out=only_held_out)
    images = draw([scene.prompt for scene in scenes], range(n))
    codes = load_reader().read(torch.from_numpy(2 * images - 1))
    return Evaluation(scenes, images, codes == np.array([scene.codes for scene in scenes]))


def evaluate_anatomy(
    name: str,
    checkpoint: Path | None,
    *,
    n: int = 200,
    seed: int = 0,
    only_held_out: bool = False,
    steps: int = 50,
    guidance: float = 3.0,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda samples: None,
) -> Evaluation:
    """Do the same for a model of the same world that is no U-Net in pixels.

    Parameters
    ----------
    name : str
        ``"shapes-flow"`` (Euler's method) or ``"shapes-latent"`` (DDIM).
    checkpoint : Path or None
        File of the weights, or folder of the pipeline; None for those that ship.
    n, seed, only_held_out
        As for `evaluate_images`.
    steps, guidance
        Number of steps and guidance scale.
    device : str
        Where the model runs.
    advance : callable
        Told the number of samples after every step.

    Raises
    ------
    CheckpointError
        There are no such weights.
    ModelError
        The device is not there, or diffusers is not installed.
    """
    options: dict[str, Any] = {"steps": steps, "guidance": guidance, "advance": advance}

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.float32]:
        if name == "shapes-flow":
            return draw_flow(load_flow(checkpoint, device), prompts, seeds, **options)
        return draw_latent(load_latent(checkpoint, device), prompts, seeds, **options)

    return evaluate_images(draw, n=n, seed=seed, only_held_out=only_held_out)
