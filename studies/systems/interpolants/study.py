"""When does skipping steps matter between two kinds of images? After Albergo et al. 2023, arXiv 2303.08797.

A stochastic interpolant leads from solid scenes to striped ones. Two kinds of noise can lie between: g, which is part
of what the model has learned, and e, which the sampler adds and the score takes back. Neither changes what is made,
only the way there; so what they change of an effect is theirs.

    python studies/systems/interpolants/study.py --quick     # two minutes on two cores
    python studies/systems/interpolants/study.py --medium    # more steps and samples
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

import causalunet as cu
from causalunet.design import Noise, Sampler, Start
from causalunet.design.samplers import Estimate, State
from causalunet.models import DiffusionModel
from causalunet.models.exact import ImageBank, load_interpolant, scene_bank
from causalunet.models.exact.interpolant import Interpolants, Latent, Mix, fitted_mix
from causalunet.prediction import Prediction, training_of
from causalunet.scenes import FACTORS
from causalunet.schedule import Level
from causalunet.script import Folder, run_script

LATENTS = {"none": 0.0, "some": 1.0}
"""c of g^2 = c t (1 - t)."""
DIFFUSIONS = (0.0, 0.05, 0.2)
"""e. Three steps at once are stable up to about 0.28, twice the least variance of a state over their length."""
PIXEL_NOISE = 0.2
PREDICTION = Prediction("velocity_score")
CLASSES = FACTORS["shape"]


@functools.cache
def scenes(texture: str, size: int = 12) -> ImageBank:
    """All scenes of a texture."""
    bank = scene_bank(size=size)
    own = bank.matches([texture])[0]
    return ImageBank(bank.images[own], [label for label, one in zip(bank.labels, own, strict=True) if one])


@functools.cache
def solid() -> Mix:
    """The mixture of Gaussians where runs begin."""
    return fitted_mix(scenes("solid"), CLASSES, PIXEL_NOISE)


@dataclass(frozen=True, slots=True)
class Solid(Start):
    """A draw from the Gaussians of solid scenes, one for each shape; the seed names shape and noise."""

    name: ClassVar[str] = "interpolants.solid"

    def state(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The scene itself: where a run begins there is nothing of the image in it."""
        noise = torch.from_numpy(Noise(self.seed).state(shape)).double().flatten()
        drawn = solid().draw(noise, float(np.random.default_rng(self.seed).uniform()))
        return np.asarray(drawn.reshape(shape).numpy(), dtype=np.float32)


def enter(name: str, latent: float) -> None:
    """Register the interpolant from solid to striped scenes."""

    def load() -> DiffusionModel:
        bank, other = scenes("striped"), scenes("solid")
        return load_interpolant(bank, other=other, classes=CLASSES, latent=latent, pixel_noise=PIXEL_NOISE)

    cu.register(name)(load)


for of_name, strength in LATENTS.items():
    enter(f"interpolants.{of_name}", strength)


def quick(folder: Folder) -> dict[str, cu.Study]:
    """12 steps, 10 samples."""
    return make_studies(folder, steps=12, samples=10)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """30 steps, 64 samples."""
    return make_studies(folder, steps=30, samples=64)


def make_studies(folder: Folder, *, steps: int, samples: int) -> dict[str, cu.Study]:
    """Skip a fifth of the steps from every start on, with and without both kinds of noise."""
    length = steps // 5
    return {
        f"{name}-{diffusion:g}": cu.Study(
            name=f"interpolants, g {name}, e {diffusion:g}, {folder.size}",
            model=f"interpolants.{name}",
            prompts=[cu.NO_PROMPT],
            starts=[Solid(seed) for seed in range(samples)],
            sampler=cu.FlowSDE(steps=steps, guidance_scale=1, diffusion=diffusion),
            interventions=cu.sweep(cu.SkipSteps, start=range(steps - 1, length, -1), length=length),
        )
        for name in LATENTS
        for diffusion in DIFFUSIONS
    }


def moved(results: xr.DataTree) -> xr.DataArray:
    """Mean squared error to the whole run by start: what becomes of a sample."""
    found = cu.analysis.effects(results, "mse", threshold=0.01, kind="skip_steps")
    return xr.DataArray(found["mean"].values, dims="start", coords={"start": found["start"].values})


def made(sampler: Sampler, between: Interpolants, levels: list[Level]) -> tuple[NDArray[np.float64], ...]:
    """Mean and covariance of what runs make: between Gaussians every step is affine, so a few points say all of it."""
    mean, covariance = (part.numpy() for part in between.other.moments())
    points = torch.cat([torch.zeros(1, len(mean)), torch.eye(len(mean))]).double()
    for at, to in itertools.pairwise(levels):
        value = torch.cat(between.velocity_and_score(points * at.scale, torch.tensor(at.noise).double()), dim=1)
        said = Estimate(*PREDICTION.image_and_noise(value, points, at), None, points, at)
        step = State(points), (said,), at, to
        moved = sampler.mean(*step).numpy()
        drawn = sampler.spread(*step) if sampler.draws and to.alpha_bar < 1 else 0.0
        matrix = (moved[1:] - moved[0]).T
        mean = moved[0] + matrix @ mean
        covariance = matrix @ covariance @ matrix.T + drawn**2 * np.eye(len(mean))
    return mean, covariance


def distance(one: tuple[NDArray[np.float64], ...], other: tuple[NDArray[np.float64], ...]) -> float:
    """Squared Frechet distance of two Gaussians, for each number of an image in [0, 1]."""
    values, vectors = np.linalg.eigh(one[1])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other[1] @ root), 0)).sum()
    apart = np.square(one[0] - other[0]).sum() + np.trace(one[1]) + np.trace(other[1]) - 2 * overlap
    return float(apart) / (4 * len(one[0]))


def shifted(latent: float, study: cu.Study) -> xr.DataArray:
    """How far the distribution of what is made goes from that of whole runs, by start: no sample and no chance."""
    image, other = (fitted_mix(scenes(texture, 6), [""], PIXEL_NOISE) for texture in ("striped", "solid"))
    between = Interpolants(image, other, Latent("linear", latent))
    sampler = study.sampler
    schedule = sampler.schedule(training_of(cu.load_model(study.model)))
    whole = made(sampler, between, [schedule.level(step) for step in range(schedule.steps, -1, -1)])
    found = {}
    for item in study.interventions:
        if not isinstance(item, cu.SkipSteps):
            continue
        left = [step for step in range(schedule.steps, -1, -1) if step not in set(item.window)]
        found[item.window.start] = distance(made(sampler, between, list(map(schedule.level, left))), whole)
    return xr.DataArray(list(found.values()), dims="start", coords={"start": list(found)})


def summary(found: xr.DataArray) -> str:
    """At both ends, and where it is most."""
    first, last, most = (
        float(found.sel(start=start)) for start in (found.start.max(), found.start.min(), found.idxmax())
    )
    return f"{first:.2g} from the first start, {last:.2g} from the last, most from {int(found.idxmax())} ({most:.2g})"


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Effects by start on a sample, above, and on the distribution, below; without g and with it."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (name, latent) in zip(axes.T, LATENTS.items(), strict=True):
        for diffusion in DIFFUSIONS:
            tree = results[f"{name}-{diffusion:g}"]
            found = moved(tree), shifted(latent, cu.Study.from_json(tree.attrs["study"]))
            told = [f"{what} {summary(one)}" for what, one in zip(("samples", "distribution"), found, strict=True)]
            console.print(f"g {name}, e {diffusion:g}: {'; '.join(told)}", highlight=False, soft_wrap=True)
            for ax, one in zip(column, found, strict=True):
                ax.plot(one["start"], one, "o-", ms=3, lw=1, label=f"e = {diffusion:g}")
        column[0].set(yscale="log", title=f"g: {name}")
        column[1].set(yscale="log", xlabel="first step skipped")
    axes[0, 0].invert_xaxis()
    axes[0, 0].set_ylabel("sample: mean squared error")
    axes[1, 0].set_ylabel("distribution: squared distance")
    axes[0, 1].legend()
    cu.report.save(figure, folder.figures / "interpolants.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
