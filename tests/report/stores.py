"""Synthetic stores for figures that need what `tests.analysis.synthetic` leaves out: trajectories and hostile text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from causalunet.results import open_results
from tests.analysis.synthetic import edited


def with_trajectory(path: Path) -> xr.DataTree:
    """Fill in x_t and x0_hat: the image with noise, and the image mixed with grey, both less the later the step."""
    with edited(path) as root:
        _fill_trajectory(root["baseline"])
    return open_results(path)


def _fill_trajectory(baseline: zarr.Group) -> None:
    rng = np.random.default_rng(0)
    image = 2 * baseline["image"][:] - 1
    steps = baseline["step"][:]
    for position, step in enumerate(steps):
        ab = baseline["alpha_bar"][position]
        noise = rng.standard_normal(image.shape).astype(np.float32)
        baseline["x_t"][:, position] = np.sqrt(ab) * image + np.sqrt(1 - ab) * noise
        share = (step - 1) / len(steps)
        wrong = 1.2 * share * noise
        baseline["x0_hat"][:, position] = np.clip((1 - share) * image + wrong, -1, 1)


def rewrite_text(path: Path, name: str, text: str, *, at: int = 0) -> xr.DataTree:
    """Put a text into a coordinate of every group that has it."""
    with edited(path) as root:
        for _, group in root.groups():
            if name in group:
                array = group[name]
                values = array[:].astype(object)
                values[at] = text
                array[:] = values.astype(str) if array.dtype.kind == "U" else values
    return open_results(path)
