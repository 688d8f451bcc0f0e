"""Are a diffusion model's temporal features what few bits hurt? After Huang et al. 2024, TFMQ-DM, and its successor.

Each block is told the time by a projection of the time embedding. For one prompt these temporal features take as many
values as there are steps, whatever the image. So they can have a range of their own at every step, weights rounded so
that these few values suffer least, or be kept in a table. Here they alone are rounded, in each way; beside it the
outputs of all blocks at as many bits.

    python studies/systems/tfmq/study.py --quick     # a minute on one core
    python studies/systems/tfmq/study.py --medium    # three minutes
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

import causalunet as cu
from causalunet.jacobian import Denoiser
from causalunet.metrics import moments, ssim
from causalunet.models import model_names, round_weights
from causalunet.models.rounded import rounded_for
from causalunet.script import Folder, run_script

BLOCKS = [*(f"down.{number}" for number in range(16)), "mid", *(f"up.{number}" for number in range(16))]
PROJECTIONS = "*.emb_layers.1"
"""Modules of `shapes` that make the temporal features of a block."""
BITS, OF_WEIGHTS = (4, 3), 3
WEIGHTS = {"nearest": "weights of features", "reconstructed": "the same, reconstructed", "all": "all weights"}


def projected(model: Any, steps: int) -> torch.Tensor:
    """What the projections are given at each step of an open sample, (step, channel): the same for all blocks."""
    given: list[torch.Tensor] = []
    first = model.unet.get_submodule("middle_block.0.emb_layers.1")
    handle = first.register_forward_pre_hook(lambda module, values: given.append(values[0][0]))
    sampler, nothing = cu.DDIM(steps=steps, guidance_scale=1), torch.zeros(1, *model.image_shape)
    with torch.no_grad():
        for step in range(steps, 0, -1):
            Denoiser(model=model, sampler=sampler, step=step)(nothing)
    handle.remove()
    return torch.stack([one for one in given if one.device.type != "meta"])  # a call that only asks for shapes


def reconstructed(model: Any, bits: int, steps: int) -> Any:
    """Round the projections so that their values at all steps err less: temporal information aware reconstruction."""
    inputs, copy = projected(model, steps), round_weights(model, bits, modules=PROJECTIONS)
    with torch.no_grad():
        for name, module in copy.unet.named_modules():
            if name.endswith("emb_layers.1"):
                module.weight.copy_(rounded_for(model.unet.get_submodule(name).weight, inputs, bits))
    return copy


def loader(kind: str, steps: int) -> Any:
    """Of a copy of `shapes` with rounded projections, or with all weights rounded."""
    plain = cu.load_model("shapes")
    if kind == "reconstructed":
        return reconstructed(plain, OF_WEIGHTS, steps)
    return round_weights(plain, OF_WEIGHTS, modules=PROJECTIONS if kind == "nearest" else "*")


def quick(folder: Folder) -> dict[str, cu.Study]:
    """9 steps, 8 open samples."""
    return make_studies(folder, steps=9, samples=8)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """15 steps, 32 open samples."""
    return make_studies(folder, steps=15, samples=32)


def make_studies(folder: Folder, *, steps: int, samples: int) -> dict[str, cu.Study]:
    """Of features and of weights; a study that only records is run first, on two other samples."""
    sites = cu.sites(cu.load_model("shapes"))
    features = list(sites.index[sites["what"] == "*.time"])
    given: dict[str, Any] = {"prompts": [cu.NO_PROMPT], "sampler": cu.DDIM(steps=steps, guidance_scale=1)}
    record = cu.Record(activations=[*features, *BLOCKS], dtype="float32")
    recorded = cu.Study(
        name=f"tfmq, recorded, {folder.size}",
        model="shapes",
        seeds=(1000, 1001),
        interventions=[],
        record=record,
        **given,
    ).run(folder.store_of("recorded"))
    whole, each = cu.Window(steps, steps), [cu.Window(step, 1) for step in range(steps, 0, -1)]
    edits: list[cu.Composition] = []
    for bits in BITS:
        for label, windows in {"one range": [whole], "a range per step": each}.items():
            fills = [
                (place, w, cu.analysis.calibrated(recorded, place, bits, steps=w))
                for place in features
                for w in windows
            ]
            edits.append(cu.Composition([cu.Edit(*one) for one in fills], label=f"features, {bits} bits, {label}"))
        blocks = [
            cu.Edit(place, whole, cu.analysis.calibrated(recorded, place, bits, method="minmax")) for place in BLOCKS
        ]
        edits.append(cu.Composition(blocks, label=f"blocks, {bits} bits, one range"))
    edits.append(
        cu.Composition([cu.Edit(place, whole, cu.Patch()) for place in features], label="features from a table")
    )
    studies = {
        "features": cu.Study(
            name=f"tfmq, {folder.size}", model="shapes", seeds=range(samples), interventions=edits, **given
        )
    }
    for kind in WEIGHTS:
        if (name := f"shapes, {kind}, {steps}") not in model_names():
            cu.register(name)(partial(loader, kind, steps))
        kept = cu.Record(summary="mid", steps=[1])
        studies[kind] = cu.Study(
            name=f"tfmq, {kind}, {folder.size}",
            model=name,
            seeds=range(samples),
            interventions=[],
            record=kept,
            **given,
        )
    return studies


def told(recorded: xr.DataTree, console: Console) -> None:
    """Whether features depend on the image, and whose errors one range makes larger."""
    features = [name for name in recorded["activations"].children if name not in BLOCKS]
    values = {name: recorded[f"activations/{name}"].to_dataset()["baseline"] for name in features}
    same = all(bool((one == one.isel(sample=0)).all()) for one in values.values())
    ends = [(one.max(one.dims[2:]) - one.min(one.dims[2:])).max("sample").values for one in values.values()]
    ratio = np.array([float(one.max() - one.min()) for one in values.values()]) / np.median(ends, axis=1)
    said = (
        f"{len(features)} temporal features, the same in all samples to the bit: {same}; their range over all steps is "
    )
    said += f"{np.median(ratio):.2f} times that of a step (median; up to {ratio.max():.2f})"
    console.print(said, highlight=False, markup=False, soft_wrap=True)


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Table and figure."""
    told(cu.open_results(folder.store_of("recorded")), console)
    outcomes = results["features"].outcomes.to_dataset()
    labels = [str(label) for label in outcomes["intervention"].values if not str(label).startswith("null")]
    found = {label: outcomes["ssim"].sel(intervention=label).values for label in labels}
    plain = moments(results["features"].baseline["image"].values)
    for kind, title in WEIGHTS.items():
        found[f"{title}, {OF_WEIGHTS} bits"] = ssim(moments(results[kind].baseline["image"].values), plain)
    values = np.stack(list(found.values()))
    mean, (low, high) = values.mean(1), cu.analysis.bootstrap_mean(values).T
    for label, *numbers in zip(found, mean, low, high, strict=True):
        line = f"{label:40} SSIM {{:.4f}} ({{:.4f}} to {{:.4f}})".format(*numbers)
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    ax = figure.subplots()
    ax.errorbar(mean, range(len(found)), xerr=[mean - low, high - mean], fmt="o", ms=3, lw=1)
    ax.set(yticks=range(len(found)), yticklabels=list(found), xlabel="SSIM to the run in full precision")
    ax.invert_yaxis()
    cu.report.save(figure, folder.figures / "tfmq.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
