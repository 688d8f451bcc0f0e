"""A shortcut from the findings, on fresh and on harder prompts. Figures 11, 12, 13, 14 and 22 of Prasad et al. 2023.

The shortcut that the study tradeoff chose draws open samples and prompts that no study has seen, and combinations of
colour, shape and texture that the training of the model has never seen, two samples each. It is judged by SSIM, mean
absolute deviation, the factors that change, and time.

    python studies/shortcut/study.py --quick     # three minutes on two cores, after tradeoff --quick
    python studies/shortcut/study.py --medium    # ten minutes, after tradeoff --medium
    python studies/shortcut/study.py --full      # the paper's grid; prints its time before it starts
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

import causalunet as cu
from causalunet.scenes import draw_scenes
from causalunet.script import Folder, run_script

THRESHOLD = 0.8
FRESH = {"quick": 4, "medium": 12, "full": 100}
"""Open samples are twice as many: without guidance they cost half."""
FIRST_SEED = 2000
"""Of the open samples; earlier studies have others."""
HARDER = {"quick": 2, "medium": 6, "full": 10}
SHORTCUT = "shortcut"
TIMED = 4
"""Samples in the batch that is timed."""


def quick(folder: Folder) -> dict[str, cu.Study]:
    """30 steps; 8 open samples, 4 fresh prompts, 2 x 2 of held-out combinations."""
    return make_studies(folder)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """50 steps; 24 open samples, 12 fresh prompts, 6 x 2 of held-out combinations."""
    return make_studies(folder)


def full(folder: Folder) -> dict[str, cu.Study]:
    """100 steps; 200 open samples, 100 fresh prompts, 10 x 2 of held-out combinations."""
    return make_studies(folder)


def make_studies(folder: Folder) -> dict[str, cu.Study]:
    """The two shortcuts, stopping alone where the first stops, and as many evenly spaced steps as take its time."""
    short = chosen(folder, "shortcut")
    harder = [scene for scene in draw_scenes(HARDER[folder.size], seed=3, only_held_out=True) for _ in range(2)]
    found = {
        SHORTCUT: short.intervention,
        "cut-relax-cut": chosen(folder, "cut-relax-cut").intervention,
        "stop alone": cu.SkipSteps(next(e.window for e in short.intervention.edits() if e.component == "unet")),
        "fewer steps": as_slow(short),
    }
    distinct = {item.digest: (name, item) for name, item in reversed(found.items())}
    interventions = tuple(replace(item, label=name) for name, item in reversed(distinct.values()))
    return {
        "open": cu.Study(
            name=f"shortcut, open, {folder.size}",
            prompts=(cu.NO_PROMPT,),
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + 2 * FRESH[folder.size])),
            sampler=replace(short.sampler, guidance_scale=1),
            interventions=interventions,
        ),
        "prompted": cu.Study(
            name=f"shortcut, prompted, {folder.size}",
            prompts=tuple(scene.prompt for scene in (*draw_scenes(FRESH[folder.size], seed=2), *harder)),
            sampler=short.sampler,
            interventions=interventions,
        ),
    }


def chosen(folder: Folder, name: str) -> cu.Shortcut:
    """A shortcut of the study tradeoff."""
    folder.earlier("tradeoff", "open")
    output = folder.output.parent.parent / "tradeoff" / folder.output.name
    return cu.Shortcut.open(output / f"{folder.size}-{name}.json")


def as_slow(shortcut: cu.Shortcut) -> cu.SkipSteps:
    """Fewer steps, as many as take the time that the shortcut was measured to take."""
    steps = shortcut.sampler.steps
    return cu.analysis.fewer_steps(steps, min(max(2, round(shortcut.evidence["time_share"] * steps)), steps - 1))


def parts(results: dict[str, xr.DataTree], folder: Folder) -> dict[str, xr.DataTree]:
    """Open samples, fresh prompts, and harder prompts."""
    fresh, prompted = FRESH[folder.size], results["prompted"]
    return {
        "open samples": results["open"],
        "fresh prompts": prompted.isel(sample=slice(fresh)),
        "harder prompts": prompted.isel(sample=slice(fresh, None)),
    }


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Figures 11 to 14 and 22, and what the shortcut costs and saves."""
    shortcut, split = chosen(folder, "shortcut"), parts(results, folder)
    picked = {"intervention": SHORTCUT}
    labels = [str(label) for label in results["open"].children["outcomes"].to_dataset()["intervention"].values]
    for name, part in split.items():
        for label in labels[:-1]:  # the last is the null intervention
            tell(part, {"intervention": label}, f"{name}, {label}", console)
    prompts = [scene.prompt for scene in draw_scenes(TIMED, seed=2)]
    timed = cu.time_shortcut(shortcut, prompts, repeats=5)
    saved, (low, high) = (timed[name].sel(arm="shortcut").values for name in ("saved", "spread"))
    console.print(
        f"{shortcut.name}: {float(saved):.1%} less time (quartiles {low:.1%} to {high:.1%}), "
        f"{float(timed['saved_by_cuts']):.1%} by cuts and {float(timed['saved_by_steps']):.1%} by skipped steps; "
        f"{float(timed['flops_saved'].sel(arm='shortcut')):.1%} fewer FLOPs, "
        f"{float(timed['kernels_saved'].sel(arm='shortcut')):.1%} fewer kernels "
        f"(batch of {TIMED}, {timed.attrs['device']}, {timed.attrs['threads']} threads; "
        f"baseline: {timed.attrs['baseline']})",
        highlight=False,
        soft_wrap=True,
    )
    figures = {
        "figure-11": cu.report.plot_plan(results["open"], picked),
        "figure-12": cu.report.plot_pairs(split["open samples"], picked, best=5, worst=5),
        "figure-13": cu.report.plot_histogram(split["open samples"], picked, threshold=THRESHOLD),
        "figure-12-prompted": cu.report.plot_pairs(split["fresh prompts"], picked, best=5, worst=5),
        "figure-14": cu.report.plot_pairs(split["harder prompts"], picked, best=2, worst=2),
        "figure-22": cu.report.plot_deviation(split["open samples"], picked),
    }
    if "cut-relax-cut" in labels:  # the shortcut itself has two cuts where not
        figures["figure-11-cut-relax-cut"] = cu.report.plot_plan(results["open"], {"intervention": "cut-relax-cut"})
    for name, figure in figures.items():
        cu.report.save(figure, folder.figures / f"{name}.png")


def tell(part: xr.DataTree, one: dict[str, Any], name: str, console: Console) -> None:
    """SSIM, mean absolute deviation and changed factors in one line."""
    effect = cu.analysis.effects(part, **one).squeeze("intervention")
    outcomes = part.children["outcomes"].to_dataset().sel(one).squeeze()
    baseline = part.children["baseline"].to_dataset()
    deviation = float(np.abs(outcomes["image"].values - baseline["image"].values).mean())
    changed = cu.analysis.factor_changes(part, **one).squeeze()
    low, high = effect["interval"].values
    console.print(
        f"{name}: mean SSIM {float(effect['mean']):.3f} [{low:.3f}, {high:.3f}], "
        f"{float(effect['share']):.0%} at {THRESHOLD} or above, worst {float(effect['worst']):.3f}; "
        f"mean absolute deviation {deviation:.3f}; a factor surely changes in {float(changed['any']):.0%} "
        f"(n = {changed.attrs['samples']})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium, "full": full}, draw)
