"""When does leaving something out matter, under one sampler and under another? The same sweep under six of them.

Open samples, which have no prompt, on the embedded model. In one sweep the bottom half of the decoder is cut for some
steps, in the other two steps are skipped; each image is compared with the one that its own sampler makes otherwise.

    python studies/which_sampler/study.py --quick      # half a minute on two cores
    python studies/which_sampler/study.py --medium     # some minutes; the numbers of its page
"""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

import causalunet as cu
from causalunet.design import Leading, Sampler
from causalunet.script import Folder, run_script

FIRST_SEED = 6000
"""Of the open samples; other studies have others."""
KINDS = {"ablate_block": "mean SSIM, cut from step", "skip_steps": "mean SSIM, skipped from step"}


def samplers(steps: int) -> tuple[Sampler, ...]:
    """At the same timesteps, without guidance.

    The noisiest timesteps are left out. There is next to no image in them, and methods of higher order multiply by the
    ratio of two levels of noise, which is thousands there, what the U-Net rounds off.
    """
    kinds: tuple[Callable[..., Sampler], ...] = (cu.DDPM, cu.DDIM, cu.Heun, cu.DPMMultistep, cu.UniPC, cu.PNDM)
    return tuple(kind(steps=steps, guidance_scale=1, spacing=Leading()) for kind in kinds)


def quick(folder: Folder) -> dict[str, cu.Study]:
    """8 steps, 2 samples."""
    return make_studies(folder, samples=2, steps=8, length=2)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """12 steps, 6 samples."""
    return make_studies(folder, samples=6, steps=12, length=3)


def make_studies(folder: Folder, *, samples: int, steps: int, length: int) -> dict[str, cu.Study]:
    """One for each sampler, by its name."""
    return {
        sampler.name: cu.Study(
            name=f"{sampler.name}, {folder.size}",
            prompts=(cu.NO_PROMPT,),
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + samples)),
            sampler=sampler,
            interventions=[
                *cu.sweep(cu.AblateBlock, bottom=6, start=range(steps, length - 1, -2), length=length),
                *(cu.SkipSteps(cu.Window(start, 2)) for start in range(steps - 1, 2, -2)),
            ],
        )
        for sampler in samplers(steps)
    }


def curve(results: xr.DataTree, kind: str) -> xr.DataArray:
    """Mean SSIM by the first step of the window."""
    found = results.children["outcomes"].to_dataset()["ssim"]
    return found[found["kind"] == kind].mean("sample").swap_dims(intervention="start")


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """The curves of all samplers, and from when on the cut is redundant."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = dict(zip(KINDS, figure.subplots(1, 2, sharey=True), strict=True))
    for kind, title in KINDS.items():
        starts = curve(next(iter(results.values())), kind)["start"].values
        tell(console, title, [f"{start:.0f}" for start in starts])
        for name, tree in results.items():
            found = curve(tree, kind)
            tell(console, name, [f"{value:.2f}" for value in found.values])
            axes[kind].plot(found["start"], found, marker="o", ms=3, lw=1, label=name)
        axes[kind].set(xlabel="first step", title=title.removeprefix("mean SSIM, "))
        axes[kind].invert_xaxis()
    tell(console, "U-Net calls of a run; the cut is redundant from", [])
    for name, tree in results.items():
        step = cu.analysis.first_redundant_step(tree, kind="ablate_block", resamples=999)["step"].squeeze()
        calls = tree.children["outcomes"].to_dataset()["unet_calls"].max()
        tell(console, name, [f"{int(calls)}", "no step" if step.isnull() else f"step {float(step):.0f}"])
    axes["ablate_block"].set_ylabel("mean SSIM")
    axes["skip_steps"].legend()
    cu.report.save(figure, folder.figures / "samplers.png")


def tell(console: Console, name: str, values: list[str]) -> None:
    """A line of the table."""
    console.print(f"{name:28}", *values, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
