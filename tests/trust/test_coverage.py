"""Intervals of whole studies cover effects that are known: 95 % of them between 92 and 97 times in 100."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from causalunet.analysis import effects
from tests.trust.coverage import INTERVENTIONS, MODELS, Simulated, inside, simulate

RARE = ("optimal", "mean mse", "component scaled")
"""One sample in forty carries almost half of this effect, and a study of 60 may have none of them."""


def printed(name: str, covered: xr.Dataset, of: Simulated) -> None:
    samples = of.results.outcomes.sizes["sample"]
    print(f"\n{name}: {of.studies} studies of {samples // of.studies} samples")
    print((100 * covered).to_dataframe().round(1).to_string())


def telling(of: Simulated) -> np.ndarray:
    """Interventions whose share of alike samples is neither all nor nearly all: of others no interval is two-sided."""
    share = of.truth["share"]
    return np.asarray((share > 0.1) & (share < 0.9))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", MODELS)
def test_500_studies(name: str, tmp_path: Path) -> None:
    simulated = simulate(name, 500, 60, tmp_path)
    covered = simulated.covered()
    printed(name, covered, simulated)
    for what in covered.data_vars:
        chosen = covered[what].isel(intervention=telling(simulated)) if what == "share" else covered[what]
        for label, share in chosen.to_series().items():
            if (name, what, label) == RARE:
                assert 0.75 <= share < 0.9  # a limit that the page names; were it gone, the page would be wrong
            else:
                assert 0.92 <= share <= 0.97, (what, label)


@pytest.mark.thorough
def test_few_studies(tmp_path: Path) -> None:
    """Nine in ten of 60 intervals at the least; and were the truth another, they would not have it in them."""
    simulated = simulate("gaussian", 10, 40, tmp_path)
    covered = simulated.covered()
    printed("gaussian", covered, simulated)
    for images in (simulated.results.baseline.image, simulated.results.outcomes.image):
        assert 0.1 < float(images.min()) < float(images.max()) < 0.9  # not clipped, or the closed form were of others
    assert np.mean([covered[what].values for what in ("mean mse", "mean ssim")]) >= 0.9
    every = effects(simulated.results, "mse", threshold=1e-3, resamples=999)["interval"].isel(
        intervention=slice(None, len(INTERVENTIONS["gaussian"]))
    )
    assert inside(every, simulated.truth["mse"]).all()
    for wrong in (0.5, 2.0):
        assert not inside(every, wrong * simulated.truth["mse"]).any()
