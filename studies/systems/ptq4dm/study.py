"""At which steps are few bits to be calibrated, and at which do they hurt? After Shang et al. 2023, PTQ4DM.

The output of every block is rounded to levels of few bits, whose ranges were found beforehand from activations at one
step of each of some other runs. These steps are drawn from a part of the run, from all of it, or from a normal
distribution that favours the less noisy ones, as PTQ4DM advises. Beside it, weights rounded to few bits, and rounding
in one third of the run alone.

    python studies/systems/ptq4dm/study.py --quick     # a minute on one core
    python studies/systems/ptq4dm/study.py --medium    # five minutes
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

import causalunet as cu
from causalunet.metrics import moments, ssim
from causalunet.models import round_weights
from causalunet.script import Folder, run_script

BLOCKS = [*(f"down.{number}" for number in range(16)), "mid", *(f"up.{number}" for number in range(16))]
THIRDS = ("early", "middle", "late")
WEIGHTS, FEW = (8, 4), 4
"""Bits of weights; of activations where the time of calibration is asked for."""
MEAN, SD = 0.4, 0.4
"""Of the normal distribution of calibration steps, as shares of the run, 0 being the image: those of the paper."""

for of_weights in WEIGHTS:
    cu.register(f"shapes-w{of_weights}")(partial(lambda bits: round_weights(cu.load_model("shapes"), bits), of_weights))


def quick(folder: Folder) -> dict[str, cu.Study]:
    """9 steps, 8 open samples, calibrated by 6 others."""
    return make_studies(folder, steps=9, samples=8, others=6)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """15 steps, 32 open samples, calibrated by 24 others."""
    return make_studies(folder, steps=15, samples=32, others=24)


def make_studies(folder: Folder, *, steps: int, samples: int, others: int) -> dict[str, cu.Study]:
    """Of activations, and of weights; a study that only records is run first."""
    given: dict[str, Any] = {"prompts": [cu.NO_PROMPT], "sampler": cu.DDIM(steps=steps, guidance_scale=1)}
    record = cu.Record(activations=BLOCKS, dtype="float32")
    recording = cu.Study(
        name=f"ptq4dm, recorded, {folder.size}",
        model="shapes",
        seeds=range(1000, 1000 + others),
        interventions=[],
        record=record,
        **given,
    )
    recorded = recording.run(folder.store_of("recorded"))
    whole, third = cu.Window(steps, steps), steps // 3
    chosen = calibration_steps(steps, others)
    fills = {when: fills_at(recorded, some, FEW) for when, some in chosen.items()}
    windows = dict(zip(THIRDS, (cu.Window(steps - third * number, third) for number in range(3)), strict=True))
    edits = [rounding(f"{FEW} bits, calibrated {when}", some, whole) for when, some in fills.items()] + [
        rounding("8 bits, calibrated normal", fills_at(recorded, chosen["normal"], 8), whole),
        *(rounding(f"{FEW} bits, rounded {when}", fills["everywhere"], window) for when, window in windows.items()),
    ]
    models = {"activations": "shapes", **{f"w{bits}": f"shapes-w{bits}" for bits in WEIGHTS}}
    return {
        name: cu.Study(
            name=f"ptq4dm, {name}, {folder.size}",
            model=model,
            seeds=range(samples),
            interventions=edits if name == "activations" else [],
            record=cu.Record() if name == "activations" else cu.Record(summary="mid", steps=[1]),
            **given,
        )
        for name, model in models.items()
    }


def calibration_steps(steps: int, count: int, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """One step for each of some runs, T ... 1."""
    rng, third = np.random.default_rng(seed), steps // 3
    parts = {"everywhere": (1, steps)}
    parts |= {when: (steps - third * (number + 1) + 1, steps - third * number) for number, when in enumerate(THIRDS)}
    drawn = {when: rng.integers(low, high, count, endpoint=True) for when, (low, high) in parts.items()}
    normal = np.clip(rng.normal(MEAN * steps, SD * steps, count), 0, steps - 1)
    return {**drawn, "normal": normal.astype(np.int64) + 1}


def fills_at(recorded: xr.DataTree, steps: NDArray[np.int64], bits: int) -> dict[str, cu.Quantize]:
    """Of every block, from one step of each recorded run."""
    found = {}
    for block in BLOCKS:
        values = recorded[f"activations/{block}"].to_dataset()["baseline"]
        runs = np.arange(values.sizes["sample"])
        some = values.isel(sample=xr.DataArray(runs, dims="run")).sel(step=xr.DataArray(steps, dims="run"))
        low, high = cu.analysis.quantizer_range(some.values, bits, "mse" if bits < 8 else "minmax")
        found[block] = cu.Quantize(bits, low=low, high=high)
    return found


def rounding(label: str, fills: dict[str, cu.Quantize], window: cu.Window) -> cu.Composition:
    """Round the output of every block."""
    return cu.Composition([cu.Edit(block, window, fill) for block, fill in fills.items()], label=label)


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Table and figure."""
    outcomes = results["activations"].outcomes.to_dataset()
    labels = [str(label) for label in outcomes["intervention"].values if not str(label).startswith("null")]
    found = {label: outcomes["ssim"].sel(intervention=label).values for label in labels}
    plain = moments(results["activations"].baseline["image"].values)
    for bits in WEIGHTS:
        found[f"weights of {bits} bits"] = ssim(moments(results[f"w{bits}"].baseline["image"].values), plain)
    values = np.stack(list(found.values()))
    mean, (low, high) = values.mean(1), cu.analysis.bootstrap_mean(values).T
    console.print("mean SSIM to the run in full precision, with 95 % intervals", highlight=False)
    for label, *numbers in zip(found, mean, low, high, strict=True):
        told = f"{label:32} {{:.3f}} ({{:.3f}} to {{:.3f}})".format(*numbers)
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    reference = found[f"{FEW} bits, calibrated everywhere"]
    for when in (*THIRDS, "normal"):
        difference = found[f"{FEW} bits, calibrated {when}"] - reference
        told = "{:+.3f} ({:+.3f} to {:+.3f})".format(difference.mean(), *cu.analysis.bootstrap_mean(difference))
        console.print(f"calibrated {when} - everywhere: {told}", highlight=False, markup=False, soft_wrap=True)
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    ax = figure.subplots()
    ax.errorbar(mean, range(len(found)), xerr=[mean - low, high - mean], fmt="o", ms=3, lw=1)
    ax.set(yticks=range(len(found)), yticklabels=list(found), xlabel="SSIM to the run in full precision")
    ax.invert_yaxis()
    cu.report.save(figure, folder.figures / "ptq4dm.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
