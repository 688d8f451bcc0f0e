"""A results store without a model: scenes as images, disturbed the less the later an intervention starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from causalunet import metrics
from causalunet.bound import BoundStudy
from causalunet.design.anatomy import Anatomy, Component, u_edges
from causalunet.design.interventions import Intervention
from causalunet.design.samplers import DDPM
from causalunet.design.study import StudySpec
from causalunet.plan import make_plan
from causalunet.results import open_results
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.attributes import StoreAttributes
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.schema import COMPLETE
from causalunet.scenes import FACTORS, draw_scenes, render
from causalunet.schedule import Schedule, cosine_alpha_bar

IMAGE = (3, 32, 32)


def small_anatomy(blocks: int = 6) -> Anatomy:
    names = [*(f"down.{i}" for i in range(blocks)), "mid", *(f"up.{i}" for i in range(blocks))]
    roles = ["encoder"] * blocks + ["bottleneck"] + ["decoder"] * blocks
    components = tuple(
        Component(name=name, role=role, level=0, depth=0, shape=(4, 8, 8), flops=100, parameters=10, module=name)
        for name, role in zip(names, roles, strict=True)
    )
    return Anatomy(components, u_edges(blocks, blocks), flops=1400, parameters=200)


def disturbed(
    images: NDArray[np.float32], item: Intervention, steps: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Mix in another image for early starts, the longer the more blocks are gone, and noise for late ones."""
    window = item.coordinates()
    if item.kind == "null":
        return images
    early = float(window["start"]) / steps
    depth = float(window["bottom"]) + 2.0
    swap = 1 / (1 + np.exp(-25 * (early - 0.95 + 0.08 * depth))) * rng.uniform(0.4, 1.0, (len(images), 1, 1, 1))
    noise = 0.012 + (0.12 * (1 - early) ** 2 if item.kind != "ablate_block" else 0.0)
    mixed = (1 - swap) * images + swap * images[rng.permutation(len(images))]
    return np.clip(mixed + noise * rng.standard_normal(images.shape), 0, 1).astype(np.float32)


def write_results(
    path: Path,
    interventions: Iterable[Intervention],
    *,
    samples: int = 12,
    steps: int = 20,
    block: int = 4,
    blocks_done: int | None = None,
    factors: bool = True,
    order: Sequence[int] | None = None,
) -> xr.DataTree:
    """Write a whole store, or its first blocks of samples only, and open it.

    ``order`` permutes the samples, with everything that belongs to them.
    """
    order = range(samples) if order is None else order
    rng = np.random.default_rng(0)
    scenes = draw_scenes(samples, seed=1)
    drawn = (render(scenes, rng) + 1) / 2
    spec = StudySpec(
        name="synthetic",
        prompts=tuple(scenes[i].prompt for i in order),
        interventions=tuple(interventions),
        sampler=DDPM(steps=steps),
    )
    plan = make_plan(BoundStudy(spec, small_anatomy(), Schedule.spaced(cosine_alpha_bar(), steps), IMAGE))
    layout = Layout(plan, {"factor": tuple(FACTORS)} if factors else {}, block)
    writer = StudyWriter.create(Location.parse(path), layout, StoreAttributes(study=spec.to_json(), digest=spec.digest))
    images = np.stack([disturbed(drawn, item, steps, rng) for item in spec.interventions])[:, list(order)]
    baseline = drawn[list(order)]
    error = metrics.mse(images, baseline)
    values = {
        "image": images,
        "ssim": metrics.ssim(metrics.moments(images), metrics.moments(baseline)),
        "psnr": metrics.psnr(error),
        "mse": error,
    }
    if factors:
        weights = np.array([0.2, 1.0, 0.5, 2.0, 0.1])
        values["factor_changed"] = error[..., None] * weights > 0.02
        values["factor_code"] = values["factor_changed"].astype(np.int8)
        values["factor_probability"] = np.full(values["factor_changed"].shape, 0.99, dtype=np.float32)
    flops = [plan.flops_by_run[i] for i in range(len(spec.interventions))]
    writer.write("outcomes/flops", (), np.array(flops))
    for start in list(range(0, samples, block))[:blocks_done]:
        part = slice(start, min(start + block, samples))
        writer.write("baseline/image", (part,), baseline[part])
        if factors:
            writer.write("baseline/factor_probability", (part,), np.float32(0.99))
        for name, value in values.items():
            writer.write(f"outcomes/{name}", (slice(None), part), value[:, part])
        writer.write("baseline/status", (part,), np.array(COMPLETE))
        writer.write("outcomes/status", (slice(None), part), np.array(COMPLETE))
    writer.commit("synthetic cells", {})
    return open_results(path)


@contextmanager
def edited(path: Path) -> Iterator[zarr.Group]:
    """Give the root of a store to change anything in it, and commit."""
    writer = StudyWriter(Repository.open(Location.parse(path)))
    yield writer.root
    writer.commit("changed by a test", {})
