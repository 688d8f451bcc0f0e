"""How long must the U-Net run whole before a second cut? Figures 10 and 21 of Prasad et al. 2023.

From the first redundant start of each depth, cut for as long as the study longest_window allows (and as fits twice),
relax, cut again. Samples are open, as there.

    python studies/relaxation/study.py --quick     # two minutes on two cores, after longest_window --quick
    python studies/relaxation/study.py --medium    # a quarter of an hour, after longest_window --medium
    python studies/relaxation/study.py --full      # the paper's grid; prints its time before it starts
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from rich.console import Console

import causalunet as cu
from causalunet.script import Folder, run_script

THRESHOLD = 0.8


def quick(folder: Folder) -> cu.Study:
    """30 steps, 8 samples, relaxations of 0, 1, ..., 6 steps."""
    return make_study(folder)


def medium(folder: Folder) -> cu.Study:
    """50 steps, 16 samples, relaxations of 0, 1, ..., 10 steps."""
    return make_study(folder)


def full(folder: Folder) -> cu.Study:
    """100 steps, 100 samples, relaxations of 0, 2, ..., 20 steps."""
    return make_study(folder)


def make_study(folder: Folder) -> cu.Study:
    """Two cuts of each depth, with a relaxation between them of up to a fifth of the run."""
    earlier = folder.earlier("longest_window")
    longest = cu.analysis.longest_window(earlier, threshold=THRESHOLD)
    steps = earlier.children["baseline"].sizes["step"]
    most = steps // 5
    interventions = []
    for depth, start, length in zip(*(longest[name].values for name in ("bottom", "start", "length")), strict=True):
        if np.isnan(length):  # not even the shortest window passed, so there is nothing to recover from
            continue
        cut = min(int(length), (int(start) - most) // 2)
        interventions += [
            cu.AblateBlock(bottom=int(depth), window=cu.cut_relax_cut(int(start), cut=cut, relax=relax))
            for relax in range(0, most + 1, max(1, steps // 50))
        ]
    return cu.Study(
        name=f"relaxation, {folder.size}",
        prompts=(cu.NO_PROMPT,),
        seeds=tuple(range(earlier.children["baseline"].sizes["sample"])),
        sampler=cu.DDPM(steps=steps, guidance_scale=1),
        interventions=tuple(interventions),
    )


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Figures 10 (mean SSIM by relaxation) and 21 (images)."""
    needed = cu.analysis.relaxation_needed(results, threshold=THRESHOLD)
    for depth, start, cut, relax, (low, high) in zip(
        *(needed[name].values for name in ("bottom", "start", "cut", "relax", "interval")), strict=True
    ):
        told = "none of those tested" if np.isnan(relax) else f"{relax:.0f} [{low:.0f}, {high:.0f}]"
        console.print(
            f"bottom {depth} cut for {cut} steps from step {start}, twice: relaxation needed for mean SSIM >= "
            f"{THRESHOLD}: {told}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    selections = cu.report.series_along(results, "relax")
    for name, selection in selections.items():
        curve = cu.analysis.mean_curve(results, by="relax", **selection)["mean"]
        console.print(
            f"{name}: mean SSIM {float(curve[0]):.2f} without relaxation, {float(curve[-1]):.2f} with "
            f"{int(curve['relax'][-1])} steps",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    cu.report.save(cu.report.plot_trend(results, selections, by="relax"), folder.figures / "figure-10.png")
    deepest = list(selections.values())[-1]
    cu.report.save(cu.report.plot_grid(results, deepest, by="relax"), folder.figures / "figure-21.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium, "full": full}, draw)
