"""When do steps matter, if a run begins at the damaged image? After Resfusion, Shi et al. 2023, arXiv 2311.14900.

Resfusion adds noise and the residual R = u - x_0 together, and begins halfway, where the state has nothing of the image
but what the damaged one, u, has of it. Here the network is the optimal denoiser of 1080 scenes given one of them
damaged, so that what is lost is lost by the process and not by the network; beside it the same denoiser restores the
same images from pure noise, around the given image (the second form of DiffuseVAE).

    python studies/systems/resfusion/study.py --quick     # two minutes on two cores
    python studies/systems/resfusion/study.py --medium    # ten minutes
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

import causalunet as cu
from causalunet.models.base import register
from causalunet.models.exact import RestorationModel, load_restoration, scene_bank
from causalunet.process import AddedImage
from causalunet.schedule import cosine_alpha_bar
from causalunet.script import Folder, run_script

MODELS = {"resfusion": "systems.resfusion", "from noise": "systems.restoration-from-noise"}
TITLES = {"resfusion": "from the damaged image", "from noise": "from noise"}


@register("systems.resfusion")
def load_resfusion(device: str = "cpu") -> RestorationModel:
    """Scenes of 16 pixels, seen as means of 4 by 4 pixels under noise; the process is Resfusion's."""
    return load_restoration(scene_bank(), device=device)


@register("systems.restoration-from-noise")
def load_from_noise(device: str = "cpu") -> RestorationModel:
    """The same scenes, damaged alike, restored from noise around the given image."""
    return load_restoration(scene_bank(), process=AddedImage(), alpha_bar=cosine_alpha_bar()[:990], device=device)


@cache
def prompts(count: int) -> list[str]:
    """As many scenes, spread over all."""
    labels = scene_bank().labels
    return [labels[number] for number in np.linspace(0, len(labels) - 1, count).astype(int)]


def quick(folder: Folder) -> dict[str, cu.Study]:
    """15 steps, 16 damaged scenes."""
    return make_studies(folder, steps=15, samples=16)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """30 steps, 48 damaged scenes."""
    return make_studies(folder, steps=30, samples=48)


def make_studies(folder: Folder, *, steps: int, samples: int) -> dict[str, cu.Study]:
    """Skip a fifth of the steps from every start on, and leave what the state says out of the denoiser as long."""
    length = steps // 5
    starts = range(steps - 1, length, -1)
    return {
        name: cu.Study(
            name=f"resfusion, {name}, {folder.size}",
            model=model,
            prompts=prompts(samples),
            sampler=cu.DDPM(steps=steps, guidance_scale=1),
            interventions=[
                *cu.sweep(cu.SkipSteps, start=starts, length=length),
                *(cu.Edit("logits", cu.Window(start, length), cu.Zero()) for start in starts),
            ],
        )
        for name, model in MODELS.items()
    }


def truth(results: xr.DataTree) -> NDArray[np.float32]:
    """What was damaged, (sample, channel, y, x)."""
    model: Any = load_resfusion()
    return np.asarray(model.truth([str(prompt) for prompt in results["baseline"].to_dataset()["prompt"].values]))


def error(images: xr.DataArray, expected: NDArray[np.float32]) -> xr.DataArray:
    """Root of the mean squared distance to what was damaged, over samples."""
    squared: xr.DataArray = (images - expected) ** 2
    root: xr.DataArray = squared.mean(("sample", "channel", "y", "x")) ** 0.5
    return root


def compared(results: xr.DataTree) -> xr.Dataset:
    """Effects of skipped steps and of a blind denoiser by start, and how far images are from what was damaged."""
    expected, outcomes = truth(results), results["outcomes"].to_dataset()
    parts: dict[str, Any] = {}
    for name, kind in (("skipped", "skip_steps"), ("blind", "edit")):
        own = outcomes.isel(intervention=outcomes["kind"].values == kind)
        found = cu.analysis.effects(results, "mse", threshold=0.01, kind=kind)
        order = found["intervention"].values
        parts[name] = ("start", found["mean"].values)
        parts[f"{name}_interval"] = (("start", "bound"), found["interval"].values)
        parts[f"{name}_error"] = ("start", error(own["image"], expected).sel(intervention=order).values)
        start = found["start"].values
    whole = float(error(results["baseline"].to_dataset()["image"], expected))
    made = xr.Dataset(parts, coords={"start": start, "bound": ["lower", "upper"]}, attrs={"error": whole})
    return made.sortby("start", ascending=False)


def tell(name: str, found: xr.Dataset, console: Console) -> None:
    """When which of both costs most, and what it does to the restored image."""
    lines = [f"{TITLES[name]}: the whole run is {found.attrs['error']:.3f} off what was damaged"]
    for part, words in (("skipped", "skipping"), ("blind", "a denoiser that does not see the state")):
        at = int(found[part].idxmax())
        first, middle, last = (float(found[part][place]) for place in (0, len(found["start"]) // 2, -1))
        low, high = found[f"{part}_interval"].sel(start=at).values
        worst = float(found[f"{part}_error"].max())
        lines.append(
            f"  {words}: most from step {at} ({float(found[part].max()):.4f}, {low:.4f} to {high:.4f}); "
            f"first {first:.4f}, middle {middle:.4f}, last {last:.4f}; worst image {worst:.3f} off"
        )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Both processes side by side."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    labels = {"skipped": "steps skipped", "blind": "state not seen"}
    found = {name: compared(tree) for name, tree in results.items()}
    for ax, (name, one) in zip(axes, found.items(), strict=False):
        tell(name, one, console)
        for part, label in labels.items():
            lower, upper = one[f"{part}_interval"].values.T
            ax.plot(one["start"], one[part], label=label)
            ax.fill_between(one["start"], lower, upper, alpha=0.2)
        ax.set(xlabel="first step of the window", title=TITLES[name], ylim=(0, None))
        ax.invert_xaxis()
    axes[0].set_ylabel("mean squared error to the whole run")
    axes[0].legend()
    for name, one in found.items():
        (line,) = axes[2].plot(one["start"], one["skipped_error"], label=TITLES[name])
        axes[2].axhline(one.attrs["error"], color=line.get_color(), linestyle=":", linewidth=1)
    axes[2].set(xlabel="first step skipped", ylabel="off what was damaged", title="restored images")
    axes[2].invert_xaxis()
    axes[2].legend()
    cu.report.save(figure, folder.figures / "resfusion.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
