"""Changes of factors, counted by hand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import xarray as xr
from statsmodels.stats.proportion import proportion_confint

from causalunet.analysis.factors import factor_changes, factor_effects
from causalunet.analysis.sweeps import sweeps
from causalunet.design import AblateBlock, SkipSteps, sweep
from causalunet.errors import SpecError, StoreError
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results

INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 4), start=(5, 20, 10), length=3),
    *sweep(SkipSteps, start=(19, 10), length=2),
)
SAMPLES = 8


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """Readings drawn at random, so that no two counts are equal by construction."""
    tree = write_results(tmp_path_factory.mktemp("factors") / "results.zarr", INTERVENTIONS, samples=SAMPLES)
    rng = np.random.default_rng(6)
    cells = len(tree["outcomes"]["intervention"]), SAMPLES, 5
    changed = rng.random(cells) < np.linspace(0.1, 0.6, cells[0])[:, None, None]
    return altered(
        tree,
        factor_changed=changed,
        factor_probability=rng.random(cells),
        baseline={"factor_code": rng.integers(3, size=cells[1:]), "factor_probability": rng.random(cells[1:])},
    )


def counted(results: xr.DataTree, row: int, min_probability: float = 0.0) -> np.ndarray:
    """Whether each factor of each sample changed, (sample, factor), one reading at a time."""
    outcomes, baseline = results["outcomes"], results["baseline"]
    counts = np.zeros((SAMPLES, 5), dtype=bool)
    for sample in range(SAMPLES):
        for factor in range(5):
            certainty = min(
                baseline["factor_probability"].values[sample, factor],
                outcomes["factor_probability"].values[row, sample, factor],
            )
            changed = outcomes["factor_changed"].values[row, sample, factor]
            counts[sample, factor] = changed and certainty >= min_probability
    return counts


def wilson(successes: Iterable[int]) -> list[tuple[float, float]]:
    return [proportion_confint(int(count), SAMPLES, method="wilson") for count in successes]


@pytest.mark.parametrize("min_probability", [0.0, 0.4])
def test_every_sweep_side_by_side(results: xr.DataTree, min_probability: float) -> None:
    data = factor_effects(results, min_probability=min_probability)
    assert data["share"].dims == ("selection", "start", "factor")
    assert data["selection"].values.tolist() == list(sweeps(results))
    assert data["start"].values.tolist() == [20, 19, 10, 5]
    rows = {("ablate_block bottom=2", 20): 1, ("ablate_block bottom=4", 5): 3, ("skip_steps", 19): 6}
    for (selection, start), row in rows.items():
        cell = data.sel(selection=selection, start=start)
        changed = counted(results, row, min_probability)
        np.testing.assert_allclose(cell["share"], changed.mean(axis=0))
        np.testing.assert_allclose(cell["interval"], wilson(changed.sum(axis=0)), atol=1e-12)
        assert float(cell["any"]) == changed.any(axis=1).mean()
        np.testing.assert_allclose(cell["any_interval"], wilson([changed.any(axis=1).sum()])[0], atol=1e-12)
        assert float(cell["mean_changed"]) == changed.sum(axis=1).mean()
    assert data["any_interval"].attrs["interval_kind"] == "Wilson"
    assert data["samples"].values.tolist() == [[8, 0, 8, 8], [8, 0, 8, 8], [0, 8, 8, 0]]
    assert np.isnan(data["share"].sel(selection="skip_steps", start=[20, 5])).all()
    assert data.attrs == {"variable": "factor_changed", "min_probability": min_probability}


def test_certain_readings(results: xr.DataTree) -> None:
    everything = factor_effects(results)
    assert (everything["certain"].where(everything["samples"] > 0, 1) == 1).all()
    some = factor_effects(results, min_probability=0.4)
    row = 6
    certain = (results["outcomes"]["factor_probability"].values[row] >= 0.4) & (
        results["baseline"]["factor_probability"].values >= 0.4
    )
    np.testing.assert_allclose(some["certain"].sel(selection="skip_steps", start=19), certain.mean(axis=0))
    assert 0 < float(some["any"].sum()) < float(everything["any"].sum())
    assert float(factor_effects(results, min_probability=1.0)["any"].sum()) == 0


@pytest.mark.parametrize("min_probability", [0.0, 0.4])
def test_unrelated_images_are_pairs_of_samples(results: xr.DataTree, min_probability: float) -> None:
    code, certainty = (results["baseline"][name].values for name in ("factor_code", "factor_probability"))
    differing = np.zeros(5)
    for i in range(SAMPLES):
        for j in range(SAMPLES):
            sure = np.minimum(certainty[i], certainty[j]) >= min_probability
            differing += (code[i] != code[j]) & sure
    unrelated = factor_effects(results, min_probability=min_probability)["unrelated"]
    np.testing.assert_allclose(unrelated, differing / (SAMPLES * (SAMPLES - 1)))


def test_one_selection_has_the_numbers_of_factor_changes(results: xr.DataTree) -> None:
    selection = {"kind": "ablate_block", "bottom": 4}
    one = factor_changes(results, **selection)
    many = factor_effects(results, selection)
    assert one["any"].dims == ("start",)
    assert one.attrs["samples"] == SAMPLES
    for name in ("share", "interval", "any", "any_interval", "mean_changed", "certain"):
        np.testing.assert_array_equal(many[name].isel(selection=0), one[name].transpose(*many[name].dims[1:]))


def test_intervals_share_a_probability(results: xr.DataTree) -> None:
    narrow, wide = (factor_effects(results, probability=probability) for probability in (0.5, 0.99))
    for name in ("interval", "any_interval"):
        widths = [data[name].diff("bound").values for data in (narrow, wide)]
        run = np.isfinite(widths[0])
        assert (widths[1][run] > widths[0][run]).all()


def test_errors(results: xr.DataTree) -> None:
    with pytest.raises(SpecError, match="min_probability=40 is not within"):
        factor_effects(results, min_probability=40)
    without = results["outcomes"].to_dataset().drop_vars("factor_changed")
    with pytest.raises(StoreError, match="no factor reader"):
        factor_effects(xr.DataTree.from_dict({"outcomes": without}))
