"""When does skipping steps matter if every frequency has its own pace? After Das et al. 2023, arXiv 2306.00501.

Shortest path diffusion gives every frequency the noise schedule that its variance among images asks for, so that all of
them turn into noise at one pace; a scalar schedule drowns fine ones first. Both are run on the optimal denoiser of the
scenes; and effects are foretold, frequency by frequency, for a Gaussian of the same spectrum.

    python studies/systems/spd/study.py --quick     # one minute on two cores
    python studies/systems/spd/study.py --medium    # more steps and samples
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import scipy.optimize
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from rich.console import Console

import causalunet as cu
from causalunet.analysis import LinearRun
from causalunet.design import Sampler
from causalunet.models import DiffusionModel
from causalunet.models.exact import load_optimal, scene_bank
from causalunet.process import VARIANCE_PRESERVING, Process, ShortestPath
from causalunet.schedule import Schedule, TrainingSchedule, cosine_alpha_bar
from causalunet.script import Folder, run_script

SIZE = 16
TAU = 1 - np.arange(1, 1001) / 1000
"""Time of the shortest path at every timestep, from the image to noise alone."""
LEAST = 1e-6
"""Mean square below which nothing is drawn."""
SAMPLERS: dict[str, Callable[..., Sampler]] = {"ddim": cu.DDIM, "ddpm": functools.partial(cu.DDPM, variance="small")}
BANDS = {"0 to 1": (0.0, 1.5), "2 to 3": (1.5, 3.5), "4 and more": (3.5, np.inf)}
"""Of frequencies, in periods per image."""


@functools.cache
def frequencies() -> NDArray[np.float64]:
    """Distance from frequency 0, (y, x), in periods per image."""
    along = np.fft.fftfreq(SIZE, 1 / SIZE)
    return np.hypot(along[:, None], along)


def spectrum(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean square of every frequency, (y, x), in the orthonormal transform, over images and channels."""
    return np.asarray(np.square(np.abs(np.fft.fft2(images, norm="ortho"))).mean((0, 1)))


@functools.cache
def of_scenes() -> ShortestPath:
    """The process whose S0 = c1 / |c2 + f|^power is nearest to the variance of scenes, in its logarithm."""
    images = scene_bank(size=SIZE).images
    measured, distance = np.log(spectrum(images - images.mean(0))), frequencies()

    def off(parts: NDArray[np.float64]) -> NDArray[np.float64]:
        return (parts[0] - np.exp(parts[2]) * np.log(np.exp(parts[1]) + distance) - measured).ravel()

    c1, c2, power = np.exp(scipy.optimize.least_squares(off, np.zeros(3)).x)
    return ShortestPath(c1=float(c1), c2=float(c2), power=float(power))


PROCESSES: dict[str, tuple[Callable[[], Process], NDArray[np.float64]]] = {
    "scalar": (lambda: VARIANCE_PRESERVING, cosine_alpha_bar()),
    "shortest": (of_scenes, TAU),
}


def enter(name: str) -> None:
    """Register the optimal denoiser of the scenes under a process."""
    process, alpha_bar = PROCESSES[name]

    def load() -> DiffusionModel:
        return load_optimal(scene_bank(size=SIZE), process=process(), alpha_bar=alpha_bar)

    cu.register(f"spd.{name}")(load)


for process_name in PROCESSES:
    enter(process_name)


def quick(folder: Folder) -> dict[str, cu.Study]:
    """15 steps, 12 samples."""
    return make_studies(folder, steps=15, samples=12)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """30 steps, 64 samples."""
    return make_studies(folder, steps=30, samples=64)


def make_studies(folder: Folder, *, steps: int, samples: int) -> dict[str, cu.Study]:
    """Skip a fifth of the steps from every start on, under both processes and with noise and without."""
    length = steps // 5
    return {
        f"{process}-{name}": cu.Study(
            name=f"spd, {process}, {name}, {folder.size}",
            model=f"spd.{process}",
            prompts=[cu.NO_PROMPT],
            seeds=range(samples),
            sampler=sampler(steps=steps, guidance_scale=1),
            interventions=cu.sweep(cu.SkipSteps, start=range(steps - 1, length, -1), length=length),
        )
        for process in PROCESSES
        for name, sampler in SAMPLERS.items()
    }


def schedules(study: cu.Study) -> Callable[[float], Schedule]:
    """The levels that a frequency goes through in a run, by its distance from frequency 0."""
    make, alpha_bar = PROCESSES[study.model.removeprefix("spd.")]
    process, whole = make(), study.sampler.schedule(TrainingSchedule(alpha_bar, from_noise=True))

    def of(frequency: float) -> Schedule:
        if not isinstance(process, ShortestPath):
            return whole
        variance = float(process.variance(np.array(frequency)))
        shares = tuple((1 - variance**tau) / (1 - variance) for tau in whole.alpha_bars)
        return Schedule(whole.timesteps, shares)

    return of


def by_band(of_frequencies: NDArray[np.float64]) -> xr.DataArray:
    """Means over bands of what frequencies have, (..., y, x)."""
    means = [
        of_frequencies[..., (frequencies() >= low) & (frequencies() < high)].mean(-1) for low, high in BANDS.values()
    ]
    return xr.DataArray(np.stack(means), dims=("band", "start"), coords={"band": list(BANDS)})


def foretold(study: cu.Study) -> xr.DataArray:
    """Mean square by which frequencies of a Gaussian with the spectrum of scenes are moved, (band, start)."""
    images, of = scene_bank(size=SIZE).images, schedules(study)
    measured, eta = spectrum(images - images.mean(0)), float(isinstance(study.sampler, cu.DDPM))
    windows = [item.window for item in study.interventions if isinstance(item, cu.SkipSteps)]
    moved = np.zeros((len(windows), SIZE, SIZE))
    for place in np.ndindex(SIZE, SIZE):
        schedule, variance = of(float(frequencies()[place])), measured[place][None]
        usual = cu.analysis.linear_run(schedule, variance, eta=eta)
        for number, window in enumerate(windows):
            run = cu.analysis.linear_run(schedule, variance, skipped=list(window), eta=eta)
            moved[(number, *place)] = LinearRun(run.first - usual.first, run.drawn - usual.drawn).second_moments(0.0)[0]
    return by_band(moved).assign_coords(start=[window.start for window in windows])


def measured(results: xr.DataTree) -> xr.DataArray:
    """The same of the optimal denoiser's images."""
    skipped = results.outcomes.image.sel(kind="skip_steps")
    moved = 2 * (skipped - results.baseline.image).transpose("intervention", "sample", ...).values
    return by_band(np.stack([spectrum(one) for one in moved])).assign_coords(start=skipped["start"].values)


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """What is moved in each band, by start: on the scenes, above, and as foretold for a Gaussian."""
    process = of_scenes()
    images = scene_bank(size=SIZE).images
    known, fit = float(spectrum(images - images.mean(0))[0, 0]), float(process.variance(np.zeros(())))
    console.print(
        f"S0 of scenes: c1 {process.c1:.3f}, c2 {process.c2:.3f}, power {process.power:.3f}; at frequency 0 it is "
        f"{fit:.0f}, and scenes have {known:.0f}",
        highlight=False,
        soft_wrap=True,
    )
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(2, len(results), sharex=True, sharey="row")
    for column, (name, tree) in zip(axes.T, results.items(), strict=True):
        found = {"scenes": measured(tree), "a Gaussian": foretold(cu.Study.from_json(tree.attrs["study"]))}
        for ax, (what, one) in zip(column, found.items(), strict=True):
            told = []
            for band in BANDS:
                own = one.sel(band=band)
                ax.plot(own["start"], own.where(own > LEAST), "o-", ms=3, lw=1, label=band)
                told.append(f"{band}: " + " ".join(f"{value:.1g}" for value in own.values))
            console.print(f"{name}, {what}, from the first start to the last", highlight=False)
            for line in told:
                console.print(f"  {line}", highlight=False, soft_wrap=True)
            ax.set(yscale="log")
        column[0].set_title(name)
        column[1].set_xlabel("first step skipped")
        column[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].invert_xaxis()
    axes[0, 0].set_ylabel("scenes: mean square")
    axes[1, 0].set_ylabel("Gaussian: mean square")
    axes[0, 0].legend(title="frequencies")
    cu.report.save(figure, folder.figures / "spd.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
