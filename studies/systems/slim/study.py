"""Which band of the features matters when, and when is which frequency recovered? After Yang et al. 2023.

They make diffusion models slim by gating bands of a wavelet transform of the features, by time: coarse ones early,
fine ones late, since the best linear denoiser of images recovers their frequencies in that order. Here a band of the
decoder's features is taken away in a third of the run, and what the network's estimates of x_0 have right at each
frequency is laid beside what the best linear denoiser would have.

    python studies/systems/slim/study.py --quick     # a minute on one core
    python studies/systems/slim/study.py --medium    # five minutes
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.stats
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

import causalunet as cu
from causalunet.models.exact import scene_bank
from causalunet.script import Folder, run_script

PLACES = {"up.7": "16 x 16", "up.11": "32 x 32, first", "up.14": "32 x 32, last but one"}
BANDS: tuple[Literal["low", "high"], ...] = ("low", "high")
THIRDS = ("early", "middle", "late")
WAVES = slice(0, 16)
"""Wavenumbers that all directions have at 32 pixels."""


def quick(folder: Folder) -> cu.Study:
    """9 steps, 8 open samples."""
    return make_study(folder, steps=9, samples=8)


def medium(folder: Folder) -> cu.Study:
    """15 steps, 36 open samples."""
    return make_study(folder, steps=15, samples=36)


def make_study(folder: Folder, *, steps: int, samples: int) -> cu.Study:
    """Take a band of a block's output away, for a third of the run."""
    third = steps // 3
    windows = [cu.Window(steps - number * third, third) for number in range(3)]
    return cu.Study(
        name=f"slim, {folder.size}",
        model="shapes",
        prompts=[cu.NO_PROMPT],
        seeds=range(samples),
        sampler=cu.DDIM(steps=steps, guidance_scale=1),
        interventions=[
            cu.Edit(place, window, cu.BandScale(0, band), label=f"{place}, {band}, {when}")
            for place in PLACES
            for band in BANDS
            for when, window in zip(THIRDS, windows, strict=True)
        ],
    )


def recovered(results: xr.DataTree) -> xr.Dataset:
    """Share of the image's power that estimates have right, by step and wavenumber; and that of the linear denoiser.

    The estimate's own power would not tell: noise that a network takes for an image has power too.
    """
    baseline = results.baseline.to_dataset()
    scenes = scene_bank(1080, size=baseline.sizes["x"]).images
    mean = xr.DataArray(scenes.mean(0), dims=("channel", "y", "x"))
    final, around = 2 * baseline["image"] - 1, ["sample", "channel"]
    data = cu.analysis.power_spectrum(xr.DataArray(scenes, dims=("sample", "channel", "y", "x")) - mean).mean(around)
    wrong = cu.analysis.power_spectrum(baseline["x0_hat"] - final).mean(around)
    measured = 1 - wrong / cu.analysis.power_spectrum(final - mean).mean(around)
    share = baseline["alpha_bar"].values[:, None]
    linear = np.sqrt(share) * cu.analysis.wiener_gain(share, data.values)
    return xr.Dataset(
        {"measured": measured.transpose("step", "wavenumber"), "linear": (("step", "wavenumber"), linear)}
    ).sel(wavenumber=WAVES)


def half(shares: xr.DataArray) -> xr.DataArray:
    """Steps passed until half of the power at a wavenumber is right for good."""
    below = (shares < 0.5).values
    passed = np.where(below.any(0), len(below) - below[::-1].argmax(0), 0)
    return xr.DataArray(passed, dims="wavenumber", coords={"wavenumber": shares["wavenumber"]})


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Tables and figure."""
    found = recovered(results)
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, 4)
    for ax, (place, title) in zip(axes, PLACES.items(), strict=False):
        effects: dict[str, NDArray[np.float64]] = {
            band: np.sqrt([results.outcomes["mse"].sel(intervention=f"{place}, {band}, {when}") for when in THIRDS])
            for band in BANDS
        }
        for name, values in {**effects, "high - low": effects["high"] - effects["low"]}.items():
            mean, (low, high) = values.mean(1), cu.analysis.bootstrap_mean(values).T
            told = (
                f"{when} {m:+.4f} ({a:+.4f} to {b:+.4f})" for when, m, a, b in zip(THIRDS, mean, low, high, strict=True)
            )
            console.print(f"{place:6} {name:10} {'   '.join(told)}", highlight=False, markup=False, soft_wrap=True)
            if name in BANDS:
                ax.errorbar(THIRDS, mean, yerr=[mean - low, high - mean], marker="o", ms=3, label=f"{name} band away")
        ax.set(title=f"{place}, {title}")
    axes[0].set_ylabel("root mean square change")
    axes[0].legend(fontsize="small")
    steps = {str(name): half(one) for name, one in found.items()}
    for name, passed in steps.items():
        order = scipy.stats.spearmanr(passed["wavenumber"], passed).statistic
        console.print(
            f"{name}: steps until half the power, by wavenumber {passed.values.tolist()}; rank correlation {order:.2f}",
            soft_wrap=True,
        )
        axes[3].plot(passed["wavenumber"], passed, marker="o", ms=3, label=name)
    for kind, one in found.items():
        console.print(f"share that is right, {kind}, by step and wavenumber")
        table = one.isel(wavenumber=[0, 1, 2, 4, 8, 12, 15]).to_pandas().round(3).to_string()
        console.print(table, highlight=False, markup=False, soft_wrap=True)
    axes[3].set(xlabel="wavenumber", ylabel="steps", title="until half of the power is right")
    axes[3].legend()
    cu.report.save(figure, folder.figures / "slim.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
