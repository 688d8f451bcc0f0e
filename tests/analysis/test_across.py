"""One sweep under several samplers: ratios of mean effects, with samples resampled in all of them alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import xarray as xr

import causalunet as cu
from causalunet.analysis import across
from causalunet.errors import SpecError
from causalunet.models.exact import ImageBank, load_gaussian
from causalunet.script import drawn_across

KINDS = {"DDIM": cu.DDIM, "Euler": cu.Euler, "DPM++": cu.DPMMultistep}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, xr.DataTree]:
    images = np.random.default_rng(0).uniform(size=(6, 3, 12, 12)).astype(np.float32)
    model = load_gaussian(ImageBank(images, [f"image {number}" for number in range(6)]), groups=5)
    folder = tmp_path_factory.mktemp("across")

    def run(kind: Any, name: str, samples: int = 8) -> xr.DataTree:
        study = cu.Study(
            name=name,
            prompts=[cu.NO_PROMPT],
            seeds=range(samples),
            sampler=kind(steps=6, guidance_scale=1),
            interventions=cu.sweep(cu.SkipSteps, start=(5, 4, 3), length=1),
        )
        return study.run(folder / f"{name}.zarr", model=model, progress=False)

    return {**{name: run(kind, name) for name, kind in KINDS.items()}, "fewer": run(cu.DDIM, "fewer", samples=3)}


@pytest.mark.thorough
def test_ratios_are_of_means_and_intervals_of_pairs(results: dict[str, xr.DataTree]) -> None:
    some = {name: results[name] for name in KINDS}
    found = across(some, reference="DDIM", early=2, kind="skip_steps")
    one, other = (cu.analysis.curve(results[name], "mse", kind="skip_steps")["mse"] for name in ("DPM++", "DDIM"))
    assert found["start"].values.tolist() == [5, 4, 3]
    np.testing.assert_allclose(found["ratio"].sel(study="DPM++"), one.mean("sample") / other.mean("sample"))
    pairs = one.isel(start=slice(2)).mean("start").values, other.isel(start=slice(2)).mean("start").values
    assert float(found["early"].sel(study="DPM++")) == pytest.approx(pairs[0].mean() / pairs[1].mean())
    expected = scipy.stats.bootstrap(
        pairs,
        lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = expected.high - expected.low
    np.testing.assert_allclose(found["early_interval"].sel(study="DPM++"), expected, rtol=0, atol=0.1 * width)
    # which is one sampler by another name, sample by sample: unpaired there would be an interval
    np.testing.assert_allclose(found["interval"].sel(study="Euler"), 1, rtol=1e-3)
    assert found["calls"].values.tolist() == [6, 6, 6]


def test_studies_of_other_samples_are_not_compared(results: dict[str, xr.DataTree]) -> None:
    with pytest.raises(SpecError, match="'fewer' and 'DDIM' have other samples or starts"):
        across(results, reference="DDIM", early=1, kind="skip_steps")
    with pytest.raises(SpecError, match="No study is called 'DDPM'; there are DDIM, Euler"):
        across(results, reference="DDPM", early=1, kind="skip_steps")


def test_a_script_prints_and_draws_them(results: dict[str, xr.DataTree], tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    from causalunet.script import Folder

    draw = drawn_across(
        {"model": "a model"}, list(KINDS), {"skip_steps": "skipped"}, reference="DDIM", early=2, name="figure"
    )
    console, folder = Console(file=StringIO(), width=200), Folder(tmp_path, "quick", tmp_path)
    draw({f"model {name}": results[name] for name in KINDS}, folder, console)  # type: ignore[misc]
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a model, skipped" in printed
    assert "1.00 (1.00 to 1.00)" in printed
    assert (folder.figures / "figure.png").stat().st_size > 1000
