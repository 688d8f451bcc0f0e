"""For how many steps in a row can the bottom of the U-Net be missing? Figures 9 and 20 of Prasad et al. 2023.

From the first redundant start of each depth, as the study temporal_dynamics found it on open samples, the cut lasts
longer and longer. Samples are open here too: without a prompt the model has to decide everything.

    python studies/longest_window/study.py --quick     # two minutes on two cores, after temporal_dynamics --quick
    python studies/longest_window/study.py --medium    # ten minutes, after temporal_dynamics --medium
    python studies/longest_window/study.py --full      # the paper's grid; prints its time before it starts
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from rich.console import Console

import causalunet as cu
from causalunet.scenes import FACTORS
from causalunet.script import Folder, run_script

DEPTHS = (4, 6, 8, 12)
THRESHOLD = 0.8


def quick(folder: Folder) -> cu.Study:
    """30 steps, 8 samples, lengths 4, 8, 12, ..."""
    return make_study(folder, samples=8, every=4)


def medium(folder: Folder) -> cu.Study:
    """50 steps, 16 samples, lengths 5, 10, 15, ..."""
    return make_study(folder, samples=16, every=5)


def full(folder: Folder) -> cu.Study:
    """100 steps, 100 samples, lengths 1, 2, 3, ..."""
    return make_study(folder, samples=100, every=1)


def make_study(folder: Folder, *, samples: int, every: int) -> cu.Study:
    """Cuts of growing length from the first redundant start of each depth on."""
    earlier = folder.earlier("temporal_dynamics", "open")
    found = cu.analysis.first_redundant_step(earlier, threshold=THRESHOLD, lasting=False, kind="ablate_block")
    steps = earlier.children["baseline"].sizes["step"]
    starts = {
        int(depth): int(step) for depth, step in found["step"].to_series().items() if depth in DEPTHS and step > 0
    }
    return cu.Study(
        name=f"longest window, {folder.size}",
        prompts=(cu.NO_PROMPT,),
        seeds=tuple(range(samples)),
        sampler=cu.DDPM(steps=steps, guidance_scale=1),
        interventions=tuple(
            cu.AblateBlock(bottom=depth, window=cu.Window(start, length))
            for depth, start in starts.items()
            for length in range(every, start + 1, every)
        ),
    )


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Figures 9 (mean SSIM by length) and 20 (images)."""
    longest = cu.analysis.longest_window(results, threshold=THRESHOLD)
    for depth, start, length, (low, high) in zip(
        longest["bottom"].values,
        longest["start"].values,
        longest["length"].values,
        longest["interval"].values,
        strict=True,
    ):
        told = "none" if np.isnan(length) else f"{length:.0f} [{low:.0f}, {high:.0f}]"
        console.print(
            f"bottom {depth} from step {start}: longest window with mean SSIM >= {THRESHOLD}: {told}",
            highlight=False,
            markup=False,
        )
    selections = cu.report.series_along(results, "length")
    for name, selection in selections.items():
        curve = cu.analysis.mean_curve(results, by="length", **selection)["mean"]
        changed = cu.analysis.factor_changes(results, by="length", **selection)["share"]
        middle = int(curve["length"].values[len(curve) // 2 - 1])
        shares = ", ".join(f"{factor} {float(changed.sel(length=middle, factor=factor)):.0%}" for factor in FACTORS)
        console.print(
            f"{name}: mean SSIM {float(curve[0]):.2f} after {int(curve['length'][0])} steps, "
            f"{float(curve[-1]):.2f} after {int(curve['length'][-1])}; after {middle} steps a change of {shares}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    cu.report.save(cu.report.plot_trend(results, selections, by="length"), folder.figures / "figure-9.png")
    deepest = list(selections.values())[-1]
    cu.report.save(cu.report.plot_grid(results, deepest, by="length"), folder.figures / "figure-20.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium, "full": full}, draw)
