"""Which of three levels decides what of the image? After Abu-Hussein & Giryes 2023, arXiv 2305.16269.

Upsampling diffusion has three steps, and each says an image of twice the size. That leaves little to skip; so what a
level says is exchanged for what it says in another sample's run, or is left at the mean of all images.

    python studies/systems/udpm/study.py --quick     # a minute on two cores
    python studies/systems/udpm/study.py --medium    # more samples
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

import causalunet as cu
from causalunet.calls import clear_calls
from causalunet.models import DiffusionModel
from causalunet.models.exact import ImageBank, load_optimal, scene_bank
from causalunet.process import Pyramid
from causalunet.scenes import FACTORS, Scene
from causalunet.schedule import Level
from causalunet.script import Folder, run_script

ALPHAS, SIGMAS = np.array([0.5, 0.2, 1e-3]), np.array([0.1, 0.2, 0.3])
"""Of each step down, as published for three levels."""
SIZE, DONORS = 16, 4
LEVELS = {3: "4 x 4", 2: "8 x 8", 1: "16 x 16"}
"""Size of what is said at a step."""


def pyramid() -> Pyramid:
    """Weights of image and noise at every level, from those of each step down."""
    signals = np.cumprod(ALPHAS)
    noises = signals * np.sqrt(np.cumsum(np.square(SIGMAS / signals)))
    return Pyramid(signals=tuple(signals), noises=tuple(noises))


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class OneVariance(cu.DDPM):
    """The step of the official code, whose posterior has one variance: too little of what a level does not show.

    Parameters
    ----------
    steps, guidance_scale, guidance, spacing, variance
        As of `causalunet.DDPM`; ``variance`` is to be ``"small"``.
    shares : tuple of float
        For a step from every level, the posterior's variance over that of the level below.
    """

    name: ClassVar[str] = "udpm.one-variance"

    shares: tuple[float, ...] = ()

    def mean(self, state: Any, estimates: Any, at: Level, to: Level) -> Any:
        """Of what the level does not show, where alpha_bar is 0, it is nearer to nothing."""
        found = cu.DDPM.mean(self, state, estimates, at, to)
        return found if at.alpha_bar else self.shares[int(at.timestep)] * found

    def spread(self, state: Any, estimates: Any, at: Level, to: Level) -> Any:
        """Likewise."""
        found = cu.DDPM.spread(self, state, estimates, at, to)
        return found if at.alpha_bar else math.sqrt(self.shares[int(at.timestep)]) * found

    @classmethod
    def of(cls, process: Pyramid) -> OneVariance:
        """For the levels of a process."""
        signals, noises = np.array(process.signals), np.array(process.noises)
        below = np.square(signals[1:] / signals[:-1] * noises[:-1] / noises[1:])
        return cls(steps=len(signals), guidance_scale=1, variance="small", shares=(1.0, *(1 - below).tolist()))


@functools.cache
def scenes() -> ImageBank:
    """All scenes."""
    return scene_bank(size=SIZE)


@cu.register("udpm.optimal")
def load() -> DiffusionModel:
    """The optimal denoiser of the scenes under the three levels."""
    process = pyramid()
    return load_optimal(scenes(), process=process, alpha_bar=process.alpha_bars)


def quick(folder: Folder) -> dict[str, cu.Study]:
    """32 samples."""
    return make_studies(folder, samples=32)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """200 samples."""
    return make_studies(folder, samples=200)


def make_studies(folder: Folder, *, samples: int) -> dict[str, cu.Study]:
    """Cut what a level says, or exchange it; by the equation, and by the code's one variance."""
    interventions = [
        edit
        for step, size in LEVELS.items()
        for edit in (
            cu.Edit("logits", cu.Window(step, 1), label=f"{size}: mean of all"),
            *(cu.Edit("average", cu.Window(step, 1), cu.Patch(seed=s), label=f"{size}: of {s}") for s in range(DONORS)),
        )
    ]
    samplers = {"equation": cu.DDPM(steps=3, guidance_scale=1, variance="small"), "code": OneVariance.of(pyramid())}
    return {
        name: cu.Study(
            name=f"udpm, {name}, {folder.size}",
            model="udpm.optimal",
            prompts=[cu.NO_PROMPT],
            seeds=range(samples),
            sampler=sampler,
            interventions=interventions,
        )
        for name, sampler in samplers.items()
    }


def factors(images: NDArray[np.floating]) -> NDArray[np.int64]:
    """Values of every factor of the scene that is nearest to each image in [0, 1], (image, factor)."""
    bank = (scenes().images.reshape(len(scenes()), -1) + 1) / 2
    off = np.square(images.reshape(len(images), 1, -1) - bank).sum(-1)
    codes = np.array([Scene.parse(label).codes for label in scenes().labels])
    return np.asarray(codes[off.argmin(1)])


def followed(results: xr.DataTree) -> xr.Dataset:
    """Of factors in which sample and donor differ: how often the image has the donor's value; NaN where none differ."""
    own = factors(results.baseline.image.values)
    shares = np.full((len(LEVELS), len(FACTORS)), np.nan)
    for place, size in enumerate(LEVELS.values()):
        counts = np.zeros((2, len(FACTORS)))
        for donor in range(DONORS):
            found = factors(results.outcomes.image.sel(intervention=f"{size}: of {donor}").values)
            differ = own != own[donor]
            counts += [(differ & (found == own[donor])).sum(0), differ.sum(0)]
        np.divide(counts[0], counts[1], out=shares[place], where=counts[1] > 0)
    return xr.Dataset(
        {"donor": (("level", "factor"), shares)}, coords={"level": list(LEVELS.values()), "factor": list(FACTORS)}
    )


def kept(results: xr.DataTree, size: str) -> NDArray[np.float64]:
    """How often each factor is that of the whole run where a level says the mean of all images, (factor,)."""
    found = factors(results.outcomes.image.sel(intervention=f"{size}: mean of all").values)
    return np.asarray((found == factors(results.baseline.image.values)).mean(0))


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """What follows the donor, and what is left where a level is cut, by level and factor."""
    whole, found = results["equation"], followed(results["equation"])
    values = factors(whole.baseline.image.values)
    seen = [
        f"{factor} {len(set(own))} of {len(FACTORS[factor])}" for factor, own in zip(FACTORS, values.T, strict=True)
    ]
    console.print(f"values among {len(values)} whole runs: {', '.join(seen)}", highlight=False)
    off = np.square(whole.baseline.image.values - results["code"].baseline.image.values).mean()
    console.print(f"mean squared difference that the one variance of the code makes: {off:.2g}", highlight=False)
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for size in LEVELS.values():
        parts = {"of the donor": found.donor.sel(level=size).values, "kept when cut": kept(whole, size)}
        for what, shares in parts.items():
            told = [f"{factor} {share:.2f}" for factor, share in zip(FACTORS, shares, strict=True)]
            console.print(f"{size} pixels, {what}: {', '.join(told)}", highlight=False, soft_wrap=True)
    for place, factor in enumerate(FACTORS):
        across = np.arange(len(LEVELS)) + 0.03 * (place - 2)
        axes[0].plot(across, found.donor.sel(factor=factor), "o-", ms=4, label=factor)
        axes[1].plot(across, [kept(whole, size)[place] for size in LEVELS.values()], "o-", ms=4)
    for ax, title in zip(axes, ("exchanged: has the donor's value", "cut: has its own value"), strict=True):
        ax.set(xticks=range(len(LEVELS)), xticklabels=list(LEVELS.values()), xlabel="level", title=title)
    axes[0].set_ylabel("share of images")
    axes[0].legend()
    cu.report.save(figure, folder.figures / "udpm.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
