"""Does bisection find what a whole sweep finds, and from how many U-Net calls? A check of `Study.search`.

Every start step of four depths is run, on open samples, which have no prompt. Then the bisection asks for single
starts: on the stored outcomes, for many criteria and halves of the samples, and for one of them by running the U-Net
itself.

    python studies/search/study.py --quick     # two minutes on two cores
    python studies/search/study.py --medium    # a quarter of an hour; the numbers of the documentation
    python studies/search/study.py --full      # 100 steps; prints its time before it starts
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import xarray as xr
from rich.console import Console

import causalunet as cu
from causalunet.analysis import Criterion, bisection, frontier
from causalunet.design.families import families
from causalunet.script import Folder, run_script

THRESHOLDS = (0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
SPLITS = 8
"""Random halves of the samples that every criterion is asked on, beside all of them."""
FIRST_SEED = 4000
"""Of the open samples; other studies have others."""
RUN = 0.8
"""The threshold of the search that runs the U-Net."""


def quick(folder: Folder) -> cu.Study:
    """24 steps, 8 samples, 2 depths."""
    return make_study(folder, samples=8, steps=24, depths=(6, 12))


def medium(folder: Folder) -> cu.Study:
    """40 steps, 16 samples, 4 depths."""
    return make_study(folder, samples=16, steps=40, depths=(4, 6, 8, 12))


def full(folder: Folder) -> cu.Study:
    """100 steps, 50 samples, 6 depths."""
    return make_study(folder, samples=50, steps=100, depths=(2, 4, 6, 8, 10, 12))


def make_study(folder: Folder, *, samples: int, steps: int, depths: tuple[int, ...]) -> cu.Study:
    """Every start step of every depth, windows of a fifth of the run."""
    length = steps // 5
    return cu.Study(
        name=f"search, {folder.size}",
        prompts=(cu.NO_PROMPT,),
        seeds=tuple(range(FIRST_SEED, FIRST_SEED + samples)),
        sampler=cu.DDPM(steps=steps, guidance_scale=1),
        interventions=cu.sweep(cu.AblateBlock, bottom=depths, start=range(steps, length - 1, -1), length=length),
    )


def criteria() -> Iterator[Criterion]:
    """Means and shares at several thresholds."""
    for threshold in THRESHOLDS:
        yield Criterion(threshold=threshold)
        yield Criterion(threshold=threshold, kind="share", share=0.75)


def ask(passes: np.ndarray) -> tuple[int, list[int]]:
    """Run the bisection on known answers: what it finds, and which it asked for."""
    asking, asked = bisection(len(passes)), []
    index = next(asking)
    while True:
        asked.append(index)
        try:
            index = asking.send(bool(passes[index]))
        except StopIteration as done:
            return done.value, asked


def agreement(results: xr.DataTree, study: cu.Study) -> xr.Dataset:
    """How often the bisection finds what the sweep finds, and the share of the sweep's U-Net calls that it takes."""
    found = families(study.interventions, "start")
    ssim = results.children["outcomes"].to_dataset()["ssim"].values
    samples = results.children["baseline"].sizes["sample"]
    rng = np.random.default_rng(0)
    groups = [np.arange(samples), *(rng.permutation(samples)[: samples // 2] for _ in range(SPLITS))]
    agree, calls = [], []
    for criterion, group in itertools.product(criteria(), groups):
        asked_for: set[int] = set()
        for family in found:
            passes = criterion.passes(ssim[list(family.members)][:, group])
            index, asked = ask(passes)
            agree.append(index == frontier(passes))
            asked_for |= {family.members[position] for position in asked}
        calls.append(unet_calls(study, asked_for) / unet_calls(study, itertools.chain(*(one.members for one in found))))
    return xr.Dataset({"agree": ("case", agree), "calls": ("search", calls)})


def unet_calls(study: cu.Study, members: Iterable[int]) -> int:
    """U-Net calls per sample of the baseline and of some interventions, each from its start on."""
    return study.sampler.steps + sum(max(study.interventions[member].steps) for member in members)


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Agreement on stored outcomes, then a search that runs the U-Net."""
    study = SIZES[folder.size](folder)
    found = agreement(results, study)
    console.print(
        f"Bisection: the sweep's answer in {float(found['agree'].mean()):.1%} of {found.sizes['case']} cases, with "
        f"{float(found['calls'].mean()):.1%} of its U-Net calls on average, {float(found['calls'].max()):.1%} at most",
        highlight=False,
        soft_wrap=True,
    )
    store = folder.output / f"{folder.size}-search.zarr"
    searched = study.search(store, threshold=RUN, retry_failed=folder.retry_failed)
    swept = cu.analysis.first_redundant_step(results, threshold=RUN, kind="ablate_block")
    for name, depth, step in zip(*(searched[key].values for key in ("family", "bottom", "step")), strict=True):
        console.print(
            f"{name}, mean SSIM >= {RUN}: from step {step:.0f} by search, "
            f"{float(swept['step'].sel(bottom=depth)):.0f} by the sweep",
            highlight=False,
            soft_wrap=True,
        )
    calls = {name: searched.attrs[name] for name in ("unet_calls", "unet_calls_sweep")}
    share = calls["unet_calls"] / calls["unet_calls_sweep"]
    console.print(
        f"Run: {calls['unet_calls']:,} U-Net calls of {calls['unet_calls_sweep']:,}, {share:.1%}.", highlight=False
    )
    figure = cu.report.plot_panels(results, {"kind": "ablate_block"}, panel="bottom", threshold=RUN)
    cu.report.save(figure, folder.figures / "sweep.png")


SIZES = {"quick": quick, "medium": medium, "full": full}


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", SIZES, draw)
