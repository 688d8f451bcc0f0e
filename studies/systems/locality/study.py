"""How local is the network, and what do its skips and its bottleneck have to do with it? After Lukoianov et al. 2025.

They explain the locality of trained denoisers by their data (arXiv 2509.09672): rows of the data's Wiener filter say
which pixels tell of which. Here the trained network's own rows, the derivatives of its estimate, stand beside them step
by step, and so do those of the network with its top skips or its bottleneck cut. The cuts are interventions of a study;
derivatives and estimates are of the states that its baselines went through.

    python studies/systems/locality/study.py --quick     # about two minutes on two cores, four of CPU time
    python studies/systems/locality/study.py --medium    # some ten times as much
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

import causalunet as cu
from causalunet.design import Intervention
from causalunet.jacobian import Denoiser, jacobian_rows
from causalunet.models import DiffusionModel
from causalunet.models.exact import load_local, load_optimal, load_wiener, scene_bank
from causalunet.script import Folder, run_script

WHOLE, SKIPS, BOTTOM = "whole", "top skips cut", "bottom cut"
SCENES, LOCAL = 540, 64
"""Of the analytic denoisers; the work of the local one grows with them times the square of their pixels."""


def quick(folder: Folder) -> cu.Study:
    """10 steps, 2 open samples, looked at at 4 steps."""
    return make_study(folder, steps=10, samples=2, looked_at=(9, 7, 5, 3))


def medium(folder: Folder) -> cu.Study:
    """20 steps, 8 open samples, looked at at 7 steps."""
    return make_study(folder, steps=20, samples=8, looked_at=(19, 16, 13, 10, 7, 4))


def make_study(folder: Folder, *, steps: int, samples: int, looked_at: tuple[int, ...]) -> cu.Study:
    """At every step that is looked at, cut the four top skips, or the bottleneck and the four decoder blocks above."""
    cuts = [
        item
        for step in looked_at
        for item in (
            cu.AblateSkip(top=4, window=cu.Window(step, 1), label=f"{SKIPS}, step {step}"),
            cu.AblateBlock(bottom=4, window=cu.Window(step, 1), label=f"{BOTTOM}, step {step}"),
        )
    ]
    return cu.Study(
        name=f"locality, {folder.size}",
        model="shapes",
        prompts=[cu.NO_PROMPT],
        seeds=range(samples),
        sampler=cu.DDIM(steps=steps, guidance_scale=1),
        interventions=cuts,
    )


def reach(rows: NDArray[np.float32], pixels: list[tuple[int, int, int]]) -> float:
    """Distance within which half of the squared entries of all rows lie, in pixels."""
    held = (rows.astype(np.float64) ** 2).sum(axis=-3).reshape(-1, len(pixels), *rows.shape[-2:])
    grids = (np.hypot(*np.ogrid[-y : rows.shape[-2] - y, -x : rows.shape[-1] - x]) for _, y, x in pixels)
    distance = np.broadcast_to(np.stack(list(grids)), held.shape)
    order = np.argsort(distance, axis=None, kind="stable")
    share = np.cumsum(held.ravel()[order]) / held.sum()
    return float(distance.ravel()[order][np.searchsorted(share, 0.5)])


def cosine(rows: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Of all rows together, so that those count most that look most."""
    one, two = (np.broadcast_to(part, rows.shape).astype(np.float64) for part in (rows, others))
    return float((one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two))


def estimates(denoiser: Denoiser, states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of x_0, (sample, channel, y, x)."""
    with torch.no_grad():
        found: NDArray[np.float32] = denoiser(torch.from_numpy(states)).numpy()
    return found


def analytic(model: DiffusionModel) -> dict[str, DiffusionModel]:
    """Exact denoisers of scenes, on the network's noise schedule."""
    size, share = model.image_shape[-1], model.alpha_bar
    scenes = scene_bank(SCENES, size=size)
    return {
        "Wiener": load_wiener(scenes, alpha_bar=share),
        "optimal": load_optimal(scenes, alpha_bar=share),
        "local": load_local(scene_bank(LOCAL, size=size), alpha_bar=share),
    }


def looked(results: xr.DataTree) -> xr.Dataset:
    """Reach, likeness to rows of the Wiener filter, R^2 of the analytic denoisers and effects, by step and cut."""
    study = cu.Study.from_json(results.attrs["study"])
    model, sampler, size = cu.load_model(study.model), study.sampler, results.baseline.sizes["x"]
    exact, near, far = analytic(model), size // 3, 2 * size // 3
    pixels = [(1, near, near), (1, near, far), (1, far, near), (1, far, far)]  # green, away from the borders
    cuts: dict[int, dict[str, Intervention | None]] = {}
    effects = cu.analysis.effects(results, "mse", threshold=0.01)["mean"]
    found: dict[tuple[int, str], dict[str, float]] = {}
    for item in study.interventions:
        if item.kind in ("ablate_skip", "ablate_block"):
            cuts.setdefault(max(item.steps), {WHOLE: None})[item.label.partition(",")[0]] = item
    for step, items in cuts.items():
        states = results.baseline.x_t.sel(step=step).values
        told = {name: estimates(Denoiser(model=one, sampler=sampler, step=step), states) for name, one in exact.items()}
        wiener = jacobian_rows(Denoiser(model=exact["Wiener"], sampler=sampler, step=step), states[0], pixels)
        found[step, "Wiener filter"] = {"reach": reach(wiener, pixels)}
        for cut, made in items.items():
            denoiser = Denoiser(model=model, sampler=sampler, step=step, intervention=made)
            rows = np.stack([jacobian_rows(denoiser, x, pixels, batch=4) for x in states])
            said = estimates(denoiser, states)
            found[step, cut] = {
                "reach": reach(rows, pixels),
                "cosine": cosine(rows, wiener),
                **{f"R2 {name}": 1 - float(((said - one) ** 2).mean() / said.var()) for name, one in told.items()},
                **({} if made is None else {"effect": float(effects.sel(intervention=made.label))}),
            }
    frames = {f"{step}/{cut}": values for (step, cut), values in found.items()}
    names = list(dict.fromkeys(name for values in frames.values() for name in values))
    steps, kinds = list(cuts), [WHOLE, SKIPS, BOTTOM, "Wiener filter"]
    return xr.Dataset(
        {
            name: (("step", "cut"), [[found.get((s, k), {}).get(name, np.nan) for k in kinds] for s in steps])
            for name in names
        },
        coords={"step": steps, "cut": kinds},
    )


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Table and figure."""
    found = looked(results)
    for name, one in found.items():
        console.print(f"{name}", highlight=False, markup=False)
        table = one.dropna("cut", how="all").to_pandas().round(4).to_string()
        console.print(table, highlight=False, markup=False)
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    shown = {"reach": "half of what is looked at, pixels", "cosine": "cosine with rows of the Wiener filter"}
    for ax, (name, title) in zip(axes := figure.subplots(1, 3), shown.items(), strict=False):
        for cut in found["cut"].values:
            ax.plot(found["step"], found[name].sel(cut=cut), marker="o", ms=3, label=str(cut))
        ax.set(xlabel="step", title=title)
    for name in ("Wiener", "local", "optimal"):
        axes[2].plot(found["step"], found[f"R2 {name}"].sel(cut=WHOLE), marker="o", ms=3, label=name)
    axes[2].set(xlabel="step", title="R² of analytic denoisers", ylim=(-0.5, 1.02))
    for ax in (axes[0], axes[2]):
        ax.legend(fontsize="small")
    for ax in axes:
        ax.invert_xaxis()
    cu.report.save(figure, folder.figures / "locality.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
