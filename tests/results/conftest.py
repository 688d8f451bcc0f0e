"""One small study, run once; tests read its store and work on copies of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

import causalunet as cu
from causalunet.models.text_to_image import TextToImage


@pytest.fixture(scope="session")
def study() -> cu.Study:
    """Two kinds of windows, three samples, everything recorded."""
    return cu.Study(
        name="stored",
        prompts=["a red circle", "a blue cross", "a striped cyan square, light background"],
        seeds=[3],
        sampler=cu.DDPM(steps=6),
        interventions=[
            *cu.sweep(cu.AblateBlock, bottom=(2, 3), start=(6, 4), length=2),
            *cu.sweep(cu.AblateSkip, top=1, start=(5, 3), length=1),
            cu.SkipSteps(cu.Window(4, 2)),
        ],
        record=cu.Record(activations=("mid", "up.3"), summary=("up.*",), steps=(5, 2), of="all", dtype="float32"),
    )


@pytest.fixture(scope="session")
def store(study: cu.Study, tiny_model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the study's results; not to be changed."""
    path = tmp_path_factory.mktemp("stored") / "results.zarr"
    study.run(path, model=tiny_model, progress=False)
    return path


@pytest.fixture
def results(store: Path) -> xr.DataTree:
    """The study's results, opened anew."""
    return cu.open_results(store)


@pytest.fixture
def copied(store: Path, tmp_path: Path) -> Callable[[], Path]:
    """Make a copy of the store that a test may break."""
    return lambda: Path(shutil.copytree(store, tmp_path / "copy.zarr"))
