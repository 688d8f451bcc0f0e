"""When does the U-Net need what? Figures 3 to 8 and 15 to 19 of Prasad et al. 2023, on the embedded model.

Three sweeps over the start step: whole steps skipped, top skip connections ablated, bottom decoder blocks ablated.

    python studies/temporal_dynamics/study.py --quick     # about three minutes on two cores
    python studies/temporal_dynamics/study.py --medium    # about half an hour; the numbers of the documentation
    python studies/temporal_dynamics/study.py --full      # the paper's grid; prints its time before it starts
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import xarray as xr
from rich.console import Console

import causalunet as cu
from causalunet.scenes import draw_scenes
from causalunet.script import Folder, run_script

THRESHOLD = 0.8
LENGTH = {"quick": 6, "medium": 5, "full": 5}
"""Of the windows, in steps."""
KINDS: dict[str, dict[str, Any]] = {
    "SkipSteps": {"kind": "skip_steps"},
    "AblateSkip, top 2": {"kind": "ablate_skip", "top": 2},
    "AblateBlock, bottom 2": {"kind": "ablate_block", "bottom": 2},
}


def quick(folder: Folder) -> cu.Study:
    """30 steps, 6 samples, 6 start steps, windows of 6: a fifth of the run, since shorter ones change little here."""
    return make_study("temporal dynamics, quick", samples=6, steps=30, starts=(29, 24, 19, 14, 9, 6), lengths=(6,))


def medium(folder: Folder) -> cu.Study:
    """50 steps, 16 samples, 12 start steps, windows of 5 (and of 1 for SkipSteps)."""
    return make_study("temporal dynamics, medium", samples=16, steps=50, starts=range(49, 4, -4), lengths=(5, 1))


def full(folder: Folder) -> cu.Study:
    """100 steps, 100 samples, every start step, the paper's windows of 5 steps, and single steps for SkipSteps."""
    return make_study("temporal dynamics", samples=100, steps=100, starts=range(99, 4, -1), lengths=(5, 1))


def make_study(name: str, *, samples: int, steps: int, starts: Iterable[int], lengths: tuple[int, ...]) -> cu.Study:
    """The three sweeps with six depths of AblateBlock, on prompts drawn at random."""
    starts, length = tuple(starts), lengths[0]
    return cu.Study(
        name=name,
        prompts=tuple(scene.prompt for scene in draw_scenes(samples, seed=0)),
        sampler=cu.DDPM(steps=steps),
        interventions=(
            *cu.sweep(cu.SkipSteps, length=lengths, start=starts),
            *cu.sweep(cu.AblateSkip, top=2, start=starts, length=length),
            *cu.sweep(cu.AblateBlock, bottom=(2, 4, 6, 8, 10, 12), start=starts, length=length),
        ),
    )


def tell(results: xr.DataTree, kinds: dict[str, dict[str, Any]], length: int, console: Console) -> None:
    """Means by start, phases, redundancy and the noise floor."""
    console.print(cu.report.table_by_start(results, kinds))
    for label, selection in kinds.items():
        found = cu.analysis.phases(results, **selection)
        for phase in found["phase"].values:
            one = found.sel(phase=phase)
            console.print(
                f"{label}: {phase} from step {int(one['first'])} to {int(one['last'])}, mean SSIM "
                f"{float(one['level']):.3f}",
                highlight=False,
            )
    redundant = cu.analysis.first_redundant_step(
        results, threshold=THRESHOLD, lasting=False, kind="ablate_block", length=length
    )
    for depth in redundant["bottom"].values:
        low, high = redundant["interval"].sel(bottom=depth).values
        console.print(
            f"AblateBlock, bottom {depth}: first start with mean SSIM >= {THRESHOLD}: "
            f"{float(redundant['step'].sel(bottom=depth)):.0f} [{low:.0f}, {high:.0f}]"
            + (", the first tested" if redundant["at_edge"].sel(bottom=depth) else ""),
            highlight=False,
            markup=False,
        )
    stop = cu.analysis.stopping_step(results, threshold=THRESHOLD)
    console.print(f"The estimate of the image has a mean SSIM >= {THRESHOLD} from step {stop} on.", highlight=False)
    floor = cu.analysis.noise_floor(results)
    console.print(f"Noise floor: a run in which nothing is changed has SSIM of at least {float(floor['min']):.6f}.")


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Figures of the paper, numbered as there."""
    length = LENGTH[folder.size]
    kinds = {name: {**selection, "length": length} for name, selection in KINDS.items()}
    tell(results, kinds, length, console)
    skipped, blocks = kinds["SkipSteps"], kinds["AblateBlock, bottom 2"]
    outcomes = results.children["outcomes"].to_dataset()
    starts = sorted(set(outcomes["start"].values[outcomes["kind"].values == "ablate_block"].tolist()), reverse=True)
    depths = {"kind": "ablate_block", "length": length}
    figures = {
        "figure-3": cu.report.plot_grid(results, skipped),
        "figure-4": cu.report.plot_trend(results, {"SkipSteps": skipped}, variable=("ssim", "psnr")),
        "figure-5": cu.report.plot_grid(results, kinds["AblateSkip, top 2"]),
        "figure-6": cu.report.plot_grid(results, blocks),
        "figure-7": cu.report.plot_trend(results, kinds, variable=("psnr", "ssim")),
        "figure-8": cu.report.plot_panels(results, kind="ablate_block", panel="bottom", length=length),
        "figure-15": cu.report.plot_schedule(results),
        "figure-16": cu.report.plot_estimate(results, variables=("psnr",)),
        "figure-17": cu.report.plot_estimate(results, variables=("ssim",), threshold=THRESHOLD),
        "figure-17-images": cu.report.plot_estimates(results),
        "figure-18": cu.report.plot_histogram(results, {**skipped, "start": starts[::2]}),
        "figure-19-first": cu.report.plot_grid(results, {**depths, "start": starts[0]}, by="bottom"),
        "figure-19-middle": cu.report.plot_grid(results, {**depths, "start": starts[len(starts) // 2]}, by="bottom"),
        "figure-19-last": cu.report.plot_grid(results, {**depths, "start": starts[-1]}, by="bottom"),
        "phases": cu.report.plot_phases(results, skipped, cu.analysis.phases(results, **skipped)),
    }
    for name, figure in figures.items():
        cu.report.save(figure, folder.figures / f"{name}.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium, "full": full}, draw)
