"""What do the backbone and the skip connections bring to the decoder, and is FreeU a gain? After Si et al. 2024.

FreeU scales half of the channels that the decoder is given from below (the backbone) by b > 1, and the low frequencies
of what comes over the skip connections by s < 1, on the two deepest levels, at all steps. Here each is done alone, by
dose and in thirds of the run; images are compared in their power spectrum, their distance to the plain run, and in
whether they show what the prompt asks for.

    python studies/systems/freeu/study.py --quick     # a minute on one core
    python studies/systems/freeu/study.py --medium    # three minutes
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

import causalunet as cu
from causalunet.design.interventions import Intervention
from causalunet.scenes import Scene, draw_scenes
from causalunet.script import Folder, run_script

DEEP = (("mid", "up.0", "up.1", "up.2"), ("up.3", "up.4", "up.5", "up.6"))
SHALLOW = (("up.7", "up.8", "up.9", "up.10"), ("up.11", "up.12", "up.13", "up.14"))
"""What decoder blocks of `shapes` are given from below, by level: 4 x 4 and 8 x 8 pixels, 16 x 16 and 32 x 32."""
SKIPS = {"mid": 15, "up.3": 11, "up.7": 7, "up.11": 3}
"""First skip connection of each level; three more follow."""
PAPER = {"b": (1.2, 1.4), "s": (0.9, 0.2)}
"""For Stable Diffusion 1.4, by level; it has the deep ones alone."""
FINE = 8
"""Wavenumber from which on power is called fine: half of the highest that all directions have."""


def free_u(
    label: str,
    window: cu.Window,
    *,
    b: tuple[float, float] = (1, 1),
    s: tuple[float, float] = (1, 1),
    levels: tuple[tuple[str, ...], ...] = DEEP,
) -> Intervention:
    """Scale half of the backbone's channels by b, low frequencies of skips by s, one for each level; 1 is left out."""
    edits: list[Intervention] = []
    for backbone, up, low in zip(levels, b, s, strict=True):
        if up != 1:
            edits += [
                cu.Edit(
                    cu.Site(name) @ cu.Channels(range(16 if levels is SHALLOW and name != "up.7" else 32)),
                    window,
                    cu.Scale(up),
                )
                for name in backbone
            ]
        if low != 1:
            first = SKIPS[backbone[0]]
            edits += [
                cu.Edit(f"skip.{number}", window, cu.FrequencyScale(low)) for number in range(first, first - 4, -1)
            ]
    return cu.Composition(edits, label=label)


def made(steps: int) -> Iterator[Intervention]:
    """Each alone, both as in the paper, each on the levels that it leaves out, and each in thirds of the run."""
    whole, third = cu.Window(steps, steps), steps // 3
    for dose in (0.8, 1.6):
        yield free_u(f"b = {dose}", whole, b=(dose, dose))
    for dose in (0.0, 1.4):
        yield free_u(f"s = {dose}", whole, s=(dose, dose))
    yield free_u("FreeU", whole, b=PAPER["b"], s=PAPER["s"])
    yield free_u("b = 1.6, shallow", whole, b=(1.6, 1.6), levels=SHALLOW)
    yield free_u("s = 0, shallow", whole, s=(0, 0), levels=SHALLOW)
    for when, start in {"early": steps, "middle": steps - third, "late": third}.items():
        window = cu.Window(start, third)
        yield free_u(f"b = 1.6, {when}", window, b=(1.6, 1.6))
        yield free_u(f"s = 0, {when}", window, s=(0, 0))


def quick(folder: Folder) -> cu.Study:
    """9 steps, 10 prompts."""
    return make_study(folder, steps=9, prompts=10)


def medium(folder: Folder) -> cu.Study:
    """12 steps, 40 prompts."""
    return make_study(folder, steps=12, prompts=40)


def make_study(folder: Folder, *, steps: int, prompts: int) -> cu.Study:
    """Prompts are told and not guided to, so that there is something to gain."""
    return cu.Study(
        name=f"freeu, {folder.size}",
        model="shapes",
        prompts=[scene.prompt for scene in draw_scenes(prompts, seed=1)],
        sampler=cu.DDIM(steps=steps, guidance_scale=1),
        interventions=list(made(steps)),
    )


def compared(results: xr.DataTree) -> xr.Dataset:
    """By intervention and sample: fine and coarse power against the plain run, agreement with the prompt, distance."""
    outcomes, baseline = results.outcomes.to_dataset(), results.baseline.to_dataset()
    asked = xr.DataArray([Scene.parse(prompt).codes for prompt in baseline["prompt"].values], dims=("sample", "factor"))
    fine, coarse = ({}, {})
    for name, tree in {"edited": outcomes, "plain": baseline}.items():
        power = cu.analysis.power_spectrum(tree["image"]).sum("channel")
        total = power * power["frequencies"]
        fine[name] = total.sel(wavenumber=slice(FINE, None)).sum("wavenumber")
        coarse[name] = total.sel(wavenumber=slice(1, FINE - 1)).sum("wavenumber")
    gained = (outcomes["factor_code"] == asked).mean("factor") - (baseline["factor_code"] == asked).mean("factor")
    return xr.Dataset(
        {
            "fine": np.log2(fine["edited"] / fine["plain"]),
            "coarse": np.log2(coarse["edited"] / coarse["plain"]),
            "gained": gained,
            "mse": outcomes["mse"],
        }
    )


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Table and figure."""
    found = compared(results)
    baseline = results.baseline.to_dataset()
    asked = [Scene.parse(prompt).codes for prompt in baseline["prompt"].values]
    share = float((baseline["factor_code"].values == asked).mean())
    console.print(f"the plain run shows {share:.3f} of what the prompts ask for; log2 of power, with 95 % intervals")
    names = {"fine": "fine power, log2", "coarse": "coarse power, log2", "gained": "agreement gained", "mse": "MSE"}
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, len(names))
    labels = [str(label) for label in found["intervention"].values if not str(label).startswith("null")]
    lines = {label: [f"{label:16}"] for label in labels}
    for ax, (name, title) in zip(axes, names.items(), strict=True):
        values = found[name].sel(intervention=labels).transpose("intervention", "sample").values
        mean, (low, high) = values.mean(1), cu.analysis.bootstrap_mean(values).T
        for label, *numbers in zip(labels, mean, low, high, strict=True):
            lines[label].append("{:+.4f} ({:+.4f} to {:+.4f})".format(*numbers))
        ax.errorbar(mean, range(len(labels)), xerr=[mean - low, high - mean], fmt="o", ms=3, lw=1)
        ax.axvline(0, color="grey", lw=0.5)
        ax.set(title=title, yticks=range(len(labels)), yticklabels=labels if ax is axes[0] else [])
        ax.invert_yaxis()
    console.print(f"{'':16} {'   '.join(f'{title:28}' for title in names.values())}", highlight=False, soft_wrap=True)
    for line in lines.values():
        console.print("   ".join(line), highlight=False, markup=False, soft_wrap=True)
    cu.report.save(figure, folder.figures / "freeu.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
