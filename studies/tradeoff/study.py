"""Which shortcut is worth it, and does it beat fewer steps? The choice behind figure 11 of Prasad et al. 2023.

Candidates are put together from the stored results of the earlier studies alone: cut the bottom blocks from their
first redundant start on, as long as they can be missing, relax as long as the model needs, cut again, and stop where
the estimate of the image is good enough. Since the effects of several cuts and of the stop add up, a start counts as
redundant at a stricter level than the one that the whole has to reach. Beside the candidates stand stopping alone and
runs of fewer steps, evenly spaced or dense at first. All are judged twice: on open samples, where the early steps
decide the image, and on prompts that say everything, where they hardly matter. Of those with cuts, the one of fewest
FLOPs whose mean SSIM is surely above the threshold on both becomes the shortcut, for the study of that name to judge,
and so does the best of those with several cuts.

    python studies/tradeoff/study.py --quick     # four minutes on two cores, after relaxation --quick
    python studies/tradeoff/study.py --medium    # fifteen minutes, after relaxation --medium
    python studies/tradeoff/study.py --full      # the paper's grid; prints its time before it starts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
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
KEPT = (0.8, 2 / 3, 0.5, 1 / 3, 0.2)
"""Shares of the steps of the runs that simply have fewer: the last ones left out, or every other."""
JOINED = ("stop alone", "fewer steps", "fewer late steps")
"""Families of which one number makes a curve."""
LESS_TIME = 0.27
"""The paper's figure."""
FIRST_SEED = 1000
"""Of the open samples; earlier studies have those from 0 on."""
TITLES = {"open": "open samples: no prompt", "prompted": "prompts that say everything"}
TIMED = 4
"""Samples in the batch that is timed."""


def quick(folder: Folder) -> dict[str, cu.Study]:
    """30 steps, 8 open samples and 4 prompts."""
    return make_studies(folder, open_samples=8, prompts=4)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """50 steps, 24 open samples and 12 prompts."""
    return make_studies(folder, open_samples=24, prompts=12)


def full(folder: Folder) -> dict[str, cu.Study]:
    """100 steps, 100 samples of each kind."""
    return make_studies(folder, open_samples=100, prompts=100)


def make_studies(folder: Folder, *, open_samples: int, prompts: int) -> dict[str, cu.Study]:
    """Every candidate on seeds and on prompts that no earlier study has seen."""
    steps, interventions = dynamics_of(folder).children["baseline"].sizes["step"], tuple(candidates(folder))
    return {
        "open": cu.Study(
            name=f"trade-off, open, {folder.size}",
            prompts=(cu.NO_PROMPT,),
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + open_samples)),
            sampler=cu.DDPM(steps=steps, guidance_scale=1),
            interventions=interventions,
        ),
        "prompted": cu.Study(
            name=f"trade-off, prompted, {folder.size}",
            prompts=tuple(scene.prompt for scene in draw_scenes(prompts, seed=1)),
            sampler=cu.DDPM(steps=steps),
            interventions=interventions,
        ),
    }


def dynamics_of(folder: Folder) -> cu.results.Results:
    """Results of the study temporal_dynamics on open samples."""
    return folder.earlier("temporal_dynamics", "open")


def candidates(folder: Folder) -> list[cu.design.Intervention]:
    """Shortcuts from stored results, stopping alone, and fewer steps; labels name the family first."""
    dynamics, relaxed = dynamics_of(folder), folder.earlier("relaxation")
    steps = dynamics.children["baseline"].sizes["step"]
    found = {level: cu.analysis.stopping_step(dynamics, threshold=level) for level in STOPS}
    stops = {f"stop at {stop}": stop for stop in dict.fromkeys(found.values()) if stop and stop > 1}
    rows = relaxed_rows(dynamics, cu.analysis.relaxation_needed(relaxed, threshold=THRESHOLD))
    kept = [round(share * steps) for share in KEPT]
    families: dict[str, dict[str, cu.design.Intervention]] = {
        "cut and stop": cu.analysis.propose_shortcuts(rows, stops, steps=steps),
        "stop alone": {f"{n} of {steps}": cu.SkipSteps(cu.Window(steps - n, steps - n)) for n in kept},
        "fewer steps": {f"{n} of {steps}": cu.analysis.fewer_steps(steps, n) for n in kept},
        "fewer late steps": {f"{n} of {steps}": cu.analysis.fewer_steps(steps, n, dense=n // 2) for n in kept},
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
    study = cu.Study.from_json(results.attrs["study"])
    timed = cu.time_interventions(
        {label: items[label] for label in labels},
        [sample.prompt for sample in study.samples[:TIMED]],
        sampler=study.sampler,
        repeats=3,
    )
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


def choose(measured: Sequence[xr.Dataset], cuts: np.ndarray, fewest: int) -> tuple[int, bool]:
    """The cheapest candidate with so many cuts whose mean SSIM is surely above the threshold on every kind of sample.

    Without one: that of the highest mean SSIM on the kind where it is lowest.
    """
    allowed = cuts >= fewest
    lower = np.min([one["interval"].sel(bound="lower").values for one in measured], axis=0)
    sure = allowed & (lower >= THRESHOLD)
    if sure.any():
        return int(np.where(sure, measured[0]["flops"].values, np.inf).argmin()), True
    worst = np.min([one["ssim"].values for one in measured], axis=0)
    return int(np.where(allowed, worst, -np.inf).argmax()), False


def number_of_cuts(item: cu.design.Intervention) -> int:
    """Windows in which blocks are cut."""
    return max((len(edit.window.parts) for edit in item.edits() if edit.component != "unet"), default=0)


def as_drawn(measured: xr.Dataset, chosen: int) -> xr.Dataset:
    """The shortcut is a family of its own in the figure; of the other candidates with cuts none is named."""
    labels = [str(label).partition(": ") for label in measured["label"].values]
    families = ["the shortcut" if place == chosen else family for place, (family, _, _) in enumerate(labels)]
    names = ["" if family == "cut and stop" else name for family, _, name in labels]
    return measured.assign_coords(family=("method", families), label=("method", names))


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Table and figure of the trade-off, and the shortcuts as files."""
    measured = {name: measure(found, folder) for name, found in results.items()}
    first = measured["open"]
    items = {item.label: item for item in candidates(folder)}
    labels = [str(label) for label in first["label"].values]
    cuts = np.array([number_of_cuts(items[label]) for label in labels])
    judges = list(measured.values())
    picks = {"shortcut": choose(judges, cuts, 1), "cut-relax-cut": choose(judges, cuts, 2)}
    for name, one in measured.items():
        tell(one, {position: label for label, (position, _) in picks.items()}, TITLES[name], console)
    for name, (position, sure) in picks.items():
        if not sure:
            console.print(f"No candidate for {name} is surely above {THRESHOLD} on both; the most alike stands in.")
        save(folder, name, items[labels[position]], {kind: one.isel(method=position) for kind, one in measured.items()})
    cu.report.save(both(measured, picks["shortcut"][0]), folder.figures / "tradeoff.png")


def both(measured: dict[str, xr.Dataset], chosen: int) -> Figure:
    """The trade-off on both kinds of samples, side by side."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    marks = {f"{LESS_TIME:.0%} less time, as in the paper": 1 - LESS_TIME}
    for ax, (name, one) in zip(figure.subplots(1, 2, sharey=True), measured.items(), strict=True):
        drawn = as_drawn(one, chosen)
        cu.report.plot_tradeoff(drawn, threshold=THRESHOLD, joined=JOINED, marks=marks, ax=ax)
        ax.get_legend().remove()
        ax.set_title(TITLES[name], fontsize=9)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


def tell(measured: xr.Dataset, picked: dict[int, str], title: str, console: Console) -> None:
    """A row per candidate."""
    attrs = measured.attrs
    table = Table(
        title=f"{title}; batch of {TIMED} ({attrs['samples_per_call']} per call), {attrs['device']}, "
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


def save(folder: Folder, name: str, item: cu.design.Intervention, measured: dict[str, xr.Dataset]) -> None:
    """Write a shortcut with what it was derived from; under guidance, as the samples with prompts are drawn."""
    dynamics = dynamics_of(folder)
    earlier = {
        "temporal_dynamics": dynamics,
        "longest_window": folder.earlier("longest_window"),
        "relaxation": folder.earlier("relaxation"),
        **{f"tradeoff, {kind}": folder.earlier("tradeoff", kind) for kind in measured},
    }
    cu.Shortcut(
        name=item.label,
        intervention=item,
        sampler=cu.DDPM(steps=dynamics.children["baseline"].sizes["step"]),
        identity=dynamics.identity,
        evidence={
            "digests": {study: str(results.attrs["digest"]) for study, results in earlier.items()},
            "threshold": THRESHOLD,
            "redundant": list(REDUNDANT),
            "stops": list(STOPS),
            "time_share": round(float(measured["prompted"]["time"]), 3),
            "mean_ssim": {kind: round(float(one["ssim"]), 3) for kind, one in measured.items()},
        },
    ).save(folder.output / f"{folder.size}-{name}.json")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium, "full": full}, draw)
