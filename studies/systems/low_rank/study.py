"""How many samples does low-rank data take, and how many directions does a network let through? After Wang et al. 2024.

Images from a mixture of low-rank Gaussians have a denoiser in closed form, whose parameters are subspaces (arXiv
2409.02426). Training it on samples is subspace clustering, and its Jacobian at small noise has the rank of a subspace.
Here the subspaces are learned from few samples to many, the rank of the exact denoiser's Jacobian is taken step by
step, and it is counted how many directions the trained network `shapes` lets through, whole and with places cut.

    python studies/systems/low_rank/study.py --quick     # about a minute and a half on two cores
    python studies/systems/low_rank/study.py --medium    # some ten times as much
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

import causalunet as cu
from causalunet.jacobian import Denoiser, jacobian_spectrum, numerical_rank
from causalunet.models.exact import load_mixture, scene_bank
from causalunet.script import Folder, run_script

NUMBERS, SHARE = 12, 0.99
"""Of a sample, and share of signal that is trained at: where classes overlap in x_t, the least error blends them."""
BEGUN, ITERATIONS = 16, 120
"""Beginnings of every training, since there are local minima, and iterations of L-BFGS from all of them at once."""
CLASSES, RANKS, COUNTS = (1, 2), (2, 4), (1, 2, 3, 4, 5, 6, 8)
CUTS = ("whole", "top skips cut", "bottom cut")


def quick(folder: Folder) -> cu.Study:
    """8 steps, 1 open sample, 4 data sets."""
    return make_study(folder, steps=8, samples=1)


def medium(folder: Folder) -> cu.Study:
    """20 steps, 4 open samples, 20 data sets."""
    return make_study(folder, steps=20, samples=4)


def make_study(folder: Folder, *, steps: int, samples: int) -> cu.Study:
    """At an early and a later step, cut the four top skips, or the bottleneck and the four decoder blocks above."""
    windows = [cu.Window(step, 1) for step in (steps - 1, steps // 2)]
    return cu.Study(
        name=f"low rank, {folder.size}",
        model="shapes",
        prompts=[cu.NO_PROMPT],
        seeds=range(samples),
        sampler=cu.DDIM(steps=steps, guidance_scale=1),
        interventions=[
            item
            for window in windows
            for item in (
                cu.AblateSkip(top=4, window=window, label=f"{CUTS[1]}, step {window.start}"),
                cu.AblateBlock(bottom=4, window=window, label=f"{CUTS[2]}, step {window.start}"),
            )
        ],
    )


def denoised(bases: Tensor, x: Tensor, share: float) -> Tensor:
    """E[x_0 | x_t] of equally probable classes N(0, U U'), (set, row, number).

    Bases are (set, class, number, rank), x is (set, row, number).
    """
    along = torch.einsum("brn,bknd->brkd", x, bases)
    weights = (share / (2 * (1 - share)) * along.square().sum(-1)).softmax(-1)
    return share**0.5 * torch.einsum("brk,brkd,bknd->brn", weights, along, bases)


def errors(free: Tensor, samples: Tensor) -> Tensor:
    """Expected squared error of the denoiser of each set's subspaces on its samples, (set,).

    Noise is not drawn: each sample has the points of a cubature, plus and minus the axes of a frame of its own, by the
    root of their number. It is exact for polynomials of degree 3 in the noise, so that the error of one class is the
    expectation, whose minimiser is known; that of several is an estimate. Subspaces are what the columns of (set,
    class, number, rank) span, samples are (set, row, number).
    """
    rng, (count, size) = torch.Generator().manual_seed(0), samples.shape[1:]
    frames = torch.linalg.qr(torch.randn(count, size, size, generator=rng, dtype=torch.float64))[0]
    noise = size**0.5 * torch.cat([frames, -frames], dim=1)
    clean = samples[:, :, None].expand(-1, -1, 2 * size, -1)
    x = SHARE**0.5 * clean + (1 - SHARE) ** 0.5 * noise
    said = denoised(torch.linalg.qr(free)[0], x.flatten(1, 2), SHARE)
    return (said - clean.flatten(1, 2)).square().sum(-1).mean(-1)


def descended(free: Tensor, samples: Tensor, iterations: int) -> Tensor:
    """Where L-BFGS comes from some beginnings, all at once."""
    free = free.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [free],
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def total() -> Tensor:
        search.zero_grad()
        found = errors(free, samples).sum()
        found.backward()
        return found

    search.step(total)
    return free.detach()


def learned(samples: Tensor, classes: int, rank: int, begun: int = BEGUN) -> Tensor:
    """Subspaces whose denoiser errs least on samples, (set, class, number, rank): the best beginning, gone on with.

    Samples are (set, row, number).
    """
    rng, shape = torch.Generator().manual_seed(0), (classes, samples.shape[-1], rank)
    free = torch.randn(begun * len(samples), *shape, generator=rng, dtype=torch.float64)
    free = descended(free, many := samples.repeat(begun, 1, 1), ITERATIONS)
    best = errors(free, many).unflatten(0, (begun, -1)).argmin(dim=0)
    kept = free.unflatten(0, (begun, -1))[best, torch.arange(len(samples))]
    each = [descended(one[None], own[None], 4 * ITERATIONS) for one, own in zip(kept, samples, strict=True)]
    return torch.linalg.qr(torch.cat(each))[0]


def error(found: Tensor, true: Tensor) -> float:
    """||U U' - U* U*'||_F by its largest value, sqrt(2 d): mean over classes, matched as is best."""
    one, two = (bases @ bases.mT for bases in (found, true))
    off = (one[:, None] - two).flatten(2).norm(dim=-1) / (2 * true.shape[-1]) ** 0.5
    return min(float(off[range(len(one)), p].mean()) for p in itertools.permutations(range(len(two))))


def recovered(data_sets: int) -> xr.Dataset:
    """Recovery error, and whether training ended above the truth's error; by classes, rank, samples of a class, set."""
    off = np.zeros((len(CLASSES), len(RANKS), len(COUNTS), data_sets))
    stuck = np.zeros(off.shape, bool)
    for (c, classes), (r, rank), (n, count) in itertools.product(*map(enumerate, (CLASSES, RANKS, COUNTS))):
        rng = torch.Generator().manual_seed(1)
        true = torch.randn(data_sets, classes, NUMBERS, rank, generator=rng, dtype=torch.float64)
        true = torch.linalg.qr(true)[0]
        drawn = torch.randn(data_sets, classes, count, rank, generator=rng, dtype=torch.float64)
        samples = (drawn @ true.mT).flatten(1, 2)
        found = learned(samples, classes, rank)
        off[c, r, n] = [error(*pair) for pair in zip(found, true, strict=True)]
        stuck[c, r, n] = errors(found, samples) > (1 + 1e-6) * errors(true, samples)
    coords = {"classes": list(CLASSES), "rank": list(RANKS), "samples": list(COUNTS)}
    dims = (*coords, "data_set")
    return xr.Dataset({"off": (dims, off), "stuck": (dims, stuck)}, coords=coords)


def ranks_of_exact(steps: tuple[int, ...]) -> xr.DataArray:
    """Numerical rank of the exact denoiser's Jacobian, at noised images of 12 pixels a side, by step and rank."""
    bank, sampler = scene_bank(120, size=12), cu.DDIM(steps=50, guidance_scale=1)
    noise = np.random.default_rng(0).normal(size=bank.image_shape)
    found = np.zeros((len(RANKS), len(steps)))
    for (r, rank), (s, step) in itertools.product(enumerate(RANKS), enumerate(steps)):
        denoiser = Denoiser(model=load_mixture(bank, rank=rank), sampler=sampler, step=step)
        x = denoiser.level.signal * bank.images[0] + denoiser.level.noise * noise
        found[r, s] = numerical_rank(jacobian_spectrum(denoiser, x, 24, batch=24)) or np.nan
    return xr.DataArray(found, dims=("rank", "step"), coords={"rank": list(RANKS), "step": list(steps)})


def directions(results: xr.DataTree) -> xr.DataArray:
    """||J||_F^2 / sigma_1^2 of the network, mean over samples, by step and cut: its rank is at least that."""
    study = cu.Study.from_json(results.attrs["study"])
    model, items = cu.load_model(study.model), [one for one in study.interventions if one.kind != "null"]
    steps = sorted({max(item.steps) for item in items}, reverse=True)
    found = xr.DataArray(
        np.zeros((len(CUTS), len(steps))), dims=("cut", "step"), coords={"cut": list(CUTS), "step": steps}
    )
    for step, cut in itertools.product(steps, CUTS):
        made = next((one for one in items if one.label == f"{cut}, step {step}"), None)
        denoiser = Denoiser(model=model, sampler=study.sampler, step=step, intervention=made)
        spectra = [jacobian_spectrum(denoiser, x, 6, batch=6) for x in results.baseline.x_t.sel(step=step).values]
        found.loc[cut, step] = np.mean([one.norm**2 / one.values[0] ** 2 for one in spectra])
    return found


def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
    """Tables and figure."""
    found = recovered(4 if folder.size == "quick" else 20)
    off, stuck = found["off"], found["stuck"]
    reached = off.where(~stuck).max("data_set")
    exact, counted = ranks_of_exact((50, 40, 30, 20, 10, 3)), directions(results)
    effects = results.outcomes["mse"].mean("sample")
    tables = {f"recovery error, {k} class(es), mean": off.mean("data_set").sel(classes=k) for k in CLASSES}
    tables |= {f"largest where not stuck, {k} class(es)": reached.sel(classes=k) for k in CLASSES}
    tables |= {
        f"stuck, erring more than the truth, {k} class(es)": stuck.sum("data_set").sel(classes=k) for k in CLASSES
    }
    tables |= {"numerical rank of the exact denoiser": exact, "directions of the network": counted}
    tables |= {"mean squared error of the image": effects}
    for name, table in tables.items():
        console.print(f"{name}\n{table.to_pandas().round(4).to_string()}", highlight=False, markup=False)
    figure = Figure(figsize=(12, 3), layout="constrained")
    axes = figure.subplots(1, 3)
    for classes, rank in itertools.product(CLASSES, RANKS):
        one = off.sel(classes=classes, rank=rank).mean("data_set")
        style, label = ("-", "--")[CLASSES.index(classes)], f"{classes} class(es), d = {rank}"
        axes[0].plot(one["samples"], one, style, color=f"C{RANKS.index(rank)}", marker="o", ms=3, label=label)
    for rank in RANKS:
        axes[1].plot(exact["step"], exact.sel(rank=rank), marker="o", ms=3, label=f"d = {rank}")
    for cut in CUTS:
        axes[2].plot(counted["step"], counted.sel(cut=cut), marker="o", ms=3, label=cut)
    axes[0].set(xlabel="samples of a class", title="recovery error", ylim=(-0.03, 1))
    axes[1].set(xlabel="step of 50", title="numerical rank of the exact Jacobian")
    axes[2].set(xlabel="step", title="directions of the network", yscale="log")
    for ax in axes:
        ax.legend(fontsize="small")
    for ax in axes[1:]:
        ax.invert_xaxis()
    cu.report.save(figure, folder.figures / "low_rank.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
