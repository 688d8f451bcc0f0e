"""Is it the same on another world, and in another anatomy? Phases, depth by time, skips, and what changes.

Open samples, which have no prompt, of `shapes` and `scenes`, which have the same anatomy, of the transformer
`shapes-flow`, of `shapes-latent` in the layout of Stable Diffusion, and of digits by a U-Net that somebody else
trained: skipped steps, the top skip connections and several relative depths, each in every window of a tenth of the
run. Intervals are bootstraps over samples. `shapes-latent` needs the extra diffusers, and the digits are there where
CAUSALUNET_WILD_WEIGHTS names the folder of their weights, see the how-to "A model from the wild".

    python studies/across_models/study.py --quick     # four minutes on two cores; the numbers of its page
    python studies/across_models/study.py --medium    # two hours
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

import causalunet as cu
from causalunet.analysis.resampling import interval_of, resampled_means
from causalunet.console import print_table
from causalunet.design import Composition
from causalunet.models import DiffusionModel
from causalunet.models.base import register
from causalunet.script import Folder, by_place, labels_by_place, plot_by_place, run_script, with_interval


class Cuts(NamedTuple):
    """How one anatomy is cut.

    ``blocks`` are all that can be cut, from the middle outwards, ``place`` says what a number of them is called and
    ``top`` how many skip connections are an eighth of all, or the nearest to it.
    """

    blocks: int
    place: str
    top: int


MODELS = {
    "shapes": Cuts(16, "bottom", 2),
    "scenes": Cuts(16, "bottom", 2),
    "shapes-flow": Cuts(12, "middle", 0),
    "shapes-latent": Cuts(12, "bottom", 2),
    "digits": Cuts(3, "bottom", 1),
}
CUT = "cut"
EIGHTHS = (1, 2, 3, 4, 5, 6)
"""Of the blocks that are cut."""
WEIGHTS = os.environ.get("CAUSALUNET_WILD_WEIGHTS", "")
"""Folder with ``digits.pt``."""
FIRST_SEED = 7000
"""Of the open samples; other studies have others."""
THRESHOLD = 0.8
"""Mean SSIM from which a cut counts as redundant."""
RESAMPLES = 2000

Trees = Mapping[str, xr.DataTree]


def quick(folder: Folder) -> dict[str, cu.Study]:
    """20 steps, 6 samples."""
    return make_studies(folder, samples=6, steps=20)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """50 steps, 24 samples."""
    return make_studies(folder, samples=24, steps=50)


def make_studies(folder: Folder, *, samples: int, steps: int) -> dict[str, cu.Study]:
    """The same sweep for each model, of the digits where their weights are."""
    if WEIGHTS:
        register("digits")(load_digits)
    return {
        model: cu.Study(
            name=f"across models, {model}, {folder.size}",
            model=model,
            prompts=(cu.NO_PROMPT,),
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + samples)),
            sampler=cu.DDPM(steps=steps, guidance_scale=1),
            interventions=tuple(cut(cuts, steps, steps // 10)),
        )
        for model, cuts in MODELS.items()
        if model not in lacking()
    }


def lacking() -> dict[str, str]:
    """Models that cannot be had here, with what is missing."""
    missing = {} if WEIGHTS else {"digits": "CAUSALUNET_WILD_WEIGHTS names no folder of its weights"}
    if not all(find_spec(name) for name in ("diffusers", "transformers")):
        missing["shapes-latent"] = "the extra diffusers is not installed"
    return missing


def load_digits() -> DiffusionModel:
    """The model that the page "A model from the wild" makes, by the code of that page."""
    page = (Path(__file__).parents[2] / "docs/howto/a-model-from-the-wild.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    with contextlib.chdir(WEIGHTS):
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:3]:
            exec(block, namespace)
    made: DiffusionModel = namespace["digits"]
    return made


def depths(blocks: int) -> list[int]:
    """How many blocks are cut: eighths of all, as near as whole blocks come."""
    return sorted({max(1, round(blocks * eighths / 8)) for eighths in EIGHTHS})


def cut(cuts: Cuts, steps: int, length: int) -> Iterator[cu.design.Intervention]:
    """Blocks and skip connections in every window of the run, and steps skipped.

    Blocks of a U are cut from the bottom, by zeros after the last of them. A transformer has no way around zeros: what
    its middle blocks add to the stream is left out.
    """
    for start in range(steps, 0, -length):
        window = cu.Window(start, length)
        for depth in depths(cuts.blocks):
            label = f"{CUT}, {cuts.place} {depth}, {start}"
            first = (cuts.blocks - depth) // 2
            passed = [cu.Edit(f"block.{first + at}", window, cu.Bypass()) for at in range(depth)]
            yield (
                cu.AblateBlock(depth, window, label=label)
                if cuts.place == "bottom"
                else Composition(passed, label=label)
            )
        if cuts.top:
            yield cu.AblateSkip(cuts.top, window, label=f"{CUT}, top {cuts.top}, {start}")
    yield from cu.sweep(cu.SkipSteps, start=range(steps - 1, length, -length), length=length)


def by_eighths(cells: xr.DataArray, cuts: Cuts) -> dict[int, xr.DataArray]:
    """SSIM of cuts of blocks, (start, sample), by the eighths of all blocks that they are nearest to."""
    found = {}
    for depth in depths(cuts.blocks):
        nearest = min(EIGHTHS, key=lambda eighths: abs(eighths / 8 - depth / cuts.blocks))
        found[nearest] = cells.sel(place=f"{cuts.place} {depth}")
    return found


def draw(results: Trees, folder: Folder, console: Console) -> None:
    """One table with a column for each model, agreement of each two, and one figure; factors apart."""
    columns = {model: describe(tree, MODELS[model]) for model, tree in results.items()}
    table = Table("open samples, mean SSIM", *columns)
    for row in dict.fromkeys(row for column in columns.values() for row in column):
        table.add_row(row, *(column.get(row, "has none") for column in columns.values()))
    print_table(table, console)
    for one, other in itertools.combinations(results, 2):
        found = agreement(*(by_eighths(by_place(results[name], CUT), MODELS[name]) for name in (one, other)))
        told = with_interval(float(found["tau"]), found["interval"].values)
        console.print(f"agreement of {one} and {other}: tau {told}", highlight=False)
    for model, missing in lacking().items():
        console.print(f"Without `{model}`: {missing}.", highlight=False)
    panels = {model: (tree, CUT) for model, tree in results.items()}
    cu.report.save(plot_by_place(panels, columns=2, threshold=THRESHOLD), folder.figures / "models.png")
    for model, tree in results.items():
        if reads_factors(tree):
            half = half_cut(tree, MODELS[model])
            factors = cu.report.plot_factors(tree, {"half the blocks": {"intervention": half}})
            cu.report.save(factors, folder.figures / f"{model}-factors.png")


def agreement(one: Mapping[int, xr.DataArray], other: Mapping[int, xr.DataArray]) -> xr.Dataset:
    """Tau of mean SSIM over starts, and over the relative depths that both have."""
    common = [eighths for eighths in one if eighths in other]
    values = (np.stack([each[eighths].values for eighths in common]) for each in (one, other))
    return cu.analysis.agreement(*values, resamples=RESAMPLES)


def describe(results: xr.DataTree, cuts: Cuts) -> dict[str, str]:
    """Answers by question; what a model has not is left out."""
    cells = by_place(results, CUT)
    found = cu.analysis.phases(results, kind="skip_steps")
    boundaries = [with_interval(*one) for one in zip(found["boundary"].values, found["interval"].values, strict=True)]
    rows = {"phases of skipped steps, boundaries": ", ".join(boundaries) or "one phase"}
    blocks = by_eighths(cells, cuts)
    means, drawn = resampled_means(np.stack([one.values for one in blocks.values()]), resamples=RESAMPLES, seed=0)
    steps = np.append(cells["start"].values.astype(np.float64), np.nan)
    windows, resampled = (cu.analysis.windows_until_redundant(one, threshold=THRESHOLD) for one in (means, drawn))
    for eighths, step, bounds in zip(blocks, steps[windows], steps[interval_of(resampled)][:, ::-1], strict=True):
        rows[f"{eighths}/8 of the blocks redundant from step"] = with_interval(step, bounds)
    tau, taus = (cu.analysis.depth_trend(one, list(blocks), threshold=THRESHOLD) for one in (means, drawn))
    rows["tau of depth and first redundant window"] = with_interval(float(tau), interval_of(taus))
    if cuts.top:
        mean, means_drawn = resampled_means(cells.sel(place=f"top {cuts.top}").values, resamples=RESAMPLES, seed=0)
        worst = steps[means_drawn.argmin(axis=-1)]
        rows["top skips matter most at step"] = with_interval(steps[mean.argmin()], interval_of(worst))
    if reads_factors(results):
        changes = cu.analysis.factor_changes(results, intervention=half_cut(results, cuts))
        first, most = changes.isel(start=0), changes.isel(start=int(changes["any"].values.argmax()))
        for when, part in {"first": first, "at its worst": most}.items():
            told = with_interval(float(part["any"]), part["any_interval"].values)
            rows[f"a factor changed, half the blocks cut {when}"] = f"{told}, step {int(part['start'])}"
    return rows


def reads_factors(results: xr.DataTree) -> bool:
    """Whether the model came with a reader of what images show."""
    return "factor_changed" in results.children["outcomes"].to_dataset()


def half_cut(results: xr.DataTree, cuts: Cuts) -> list[str]:
    """Labels of cuts of half the blocks."""
    return labels_by_place(results, CUT)[f"{cuts.place} {cuts.blocks // 2}"]


SIZES = {"quick": quick, "medium": medium}


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", SIZES, draw)
