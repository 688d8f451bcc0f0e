"""Which shortcut is worth it, and does it beat fewer steps? The choice behind figure 11 of Prasad et al. 2023.

Candidates are put together from the stored results of the earlier studies alone: cut the bottom blocks from their first
redundant start on, as long as they can be missing, relax as long as the model needs, cut again, and stop where the
estimate of the image is good enough. Since the effects of several cuts and of the stop add up, a start counts as
redundant at a stricter level than the one that the whole has to reach. Beside the candidates stand stopping alone and
runs of fewer, evenly spaced steps. Of those with cuts, the one of fewest FLOPs whose mean SSIM is surely above the
threshold becomes the shortcut, for the study of that name to judge, and so does the best of those with several cuts.

    python studies/tradeoff/study.py --quick     # four minutes on two cores, after relaxation --quick
    python studies/tradeoff/study.py --medium    # fifteen minutes, after relaxation --medium
    python studies/tradeoff/study.py --full      # the paper's grid; prints its time before it starts
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

import causalunet as cu
from causalunet.scenes import draw_scenes
from causalunet.script import Folder, run_script

THRESHOLD = 0.8
REDUNDANT = (0.95, 0.98)
"""Candidates start cutting where a single window has a mean SSIM of this."""
STOPS = (0.9, 0.95)
"""Candidates stop where the estimate of the image has a mean SSIM of this to the final image."""
KEPT = (0.8, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Shares of the steps of the runs that simply have fewer."""
LESS_TIME = 0.27
"""The paper's figure."""
TIMED = 4
"""Samples in the batch that is timed."""


def quick(folder: Folder) -> cu.Study:
    """30 steps, 6 samples."""
    return make_study(folder, samples=6)


def medium(folder: Folder) -> cu.Study:
    """50 steps, 16 samples."""
    return make_study(folder, samples=16)


def full(folder: Folder) -> cu.Study:
    """100 steps, 100 samples."""
    return make_study(folder, samples=100)


def make_study(folder: Folder, *, samples: int) -> cu.Study:
    """Every candidate on prompts that no earlier study has seen."""
    return cu.Study(
        name=f"trade-off, {folder.size}",
        prompts=tuple(scene.prompt for scene in draw_scenes(samples, seed=1)),
        sampler=cu.DDPM(steps=folder.earlier("temporal_dynamics").children["baseline"].sizes["step"]),
        interventions=tuple(candidates(folder)),
    )


def candidates(folder: Folder) -> list[cu.design.Intervention]:
    """Shortcuts from stored results, stopping alone, and fewer steps; labels name the family first."""
    dynamics, relaxed = folder.earlier("temporal_dynamics"), folder.earlier("relaxation")
    steps = dynamics.children["baseline"].sizes["step"]
    found = {level: cu.analysis.stopping_step(dynamics, threshold=level) for level in STOPS}
    stops = {f"stop at {stop}": stop for stop in dict.fromkeys(found.values()) if stop and stop > 1}
    rows = relaxed_rows(dynamics, cu.analysis.relaxation_needed(relaxed, threshold=THRESHOLD))
    families: dict[str, dict[str, cu.design.Intervention]] = {
        "cut and stop": cu.analysis.propose_shortcuts(rows, stops, steps=steps),
        "stop alone": {name: cu.SkipSteps(cu.Window(stop - 1, stop - 1)) for name, stop in stops.items()},
        "fewer steps": {
            f"{round(k * steps)} of {steps}": cu.analysis.fewer_steps(steps, round(k * steps)) for k in KEPT
        },
    }
    return [
        replace(item, label=f"{family}: {name}")
        for family, members in families.items()
        for name, item in members.items()
    ]


def relaxed_rows(dynamics: xr.DataTree, needed: xr.Dataset) -> xr.Dataset:
    """Cut and relaxation of every depth, from its redundant starts at the stricter levels."""
    rows = {}
    for level in REDUNDANT:
        found = cu.analysis.first_redundant_step(dynamics, threshold=level, lasting=False, kind="ablate_block")
        for depth, cut, relax in zip(*(needed[name].values for name in ("bottom", "cut", "relax")), strict=True):
            start = float(found["step"].sel(bottom=depth))
            if start > 0:
                rows[int(depth), int(start)] = (int(depth), int(start), int(cut), float(relax))
    columns = zip(("bottom", "start", "cut", "relax"), zip(*rows.values(), strict=True), strict=True)
    return xr.Dataset({name: ("group", np.array(values)) for name, values in columns})


def measure(results: xr.DataTree, folder: Folder) -> xr.Dataset:
    """Mean SSIM of every candidate, and its time in one interleaved measurement."""
    effects = cu.analysis.effects(results)
    effects = effects.isel(intervention=effects["kind"].values != "null")
    items = {item.label: item for item in candidates(folder)}
    labels = [str(label) for label in effects["intervention"].values]
    prompts = [str(prompt) for prompt in results.children["baseline"].to_dataset()["prompt"].values[:TIMED]]
    sampler = cu.DDPM(steps=results.children["baseline"].sizes["step"])
    timed = cu.time_interventions({label: items[label] for label in labels}, prompts, sampler=sampler, repeats=3)
    timed = timed.isel(arm=slice(1, None))
    return xr.Dataset(
        {
            "time": ("method", 1 - timed["saved"].values),
            "flops": ("method", 1 - timed["flops_saved"].values),
            "ssim": ("method", effects["mean"].values),
            "interval": (("method", "bound"), effects["interval"].values, effects["interval"].attrs),
        },
        coords={
            "label": ("method", labels),
            "family": ("method", [label.partition(":")[0] for label in labels]),
            "bound": ["lower", "upper"],
        },
        attrs={**timed.attrs, "samples": results.children["baseline"].sizes["sample"]},
    )


def choose(measured: xr.Dataset, cuts: np.ndarray, fewest: int) -> tuple[int, bool]:
    """The cheapest candidate with so many cuts whose mean SSIM is surely above the threshold; else the most alike."""
    allowed = cuts >= fewest
    sure = allowed & (measured["interval"].sel(bound="lower").values >= THRESHOLD)
    if sure.any():
        return int(np.where(sure, measured["flops"].values, np.inf).argmin()), True
    return int(np.where(allowed, measured["ssim"].values, -np.inf).argmax()), False


def number_of_cuts(item: cu.design.Intervention) -> int:
    """Windows in which blocks are cut."""
    return max((len(edit.window.parts) for edit in item.edits() if edit.component != "unet"), default=0)


def as_drawn(measured: xr.Dataset, chosen: int) -> xr.Dataset:
    """The shortcut is a family of its own in the figure; of the other candidates with cuts none is named."""
    labels = [str(label).partition(": ") for label in measured["label"].values]
    families = ["the shortcut" if place == chosen else family for place, (family, _, _) in enumerate(labels)]
    names = ["" if family == "cut and stop" else name for family, _, name in labels]
    return measured.assign_coords(family=("method", families), label=("method", names))


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Table and figure of the trade-off, and the shortcuts as files."""
    measured = measure(results, folder)
    items = {item.label: item for item in candidates(folder)}
    labels = [str(label) for label in measured["label"].values]
    cuts = np.array([number_of_cuts(items[label]) for label in labels])
    picks = {"shortcut": choose(measured, cuts, 1), "cut-relax-cut": choose(measured, cuts, 2)}
    tell(measured, {position: name for name, (position, _) in picks.items()}, console)
    for name, (position, sure) in picks.items():
        if not sure:
            console.print(f"No candidate for {name} is surely above {THRESHOLD}; the most alike stands in.")
        save(folder, name, items[labels[position]], measured.isel(method=position))
    drawn = as_drawn(measured, picks["shortcut"][0])
    marks = {f"{LESS_TIME:.0%} less time, as in the paper": 1 - LESS_TIME}
    figure = cu.report.plot_tradeoff(drawn, threshold=THRESHOLD, joined=("stop alone", "fewer steps"), marks=marks)
    cu.report.save(figure, folder.figures / "tradeoff.png")


def tell(measured: xr.Dataset, picked: dict[int, str], console: Console) -> None:
    """A row per candidate."""
    attrs = measured.attrs
    table = Table(
        title=f"batch of {TIMED} ({attrs['samples_per_call']} per call), {attrs['device']}, "
        f"{attrs['threads']} threads; n = {attrs['samples']}; against the uncut run"
    )
    for column in ("candidate", "less time", "fewer FLOPs", "mean SSIM [95 %]", ""):
        table.add_column(column)
    for position, label in enumerate(measured["label"].values):
        one = measured.isel(method=position)
        low, high = one["interval"].values
        table.add_row(
            str(label),
            f"{1 - float(one['time']):.1%}",
            f"{1 - float(one['flops']):.1%}",
            f"{float(one['ssim']):.3f} \\[{low:.3f}, {high:.3f}]",
            picked.get(position, ""),
        )
    console.print(table)


def save(folder: Folder, name: str, item: cu.design.Intervention, measured: xr.Dataset) -> None:
    """Write a shortcut with what it was derived from."""
    studies = ("temporal_dynamics", "longest_window", "relaxation", "tradeoff")
    dynamics = folder.earlier("temporal_dynamics")
    cu.Shortcut(
        name=item.label,
        intervention=item,
        sampler=cu.DDPM(steps=dynamics.children["baseline"].sizes["step"]),
        fingerprint=str(dynamics.attrs["model_fingerprint"]),
        evidence={
            "digests": {study: str(folder.earlier(study).attrs["digest"]) for study in studies},
            "threshold": THRESHOLD,
            "redundant": list(REDUNDANT),
            "stops": list(STOPS),
            "time_share": round(float(measured["time"]), 3),
        },
    ).save(folder.output / f"{folder.size}-{name}.json")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium, "full": full}, draw)
