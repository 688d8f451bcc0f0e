"""Do channels of a block have a time of their own, as denoising task routing gives them? After Park et al. 2024.

DTR lets every block of a network use four fifths of its channels at each timestep, a window that moves with the noise:
neighbouring timesteps share channels, far ones less. A network that was trained without is asked here whether it came
to such a division by itself: groups of channels of a block are cut in each third of the run, and the masks of DTR are
put on it as published, in reverse, and standing still.

    python studies/systems/dtr/study.py --quick     # a minute on one core
    python studies/systems/dtr/study.py --medium    # eight minutes
"""

from __future__ import annotations

import numpy as np
import scipy.stats
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

import causalunet as cu
from causalunet.script import Folder, run_script

BLOCKS = {"up.10": 32, "up.7": 64}
"""Channels of the blocks whose output is masked."""
THIRDS = ("early", "middle", "late")
GROUPS = 8
MASKS = ("as published", "in reverse", "the first ones")


def first_channels(tasks: int, channels: int, beta: float = 0.8, alpha: float = 4) -> NDArray[np.int64]:
    """First channel of each task's mask of floor(beta C) channels, task 0 having the least noise."""
    last = channels - int(channels * beta)
    return np.round(np.linspace(0, 1, tasks) ** alpha * last).astype(np.int64)


def masked(block: str, channels: int, first: NDArray[np.int64], label: str, beta: float = 0.8) -> cu.Composition:
    """At each step, zeros in the channels that its mask leaves out; step 1 has task 0."""
    edits = []
    for step, begin in enumerate(first.tolist(), start=1):
        kept = range(begin, begin + int(channels * beta))
        left_out = [channel for channel in range(channels) if channel not in kept]
        edits.append(cu.Edit(cu.Site(block) @ cu.Channels(left_out), cu.Window(step, 1)))
    return cu.Composition(edits, label=label)


def quick(folder: Folder) -> cu.Study:
    """9 steps, 6 open samples, one block."""
    return make_study(folder, steps=9, samples=6, blocks=("up.10",))


def medium(folder: Folder) -> cu.Study:
    """12 steps, 24 open samples, two blocks."""
    return make_study(folder, steps=12, samples=24, blocks=tuple(BLOCKS))


def make_study(folder: Folder, *, steps: int, samples: int, blocks: tuple[str, ...]) -> cu.Study:
    """Groups of channels by thirds of the run, and masks over all of it."""
    third, edits = steps // 3, list[cu.Edit | cu.Composition]()
    windows = dict(zip(THIRDS, (cu.Window(steps - third * number, third) for number in range(3)), strict=True))
    for block in blocks:
        size, first = BLOCKS[block] // GROUPS, first_channels(steps, BLOCKS[block])
        for group in range(GROUPS):
            site = cu.Site(block) @ cu.Channels(range(group * size, (group + 1) * size))
            edits += [cu.Edit(site, window, label=f"{block}, {group}, {when}") for when, window in windows.items()]
        for label, order in zip(MASKS, (first, first[::-1], 0 * first), strict=True):
            edits.append(masked(block, BLOCKS[block], order, f"{block}, {label}"))
    return cu.Study(
        name=f"dtr, {folder.size}",
        model="shapes",
        prompts=[cu.NO_PROMPT],
        seeds=range(samples),
        sampler=cu.DDIM(steps=steps, guidance_scale=1),
        interventions=edits,
    )


def effects_of(results: xr.DataTree, block: str) -> NDArray[np.float64]:
    """Root mean square changes, (third, group, sample)."""
    mse = results.outcomes["mse"]
    return np.sqrt([[mse.sel(intervention=f"{block}, {group}, {when}") for group in range(GROUPS)] for when in THIRDS])


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Tables and figure."""
    labels = {str(label) for label in results.outcomes["intervention"].values}
    blocks = [block for block in BLOCKS if f"{block}, {MASKS[0]}" in labels]
    figure = Figure(figsize=(4.5 * len(blocks), 3.4), layout="constrained")

    def say(name: str, values: NDArray[np.float64]) -> None:
        numbers = (values.mean(), *cu.analysis.bootstrap_mean(values))
        told = "{:+.4f} ({:+.4f} to {:+.4f})".format(*numbers)
        console.print(f"  {name:44} {told}", highlight=False, markup=False, soft_wrap=True)

    for ax, block in zip(figure.subplots(1, len(blocks), squeeze=False)[0], blocks, strict=True):
        console.print(f"{block}: root mean square change, with 95 % intervals", highlight=False)
        effects = effects_of(results, block)
        for when, of_third in zip(THIRDS, effects, strict=True):
            mean, (low, high) = of_third.mean(1), cu.analysis.bootstrap_mean(of_third).T
            ax.errorbar(range(GROUPS), mean, yerr=[mean - low, high - mean], marker="o", ms=3, lw=1, label=when)
            say(f"{when}, all groups", of_third.mean(0))
        for one, other in ((0, 1), (1, 2), (0, 2)):
            ranks = [
                scipy.stats.spearmanr(effects[one, :, run], effects[other, :, run]).statistic
                for run in range(effects.shape[2])
            ]
            say(f"rank correlation of groups, {THIRDS[one]} and {THIRDS[other]}", np.array(ranks))
        masks = {
            label: np.sqrt(results.outcomes["mse"].sel(intervention=f"{block}, {label}").values) for label in MASKS
        }
        for label, values in masks.items():
            say(f"masks of DTR, {label}", values)
        for label in MASKS[1:]:
            say(f"{label} - as published", masks[label] - masks[MASKS[0]])
        ax.set(xlabel="group of channels", title=f"{block} of {BLOCKS[block]} channels", yscale="log")
    figure.axes[0].set_ylabel("root mean square change")
    figure.axes[0].legend()
    cu.report.save(figure, folder.figures / "dtr.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
