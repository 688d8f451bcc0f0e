"""The table of effects, cell by cell, against numpy, scipy and statsmodels called directly; laws of band and p."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import brentq
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from causalunet.analysis.bands import mean_above, simultaneous_band
from causalunet.analysis.effects import effects
from causalunet.design import AblateBlock, AblateSkip, SkipSteps, Window, sweep
from causalunet.errors import SpecError, StoreError
from tests.analysis.altered import altered
from tests.analysis.synthetic import write_results

INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 4), start=(5, 20, 10, 15), length=3),
    AblateSkip(2, Window(10, 5)),
    *sweep(SkipSteps, start=(19, 9), length=2),
)
FAST = {"resamples": 499}
CELLS = arrays.arrays(np.float64, (3, 7), elements=st.floats(-1, 1).map(lambda value: round(value, 2)))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return write_results(tmp_path_factory.mktemp("effects") / "results.zarr", INTERVENTIONS)


@pytest.fixture(scope="module")
def table(results: xr.DataTree) -> xr.Dataset:
    return effects(results, resamples=999, seed=4, probability=0.9)


def hall_p(values: np.ndarray, threshold: float) -> float:
    n, w = len(values), (values.mean() - threshold) / values.std(ddof=1)
    return float(scipy.stats.t.sf(np.sqrt(n) * hall(w, scipy.stats.skew(values), n), n - 1))


def hall(w: float, skewness: float, n: int) -> float:
    return w + skewness / 3 * w**2 + skewness**2 / 27 * w**3 + skewness / 6 / n


def band_by_loop(cells: np.ndarray, probability: float, resamples: int, seed: int) -> np.ndarray:
    """One resample at a time, and Hall's transform inverted by search."""
    columns = sorted(cells.T.tolist())
    cells = np.array(columns).T
    n = cells.shape[1]
    largest = []
    for index in np.random.default_rng(seed).integers(n, size=(resamples, n)):
        drawn = [abs(row[index].mean() - row.mean()) / (row.std() / np.sqrt(n)) for row in cells]
        largest.append(max(drawn))
    critical = scipy.stats.t.isf(scipy.stats.norm.sf(np.quantile(largest, probability)), n - 1) / np.sqrt(n)
    bounds = []
    for row in cells:
        skewness = scipy.stats.skew(row)
        w = [brentq(lambda w, s=skewness, c=c: hall(w, s, n) - c, -50, 50, xtol=1e-14) for c in (critical, -critical)]
        bounds.append(row.mean() - row.std(ddof=1) * np.array(w))
    return np.array(bounds)


def test_every_cell_is_that_of_numpy_and_scipy(results: xr.DataTree, table: xr.Dataset) -> None:
    outcomes = results["outcomes"]
    for row, values in enumerate(outcomes["ssim"].values):
        cell = table.isel(intervention=row)
        if str(cell["kind"].values) == "null":
            continue
        assert float(cell["mean"]) == pytest.approx(values.mean())
        assert float(cell["sd"]) == pytest.approx(np.std(values, ddof=1))
        np.testing.assert_allclose(cell["quantiles"], np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))
        assert float(cell["share"]) == np.mean(values >= 0.8)
        wilson = proportion_confint(int(sum(values >= 0.8)), 12, alpha=0.1, method="wilson")
        np.testing.assert_allclose(cell["share_interval"], wilson, atol=1e-12)
        expected = scipy.stats.bootstrap(
            (np.sort(values),), np.mean, confidence_level=0.9, n_resamples=999, rng=np.random.default_rng(4)
        ).confidence_interval
        np.testing.assert_allclose(cell["interval"], expected)
        assert float(cell["p"]) == pytest.approx(hall_p(values, 0.8), rel=1e-9)
        worst = min((value, sample) for sample, value in enumerate(values))
        assert (float(cell["worst"]), int(cell["worst_sample"])) == worst
    assert table["band"].attrs["probability"] == table["interval"].attrs["probability"] == 0.9
    assert table["share_interval"].attrs["interval_kind"] == "Wilson"
    assert table.attrs == {"variable": "ssim", "threshold": 0.8, "family": "sweep", "samples": 12, "better": "higher"}


def test_the_outcomes_are_asked_for_once(results: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = [], xr.DataTree.to_dataset

    def counted(tree: xr.DataTree, **options: Any) -> xr.Dataset:
        asked.append(tree.name)
        return real(tree, **options)

    monkeypatch.setattr(xr.DataTree, "to_dataset", counted)
    effects(results, resamples=99)
    assert asked == ["outcomes"]


def test_families_are_sweeps_or_the_study(results: xr.DataTree, table: xr.Dataset) -> None:
    values = results["outcomes"]["ssim"].values
    for name, rows in {"ablate_block bottom=2": slice(0, 4), "ablate_skip top=2": [8], "skip_steps": [9, 10]}.items():
        part = table.isel(intervention=rows)
        assert set(part["family"].values) == {name}
        np.testing.assert_allclose(part["band"], band_by_loop(values[rows], 0.9, 999, 4), rtol=1e-9)
        np.testing.assert_allclose(part["p_adjusted"], multipletests(part["p"], method="fdr_bh")[1])
    whole = effects(results, family="study", resamples=299)
    tested = slice(0, 11)
    np.testing.assert_allclose(whole["band"][tested], band_by_loop(values[tested], 0.95, 299, 0), rtol=1e-9)
    np.testing.assert_allclose(whole["p_adjusted"][tested], multipletests(whole["p"][tested], method="fdr_bh")[1])
    assert whole["family"].values.tolist() == ["study"] * 11 + ["null 20-16"]


def test_cost_is_held_against_the_baseline(results: xr.DataTree, table: xr.Dataset) -> None:
    skipped = table.sel(kind="skip_steps")
    assert skipped["unet_calls"].values.tolist() == [18, 18]
    np.testing.assert_allclose(skipped["unet_calls_saved"], 0.1)
    np.testing.assert_allclose(skipped["flops_saved"], 0.1)
    blocks = table.sel(kind="ablate_block", bottom=2)
    np.testing.assert_array_equal(blocks["unet_calls_saved"], 0)
    # The deepest two blocks of both sides and the bottleneck, 500 of 1400 FLOP, do not run in 3 of 20 calls.
    np.testing.assert_allclose(blocks["flops_saved"], 5 / 14 * 3 / 20)
    assert table["flops_saved"].sel(kind="null").values.tolist() == [0]
    assert float(table["noise_floor"]) == pytest.approx(1)


def test_without_null_there_is_no_floor_and_no_baseline_cost(results: xr.DataTree) -> None:
    some = results["outcomes"].to_dataset().isel(intervention=slice(0, 3))
    data = effects(xr.DataTree.from_dict({"outcomes": some}), **FAST)
    for name in ("noise_floor", "unet_calls_saved", "flops_saved"):
        assert np.isnan(data[name]).all()
    assert np.isfinite(data["mean"]).all()


def test_selection_before_and_after(results: xr.DataTree, table: xr.Dataset) -> None:
    sweep_alone = effects(results, resamples=999, seed=4, probability=0.9, kind="ablate_block", bottom=4)
    chosen = table.sel(kind="ablate_block", bottom=4)
    assert chosen["start"].values.tolist() == [5, 20, 10, 15]
    for name in table.data_vars:
        np.testing.assert_array_equal(sweep_alone[name], chosen[name])
    one = table.sel(kind="ablate_block", bottom=4, start=10)
    assert one["intervention"].values.tolist() == ["ablate_block bottom=4 10-8"]
    assert chosen.swap_dims(intervention="start")["mean"].dims == ("start",)


def test_constant_cells(results: xr.DataTree) -> None:
    values = results["outcomes"]["ssim"].values.copy()
    values[0], values[1], values[2] = 1.0, 0.8, 0.1
    data = effects(altered(results, ssim=values), **FAST)
    for row, (value, p) in enumerate([(1.0, 0.0), (0.8, 1.0), (0.1, 1.0)]):
        cell = data.isel(intervention=row)
        for name in ("mean", "interval", "band", "quantiles", "worst"):
            np.testing.assert_allclose(cell[name], value, rtol=1e-15)
        assert float(cell["sd"]) == pytest.approx(0, abs=1e-15)
        assert float(cell["p"]) == p
    assert data["share"].values[:3].tolist() == [1, 1, 0]
    same = effects(altered(results, ssim=1.0), **FAST)
    assert (same["p_adjusted"] == 0).all()
    assert (same["band"] == 1).all()


def test_infinite_psnr(results: xr.DataTree) -> None:
    values = results["outcomes"]["psnr"].values.copy()
    values[0, [3, 7]] = np.inf
    values[1] = np.inf
    values[2, 1:] = np.inf
    data = effects(altered(results, psnr=values), "psnr", threshold=20.0, quantiles=(0.2, 0.5, 0.9), **FAST)
    finite = values[0][np.isfinite(values[0])]
    first = data.isel(intervention=0)
    assert float(first["mean"]) == np.inf
    assert np.isnan(first["sd"])
    assert first["quantiles"].values[-1] == np.inf
    order = np.sort(values[0])
    np.testing.assert_allclose(first["quantiles"][:2], [order[2] * 0.8 + order[3] * 0.2, (order[5] + order[6]) / 2])
    assert first["band"].values[1] == first["interval"].values[1] == np.inf
    assert finite.min() < first["band"].values[0] < finite.mean()
    assert float(first["p"]) == pytest.approx(hall_p(finite, 20.0))
    assert float(first["share"]) == np.mean(values[0] >= 20)
    assert data["band"].values[1].tolist() == [np.inf, np.inf]
    assert data["band"].values[2].tolist() == [values[2, 0], np.inf]
    assert data["p"].values[1] == 0
    assert data["mean"].attrs["units"] == "dB"


def test_of_distances_small_ones_are_alike(results: xr.DataTree) -> None:
    data = effects(results, "mse", threshold=0.01, **FAST)
    values = results["outcomes"]["mse"].values
    np.testing.assert_array_equal(data["share"], (values <= 0.01).mean(axis=1))
    np.testing.assert_array_equal(data["worst"], values.max(axis=1))
    assert data["p"].values[0] == pytest.approx(hall_p(-values[0], -0.01))
    assert data["p"].values[0] < 1e-3
    assert data["p"].values[1] > 0.9


def with_own(results: xr.DataTree, **attrs: str) -> xr.DataTree:
    """Results with the outcome "mine", the mean absolute difference of the images, added by the user."""
    outcomes = results["outcomes"].to_dataset()
    distance = abs(outcomes["image"] - results["baseline"].to_dataset()["image"]).mean(["channel", "y", "x"])
    return xr.DataTree.from_dict({"outcomes": outcomes.assign(mine=distance.assign_attrs(attrs))})


def test_which_values_of_an_own_outcome_mean_more_alike_has_to_be_said(results: xr.DataTree) -> None:
    """The null intervention changes nothing, so all of its samples are alike, and of the worst cut none is."""
    plain = with_own(results)
    with pytest.raises(SpecError, match=r"'mine' mean that images are more alike is not known.*better='lower'"):
        effects(plain, "mine", threshold=0.05, **FAST)
    said = effects(plain, "mine", threshold=0.05, better="lower", **FAST)
    assert said["share"].sel(kind="null").values.tolist() == [1.0]
    assert float(said["share"][int(said["mean"].values.argmax())]) < 0.5
    assert float(said["p"].sel(kind="null").squeeze()) == 0
    np.testing.assert_array_equal(said["worst"], plain["outcomes"]["mine"].max("sample"))
    assert said.attrs["better"] == "lower"
    noted = effects(with_own(results, better="lower"), "mine", threshold=0.05, **FAST)
    xr.testing.assert_identical(noted, said)
    turned = effects(plain, "mine", threshold=0.05, better="higher", **FAST)
    assert turned["share"].sel(kind="null").values.tolist() == [0.0]


@pytest.mark.parametrize(
    ("variable", "attrs", "better", "told"),
    [
        ("mine", {"better": "lower"}, "higher", "said in two ways: the argument says 'higher', the attribute says"),
        ("ssim", {}, "lower", "said in two ways: the argument says 'lower', .*the outcome 'ssim' says 'higher'"),
        ("mine", {"better": "smaller"}, None, "better='smaller' of 'mine' is neither 'higher' nor 'lower'"),
    ],
)
def test_directions_that_contradict(
    results: xr.DataTree, variable: str, attrs: dict[str, str], better: Any, told: str
) -> None:
    with pytest.raises(SpecError, match=told):
        effects(with_own(results, **attrs), variable, threshold=0.05, better=better, **FAST)


def test_order_of_samples_makes_no_difference(results: xr.DataTree, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(12).tolist()
    permuted = effects(write_results(tmp_path / "results.zarr", INTERVENTIONS, order=order), **FAST)
    plain = effects(results, **FAST)
    for name in plain.drop_vars("worst_sample").data_vars:
        np.testing.assert_allclose(permuted[name], plain[name], rtol=1e-9, atol=1e-15)
    rows = plain["kind"] != "null"
    assert [order[i] for i in permuted["worst_sample"].values[rows]] == plain["worst_sample"].values[rows].tolist()


def test_incomplete_cells(tmp_path: Path) -> None:
    partial = write_results(tmp_path / "results.zarr", INTERVENTIONS, blocks_done=2)
    with pytest.raises(StoreError, match="allow_incomplete=True takes the 8 samples"):
        effects(partial)
    data = effects(partial, allow_incomplete=True, **FAST)
    assert data.attrs["samples"] == 8
    np.testing.assert_allclose(data["mean"], partial["outcomes"]["ssim"].values[:, :8].mean(axis=1))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"variable": "image"}, "'image' has dimensions intervention, sample, channel"),
        ({"variable": "flops"}, "'flops' has dimensions intervention"),
        ({"variable": "lpips"}, "no variable 'lpips'"),
        ({"family": "start"}, "family='start' is not one of sweep, study"),
        ({"quantiles": (0.5, 95)}, "has 95, which is not within"),
        ({"probability": 95}, "probability=95"),
        ({"kind": "ablate_blok"}, "No intervention has"),
    ],
)
def test_errors(results: xr.DataTree, options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        effects(results, **options)


def test_a_band_needs_cells_and_samples() -> None:
    with pytest.raises(SpecError, match="1 dimensions"):
        simultaneous_band([1.0, 2.0])
    with pytest.raises(SpecError, match="at least 2"):
        simultaneous_band([[1.0]])


def test_p_of_symmetric_values_is_that_of_the_t_test() -> None:
    half = np.random.default_rng(1).uniform(size=(4, 9))
    values = np.concatenate([2 + half, 2 - half], axis=1)
    expected = scipy.stats.ttest_1samp(values, 1.9, axis=1, alternative="greater").pvalue
    np.testing.assert_allclose(mean_above(values, 1.9), expected, rtol=1e-6)


def test_a_band_does_not_depend_on_how_the_work_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(5, 20))
    whole = simultaneous_band(values, resamples=300)
    monkeypatch.setattr("causalunet.analysis.redundancy._MOST_VALUES", 150)
    np.testing.assert_allclose(simultaneous_band(values, resamples=300), whole, rtol=1e-12)


def test_one_outlier_widens_no_other_cell_much() -> None:
    values = np.random.default_rng(0).normal(size=(6, 100))
    with_outlier = values.copy()
    with_outlier[0] = 1.0
    with_outlier[0, 0] = 0.2
    plain, other = (np.diff(simultaneous_band(cells, resamples=999))[1:] for cells in (values, with_outlier))
    assert (other < 1.3 * plain).all()


@given(CELLS, st.randoms())
def test_a_band_knows_no_order_of_samples(values: np.ndarray, random: Any) -> None:
    order = list(range(7))
    random.shuffle(order)
    band = simultaneous_band(values, resamples=99)
    np.testing.assert_array_equal(simultaneous_band(values[:, order], resamples=99), band)
    mean = values.mean(axis=1)
    assert (band[:, 0] <= mean + 1e-12).all()
    assert (mean <= band[:, 1] + 1e-12).all()


@given(CELLS, st.integers(1, 2))
def test_a_larger_family_has_a_wider_band(values: np.ndarray, kept: int) -> None:
    part, whole = simultaneous_band(values[:kept], resamples=99), simultaneous_band(values, resamples=99)[:kept]
    assert (whole[:, 0] <= part[:, 0] + 1e-9).all()
    assert (part[:, 1] <= whole[:, 1] + 1e-9).all()


@given(CELLS, st.integers(-3, 3), st.sampled_from([0.25, 1.0, 8.0]))
def test_shift_and_scale_move_band_and_p_along(values: np.ndarray, shift: int, scale: float) -> None:
    moved = values * scale + shift
    band = simultaneous_band(values, resamples=99) * scale + shift
    np.testing.assert_allclose(simultaneous_band(moved, resamples=99), band, atol=1e-6)
    np.testing.assert_allclose(mean_above(moved, 0.105 * scale + shift), mean_above(values, 0.105), atol=1e-6)


@given(CELLS, st.floats(-1, 1), st.floats(0, 1))
def test_p_grows_with_the_threshold(values: np.ndarray, threshold: float, step: float) -> None:
    low, high = mean_above(values, threshold), mean_above(values, threshold + step)
    assert ((low >= 0) & (low <= high + 1e-12) & (high <= 1)).all()
