"""A store that verifies, written without a model: the package's own writer, and a sampler of a few lines.

`values` gives again what was written, so that readers have something to compare with that no storage engine touched.
"""

from __future__ import annotations

import math
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import causalunet as cu
from causalunet import metrics
from causalunet.bound import BoundStudy
from causalunet.dims import INTERVENTION
from causalunet.noise import initial_noise, step_noise
from causalunet.plan import make_plan
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.attributes import StoreAttributes
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.schema import COMPLETE
from causalunet.scenes import FACTORS, draw_scenes, render
from causalunet.schedule import Schedule, cosine_alpha_bar
from tests.analysis.synthetic import IMAGE, small_anatomy

__all__ = ["LABEL", "add_blocks", "blocks", "lay_out", "values", "write"]

STEPS, SAMPLES, BLOCK = 6, 16, 1
LABEL = "both, «deep» 深い"
"""Of an intervention, with characters of several bytes."""

Arrays = dict[str, NDArray]


def blocks() -> list[slice]:
    """Samples that are written together."""
    return [slice(start, start + BLOCK) for start in range(0, SAMPLES, BLOCK)]


def _study() -> cu.Study:
    return cu.Study(
        name="matrix",
        prompts=[scene.prompt for scene in draw_scenes(SAMPLES, seed=1)],
        sampler=cu.DDPM(steps=STEPS),
        interventions=[
            *cu.sweep(cu.AblateBlock, bottom=(2, 3), start=(6, 4, 3), length=2),
            *cu.sweep(cu.AblateSkip, top=1, start=(5, 3), length=1),
            *cu.sweep(cu.SkipSteps, start=(5, 4), length=1),
            cu.Edit("up.1", cu.Window(4, 2), cu.Scale(0.5), label=LABEL),
        ],
        record=cu.Record(activations=("mid",), summary=("up.*",), steps=(5, 2), of="all", dtype="float16"),
    )


def _layout() -> Layout:
    plan = make_plan(BoundStudy(_study(), small_anatomy(), Schedule.spaced(cosine_alpha_bar(), STEPS), IMAGE))
    return Layout(plan, {"factor": tuple(FACTORS)}, BLOCK)


def write(path: Path) -> None:
    """Write all of a store."""
    lay_out(path)
    add_blocks(path, blocks())


def lay_out(path: Path) -> None:
    """Make the store, with nothing run."""
    layout = _layout()
    plan = layout.plan
    names = ("causalunet", "numpy", "xarray", "zarr", "icechunk")
    attributes = StoreAttributes(
        study=plan.spec.to_json(),
        digest=plan.spec.digest,
        unet_calls_planned=plan.unet_calls,
        unet_calls_naive=plan.naive_calls,
        model_fingerprint="none",
        model_flops=plan.anatomy.flops,
        factors={name: list(values) for name, values in FACTORS.items()},
        ssim=metrics.SSIM_DEFINITION,
        versions={"python": platform.python_version(), **{name: version(name) for name in names}},
        threads=1,
    )
    StudyWriter.create(Location.parse(path), layout, attributes)


def add_blocks(path: Path, chosen: list[slice]) -> None:
    """Run blocks of samples, one commit each, as a run does."""
    layout = _layout()
    content = values()
    writer = StudyWriter(Repository.open(Location.parse(path)))
    for samples in chosen:
        for array in layout.arrays:
            if array.path in content:
                index = (slice(None), samples) if array.variable.dims[0] == INTERVENTION else (samples,)
                writer.write(array.path, index, content[array.path][index])
        writer.commit(f"samples {samples.start} to {samples.stop - 1}", {"cells": len(content["outcomes/mse"]) * BLOCK})


@cache
def values() -> Arrays:
    """All that a run stores, by path; not to be changed."""
    layout = _layout()
    scenes = draw_scenes(SAMPLES, seed=1)
    depth = np.array([0.05 * (item.kind != "null") * row for row, item in enumerate(layout.grid.interventions, 1)])
    baseline = _baseline(layout.plan.schedule, render(scenes, np.random.default_rng(0)))
    codes = np.array([scene.codes for scene in scenes], np.int8)
    content = {**baseline, "baseline/factor_code": codes, **_outcomes(layout, depth, baseline, codes)}
    for array in layout.arrays:
        if array.path.endswith("status"):
            content[array.path] = np.full(array.shape, COMPLETE, array.dtype)
        elif array.path.startswith("activation") and not array.path.endswith("/ran"):
            rng = np.random.default_rng(len(array.path))
            content[array.path] = rng.random(array.shape).astype(array.dtype)
    return content


def _baseline(schedule: Schedule, target: NDArray[np.float32]) -> Arrays:
    """States from the noise of each seed, with estimates of x_0 that grow towards the scene.

    Mean and variance are those of p(x_{t-1} | x_t, x_0) in Ho et al. 2020, equations 6 and 7.
    """
    seeds = range(len(target))
    x = initial_noise(seeds, target.shape[1:]).astype(np.float64)
    kept: dict[str, list[NDArray]] = {"x_t": [], "x0_hat": [], "eps": []}
    for step in range(schedule.steps, 0, -1):
        share, going = schedule.alpha_bar(step), schedule.alpha_bar(step - 1)
        x0 = target * (1 - 0.5 * (step - 1) / schedule.steps)
        for name, state in (("x_t", x), ("x0_hat", x0), ("eps", (x - math.sqrt(share) * x0) / math.sqrt(1 - share))):
            kept[name].append(state.astype(np.float32))
        beta = 1 - share / going
        mean = math.sqrt(going) * beta * x0 + math.sqrt(share / going) * (1 - going) * x
        sd = math.sqrt(beta * (1 - going) / (1 - share))
        x = mean / (1 - share) + sd * step_noise(seeds, step, target.shape[1:])
    return {
        **{f"baseline/{name}": np.stack(states, axis=1) for name, states in kept.items()},
        "baseline/image": (target + 1) / 2,
        "baseline/factor_probability": np.full((len(target), len(FACTORS)), 0.99, np.float32),
    }


def _outcomes(layout: Layout, depth: NDArray[np.float64], baseline: Arrays, codes: NDArray[np.int8]) -> Arrays:
    """From its first edit on a run's estimates of x_0 have stripes of some depth."""
    declared, ran = layout.known()["audit/declared"], layout.known()["trajectory/ran"]
    cells = (len(depth), SAMPLES)
    after = np.logical_or.accumulate(declared.any(axis=2), axis=1)
    stripes = np.sin(np.arange(IMAGE[2])) * depth[:, None, None, None, None]
    x0 = baseline["baseline/x0_hat"]
    distance = np.full((*cells, x0.shape[1]), np.nan)
    for position in range(x0.shape[1]):
        moved = np.clip(x0[:, position] + stripes * after[:, position, None, None, None, None], -1, 1)
        rms = np.sqrt(((moved - x0[:, position]) ** 2).mean(axis=(2, 3, 4)))
        distance[:, :, position] = np.where(ran[:, position, None], rms, np.nan)
    image = ((moved + 1) / 2).astype(np.float32)
    error = metrics.mse(image, baseline["baseline/image"])
    changed = np.zeros((*cells, len(FACTORS)), bool)
    changed[depth > 0.2, :, 0] = True
    return {
        "outcomes/image": image,
        "outcomes/ssim": metrics.ssim(metrics.moments(image), metrics.moments(baseline["baseline/image"])),
        "outcomes/psnr": metrics.psnr(error),
        "outcomes/mse": error,
        "outcomes/factor_code": np.where(changed, (codes + 1) % [len(names) for names in FACTORS.values()], codes),
        "outcomes/factor_probability": np.full(changed.shape, 0.99, np.float32),
        "outcomes/factor_changed": changed,
        "outcomes/failure": np.full(cells, "", object),
        "trajectory/x0_distance": distance.astype(np.float32),
        "trajectory/eps_distance": (distance / 2).astype(np.float32),
        "audit/fired": np.repeat(declared[:, None], SAMPLES, axis=1),
        "audit/null_difference": np.zeros(SAMPLES, np.float32),
        "audit/drift": np.zeros(SAMPLES, np.float32),
        "audit/unet_calls": np.full(SAMPLES, ran.sum()),
        "audit/seconds": np.full(SAMPLES, 0.5),
    }
