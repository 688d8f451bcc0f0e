"""Is it the same on another world? One sweep on two embedded models: phases, depth by time, skips, and what changes.

Open samples, which have no prompt, of `shapes` and of `scenes`, which have the same anatomy: skipped steps, the top two
skip connections and several depths of decoder blocks, each in every window of a tenth of the run. Intervals are
bootstraps over samples.

    python studies/across_models/study.py --quick     # two minutes on two cores; the numbers of its page
    python studies/across_models/study.py --medium    # an hour
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

import causalunet as cu
from causalunet.console import print_table
from causalunet.script import Folder, run_script

MODELS = ("shapes", "scenes")
DEPTHS = (2, 4, 6, 8, 10, 12)
FIRST_SEED = 7000
"""Of the open samples; other studies have others."""
THRESHOLD = 0.8
"""Mean SSIM from which a cut counts as redundant."""
RESAMPLES = 2000

Trees = Mapping[str, xr.DataTree]
Floats = NDArray[np.float64]


def quick(folder: Folder) -> dict[str, cu.Study]:
    """20 steps, 8 samples."""
    return make_studies(folder, samples=8, steps=20)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """50 steps, 24 samples."""
    return make_studies(folder, samples=24, steps=50)


def make_studies(folder: Folder, *, samples: int, steps: int) -> dict[str, cu.Study]:
    """The same sweep for each model."""
    length = steps // 10
    starts = range(steps, 0, -length)
    return {
        model: cu.Study(
            name=f"across models, {model}, {folder.size}",
            model=model,
            prompts=(cu.NO_PROMPT,),
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + samples)),
            sampler=cu.DDPM(steps=steps, guidance_scale=1),
            interventions=[
                *cu.sweep(cu.AblateBlock, bottom=DEPTHS, start=starts, length=length),
                *cu.sweep(cu.AblateSkip, top=2, start=starts, length=length),
                *cu.sweep(cu.SkipSteps, start=range(steps - 1, length, -length), length=length),
            ],
        )
        for model in MODELS
    }


def by_depth(results: xr.DataTree) -> Floats:
    """SSIM, (depth, start, sample), starts as the run goes."""
    return np.stack(
        [cu.analysis.curve(results, "ssim", kind="ablate_block", bottom=depth)["ssim"].values for depth in DEPTHS]
    )


def first_redundant(ssim: Floats) -> NDArray[np.int64]:
    """For every depth, how many windows of the run have to be over; as many as there are, where none is redundant."""
    passes = ssim.mean(axis=-1) >= THRESHOLD
    lasting = np.logical_and.accumulate(passes[:, ::-1], axis=1)
    found: NDArray[np.int64] = passes.shape[1] - lasting.sum(axis=1)
    return found


def rank_correlation(first: Any, second: Any) -> float:
    """Kendall's tau-b; 0 where one of the two is the same throughout, so that there is no order to agree with."""
    tau = float(stats.kendalltau(first, second).statistic)
    return 0.0 if np.isnan(tau) else tau


def bottom_up(ssim: Floats) -> tuple[float, Floats]:
    """Tau of depth and first redundant window, with its interval: 1 if deeper cuts become redundant later."""
    rng = np.random.default_rng(0)
    n = ssim.shape[-1]
    drawn = [first_redundant(ssim[..., rng.integers(n, size=n)]) for _ in range(RESAMPLES)]
    taus = [rank_correlation(DEPTHS, one) for one in drawn]
    return rank_correlation(DEPTHS, first_redundant(ssim)), np.percentile(taus, [2.5, 97.5])


def agreement(one: Floats, other: Floats) -> tuple[float, Floats]:
    """Tau of the mean SSIM of two models over depths and starts, with its interval: both are drawn anew."""
    rng = np.random.default_rng(0)
    taus = []
    for _ in range(RESAMPLES // 4):
        drawn = (part[..., rng.integers(part.shape[-1], size=part.shape[-1])].mean(axis=-1) for part in (one, other))
        taus.append(rank_correlation(*(part.ravel() for part in drawn)))
    whole = rank_correlation(one.mean(axis=-1).ravel(), other.mean(axis=-1).ravel())
    return whole, np.percentile(taus, [2.5, 97.5])


def draw(results: Trees, folder: Folder, console: Console) -> None:
    """One table with a column for each model, and a figure of depths for each."""
    columns = {model: describe(tree) for model, tree in results.items()}
    table = Table("open samples, mean SSIM", *columns)
    for row in next(iter(columns.values())):
        table.add_row(row, *(column[row] for column in columns.values()))
    print_table(table, console)
    tau, interval = agreement(*(by_depth(tree) for tree in results.values()))
    console.print(
        f"Agreement of {' and '.join(MODELS)} over depths and starts: {shown(tau, interval)}", highlight=False
    )
    for model, tree in results.items():
        figure = cu.report.plot_panels(tree, {"kind": "ablate_block"}, panel="bottom", threshold=THRESHOLD)
        cu.report.save(figure, folder.figures / f"{model}-depths.png")
        factors = cu.report.plot_factors(tree, {"bottom 8": {"kind": "ablate_block", "bottom": 8}})
        cu.report.save(factors, folder.figures / f"{model}-factors.png")


def describe(results: xr.DataTree) -> dict[str, str]:
    """Answers by question."""
    found = cu.analysis.phases(results, kind="skip_steps")
    boundaries = [shown(*one) for one in zip(found["boundary"].values, found["interval"].values, strict=True)]
    rows = {"phases of skipped steps, boundaries": ", ".join(boundaries) or "one phase"}
    redundant = cu.analysis.first_redundant_step(results, threshold=THRESHOLD, kind="ablate_block")
    for depth, step, interval in zip(DEPTHS, redundant["step"].values, redundant["interval"].values, strict=True):
        rows[f"bottom {depth} redundant from step"] = shown(step, interval)
    rows["tau of depth and first redundant window"] = shown(*bottom_up(by_depth(results)))
    skips = cu.analysis.mean_curve(results, "ssim", kind="ablate_skip")
    rows["top 2 skips matter most at step"] = f"{skips['start'].values[int(skips['mean'].values.argmin())]}"
    for depth in (4, 8):
        changes = cu.analysis.factor_changes(results, kind="ablate_block", bottom=depth)
        first = changes.isel(start=0)
        rows[f"a factor changed, bottom {depth} cut first"] = shown(float(first["any"]), first["any_interval"].values)
        most = changes.isel(start=int(changes["any"].values.argmax()))
        rows[f"a factor changed, bottom {depth} cut at its worst"] = (
            f"{shown(float(most['any']), most['any_interval'].values)}, step {int(most['start'])}"
        )
    return rows


def shown(value: float, interval: Any) -> str:
    """A number with its interval; "none" where no start is redundant."""
    said = ["none" if np.isnan(one) else f"{one:.3g}" for one in (value, *interval)]
    return f"{said[0]} [{said[1]}, {said[2]}]"


SIZES = {"quick": quick, "medium": medium}


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", SIZES, draw)
