"""Simulated studies on models whose truth is known, and how often their intervals cover it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import causalunet as cu
from causalunet.execute.fill import pace
from causalunet.execute.walk import batches
from causalunet.models.exact import ExactModel, ImageBank, load_gaussian, load_optimal, scene_bank

SAMPLER = cu.DDIM(steps=6, guidance_scale=1)
EARLY, MIDDLE = cu.Window(5, 2), cu.Window(3, 2)
THRESHOLD = 0.8


def gaussian() -> ExactModel:
    """Scenes of so little contrast that no image of their Gaussian leaves the range, where decoding would clip it."""
    scenes = scene_bank(60, size=12)
    return load_gaussian(ImageBank(0.15 * scenes.images, scenes.labels), groups=(4, 12, 32))


def bank() -> ExactModel:
    """Of 40 scenes."""
    return load_optimal(scene_bank(40, size=12))


MODELS = {"gaussian": gaussian, "optimal": bank}
INTERVENTIONS: Mapping[str, tuple[cu.Edit | cu.SkipSteps, ...]] = {
    "gaussian": (
        cu.SkipSteps(EARLY, label="steps skipped"),
        cu.Edit("pc.0", MIDDLE, label="component cut"),
        cu.Edit("coefficients", MIDDLE, cu.Scale(0.5), label="component halved"),
    ),
    "optimal": (
        cu.SkipSteps(EARLY, label="steps skipped"),
        cu.Edit("weights", EARLY, label="component cut"),
        cu.Edit("logits", EARLY, cu.Scale(0.2), label="component scaled"),
    ),
}


@dataclass(frozen=True)
class Simulated:
    """Studies that differ in their seeds only.

    Attributes
    ----------
    results : xarray.DataTree
        Of all of them, one after the other.
    studies : int
    truth : dict of ndarray, (intervention,)
        By outcome: in closed form, or the mean over all samples of all studies.
    """

    results: xr.DataTree
    studies: int
    truth: dict[str, NDArray[np.float64]]

    def covered(self) -> xr.Dataset:
        """Share of studies whose 95 % interval has the truth in it, (intervention), by what it is an interval of."""
        samples = self.results.outcomes.sizes["sample"] // self.studies
        found: dict[str, list[NDArray[np.bool_]]] = {}
        for number in range(self.studies):
            one = self.results.isel(sample=slice(number * samples, (number + 1) * samples))
            for outcome in ("mse", "ssim"):
                told = cu.analysis.effects(one, outcome, threshold=THRESHOLD, resamples=1999)
                told = told.isel(intervention=slice(None, len(self.truth[outcome])))
                found.setdefault(f"mean {outcome}", []).append(inside(told["interval"], self.truth[outcome]))
                if outcome == "ssim":
                    found.setdefault("share", []).append(inside(told["share_interval"], self.truth["share"]))
        labels = told["intervention"].values
        return xr.Dataset(
            {name: ("intervention", np.mean(cells, axis=0)) for name, cells in found.items()},
            coords={"intervention": labels},
        )


def inside(interval: xr.DataArray, truth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which intervals, (intervention, bound), have the truth, (intervention,), in them."""
    lower, upper = interval.transpose("bound", "intervention").values
    return (lower <= truth) & (truth <= upper)


def simulate(name: str, studies: int, samples: int, folder: Path) -> Simulated:
    """Run studies of some samples each on an exact model, as one study of all their seeds.

    Samples do not depend on others in a store, so parts of it are what the studies alone would be.
    """
    model = MODELS[name]()
    study = cu.Study(
        name=f"coverage on {name}",
        prompts=[cu.NO_PROMPT],
        seeds=range(studies * samples),
        sampler=SAMPLER,
        interventions=INTERVENTIONS[name],
    )
    # Nobody will kill this run, so its parts and calls may be large; nothing in it depends on them.
    with mock.patch.object(pace, "CELLS", 1 << 16), mock.patch.object(batches, "_MOST_ROWS", 1024):
        results = study.run(folder / name, model=model, progress=False)
    outcomes = results.outcomes.dataset.isel(intervention=slice(None, len(INTERVENTIONS[name]))).load()
    truth = {
        "mse": outcomes["mse"].mean("sample").values,
        "ssim": outcomes["ssim"].mean("sample").values,
        "share": (outcomes["ssim"] >= THRESHOLD).mean("sample").values,
    }
    if name == "gaussian":
        theory = cu.analysis.gaussian_theory(study, **model.theory())
        truth["mse"] = theory["mse"].values[: len(INTERVENTIONS[name])]
    return Simulated(results, studies, truth)
