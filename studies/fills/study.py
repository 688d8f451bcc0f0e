"""What are the paper's conclusions worth under other fills? Zeros, means, another sample's values and held ones.

Open samples, which have no prompt, of `shapes` and of `scenes`: the same cuts of the bottom decoder blocks and of the
top two skip connections, in the same windows over the whole run, filled in four ways. Each conclusion is a number with
an interval under each fill, and a verdict next to zero's.

    python studies/fills/study.py --quick     # a minute and a half on two cores
    python studies/fills/study.py --medium    # six times that; the numbers of its page
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import causalunet as cu
from causalunet.analysis.resampling import interval_of, resampled_means
from causalunet.console import print_table
from causalunet.design import Composition, Fill
from causalunet.script import Folder, by_place, plot_by_place, run_script, with_interval

MODELS = ("shapes", "scenes")
FILLS: Mapping[str, Fill] = {"zero": cu.Zero(), "mean": cu.Mean(n=8), "resample": cu.Resample(), "hold": cu.Hold()}
DEPTHS = {"quick": (4, 8, 12), "medium": (4, 8, 10, 12)}
SKIPS, HALF = "top 2", "bottom 8"
FIRST_SEED = 8000
"""Of the open samples; other studies have others."""
THRESHOLD = 0.8
"""Mean SSIM from which a cut counts as redundant."""
ALIKE = 0.5
"""Tau from which two fills count as ranking cuts alike: three of four pairs of cuts in the same order."""
RESAMPLES = 2000

Floats = NDArray[np.float64]


def quick(folder: Folder) -> dict[str, cu.Study]:
    """10 steps, 5 windows, 3 depths, 6 samples."""
    return make_studies(folder, samples=6, steps=10, length=2)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """21 steps, 7 windows, 4 depths, 12 samples."""
    return make_studies(folder, samples=12, steps=21, length=3)


def make_studies(folder: Folder, *, samples: int, steps: int, length: int) -> dict[str, cu.Study]:
    """The same cuts for each model, filled in each way."""
    return {
        model: cu.Study(
            name=f"fills, {model}, {folder.size}",
            model=model,
            prompts=(cu.NO_PROMPT,),
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + samples)),
            sampler=cu.DDPM(steps=steps, guidance_scale=1),
            interventions=tuple(cuts(DEPTHS[folder.size], steps, length)),
        )
        for model in MODELS
    }


def cuts(depths: Sequence[int], steps: int, length: int) -> Iterator[cu.design.Intervention]:
    """Every place in every window under every fill; before the first step there is nothing to hold."""
    places = {SKIPS: ("skip.0", "skip.1"), **{f"bottom {depth}": (f"up.{depth - 1}",) for depth in depths}}
    for name, fill in FILLS.items():
        for place, components in places.items():
            for start in range(steps - length * (name == "hold"), 0, -length):
                label = f"{name}, {place}, {start}"
                edits = [cu.Edit(one, cu.Window(start, length), fill, label=label) for one in components]
                yield edits[0] if len(edits) == 1 else Composition(edits, label=label)


class Conclusion(NamedTuple):
    """A number made of mean SSIM, (..., place, start) to (...), and when two of it say the same.

    ``margin`` is the largest difference of two that are the same; without one, it is the sign that is concluded.
    """

    of: Callable[[Floats], Any]
    margin: float | None = None


def conclusions(cells: xr.DataArray) -> dict[str, Conclusion]:
    """Of the paper, each as one number; steps are the same within a window, and "none" is step 0, below all starts."""
    places, starts = cells["place"].values.tolist(), cells["start"].values
    depths = [int(place.split()[1]) for place in places[1:]]
    window, third = float(starts[0] - starts[1]), len(starts) // 3
    half, steps = places.index(HALF), np.append(starts, 0)

    def worst(place: int) -> Conclusion:
        return Conclusion(lambda mean: starts[mean[..., place, :].argmin(axis=-1)], window)

    def redundant(place: int) -> Conclusion:
        return Conclusion(
            lambda mean: steps[cu.analysis.windows_until_redundant(mean[..., place, :], threshold=THRESHOLD)], window
        )

    def more(part: slice) -> Conclusion:
        return Conclusion(lambda mean: (mean[..., half, part] - mean[..., 0, part]).mean(axis=-1))

    below = list(enumerate(places))[1:]
    return {
        **{f"{place} matter most at step": worst(at) for at, place in below},
        **{f"{place} redundant from step": redundant(at) for at, place in below},
        "tau of depth and first redundant window": Conclusion(
            lambda mean: cu.analysis.depth_trend(mean[..., 1:, :], depths, threshold=THRESHOLD)
        ),
        f"{SKIPS} skips matter most at step": worst(0),
        f"{SKIPS} skips matter more than {HALF}, by SSIM: first third": more(slice(third)),
        "the same, last third": more(slice(-third, None)),
    }


def described(own: xr.DataArray, zero: xr.DataArray) -> dict[str, tuple[str, str]]:
    """Number with interval, and verdict next to zero's in the same windows, by conclusion.

    Both fills are of the same samples, which a resample draws alike.
    """
    means, drawn = resampled_means(np.stack([zero.values, own.values]), resamples=RESAMPLES, seed=0)
    found = {}
    for name, (of, margin) in conclusions(own).items():
        of_zero, of_fill = of(drawn[:, 0]), of(drawn[:, 1])
        bounds = interval_of(of_fill)
        same = verdict(interval_of(of_fill - of_zero), margin) if margin else signs(interval_of(of_zero), bounds)
        value, *ends = (np.nan if margin and not one else float(one) for one in (of(means[1]), *bounds))
        found[name] = with_interval(value, ends), same
    return found


def verdict(difference: Floats, margin: float) -> str:
    """Two one-sided tests: the same if the whole interval is within the margin, not if none of it is 0."""
    if (abs(difference) <= margin).all():
        return "same"
    return "undecided" if difference[0] <= 0 <= difference[1] else "not the same"


def signs(zero: Floats, fill: Floats) -> str:
    """The same if both intervals are on one side of 0, not if they are on both."""
    return {1: "same", -1: "not the same"}.get(int(np.sign(zero).sum() * np.sign(fill).sum() / 4), "undecided")


def ranked(own: xr.DataArray, zero: xr.DataArray, paired: bool) -> tuple[str, str]:
    """Tau of mean SSIM over depths and starts with zero's."""
    blocks = (each.isel(place=slice(1, None)).values for each in (own, zero))
    found = cu.analysis.agreement(*blocks, paired=paired, resamples=RESAMPLES)
    low, high = found["interval"].values
    same = "same" if low > ALIKE else "not the same" if high < ALIKE else "undecided"
    return with_interval(float(found["tau"]), (low, high)), same


def draw(results: Mapping[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """One table, and one figure of all curves."""
    first = "zero, in the windows of hold"
    table = Table("open samples, mean SSIM", "zero", *[name for name in FILLS if name != "zero"], first)
    tau = "tau with zero over depths and starts"
    for model, tree in results.items():
        cells = {name: by_place(tree, name) for name in FILLS}
        cells[first] = cells["zero"].sel(start=cells["hold"]["start"])
        columns = {}
        for name, own in cells.items():
            reference, alone = cells["zero"].sel(start=own["start"]), name in ("zero", first)
            rows = described(own, reference) | {tau: ranked(own, reference, paired=not alone)}
            columns[name] = {row: text if alone else f"{text}\n{same}" for row, (text, same) in rows.items()}
        table.add_section()
        table.add_row(f"`{model}`")
        for row in columns["zero"]:
            table.add_row(row, *(columns[name][row] for name in columns))
    print_table(table, console)
    panels = {f"{model}: {fill}": (tree, fill) for model, tree in results.items() for fill in FILLS}
    figure = plot_by_place(panels, columns=len(FILLS), threshold=THRESHOLD)
    cu.report.save(figure, folder.figures / "fills.png")


SIZES = {"quick": quick, "medium": medium}


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", SIZES, draw)
