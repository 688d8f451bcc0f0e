"""Do attention maps carry the layout, so that another word changes one thing and leaves the rest? After Hertz et al.

Prompt-to-Prompt (2022, arXiv 2208.01626) runs an edited prompt with the attention maps of the original one for the
first share of the steps. Here that is a patch of maps, from no steps to all; re-weighting of a word is a scaled column.
Each image is compared with the original's and with the edited prompt's own, of the same noise.

    python studies/systems/prompt_to_prompt/study.py --quick     # two minutes of CPU time
    python studies/systems/prompt_to_prompt/study.py --medium    # some four times as much
"""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

import causalunet as cu
from causalunet.design import Fill, Intervention, Site
from causalunet.script import Folder, run_script

SOURCE = "a red circle left of a blue square"
SWAPS = ("a green circle left of a blue square", "a yellow circle left of a blue square")
COLOURS = ((0, 1, 0), (1, 1, 0))
"""That the swapped words name."""
NEAR = 0.25
"""Mean difference from a colour within which a pixel has it."""
SHARES = (1 / 3, 2 / 3, 1.0)
WEIGHTS = (0.0, 3.0)
"""Of the word "circle" in the maps."""


def quick(folder: Folder) -> cu.Study:
    """21 steps, 2 seeds."""
    return make_study(folder, steps=21, seeds=2)


def medium(folder: Folder) -> cu.Study:
    """21 steps, 8 seeds."""
    return make_study(folder, steps=21, seeds=8)


def make_study(folder: Folder, *, steps: int, seeds: int) -> cu.Study:
    """Maps of the original prompt for the first third, two thirds, all of the steps; and a word re-weighted."""
    maps = [name for name in cu.load_model("scenes").anatomy.places if name.endswith(".maps")]

    def everywhere(length: int, fill: Fill, label: str, word: str = "") -> Intervention:
        sites = [Site(place) @ cu.Tokens(word) if word else Site(place) for place in maps]
        edits = [cu.Edit(site, cu.Window(steps, length), fill, branch="cond", label=label) for site in sites]
        return reduce(add, edits)

    return cu.Study(
        name=f"prompt to prompt, {folder.size}",
        model="scenes",
        prompts=[SOURCE, *SWAPS],
        seeds=range(seeds),
        sampler=cu.DDIM(steps=steps, guidance_scale=3.0),
        interventions=[
            *(everywhere(round(share * steps), cu.Patch(prompt=SOURCE), f"maps {share:.2f}") for share in SHARES),
            *(everywhere(steps, cu.Scale(weight), f"circle x {weight:g}", "circle") for weight in WEIGHTS),
        ],
    )


def arms(results: xr.DataTree) -> xr.DataArray:
    """Images of each arm, the run without an edit first, (arm, prompt, seed, channel, y, x)."""
    names = ["none", *(f"share {share:.2f}" for share in SHARES), *(f"weight {weight:g}" for weight in WEIGHTS)]
    baseline, edited = results.baseline.image, results.outcomes.image.isel(intervention=slice(len(names) - 1))
    values = np.concatenate([baseline.values[None], edited.values])
    prompts = [str(prompt) for prompt in baseline["prompt"].values]
    by_prompt = np.stack([values[:, [one == prompt for one in prompts]] for prompt in (SOURCE, *SWAPS)], axis=1)
    dims = ("arm", "prompt", "seed", "channel", "y", "x")
    return xr.DataArray(by_prompt, dims=dims, coords={"arm": names, "prompt": ["original", "green", "yellow"]})


def compared(images: xr.DataArray) -> xr.Dataset:
    """Mean squared difference from both runs without an edit, and pixels of the new colour, by arm and swapped word."""
    pixels, swapped = ["channel", "y", "x"], images.isel(prompt=slice(1, None))
    original, own = images.sel(arm="none").isel(prompt=0), images.sel(arm="none").isel(prompt=slice(1, None))
    colours = xr.DataArray(np.array(COLOURS), dims=("prompt", "channel"), coords={"prompt": swapped["prompt"]})
    return xr.Dataset(
        {
            "from the original's image": ((swapped - original) ** 2).mean(pixels),
            "from the new prompt's image": ((swapped - own) ** 2).mean(pixels),
            "pixels of the new colour": (abs(swapped - colours).mean("channel") < NEAR).sum(["y", "x"]),
            "of the original prompt, changed by": ((images.isel(prompt=0) - original) ** 2).mean(pixels),
        }
    )


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Tables and figure."""
    images = arms(results)
    for name, one in compared(images).items():
        table = one.mean("seed").to_pandas()
        console.print(f"{name}\n{table.round(4).to_string()}", highlight=False, markup=False)
    figure = Figure(figsize=(10, 5), layout="constrained")
    grid = figure.subplots(images.sizes["prompt"], images.sizes["arm"])
    for row, prompt in zip(grid, images["prompt"].values, strict=True):
        for ax, arm in zip(row, images["arm"].values, strict=True):
            ax.imshow(images.sel(prompt=prompt, arm=arm).isel(seed=0).transpose("y", "x", "channel"))
            ax.set_title(f"{prompt}, {arm}", fontsize="small")
            ax.axis("off")
    cu.report.save(figure, folder.figures / "prompt_to_prompt.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
