"""Factors that follow a patch, counted one reading at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from statsmodels.stats.proportion import proportion_confint

from causalunet.analysis.interchange import interchange
from causalunet.design import AblateBlock, Edit, Patch, Window
from causalunet.errors import SpecError
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results

SAMPLES, LEAST = 10, 0.5
FROM_SAMPLE = Edit("up.1", Window(9, 3), Patch(sample=3))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """Readings drawn at random, most of them as they were."""
    folder = tmp_path_factory.mktemp("interchange")
    items = [FROM_SAMPLE, Edit("up.3", Window(5, 2), Patch(sample=0)), AblateBlock(2, Window(9, 3))]
    tree = write_results(folder / "results.zarr", items, samples=SAMPLES)
    rng = np.random.default_rng(2)
    shape = (len(tree["outcomes"]["intervention"]), SAMPLES, 5)
    before = rng.integers(3, size=shape[1:])
    return altered(
        tree,
        factor_code=np.where(rng.random(shape) < 0.7, before, rng.integers(3, size=shape)),
        factor_probability=rng.random(shape) ** 0.2,
        baseline={"factor_code": before, "factor_probability": rng.random(shape[1:]) ** 0.2},
    )


def by_hand(results: xr.DataTree, row: int, donor: int) -> dict[str, np.ndarray]:
    """Number of samples of each kind, (factor,)."""
    now, before = results["outcomes"], results["baseline"]
    counts = {name: np.zeros(5) for name in ("informative", "follows", "stays", "other", "unreadable", "alone")}

    def read(group: xr.DataTree, *at: int) -> int:
        code, certainty = (group[name].values[at] for name in ("factor_code", "factor_probability"))
        return int(code) if certainty >= LEAST else -1

    for sample in range(SAMPLES):
        kinds = []
        for factor in range(5):
            own, other, found = (
                read(before, sample, factor),
                read(before, donor, factor),
                read(now, row, sample, factor),
            )
            if -1 in (own, other) or own == other:
                kinds.append("")
            elif found == other:
                kinds.append("follows")
            else:
                kinds.append("stays" if found == own else "unreadable" if found == -1 else "other")
        for factor, kind in enumerate(kinds):
            if kind:
                counts["informative"][factor] += 1
                counts[kind][factor] += 1
                rest = {*kinds[:factor], *kinds[factor + 1 :]}
                counts["alone"][factor] += kind == "follows" and rest <= {"", "stays"}
    return counts


def test_shares_are_counts_of_readings(results: xr.DataTree) -> None:
    found = interchange(results, min_probability=LEAST, probability=0.9)
    assert found["intervention"].values.tolist() == ["edit up.1 9-7 patch sample 3", "edit up.3 5-4 patch sample 0"]
    seen = 0.0
    for row, donor in enumerate((3, 0)):
        counts = by_hand(results, row, donor)
        of = counts.pop("informative")
        seen += counts["alone"].sum()
        assert found["informative"].values[row].tolist() == of.tolist()
        for name, number in counts.items():
            share = np.divide(number, of, out=np.full(5, np.nan), where=of > 0)
            np.testing.assert_allclose(found[name].values[row], share)
        for name in ("follows", "stays", "alone"):
            for factor in np.flatnonzero(of):
                bounds = proportion_confint(int(counts[name][factor]), int(of[factor]), alpha=0.1, method="wilson")
                np.testing.assert_allclose(found[f"{name}_interval"].values[row, factor], bounds, atol=1e-12)
    assert seen, "none follows alone, and the count of those shows nothing"
    total = found["follows"] + found["stays"] + found["other"] + found["unreadable"]
    np.testing.assert_allclose(total, np.where(found["informative"] > 0, 1, np.nan))


def test_prompts_count_once(results: xr.DataTree) -> None:
    # One prompt each, so that shares are those of samples, and intervals are not.
    one, other = (
        interchange(results, min_probability=LEAST, cluster=name, resamples=99) for name in ("sample", "prompt")
    )
    for name in ("follows", "alone", "other"):
        np.testing.assert_allclose(one[name], other[name])
    assert other["follows_interval"].attrs["interval_kind"] == "bootstrap BCa"
    assert not np.allclose(one["follows_interval"], other["follows_interval"])


def test_what_cannot_be_told(results: xr.DataTree, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No intervention takes values from another run"):
        interchange(results, kind="ablate_block")
    away = write_results(tmp_path / "away.zarr", [Edit("up.1", Window(9, 3), Patch(prompt="a red circle"))], samples=4)
    with pytest.raises(SpecError, match="the run of prompt 'a red circle' with seed 0, which is no sample"):
        interchange(away)
    both = [FROM_SAMPLE + Edit("up.3", Window(5, 3), Patch(sample=0))]
    with pytest.raises(SpecError, match="patches from several runs"):
        interchange(write_results(tmp_path / "both.zarr", both, samples=4))
