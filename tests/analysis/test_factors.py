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
from causalunet.results.meaning.schema import COMPLETE, FAILED, MISSING
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
    before = rng.integers(3, size=cells[1:])
    changed = rng.random(cells) < np.linspace(0.1, 0.6, cells[0])[:, None, None]
    return altered(
        tree,
        factor_changed=changed,
        factor_code=(before + changed * rng.integers(1, 3, size=cells)) % 3,
        factor_probability=rng.random(cells),
        baseline={"factor_code": before, "factor_probability": rng.random(cells[1:])},
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
    assert data.attrs == {"variable": "factor_code", "min_probability": min_probability}


def test_certain_readings(results: xr.DataTree) -> None:
    everything = factor_effects(results, min_probability=0)
    assert (everything["unreadable"].where(everything["samples"] > 0, 0) == 0).all()
    some = factor_effects(results, min_probability=0.4)
    after, before = (results[group]["factor_probability"].values >= 0.4 for group in ("outcomes", "baseline"))
    cell = some.sel(selection="skip_steps", start=19)
    np.testing.assert_allclose(cell["unreadable"], (~after[6] | ~before).mean(axis=0))
    np.testing.assert_allclose(cell["lost"], (~after[6] & before).mean(axis=0))
    assert 0 < float(some["any"].sum()) < float(everything["any"].sum())
    assert float(factor_effects(results, min_probability=1.0)["any"].sum()) == 0


def test_by_default_readings_that_flicker_are_no_changes(results: xr.DataTree) -> None:
    """A colour held for green by 0.6 and then for red by 0.6 is not readable, neither changed nor the same."""
    code = results["outcomes"]["factor_code"].values.copy()
    before = results["baseline"]["factor_code"].values
    code[...] = before
    code[:, :2, 1] = (before[:2, 1] + 1) % 3
    code[:, 2, 1] = (before[2, 1] + 1) % 3
    probability = np.full(code.shape, 0.99)
    probability[:, :2, 1] = 0.6
    read = altered(
        results,
        factor_code=code,
        factor_probability=probability,
        baseline={"factor_code": before, "factor_probability": 0.99},
    )
    changes = factor_changes(read, kind="ablate_block", bottom=4)
    assert changes["share"].isel(start=0).values.tolist() == [0, 1 / SAMPLES, 0, 0, 0]
    assert changes["unreadable"].isel(start=0).values.tolist() == [0, 2 / SAMPLES, 0, 0, 0]
    assert changes["lost"].isel(start=0).values.tolist() == [0, 2 / SAMPLES, 0, 0, 0]
    assert changes.attrs["min_probability"] == 0.9
    everything = factor_changes(read, kind="ablate_block", bottom=4, min_probability=0)
    assert everything["share"].isel(start=0).values.tolist() == [0, 3 / SAMPLES, 0, 0, 0]


def test_every_reading_is_the_same_another_or_none(results: xr.DataTree) -> None:
    changes = factor_changes(results, kind="ablate_block", bottom=4, min_probability=0.4)
    code, before = (results[group]["factor_code"].values for group in ("outcomes", "baseline"))
    sure = [results[group]["factor_probability"].values >= 0.4 for group in ("outcomes", "baseline")]
    row = results["outcomes"]["intervention"].values.tolist().index("ablate_block bottom=4 10-8")
    same = ((code[row] == before) & sure[0][row] & sure[1]).mean(axis=0)
    at = changes.sel(start=10)
    np.testing.assert_allclose(at["share"] + at["unreadable"] + same, 1)


def test_failed_baselines_are_no_factor_of_code_0(results: xr.DataTree) -> None:
    """Two runs agree and one failed, whose code is the fill value: nothing differs."""
    status = np.full(SAMPLES, MISSING)
    status[:3] = FAILED, COMPLETE, COMPLETE
    code = np.ones((SAMPLES, 5), dtype=np.int8)
    code[0] = 0
    read = altered(results, baseline={"status": status, "factor_code": code, "factor_probability": 0.99})
    for min_probability in (0.0, 0.9):
        unrelated = factor_effects(read, min_probability=min_probability)["unrelated"]
        assert unrelated.values.tolist() == [0.0] * 5


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
    for name in ("share", "interval", "any", "any_interval", "mean_changed", "unreadable", "lost"):
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
    without = results["outcomes"].to_dataset().drop_vars("factor_code")
    with pytest.raises(StoreError, match="no factor reader"):
        factor_effects(xr.DataTree.from_dict({"outcomes": without}))
