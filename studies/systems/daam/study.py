"""Where does a word go in an image, and does the image change there without it? After Tang et al. 2023, DAAM.

Their word map is the attention that pixels pay to a word, summed over heads, steps and layers (arXiv 2210.04885). Here
it stands beside what the word does: its column of every attention map is zeroed, and the place of the change is
compared with the map of the word, with that of the other word, and with the objects, which their colours tell.

    python studies/systems/daam/study.py --quick     # two minutes of CPU time
    python studies/systems/daam/study.py --medium    # some four times as much
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

import causalunet as cu
from causalunet.design import Intervention
from causalunet.script import Folder, run_script

WORDS = ("circle", "square")
COLOURS = {"red": (1, 0, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "magenta": (1, 0, 1)}
NEAR, LEAST = 0.25, 6
"""Mean difference from its colour within which a pixel is of an object, and pixels of one that is there."""
PROMPTS = tuple(
    f"a {one} circle {where} a {other} square"
    for one, other in (("red", "blue"), ("yellow", "magenta"))
    for where in ("left of", "right of", "above", "below")
)


def quick(folder: Folder) -> cu.Study:
    """20 steps, 8 prompts, 2 seeds."""
    return make_study(folder, steps=20, seeds=2)


def medium(folder: Folder) -> cu.Study:
    """20 steps, 8 prompts, 8 seeds."""
    return make_study(folder, steps=20, seeds=8)


def places(model: Any) -> list[str]:
    """Of the maps of all attention."""
    return [name for name in model.anatomy.places if name.endswith(".maps")]


def make_study(folder: Folder, *, steps: int, seeds: int) -> cu.Study:
    """Zero each word's column of all maps at all steps."""
    window, maps = cu.Window(steps, steps), places(cu.load_model("scenes"))
    cuts: list[Intervention] = [
        reduce(add, (cu.Edit(cu.Site(place) @ cu.Tokens(word), window) for place in maps)) for word in WORDS
    ]
    return cu.Study(
        name=f"daam, {folder.size}",
        model="scenes",
        prompts=PROMPTS,
        seeds=range(seeds),
        sampler=cu.DDIM(steps=steps, guidance_scale=3.0),
        interventions=cuts,
        record=cu.Record(activations=maps),
    )


def word_maps(results: xr.DataTree, size: int) -> xr.DataArray:
    """Attention to each word, summed over heads, steps and layers, (word, sample, y, x), in pixels of the image."""
    model, total = cu.load_model("scenes"), torch.zeros(())
    prompts = [str(prompt) for prompt in results.baseline["prompt"].values]
    tokens: list[list[int]] = [
        sorted({number for one in model.spelled(prompt) for number in one.numbers(word)})  # type: ignore[attr-defined]
        for word in WORDS
        for prompt in prompts
    ]
    for name in places(model):
        maps = results[f"activations/{name}"].baseline.astype("float32").sum(["step", "head"]).values
        many = np.concatenate([maps] * len(WORDS))
        of_words = np.stack([one[..., there].mean(-1) for one, there in zip(many, tokens, strict=True)])
        grown = torch.nn.functional.interpolate(torch.from_numpy(of_words)[:, None], (size, size), mode="bicubic")
        total = total + grown.clamp(min=0)[:, 0]
    values = total.reshape(len(WORDS), len(prompts), size, size).numpy()
    return xr.DataArray(values, dims=("word", "sample", "y", "x"), coords={"word": list(WORDS)})


def objects(results: xr.DataTree) -> xr.DataArray:
    """Which pixels of the baseline's images have the colour of each word's object, (word, sample, y, x)."""
    prompts = [str(prompt).split() for prompt in results.baseline["prompt"].values]
    colours = [[COLOURS[words[words.index(word) - 1]] for words in prompts] for word in WORDS]
    wanted = xr.DataArray(colours, dims=("word", "sample", "channel"), coords={"word": list(WORDS)})
    image = results.baseline.image.drop_vars(list(results.baseline.image.coords))
    return (abs(image - wanted).mean("channel") < NEAR).transpose("word", "sample", "y", "x")


def likeness(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Correlation over pixels."""
    return xr.corr(one.astype(float), other.astype(float), dim=["y", "x"])


def compared(results: xr.DataTree) -> tuple[xr.Dataset, xr.DataArray, xr.DataArray]:
    """Likenesses by word and sample, word maps, and mean squared changes."""
    image = results.baseline.image
    maps, there = word_maps(results, image.sizes["x"]), objects(results)
    edited = results.outcomes.image.isel(intervention=slice(len(WORDS)))
    change = ((edited - image) ** 2).mean("channel").rename(intervention="word")
    change = change.drop_vars(list(change.coords)).assign_coords(word=list(WORDS))
    swapped = {"word": list(WORDS[::-1])}
    rival, other = maps.sel(swapped).assign_coords(word=list(WORDS)), there.sel(swapped).assign_coords(word=list(WORDS))
    both = (there.sum(["y", "x"]) >= LEAST).all("word")
    found = xr.Dataset(
        {
            "map, own object": likeness(maps, there),
            "map, other object": likeness(maps, other),
            "change, own map": likeness(change, maps),
            "change, other map": likeness(change, rival),
            "change, own object": likeness(change, there),
            "change, other object": likeness(change, other),
        }
    )
    return found.where(both).assign(size=change.mean(["y", "x"])), maps, change


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Table and figure."""
    found, maps, change = compared(results)
    errors = found.std("sample", ddof=1) / found.count("sample") ** 0.5
    table = xr.concat([found.mean("sample"), errors], "of").assign_coords(of=["mean", "s.e."]).to_dataframe().unstack()
    seen = int(found["map, own object"].isel(word=0).notnull().sum())
    console.print(f"both objects in {seen} of {found.sizes['sample']} images", highlight=False)
    console.print(table.T.round(5).to_string(), highlight=False, markup=False)
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots(2, 5)
    for row, sample in zip(axes, (0, found.sizes["sample"] // 2), strict=True):
        panels = [results.baseline.image.isel(sample=sample).transpose("y", "x", "channel"), *maps.isel(sample=sample)]
        titles = ["image", *(f"map of {word}" for word in WORDS), *(f"change without {word}" for word in WORDS)]
        for ax, panel, title in zip(row, [*panels, *change.isel(sample=sample)], titles, strict=True):
            ax.imshow(panel)
            ax.set_title(title, fontsize="small")
            ax.axis("off")
    cu.report.save(figure, folder.figures / "daam.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
