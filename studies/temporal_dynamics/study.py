"""When does the U-Net need what? Figures 3 to 8 and 15 to 19 of Prasad et al. 2023, on the embedded model.

Three sweeps over the start step: whole steps skipped, top skip connections ablated, bottom decoder blocks ablated. Once
on open samples, which have no prompt, so that the model has to decide everything, and once on prompts that say
everything, so that nothing is left to decide.

    python studies/temporal_dynamics/study.py --quick     # about three minutes on two cores
    python studies/temporal_dynamics/study.py --medium    # about half an hour; the numbers of the documentation
    python studies/temporal_dynamics/study.py --scenes    # the same on the model `scenes`, as long
    python studies/temporal_dynamics/study.py --full      # the paper's grid; prints its time before it starts
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

import causalunet as cu
from causalunet.scenes import draw_scenes
from causalunet.script import Folder, run_script, with_interval
from causalunet.worlds.groups import GroupWorld

THRESHOLD = 0.8
LENGTH = {"quick": 6, "medium": 5, "scenes": 5, "full": 5}
"""Of the windows, in steps."""
DEPTHS = (2, 4, 6, 8, 10, 12)
KINDS: dict[str, dict[str, Any]] = {
    "SkipSteps": {"kind": "skip_steps"},
    "AblateSkip, top 2": {"kind": "ablate_skip", "top": 2},
    "AblateBlock, bottom 4": {"kind": "ablate_block", "bottom": 4},
    "AblateBlock, bottom 8": {"kind": "ablate_block", "bottom": 8},
    "AblateBlock, bottom 12": {"kind": "ablate_block", "bottom": 12},
}
TITLES = {"open": "open samples: no prompt", "prompted": "prompts that say everything"}


def quick(folder: Folder) -> dict[str, cu.Study]:
    """30 steps, 8 open samples and 4 prompts, 6 start steps, 3 depths, windows of 6 (a fifth of the run)."""
    starts = (30, 25, 20, 15, 10, 6)
    return make_studies("quick", open_samples=8, prompts=4, steps=30, starts=starts, lengths=(6,), depths=(4, 8, 12))


def medium(folder: Folder) -> dict[str, cu.Study]:
    """50 steps, 24 open samples and 12 prompts, 10 start steps, 6 depths, windows of 5."""
    starts = range(50, 4, -5)
    return make_studies("medium", open_samples=24, prompts=12, steps=50, starts=starts, lengths=(5,), depths=DEPTHS)


def scenes(folder: Folder) -> dict[str, cu.Study]:
    """As --medium, on `scenes`, of whose prompts none says where in the picture things are."""
    studies = medium(folder)
    prompts = tuple(GroupWorld(drop=0.0).draw_prompts(len(studies["prompted"].prompts), seed=0))
    return {
        name: replace(
            study,
            name=f"temporal dynamics, {name}, scenes",
            model="scenes",
            prompts=prompts if name == "prompted" else study.prompts,
        )
        for name, study in studies.items()
    }


def full(folder: Folder) -> dict[str, cu.Study]:
    """100 steps, 100 samples of each kind, every start step, the paper's windows of 5 steps, single steps skipped."""
    starts = range(100, 4, -1)
    return make_studies("full", open_samples=100, prompts=100, steps=100, starts=starts, lengths=(5, 1), depths=DEPTHS)


def make_studies(
    size: str,
    *,
    open_samples: int,
    prompts: int,
    steps: int,
    starts: Iterable[int],
    lengths: tuple[int, ...],
    depths: tuple[int, ...],
) -> dict[str, cu.Study]:
    """The three sweeps, on open samples and on prompts drawn at random."""
    starts, length = tuple(starts), lengths[0]
    possible = tuple(min(start, steps - 1) for start in starts)  # there is no step to jump from before the first

    interventions = (
        *cu.sweep(cu.SkipSteps, length=lengths, start=possible),
        *cu.sweep(cu.AblateSkip, top=2, start=starts, length=length),
        *cu.sweep(cu.AblateBlock, bottom=depths, start=starts, length=length),
    )
    return {
        "open": cu.Study(
            name=f"temporal dynamics, open, {size}",
            prompts=(cu.NO_PROMPT,),
            seeds=tuple(range(open_samples)),
            sampler=cu.DDPM(steps=steps, guidance_scale=1),
            interventions=interventions,
        ),
        "prompted": cu.Study(
            name=f"temporal dynamics, prompted, {size}",
            prompts=tuple(scene.prompt for scene in draw_scenes(prompts, seed=0)),
            sampler=cu.DDPM(steps=steps),
            interventions=interventions,
        ),
    }


def tell(results: xr.DataTree, kinds: dict[str, dict[str, Any]], title: str, console: Console) -> None:
    """Means by start, changed factors, phases, redundancy and the noise floor."""
    console.rule(title)
    console.print(cu.report.table_by_start(results, kinds))
    for label, selection in kinds.items():
        changed = cu.analysis.factor_changes(results, **selection)
        shares = ", ".join(f"{start}: {share:.2f}" for start, share in changed["any"].to_series().items())
        console.print(f"{label}: share of samples with another factor read, by start: {shares}", highlight=False)
    for label, selection in kinds.items():
        tell_phases(label, cu.analysis.phases(results, **selection), console)
    length = next(iter(kinds.values()))["length"]
    redundant = cu.analysis.first_redundant_step(results, threshold=THRESHOLD, kind="ablate_block", length=length)
    for depth in redundant["bottom"].values:
        one = redundant.sel(bottom=depth)
        low, high = one["interval"].values
        found = "no start tested" if np.isnan(one["step"]) else f"step {float(one['step']):.0f} [{low:.0f}, {high:.0f}]"
        console.print(
            f"AblateBlock, bottom {depth}: mean SSIM >= {THRESHOLD} from then on: {found}"
            + (", the first tested" if one["at_edge"] else ""),
            highlight=False,
            markup=False,
        )
    trend = cu.analysis.redundancy_trend(results, threshold=THRESHOLD, kind="ablate_block", length=length)
    told = with_interval(float(trend["tau"]), trend["interval"].values)
    console.print(f"Kendall's tau of depth and first redundant step: {told}", highlight=False, markup=False)
    stop = cu.analysis.stopping_step(results, threshold=THRESHOLD)
    console.print(f"The estimate of the image has a mean SSIM >= {THRESHOLD} from step {stop} on.", highlight=False)
    floor = cu.analysis.noise_floor(results)
    console.print(f"Noise floor: a run in which nothing is changed has SSIM of at least {float(floor['worst']):.6f}.")


def tell_phases(label: str, found: xr.Dataset, console: Console) -> None:
    """Phases of a curve in one line, the boundaries with their intervals."""
    told = [
        f"{name} {int(one['first'])}-{int(one['last'])}"
        for name, one in ((str(phase), found.sel(phase=phase)) for phase in found["phase"].values)
    ]
    edges = [
        f"{float(edge):.0f} [{low:.0f}, {high:.0f}]"
        for edge, (low, high) in zip(found["boundary"].values, found["interval"].values, strict=True)
    ]
    bounds = f"; boundaries {', '.join(edges)}" if edges else ""
    console.print(f"{label}: phases {', '.join(told)}{bounds}", highlight=False, markup=False, soft_wrap=True)


def images(results: dict[str, xr.DataTree], selection: dict[str, Any], columns: int) -> Figure:
    """The same grid for both kinds of samples, side by side."""
    figure = Figure(figsize=(2.2 + 1.7 * columns, 7.6), layout="constrained")
    halves = figure.subfigures(1, 2, squeeze=False, wspace=0.04)[0]
    for half, (name, found) in zip(halves, results.items(), strict=True):
        half.suptitle(TITLES[name], fontsize=9)
        cu.report.plot_grid(found, selection, samples=columns, figure=half)
    return figure


def curves(results: dict[str, xr.DataTree], kinds: dict[str, dict[str, Any]]) -> Figure:
    """SSIM by start, both kinds of samples side by side."""
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    for ax, (name, found) in zip(figure.subplots(1, 2, sharey=True), results.items(), strict=True):
        cu.report.plot_trend(found, kinds, ax=ax)
        ax.get_legend().remove()
        ax.set_title(TITLES[name], fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Figures of the paper, numbered as there: of open samples, and where named so of prompted ones."""
    length = LENGTH[folder.size]
    kinds = {name: {**selection, "length": length} for name, selection in KINDS.items()}
    for name, found in results.items():
        tell(found, kinds, TITLES[name], console)
    figures = {
        "images": images(results, kinds["AblateBlock, bottom 8"], 4),
        "images-steps": images(results, kinds["SkipSteps"], 4),
        "figure-7": curves(results, kinds),
    }
    for name, found in results.items():
        ending = "" if name == "open" else f"-{name}"
        figures |= {f"{figure}{ending}": drawn for figure, drawn in of_one(found, kinds, length).items()}
    for name, figure in figures.items():
        cu.report.save(figure, folder.figures / f"{name}.png")


def of_one(results: xr.DataTree, kinds: dict[str, dict[str, Any]], length: int) -> dict[str, Figure]:
    """Figures of one kind of samples."""
    skipped, blocks = kinds["SkipSteps"], kinds["AblateBlock, bottom 8"]
    outcomes = results.children["outcomes"].to_dataset()
    starts = sorted(set(outcomes["start"].values[outcomes["kind"].values == "ablate_block"].tolist()), reverse=True)
    depths = {"kind": "ablate_block", "length": length}
    gone = sorted(set(outcomes["start"].values[outcomes["kind"].values == "skip_steps"].tolist()), reverse=True)
    return {
        "figure-3": cu.report.plot_grid(results, skipped),
        "figure-4": cu.report.plot_trend(results, {"SkipSteps": skipped}, variable=("ssim", "psnr")),
        "figure-5": cu.report.plot_grid(results, kinds["AblateSkip, top 2"]),
        "figure-6": cu.report.plot_grid(results, blocks),
        "figure-8": cu.report.plot_panels(results, {"kind": "ablate_block", "length": length}, panel="bottom"),
        "figure-15": cu.report.plot_schedule(results),
        "figure-16": cu.report.plot_estimate(results, variable=("psnr",)),
        "figure-17": cu.report.plot_estimate(results, variable=("ssim",), threshold=THRESHOLD),
        "figure-17-images": cu.report.plot_estimates(results),
        "figure-18": cu.report.plot_histogram(results, {**skipped, "start": gone[::2]}),
        "figure-19-first": cu.report.plot_grid(results, {**depths, "start": starts[0]}, by="bottom"),
        "figure-19-middle": cu.report.plot_grid(results, {**depths, "start": starts[len(starts) // 2]}, by="bottom"),
        "figure-19-last": cu.report.plot_grid(results, {**depths, "start": starts[-1]}, by="bottom"),
        "phases": cu.report.plot_phases(results, skipped, cu.analysis.phases(results, **skipped)),
    }


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium, "scenes": scenes, "full": full}, draw)
