"""Is a network's attention less sharp at other sizes, and does it help to make it sharper? After Jin et al. 2023.

Attention among N image tokens of a network that was trained with T spreads over more of them as N grows: its entropy
rises with ln N. They scale its logits by sqrt(ln N / ln T), without any training. Here the keys of image tokens are
scaled by that factor, and by its inverse, at sizes that the network was not trained for; keys of the text are left as
they are.

    python studies/systems/variable_size/study.py --quick     # a minute on one core
    python studies/systems/variable_size/study.py --medium    # five minutes
"""

from __future__ import annotations

import copy
import dataclasses
import math
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

import causalunet as cu
from causalunet.scenes import IMAGE_SIZE, Scene, draw_scenes
from causalunet.script import Folder, run_script

LEVELS = {
    4: ("down.9", "down.10", "down.11", "up.4", "up.5", "up.6", "up.7"),
    8: ("down.13", "down.14", "down.15", "mid", "up.0", "up.1", "up.2", "up.3"),
}
"""Blocks with attention, by how many times smaller than the image their tokens' grid is."""
LOOKED_AT = ("down.9", "mid", "up.5")
"""Blocks whose attention's entropy is computed."""
SIZES = (24, 48, 64)


def resized(size: int) -> Any:
    """Make `shapes` for images of another size; its factor reader is left out, as it reads 32 pixels."""
    model: Any = cu.load_model("shapes")
    unet = copy.deepcopy(model.unet)
    unet.config = dataclasses.replace(unet.config, image_size=size)
    return dataclasses.replace(model, unet=unet, reader=None)


for other in SIZES:
    cu.register(f"shapes of {other} pixels")(partial(resized, other))


def tokens(block: str, size: int) -> int:
    """Of the image, in the attention of a block."""
    return (size // next(times for times, blocks in LEVELS.items() if block in blocks)) ** 2


def factor(block: str, size: int) -> float:
    """Of the logits: sqrt(ln N / ln T)."""
    return math.sqrt(math.log(tokens(block, size)) / math.log(tokens(block, IMAGE_SIZE)))


def quick(folder: Folder) -> dict[str, cu.Study]:
    """8 steps, 6 prompts."""
    return make_studies(folder, steps=8, prompts=6)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """12 steps, 24 prompts."""
    return make_studies(folder, steps=12, prompts=24)


def make_studies(folder: Folder, *, steps: int, prompts: int) -> dict[str, cu.Study]:
    """One for each size, that of training included, where the factor is 1."""
    whole, blocks = cu.Window(steps, steps), [block for some in LEVELS.values() for block in some]
    return {
        str(size): cu.Study(
            name=f"variable size, {size}, {folder.size}",
            model="shapes" if size == IMAGE_SIZE else f"shapes of {size} pixels",
            prompts=[scene.prompt for scene in draw_scenes(prompts, seed=2)],
            sampler=cu.DDIM(steps=steps, guidance_scale=1),
            interventions=[
                cu.Composition(
                    [cu.Edit(f"{block}.joint.keys", whole, cu.Scale(factor(block, size) ** power)) for block in blocks],
                    label=label,
                )
                for label, power in {"scaled": 1, "scaled the other way": -1}.items()
            ][: 1 if size == IMAGE_SIZE else 2],
            record=cu.Record(
                activations=[f"{block}.joint.{part}" for block in LOOKED_AT for part in ("queries", "keys")],
                dtype="float32",
            ),
        )
        for size in (*SIZES[:1], IMAGE_SIZE, *SIZES[1:])
    }


def entropy(results: xr.DataTree, block: str, times: float) -> NDArray[np.float64]:
    """Of attention among image tokens as a share of its largest, ln N, by sample; logits are multiplied first."""
    queries, keys = (
        results[f"activations/{block}.joint.{part}"].to_dataset()["baseline"].stack(token=("y", "x"))
        .transpose("sample", "step", "head", "token", "channel").values.astype(np.float64)
        for part in ("queries", "keys")
    )  # fmt: skip
    logits = times * queries @ keys.swapaxes(-1, -2) / math.sqrt(queries.shape[-1])
    logits -= logits.max(-1, keepdims=True)
    share = np.exp(logits)
    share /= share.sum(-1, keepdims=True)
    found: NDArray[np.float64] = -(share * np.log(np.maximum(share, 1e-300))).sum(-1).mean((1, 2, 3))
    return found / math.log(queries.shape[-2])


def agreement(images: NDArray[np.float32], prompts: list[str]) -> NDArray[np.float64]:
    """Share of factors that are read as asked for, after the image is brought to the size that the reader knows."""
    edges = np.arange(IMAGE_SIZE + 1) * images.shape[-1] / IMAGE_SIZE
    pixels = np.arange(images.shape[-1])
    area = np.clip(np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels), 0, None)
    area /= area.sum(1, keepdims=True)
    read, _ = cu.load_model("shapes").read_factors((area @ images @ area.T).astype(np.float32))
    return np.asarray((read == [Scene.parse(prompt).codes for prompt in prompts]).mean(1))


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Tables and figure."""

    def say(name: str, values: NDArray[np.float64]) -> None:
        told = "{:.4g} ({:.4g} to {:.4g})".format(values.mean(), *cu.analysis.bootstrap_mean(values))
        console.print(f"  {name:44} {told}", highlight=False, markup=False, soft_wrap=True)

    shares: dict[str, list[float]] = {f"{block}{how}": [] for block in LOOKED_AT for how in ("", ", scaled")}
    for name, tree in results.items():
        console.print(f"{name} pixels", highlight=False)
        prompts = tree.baseline["prompt"].values.tolist()
        plain = agreement(tree.baseline["image"].values, prompts)
        say("agreement with the prompt", plain)
        for label in (str(one) for one in tree.outcomes["intervention"].values if not str(one).startswith("null")):
            edited = tree.outcomes.to_dataset().sel(intervention=label)
            say(f"{label}: gained", agreement(edited["image"].values, prompts) - plain)
            say(f"{label}: mean squared error", edited["mse"].values)
        for block in LOOKED_AT:
            for how, times in {"": 1.0, ", scaled": factor(block, int(name))}.items():
                share = entropy(tree, block, times)
                say(f"entropy of {block} over ln N{how}", share)
                shares[f"{block}{how}"].append(float(share.mean()))
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    ax = figure.subplots()
    for number, block in enumerate(LOOKED_AT):
        for how, style in (("", "-"), (", scaled", "--")):
            ax.plot(
                [int(name) for name in results],
                shares[f"{block}{how}"],
                style,
                color=f"C{number}",
                label=f"{block}{how}",
            )
    ax.set(xlabel="pixels", ylabel="entropy of attention over ln N")
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    cu.report.save(figure, folder.figures / "variable_size.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
