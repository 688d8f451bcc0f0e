"""When does the U-Net need what? Figures 3, 4, 7 and 8 of Prasad et al. 2023, on the embedded model.

Three sweeps over the start step: whole steps skipped, top skip connections ablated, bottom decoder blocks ablated.

    python studies/temporal_dynamics/study.py --quick    # about three minutes on two cores
    python studies/temporal_dynamics/study.py --full     # the paper's grid; prints its time before it starts
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console

import causalunet as cu
from causalunet.scenes import draw_scenes

HERE = Path(__file__).parent
KINDS: dict[str, dict[str, Any]] = {
    "SkipSteps": {"kind": "skip_steps"},
    "AblateSkip, top 2": {"kind": "ablate_skip", "top": 2},
    "AblateBlock, bottom 2": {"kind": "ablate_block", "bottom": 2},
}


def quick() -> cu.Study:
    """30 steps, 6 samples, 6 start steps, windows of 6: a fifth of the run, since shorter ones change little here."""
    return make_study("temporal dynamics, quick", samples=6, steps=30, starts=(29, 24, 19, 14, 9, 6), lengths=(6,))


def full() -> cu.Study:
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


def draw(results: xr.DataTree, length: int, folder: Path) -> None:
    """Figures of the paper, numbered as there."""
    kinds = {name: {**selection, "length": length} for name, selection in KINDS.items()}
    skipped, blocks = kinds["SkipSteps"], kinds["AblateBlock, bottom 2"]
    trend = {"SkipSteps": skipped}
    figures = {
        "figure-3": cu.report.plot_grid(results, skipped),
        "figure-4": cu.report.plot_trend(results, trend, variable=("ssim", "psnr")),
        "figure-5": cu.report.plot_grid(results, kinds["AblateSkip, top 2"]),
        "figure-6": cu.report.plot_grid(results, blocks),
        "figure-7": cu.report.plot_trend(results, kinds, variable=("psnr", "ssim")),
        "figure-8": cu.report.plot_panels(results, kind="ablate_block", panel="bottom", length=length),
    }
    for name, figure in figures.items():
        cu.report.save(figure, folder / f"{name}.png")


def main() -> None:
    """Plan, run, tabulate, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a grid for a laptop (default)")
    size.add_argument("--full", action="store_true", help="the paper's grid")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder for store and figures")
    options = parser.parse_args()
    study, name, length = (full(), "full", 5) if options.full else (quick(), "quick", 6)
    console = Console()
    console.print(str(study.plan()), highlight=False)
    try:
        results = study.run(options.output / f"{name}.zarr")
    except KeyboardInterrupt:
        console.print("Interrupted. Samples that were finished are stored; the same command goes on after them.")
        sys.exit(130)
    kinds = {label: {**selection, "length": length} for label, selection in KINDS.items()}
    console.print(cu.report.table_by_start(results, kinds))
    floor = cu.analysis.noise_floor(results)
    console.print(f"Noise floor: a run in which nothing is changed has SSIM of at least {float(floor['min']):.6f}.")
    draw(results, length, options.output / name)
    console.print(f"Results: {options.output / f'{name}.zarr'}   figures: {options.output / name}")


if __name__ == "__main__":
    main()
