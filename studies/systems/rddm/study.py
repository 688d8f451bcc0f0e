"""When does which head matter, the residual's or the noise's? After RDDM, Liu et al. 2023, arXiv 2308.13712.

RDDM adds a residual R = u - x_0 and noise, each at a pace of its own, and predicts both: the residual is to lead to the
image, the noise is to leave room for several. Here both heads are exact: the denoiser is the optimal one of 1080 scenes
given one of them damaged. A head is cut for a few steps, with little noise as the paper restores images, and with much
as it generates them.

    python studies/systems/rddm/study.py --quick     # two minutes on two cores
    python studies/systems/rddm/study.py --medium    # ten minutes
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor, nn

import causalunet as cu
from causalunet.models.base import register
from causalunet.models.exact import RestorationModel, scene_bank
from causalunet.models.exact.restoration import RestorationUNet
from causalunet.models.exact.unet import Part
from causalunet.prediction import Prediction
from causalunet.process import AddedResidual
from causalunet.script import Folder, run_script

TIMESTEPS = 100
NOISES = {"restoration": 0.1, "generation": 1.0}
"""B_T of the paper: its sums of variances are 0.01 and 1."""


LEAST = 1e-6
"""Mean squared error that is none: less than a hundredth of a grey level."""


class Residual(nn.Module):
    """u - x_0."""

    def forward(self, given: Tensor, x0: Tensor) -> Tensor:
        """Of a given image and the mean of those that are possible, (row, channel, y, x)."""
        return given - x0


class Noise(nn.Module):
    """What is left of x_t beside image and given image, over the weight of the noise."""

    def forward(self, x: Tensor, given: Tensor, x0: Tensor, weights: Tensor) -> Tensor:
        """The noise in x_t whose `causalunet.process.Weights` are given, (row, 3)."""
        image, of_given, noise = weights.T[..., None, None, None]
        return ((x.double() - image * x0 - of_given * given) / noise).float()


class TwoHeadedUNet(RestorationUNet):
    """Puts out the residual and the noise; components ``residual`` and ``noise`` beside those of `RestorationUNet`."""

    kind = "rddm"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.residual, self.noise = Residual(), Noise()

    @property
    def parts(self) -> tuple[Part, ...]:
        """Two heads on the mean of the images."""
        logits, weights, _ = super().parts
        heads = Part("residual", "decoder", "residual"), Part("noise", "decoder", "noise")
        return (logits, weights, Part("average", "decoder", "average", "residual noise"), *heads)

    def forward(  # type: ignore[override]
        self, x: Tensor, timesteps: Tensor, given: Tensor, log_weights: Tensor
    ) -> Tensor:
        """Residual and noise, (row, 2 * channel, y, x)."""
        x0 = self.restored(x, timesteps, given, log_weights)
        weights = [self.process.weights(level.alpha_bar) for level in self.levels(timesteps)]
        told = torch.tensor(weights, dtype=torch.float64, device=x.device)
        return torch.cat([self.residual(given, x0), self.noise(x, given, x0, told)], dim=1)


class TwoHeaded(RestorationModel):
    """A model of residual and noise."""

    @property
    def prediction(self) -> Prediction:
        """Both."""
        return Prediction("residual_eps")


def load(noise: float) -> TwoHeaded:
    """Scenes of 16 pixels, seen as means of 4 by 4 pixels under noise."""
    bank, process = scene_bank(), AddedResidual(noise=noise)
    share = 1 / (1 + (noise * np.arange(1, TIMESTEPS + 1) / TIMESTEPS) ** 2)
    return TwoHeaded(TwoHeadedUNet(bank, share).under(process).eval(), bank, share, {"damage": "coarse", "noise": 1.0})


@register("systems.rddm-restoration")
def load_restoring() -> TwoHeaded:
    """With little noise."""
    return load(NOISES["restoration"])


@register("systems.rddm-generation")
def load_generating() -> TwoHeaded:
    """With noise of variance 1."""
    return load(NOISES["generation"])


@cache
def prompts(count: int) -> list[str]:
    """As many scenes, spread over all."""
    labels = scene_bank().labels
    return [labels[number] for number in np.linspace(0, len(labels) - 1, count).astype(int)]


def quick(folder: Folder) -> dict[str, cu.Study]:
    """15 steps, 24 damaged scenes."""
    return make_studies(folder, steps=15, samples=24)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """30 steps, 48 damaged scenes."""
    return make_studies(folder, steps=30, samples=48)


def make_studies(folder: Folder, *, steps: int, samples: int) -> dict[str, cu.Study]:
    """Cut either head, or skip the steps, for a fifth of the run from every start on; RDDM's implicit sampling."""
    length = steps // 5
    starts = range(steps - 1, length, -1)
    heads = [cu.Edit(head, cu.Window(start, length), cu.Zero()) for head in ("residual", "noise") for start in starts]
    return {
        name: cu.Study(
            name=f"rddm, {name}, {folder.size}",
            model=f"systems.rddm-{name}",
            prompts=prompts(samples),
            sampler=cu.DDIM(steps=steps, guidance_scale=1),
            interventions=[*cu.sweep(cu.SkipSteps, start=starts, length=length), *heads],
        )
        for name in NOISES
    }


def curves(results: xr.DataTree) -> dict[str, xr.Dataset]:
    """Mean squared error to the whole run by start, with its interval: of each head, and of skipped steps."""
    found = cu.analysis.effects(results, "mse", threshold=0.01)
    cut = results["outcomes"]["component"].sel(intervention=found["intervention"].values).values
    kinds = found["kind"].values
    chosen = {
        "residual head cut": cut == "residual",
        "noise head cut": cut == "noise",
        "steps skipped": kinds == "skip_steps",
    }
    return {name: found.isel(intervention=some).sortby("start", ascending=False) for name, some in chosen.items()}


def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
    """Little noise and much, side by side."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, tree) in zip(axes, results.items(), strict=True):
        for label, found in curves(tree).items():
            start, mean = found["start"].values, found["mean"].values
            lower, upper = found["interval"].values.T
            ax.plot(start, mean, label=label)
            ax.fill_between(start, lower, upper, alpha=0.2)
            at = int(mean.argmax())
            most = f"most from step {start[at]} ({mean[at]:.4f}, {lower[at]:.4f} to {upper[at]:.4f})"
            gone = [int(step) for step, value in zip(start, mean, strict=True) if value < LEAST]
            until = f"below {LEAST:g} from {', '.join(map(str, gone)) or 'no step'}"
            told = f"{name}, {label}: first {mean[0]:.4f}; {most}; {until}"
            console.print(told, highlight=False, markup=False, soft_wrap=True)
        ax.set(xlabel="first step of the window", title=f"{name}, noise {NOISES[name]:g}", ylim=(0, None))
        ax.invert_xaxis()
    axes[0].set_ylabel("mean squared error to the whole run")
    axes[1].legend()
    cu.report.save(figure, folder.figures / "rddm.png")


if __name__ == "__main__":
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
