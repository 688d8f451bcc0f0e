"""What the study across models counts itself: windows until a depth is redundant, and rank correlations."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from causalunet.analysis import first_redundant_step
from causalunet.design import AblateBlock, sweep
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results

DEPTHS = (2, 4)
STARTS = range(20, 0, -2)


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parents[2] / "studies/across_models/study.py"))


def test_windows_until_redundant_are_those_of_the_package(study: dict[str, Any], tmp_path: Path) -> None:
    tree = write_results(tmp_path / "s.zarr", sweep(AblateBlock, bottom=DEPTHS, start=STARTS, length=2), samples=5)
    rng = np.random.default_rng(3)
    for shift in (0.1, 0.3, 0.6):
        rising = np.tile(np.linspace(0, 0.5, len(STARTS)) + shift, len(DEPTHS))[:, None]
        ssim = np.clip(rising + rng.uniform(-0.2, 0.3, (len(rising), 5)), 0, 1)
        padded = np.ones(tree["outcomes"]["ssim"].shape)
        kinds = tree["outcomes"]["kind"].values == "ablate_block"
        padded[kinds] = ssim
        results = altered(tree, ssim=padded)
        found = first_redundant_step(results, threshold=0.8, kind="ablate_block", resamples=20)["step"].values
        expected = [len(STARTS) if np.isnan(step) else list(STARTS).index(int(step)) for step in found]
        values = np.stack([results["outcomes"]["ssim"].values[kinds][i * 10 : (i + 1) * 10] for i in range(2)])
        assert study["first_redundant"](values).tolist() == expected


@pytest.mark.thorough
def test_rank_correlations_have_their_ends(study: dict[str, Any]) -> None:
    depths, windows = len(study["DEPTHS"]), 8
    later = np.arange(windows)[None, :] >= np.arange(depths)[:, None]
    ssim = np.repeat(np.where(later, 0.9, 0.5)[..., None], 6, axis=-1)
    assert study["bottom_up"](ssim)[0] == pytest.approx(1)
    np.testing.assert_allclose(study["bottom_up"](ssim)[1], 1)
    assert study["bottom_up"](ssim[::-1])[0] == pytest.approx(-1)
    assert study["bottom_up"](np.ones_like(ssim))[0] == 0  # all redundant at once: no order
    noisy = np.random.default_rng(0).uniform(size=(depths, windows, 6))
    assert study["agreement"](noisy, noisy)[0] == pytest.approx(1)
    assert study["agreement"](noisy, -noisy)[0] == pytest.approx(-1)
    low, high = study["agreement"](noisy, np.random.default_rng(1).uniform(size=noisy.shape))[1]
    assert low < 0 < high
