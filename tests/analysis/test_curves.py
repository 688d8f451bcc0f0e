"""Curves and what is made of them, against plain numpy on a store whose numbers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import causalunet as cu
from causalunet.analysis import bootstrap_mean, curve, factor_changes, mean_curve, noise_floor, summary_table
from causalunet.analysis.curves import first_reached
from causalunet.analysis.sweeps import sweeps
from causalunet.design import AblateBlock, AblateSkip, Edit, SkipSteps, Window, cut_relax_cut, sweep
from causalunet.errors import SpecError, StoreError
from tests.analysis.synthetic import write_results

INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 4), start=(5, 20, 10, 15), length=3),
    *sweep(AblateSkip, top=2, start=(20, 10), length=5),
    *sweep(SkipSteps, start=(19, 9), length=(1, 2)),
)
BLOCKS = {"kind": "ablate_block", "bottom": 2}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return write_results(tmp_path_factory.mktemp("curves") / "results.zarr", INTERVENTIONS)


def by_hand(results: xr.DataTree, variable: str, label: str) -> np.ndarray:
    """Values of one intervention, read without any index."""
    outcomes = results["outcomes"]
    return outcomes[variable].values[outcomes["intervention"].values.tolist().index(label)]


def test_curve_is_the_stored_values_in_the_order_of_the_run(results: xr.DataTree) -> None:
    data = curve(results, "psnr", **BLOCKS)
    assert data["psnr"].dims == ("start", "sample")
    assert data["start"].values.tolist() == [20, 15, 10, 5]
    for start, label in zip((20, 15, 10, 5), ("20-18", "15-13", "10-8", "5-3"), strict=True):
        expected = by_hand(results, "psnr", f"ablate_block bottom=2 {label}")
        np.testing.assert_array_equal(data["psnr"].sel(start=start), expected)
    assert data["psnr"].attrs["units"] == "dB"


def test_coordinates_of_a_curve_are_plain(results: xr.DataTree) -> None:
    data = curve(results, **BLOCKS)
    assert set(data.xindexes) == {"start", "sample"}
    assert (str(data["kind"].values), int(data["bottom"]), int(data["length"])) == ("ablate_block", 2, 3)
    assert data["intervention"].values[0] == "ablate_block bottom=2 20-18"
    assert data["prompt"].dims == ("sample",)
    assert "spec" not in data.coords


def test_curve_along_another_coordinate_ascends(results: xr.DataTree) -> None:
    data = curve(results, by="length", kind="skip_steps", start=9)
    assert data["length"].values.tolist() == [1, 2]
    np.testing.assert_array_equal(data["ssim"].sel(length=2), by_hand(results, "ssim", "skip_steps 9-8"))


def test_curve_of_images_and_of_cost(results: xr.DataTree) -> None:
    images = curve(results, "image", **BLOCKS)["image"]
    assert images.dims == ("start", "sample", "channel", "y", "x")
    np.testing.assert_array_equal(images[-1], by_hand(results, "image", "ablate_block bottom=2 5-3"))
    flops = curve(results, "flops", **BLOCKS)["flops"]
    assert flops.dims == ("start",)
    assert (flops > 0).all()


def test_slices_lists_and_labels_select(results: xr.DataTree) -> None:
    assert curve(results, **BLOCKS, start=slice(10, 15))["start"].values.tolist() == [15, 10]
    assert curve(results, **BLOCKS, start=[5, 20])["start"].values.tolist() == [20, 5]
    labels = ["ablate_skip top=2 20-16", "ablate_block bottom=4 10-8"]
    mixed = curve(results, intervention=labels)
    assert mixed["start"].values.tolist() == [20, 10]
    assert mixed["kind"].values.tolist() == ["ablate_skip", "ablate_block"]


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        ({"kind": "ablate_block"}, r"2 have start=5: .*They differ in bottom: 2, 4\. Select one, such as bottom=2"),
        ({}, "Select one, such as"),
        ({"kind": "skip_steps", "intervention": ["skip_steps 19-19", "skip_steps 19-18"]}, "length: 1, 2"),
        ({"kind": "Ablate_blok"}, r"No intervention has \{'kind': 'Ablate_blok'\}; .*'ablate_block', 'ablate_skip'"),
        ({"botom": 2}, "not told apart by botom; select by any of bottom"),
        ({"kind": "skip_steps", "length": 1, "by": "timestep"}, "cannot run along 'timestep'"),
        ({**BLOCKS, "variable": "lpips"}, "no variable 'lpips'; they have .*ssim"),
    ],
)
def test_errors_of_selection(results: xr.DataTree, selection: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        curve(results, **selection)


def test_a_curve_of_unequal_lengths_is_asked_for_by_name(tmp_path: Path) -> None:
    items = (SkipSteps(Window(15, 2)), SkipSteps(Window(9, 3)), SkipSteps(Window(4, 4)))
    mixed = write_results(tmp_path / "results.zarr", items, samples=2)
    with pytest.raises(SpecError, match=r"differ in more than start\. They differ in length: 2, 3, 4"):
        curve(mixed, kind="skip_steps")
    assert curve(mixed, kind="skip_steps", length=[2, 3, 4])["length"].values.tolist() == [2, 3, 4]


def test_edits_are_told_by_component(tmp_path: Path) -> None:
    edited = write_results(tmp_path / "results.zarr", sweep(Edit, component=("mid", "up.1"), start=(9, 5), length=2))
    with pytest.raises(SpecError, match=r"differ in component: mid, up\.1\. Select one, such as component='mid'"):
        curve(edited, kind="edit")
    assert curve(edited, component="up.1")["start"].values.tolist() == [9, 5]
    assert list(sweeps(edited)) == ["edit mid zero", "edit up.1 zero"]
    assert summary_table(edited).sizes == {"selection": 2, "start": 2, "bound": 2}


def test_interventions_alike_in_every_coordinate_are_told_by_label(tmp_path: Path) -> None:
    window = Window(5, 2)
    sums = tuple(Edit("mid", window) + Edit(name, window) for name in ("skip.0", "skip.1"))
    edited = write_results(tmp_path / "results.zarr", sums)
    with pytest.raises(SpecError, match=r"or select one of each by its label, such as intervention=\['edit mid 5-4"):
        curve(edited, kind="composition")


def test_results_must_be_opened() -> None:
    with pytest.raises(SpecError, match=r"got str\. Give what .*open_results"):
        curve("results.zarr")


def test_incomplete_cells(tmp_path: Path) -> None:
    partial = write_results(tmp_path / "partial.zarr", INTERVENTIONS, blocks_done=2)
    with pytest.raises(StoreError, match=r"16 of 48 cells .* goes on where it was.* takes the 8 samples"):
        curve(partial, **BLOCKS)
    data = mean_curve(partial, **BLOCKS, allow_incomplete=True)
    assert data.attrs["samples"] == 8
    expected = by_hand(partial, "ssim", "ablate_block bottom=2 20-18")[:8].mean()
    assert float(data["mean"].sel(start=20)) == pytest.approx(expected)
    empty = write_results(tmp_path / "empty.zarr", INTERVENTIONS, blocks_done=0)
    with pytest.raises(StoreError, match="none of the 12 samples"):
        curve(empty, **BLOCKS, allow_incomplete=True)


def test_mean_curve_is_numpys(results: xr.DataTree) -> None:
    values = np.stack([by_hand(results, "mse", f"ablate_skip top=2 {label}") for label in ("20-16", "10-6")])
    data = mean_curve(results, "mse", probability=0.9, resamples=499, seed=4, kind="ablate_skip")
    np.testing.assert_allclose(data["mean"], values.mean(axis=1))
    np.testing.assert_allclose(data["sd"], values.std(axis=1, ddof=1))
    bounds = bootstrap_mean(values, probability=0.9, resamples=499, seed=4)
    np.testing.assert_array_equal(data["interval"].transpose("start", "bound"), bounds)
    assert data["bound"].values.tolist() == ["lower", "upper"]
    assert data["interval"].attrs["interval_kind"] == "bootstrap BCa"
    assert data["interval"].attrs["probability"] == 0.9
    assert data.attrs == {"variable": "mse", "samples": 12}


def test_order_of_samples_makes_no_difference(results: xr.DataTree, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(12).tolist()
    permuted = write_results(tmp_path / "results.zarr", INTERVENTIONS, order=order)
    assert permuted["baseline"]["prompt"].values[0] == results["baseline"]["prompt"].values[order[0]]
    one, other = (mean_curve(tree, resamples=199, **BLOCKS) for tree in (results, permuted))
    for name in ("mean", "sd", "interval"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12)


def test_infinite_psnr(results: xr.DataTree) -> None:
    data = mean_curve(results, "psnr", kind="null")
    assert data["mean"].values.tolist() == [np.inf]
    assert np.isnan(data["sd"]).all()
    assert data["interval"].values.tolist() == [[np.inf, np.inf]]


def test_one_sample_has_a_mean_and_no_interval(tmp_path: Path) -> None:
    single = write_results(tmp_path / "results.zarr", INTERVENTIONS, samples=1)
    with pytest.raises(SpecError, match="1 sample; one needs at least 2"):
        mean_curve(single, **BLOCKS)
    data = mean_curve(single, **BLOCKS, probability=None)
    assert np.isfinite(data["mean"]).all()
    assert np.isnan(data["sd"]).all()
    assert "interval" not in data


def test_only_numbers_per_cell_have_a_mean_curve(results: xr.DataTree) -> None:
    with pytest.raises(SpecError, match="'image' has dimensions start, sample, channel, y, x"):
        mean_curve(results, "image", **BLOCKS)


def test_first_reached() -> None:
    mean = xr.DataArray([0.2, 0.8, 0.7, 0.9], dims="start", coords={"start": [20, 15, 10, 5]})
    assert first_reached(mean, 0.8) == 15
    assert first_reached(mean, 0.85) == 5
    assert first_reached(mean, 0.95) is None


def test_ranges_of_starts_hold_in_either_order(results: xr.DataTree) -> None:
    """In a store, and in all that the analysis makes of it, where starts run down."""
    quick = {"resamples": 20}
    made = [
        curve(results, **BLOCKS),
        mean_curve(results, **BLOCKS, **quick),
        summary_table(results, BLOCKS),
        factor_changes(results, **BLOCKS),
        cu.analysis.factor_effects(results, BLOCKS),
        cu.analysis.compare(results, BLOCKS, {"bottom": 4}, **quick),
        cu.analysis.phases(results, **BLOCKS, model="constant", **quick),
    ]
    for data in made:
        for chosen in (slice(10, 15), slice(15, 10)):
            assert data.sel(start=chosen)["start"].values.tolist() == [15, 10]
    assert curve(results, **BLOCKS, start=slice(15, 10))["start"].values.tolist() == [15, 10]
    for chosen in (slice(10, 12), slice(12, 10)):
        assert results.trajectory.x0_distance.sel(step=chosen)["step"].values.tolist() == [12, 11, 10]


def test_noise_floor(results: xr.DataTree) -> None:
    floor = noise_floor(results)
    assert float(floor["worst"]) == float(floor["mean"]) == pytest.approx(1)
    assert floor.attrs["interventions"] == ["null 20-16"]
    assert floor.attrs["samples"] == 12
    outcomes = results["outcomes"].to_dataset().isel(intervention=slice(0, 3))
    with pytest.raises(StoreError, match="no null intervention"):
        noise_floor(xr.DataTree.from_dict({"outcomes": outcomes}))


def test_noise_floor_of_a_real_run(run_study: Callable[..., xr.DataTree]) -> None:
    floor = noise_floor(run_study(AblateBlock(2, Window(6, 2))))
    assert 0.9999 < float(floor["worst"]) <= float(floor["mean"]) <= 1


def test_factor_changes(results: xr.DataTree) -> None:
    data = factor_changes(results, **BLOCKS)
    assert data["share"].dims == ("start", "factor")
    assert data["factor"].values.tolist() == list(cu.scenes.FACTORS)
    expected = by_hand(results, "factor_changed", "ablate_block bottom=2 15-13").mean(axis=0)
    np.testing.assert_allclose(data["share"].sel(start=15), expected)
    lower, upper = (data["interval"].sel(bound=bound) for bound in ("lower", "upper"))
    assert ((lower <= data["share"]) & (data["share"] <= upper)).all()
    assert data["interval"].attrs["interval_kind"] == "Wilson"


def test_no_factors(tmp_path: Path) -> None:
    plain = write_results(tmp_path / "results.zarr", INTERVENTIONS, samples=2, factors=False)
    with pytest.raises(StoreError, match="no factor reader"):
        factor_changes(plain, **BLOCKS)


def test_sweeps_of_a_study(results: xr.DataTree) -> None:
    found = sweeps(results)
    names = ["ablate_block bottom=2", "ablate_block bottom=4", "ablate_skip top=2", "skip_steps length=1"]
    assert list(found) == [*names, "skip_steps length=2"]
    xr.testing.assert_identical(
        curve(results, **found["ablate_block bottom=2"]).drop_vars("image", errors="ignore"), curve(results, **BLOCKS)
    )


def test_sweeps_of_compositions(tmp_path: Path) -> None:
    both = [AblateBlock(2, Window(start, 2)) + AblateSkip(1, Window(start - 4, 2)) for start in (16, 12)]
    cuts = [AblateBlock(3, cut_relax_cut(start, cut=2, relax=3)) for start in (18, 14)]
    tree = write_results(tmp_path / "results.zarr", [*both, *cuts], samples=2)
    assert list(sweeps(tree)) == ["ablate_block bottom=2 + ablate_skip top=1", "ablate_block bottom=3"]


def test_summary_table(results: xr.DataTree) -> None:
    table = summary_table(results, {"blocks": BLOCKS, "skips": {"kind": "ablate_skip"}})
    assert table["mean"].dims == ("selection", "start")
    assert table["start"].values.tolist() == [20, 15, 10, 5]
    assert table["samples"].values.tolist() == [[12] * 4, [12, 0, 12, 0]]
    assert np.isnan(table["mean"].sel(selection="skips", start=[15, 5])).all()
    blocks = mean_curve(results, **BLOCKS)
    np.testing.assert_array_equal(table["interval"].sel(selection="blocks"), blocks["interval"])
    skips = mean_curve(results, kind="ablate_skip")
    np.testing.assert_array_equal(table["mean"].sel(selection="skips", start=[20, 10]), skips["mean"])
    assert summary_table(results)["selection"].values.tolist() == list(sweeps(results))


def test_only_null_is_nothing_to_summarise(tmp_path: Path) -> None:
    null = write_results(tmp_path / "results.zarr", [cu.Null(Window(9, 2))], samples=2)
    with pytest.raises(StoreError, match="null interventions only"):
        summary_table(null)
