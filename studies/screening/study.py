"""Does a screening rank interventions as their runs do, and from how many U-Net calls? A check of `Study.screen`.

Of the grid of all places (blocks and skip connections) and all steps some cells are drawn and run, one step of one
place zeroed on open samples. Both methods screen the same cells; what either would take for the whole grid follows.

    python studies/screening/study.py --quick     # a minute and a half on one core
    python studies/screening/study.py --medium    # twenty minutes on two cores; the numbers of the documentation
    python studies/screening/study.py --full      # 100 steps; prints its time before it starts
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import spearmanr

import causalunet as cu
from causalunet.screening import METHODS
from causalunet.script import Folder, run_script

FIRST_SEED = 7000
"""Of the open samples; other studies have others."""
PROBES = {"quick": (4,), "medium": (1, 2, 4), "full": (1, 2, 4, 8)}
"""Random signs per sample, by size."""
RESAMPLES = 2000


def quick(folder: Folder) -> Mapping[str, cu.Study]:
    """12 steps, 2 samples, 24 cells, one model."""
    return make_studies(models=("shapes",), steps=12, samples=2, cells=24)


def medium(folder: Folder) -> Mapping[str, cu.Study]:
    """50 steps, 2 samples, 120 cells, both models."""
    return make_studies(models=("shapes", "scenes"), steps=50, samples=2, cells=120)


def full(folder: Folder) -> Mapping[str, cu.Study]:
    """100 steps, 16 samples, 400 cells, both models."""
    return make_studies(models=("shapes", "scenes"), steps=100, samples=16, cells=400)


def make_studies(*, models: tuple[str, ...], steps: int, samples: int, cells: int) -> dict[str, cu.Study]:
    """Cells of the grid, the same on all models, which are of one anatomy."""
    studies = {}
    for model in models:
        grid = list(itertools.product(places_of(model), range(steps, 0, -1)))
        chosen = sorted(np.random.default_rng(1).permutation(len(grid))[:cells])
        studies[model] = cu.Study(
            name=f"screening, {model}",
            model=model,
            prompts=[cu.NO_PROMPT],
            seeds=range(FIRST_SEED, FIRST_SEED + samples),
            sampler=cu.DDPM(steps=steps, guidance_scale=1),
            interventions=[cu.Edit(place, cu.Window(step, 1)) for place, step in (grid[index] for index in chosen)],
        )
    return studies


def places_of(model: str) -> list[str]:
    """Blocks and skip connections."""
    anatomy = cu.load_model(model).anatomy
    return [*anatomy.by_name, *anatomy.skips]


class Agreement(NamedTuple):
    """How well ranks agree: Spearman's correlation and its 95 % interval, over cells."""

    ranks: float
    low: float
    high: float

    def __str__(self) -> str:
        """In words."""
        return f"{self.ranks:.3f} ({self.low:.3f} to {self.high:.3f})"


def agreement(foretold: NDArray[np.float64], measured: NDArray[np.float64]) -> Agreement:
    """Of means over samples, (cell,); the interval is a bootstrap's over cells, which were drawn at random."""
    drawn = np.random.default_rng(0).integers(len(measured), size=(RESAMPLES, len(measured)))
    again = [spearmanr(foretold[cells], measured[cells]).statistic for cells in drawn]
    return Agreement(spearmanr(foretold, measured).statistic, *np.quantile(again, (0.025, 0.975)))


def share_of_grid(study: cu.Study, found: xr.Dataset, probes: int) -> float:
    """What a screening of the whole grid takes of the calls of its runs, each of which begins where it is cut."""
    steps, samples = study.sampler.steps, len(study.samples)
    cells = len(places_of(study.model)) * steps
    runs = 2 * steps + len(places_of(study.model)) * steps * (steps + 1) // 2  # the uncut one, the null and the cells
    own = cells if found.attrs["method"] == "one_step" else 0
    back = found.attrs["unet_calls_back"] // (samples * found.attrs["probes"])
    return (steps + back * (1 + 2 * probes) + own) / runs


def found_again(foretold: NDArray[np.float64], measured: NDArray[np.float64], top: int) -> int:
    """How many of the strongest cells are among as many that a screening finds strongest."""
    return len({*np.argsort(-foretold)[:top].tolist()} & {*np.argsort(-measured)[:top].tolist()})


def draw(results: Mapping[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Ranks of both methods on every model, by number of signs, and a picture of the last."""
    from matplotlib.figure import Figure

    studies = SIZES[folder.size](folder)
    figure = Figure(figsize=(3.3 * len(METHODS), 3.1 * len(studies)), layout="constrained")
    axes = figure.subplots(len(studies), len(METHODS), squeeze=False, sharex="row", sharey="row")
    for row, (model, study) in enumerate(studies.items()):
        outcomes = results[model].children["outcomes"].to_dataset()
        cells = len(study.interventions) - 1  # the null is no cell
        measured = {
            "mse": outcomes["mse"].values[:cells].mean(1),
            "1 - ssim": 1 - outcomes["ssim"].values[:cells].mean(1),
        }
        for column, method in enumerate(METHODS):
            for probes in PROBES[folder.size]:
                found = study.screen(method=method, probes=probes)
                foretold = found["change"].values[:cells].mean(1) / 4
                ranks = {name: agreement(foretold, values) for name, values in measured.items()}
                again = found_again(foretold, measured["mse"], cells // 10)
                console.print(
                    f"{model}, {method}, {probes} signs: rank correlation with mse {ranks['mse']}, with 1 - ssim "
                    f"{ranks['1 - ssim']}; {again} of the {cells // 10} strongest; "
                    f"{share_of_grid(study, found, probes):.1%} of the calls of the grid",
                    highlight=False,
                    soft_wrap=True,
                )
            ax = axes[row, column]
            ax.loglog(measured["mse"], foretold, "o", ms=3, alpha=0.6)
            least, most = measured["mse"][measured["mse"] > 0].min(), measured["mse"].max()
            ax.plot((least, most), (least, most), color="0.5", lw=1)
            ax.set(title=f"{model}, {method}", xlabel="mean squared error, run")
        axes[row, 0].set_ylabel("the same, foretold")
    cu.report.save(figure, folder.figures / "screening.png")


SIZES = {"quick": quick, "medium": medium, "full": full}


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", SIZES, draw)
