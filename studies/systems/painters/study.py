"""When does skipping steps matter, and along which principal component? After Wang & Vastola 2023, arXiv 2303.02490.

They explain a trained model's runs by those of a Gaussian with the data's mean and covariance. Here the same theory is
asked for effects: what skipping a few steps does to the image. On the model that is that Gaussian it is exact; on the
embedded model it is a guess that is made without a single call of the network. Between them stands the optimal denoiser
of the scenes, of which all is known but which is no Gaussian.

    python studies/systems/painters/study.py --quick     # two minutes on two cores
    python studies/systems/painters/study.py --medium    # ten minutes
"""

from __future__ import annotations

import scipy.stats
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

import causalunet as cu
from causalunet.models.exact import load_gaussian, load_wiener, scene_bank
from causalunet.script import Folder, run_script

MODELS = {"exact": "exact-gaussian", "optimal": "exact-optimal", "trained": "shapes"}
TITLES = {"exact": "the Gaussian itself", "optimal": "the optimal denoiser", "trained": "the trained model"}
LEAST = 1e-6
"""Mean squared error below which nothing is drawn: less than a hundredth of a grey level."""
BANDS = {"1": slice(0, 1), "2 to 4": slice(1, 4), "5 to 16": slice(4, 16), "17 to 64": slice(16, 64)}
"""Principal components that are drawn together, counted from 1."""


def quick(folder: Folder) -> dict[str, cu.Study]:
    """15 steps, 12 open samples."""
    return make_studies(folder, steps=15, samples=12)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """30 steps, 32 open samples."""
    return make_studies(folder, steps=30, samples=32)


def make_studies(folder: Folder, *, steps: int, samples: int) -> dict[str, cu.Study]:
    """Skip a fifth of the steps from every start on, on all models alike."""
    length = steps // 5
    return {
        name: cu.Study(
            name=f"painters, {name}, {folder.size}",
            model=model,
            prompts=[cu.NO_PROMPT],
            seeds=range(samples),
            sampler=cu.DDIM(steps=steps, guidance_scale=1),
            interventions=cu.sweep(cu.SkipSteps, start=range(steps - 1, length, -1), length=length),
        )
        for name, model in MODELS.items()
    }


def foretold(results: xr.DataTree, name: str) -> xr.Dataset:
    """What the theory says of a study, from the statistics of scenes alone."""
    study = cu.Study.from_json(results.attrs["study"])
    model = cu.load_model(study.model)
    scenes, share = scene_bank(size=model.image_shape[-1]), model.alpha_bar
    linear = load_gaussian(scenes, alpha_bar=share) if name == "exact" else load_wiener(scenes, alpha_bar=share)
    return cu.analysis.gaussian_theory(study, **linear.theory())


def compared(results: xr.DataTree, name: str) -> xr.Dataset:
    """Mean squared error by start: measured, with its interval, and foretold."""
    measured = cu.analysis.effects(results, "mse", threshold=0.01, kind="skip_steps")
    theory = foretold(results, name).sel(intervention=measured["intervention"].values)
    first = measured["start"].values
    return xr.Dataset(
        {
            "measured": ("start", measured["mean"].values),
            "interval": (("start", "bound"), measured["interval"].values),
            "foretold": ("start", theory["mse"].values),
            "moved": (("start", "principal_component"), theory["effect"].values),
        },
        coords={"start": first, "bound": ["lower", "upper"]},
    ).sortby("start", ascending=False)


def tell(name: str, found: xr.Dataset, console: Console) -> None:
    """How well the theory does, and which components are moved when."""
    inside = (found["interval"][:, 0] <= found["foretold"]) & (found["foretold"] <= found["interval"][:, 1])
    ranks = scipy.stats.spearmanr(found["measured"], found["foretold"]).statistic
    ratio = found["measured"] / found["foretold"]
    low, high, middle = (float(value) for value in (ratio.min(), ratio.max(), ratio.median()))
    lines = [
        f"{TITLES[name]}: {int(inside.sum())} of {len(inside)} foretold effects lie in their 95 % interval; rank "
        f"correlation {ranks:.2f}; measured over foretold {low:.2f} to {high:.2f}, median {middle:.2f}",
        f"  it costs most from step {int(found['measured'].idxmax())}, foretold {int(found['foretold'].idxmax())}",
    ]
    if name == "exact":
        for label, some in BANDS.items():
            moved = (found["moved"].isel(principal_component=some) ** 2).sum("principal_component")
            lines.append(f"  components {label} are moved most from step {int(moved.idxmax())}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def drawn(found: xr.Dataset, title: str, ax: Axes) -> None:
    """Measured effects with their intervals, and the theory as a line."""
    lower, upper = found["interval"].values.T
    middle, start = found["measured"].values, found["start"].values
    ax.errorbar(start, middle, yerr=[middle - lower, upper - middle], fmt="o", ms=3, lw=1, label="measured, 95 %")
    ax.plot(start, found["foretold"].values, color="black", lw=1, label="foretold")
    ax.set(xlabel="first step skipped", yscale="log", title=title)
    ax.set_ylim(bottom=max(LEAST, ax.get_ylim()[0]))
    ax.invert_xaxis()


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """The models side by side, and the components that are moved."""
    found = {name: compared(tree, name) for name, tree in results.items()}
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    axes = figure.subplots(1, 4)
    for ax, (name, one) in zip(axes, found.items(), strict=False):
        tell(name, one, console)
        drawn(one, TITLES[name], ax)
    axes[0].set_ylabel("mean squared error to the whole run")
    axes[0].legend()
    for label, some in BANDS.items():
        moved = (found["exact"]["moved"].isel(principal_component=some) ** 2).sum("principal_component")
        axes[3].plot(moved["start"], moved / moved.max(), label=label)
    axes[3].set(xlabel="first step skipped", ylabel="share of the largest", title="where the Gaussian is moved")
    axes[3].invert_xaxis()
    axes[3].legend(title="components")
    cu.report.save(figure, folder.figures / "painters.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
