"""The numbers of every view are those of `causalunet.analysis`, or what is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from causalunet.analysis import factor_changes, mean_curve
from causalunet.errors import StoreError
from causalunet.explore import numbers
from causalunet.explore.choice import choose
from causalunet.explore.stored import Stored
from tests.analysis.synthetic import edited
from tests.explore.stores import write

LABEL = "ablate_block bottom=4 12-9"


@pytest.mark.parametrize("outcome", ["ssim", "psnr", "mse"])
def test_curves_are_those_of_the_analysis(stored: Stored, outcome: str) -> None:
    curves = numbers.trends(stored, choose(stored, intervention=LABEL, outcome=outcome))
    assert list(curves) == ["ablate_block bottom=4 length=4", "ablate_block bottom=2 length=4"]
    asked = {"kind": "ablate_block", "length": 4}
    own = mean_curve(stored.results, outcome, bottom=4, **asked)
    other = mean_curve(stored.results, outcome, bottom=2, probability=None, **asked)
    for found, expected in zip(curves.values(), (own, other), strict=True):
        assert found["start"].values.tolist() == [18, 12, 6]
        assert set(found.data_vars) == set(expected.data_vars)
        for name in expected.data_vars:
            np.testing.assert_array_equal(found[name], expected[name])


def test_the_curve_of_a_sample_is_what_is_stored(stored: Stored) -> None:
    found = numbers.of_sample(stored, choose(stored, intervention=LABEL, sample=4, outcome="psnr"))
    expected = stored.cells["psnr"].sel(kind="ablate_block", bottom=4, length=4).isel(sample=4)
    assert found["start"].values.tolist() == [18, 12, 6]
    np.testing.assert_array_equal(found, expected)


def test_images_and_numbers_of_a_cell(stored: Stored) -> None:
    choice = choose(stored, intervention=LABEL, sample=2)
    before, after = numbers.image_of(stored, choice)
    np.testing.assert_array_equal(before, stored.results.baseline.image.sel(sample=2))
    np.testing.assert_array_equal(after, stored.results.outcomes.image.sel(intervention=LABEL, sample=2))
    film = numbers.images_by_start(stored, choice)
    assert list(film) == [f"ablate_block bottom=4 {s}-{s - 3}" for s in (18, 12, 6)]
    np.testing.assert_array_equal(film[LABEL], after)
    cell = numbers.cell(stored, choice)
    one = stored.results.outcomes.to_dataset().sel(intervention=LABEL).isel(sample=2)
    assert cell.values == {name: float(one[name]) for name in ("ssim", "psnr", "mse")}
    null = stored.results.outcomes.flops.sel(kind="null").item()
    assert cell.saved == 1 - float(one["flops"]) / null


def test_factor_changes_are_those_of_the_analysis(stored: Stored) -> None:
    found = numbers.own_changes(stored, choose(stored, intervention=LABEL))
    expected = factor_changes(stored.results, kind="ablate_block", bottom=4, length=4)
    for name in expected.data_vars:
        np.testing.assert_array_equal(found[name], expected[name])


def test_readings_are_named(stored: Stored) -> None:
    choice = choose(stored, intervention="ablate_block bottom=4 18-15", sample=1)
    codes = stored.results.outcomes.factor_code.sel(intervention=choice.intervention, sample=1)
    found = numbers.readings(stored, choice)
    assert list(found) == list(stored.factors)
    for (name, (_, _, after, share)), code in zip(found.items(), codes.values, strict=True):
        assert after == stored.factors[name][int(code)]
        assert share == pytest.approx(0.99)


def test_states_are_estimates_in_the_range_of_images(stored: Stored) -> None:
    found = numbers.states(stored, choose(stored, sample=5, step=7))
    assert 7 in found
    assert list(found) == sorted(found, reverse=True)
    for step, image in found.items():
        expected = (stored.results.baseline.x0_hat.sel(sample=5, step=step) + 1) / 2
        np.testing.assert_array_equal(image, expected)


def test_distances_and_the_audit_are_what_is_stored(stored: Stored) -> None:
    choice = choose(stored, intervention=LABEL)
    found = numbers.distances(stored, choice)
    run = stored.results.trajectory.to_dataset().sel(intervention=LABEL)
    np.testing.assert_array_equal(
        found["x0_distance"], run["x0_distance"].where(run["ran"]).transpose("sample", "step")
    )
    audit = stored.results.audit.to_dataset().sel(intervention=LABEL)
    fired = numbers.fired(stored, choice)
    edited_places = audit["place"].values[(audit["declared"] > 0).any("step").values]
    assert set(edited_places) <= set(fired["place"].values)
    assert int(fired["declared"].sum()) == int(audit["declared"].sum())


def test_cells_that_are_not_there_are_told(tmp_path: Path) -> None:
    write(tmp_path / "part.zarr", blocks_done=2)
    with edited(tmp_path / "part.zarr") as root:
        root["outcomes/status"][0, 0] = 2
        root["outcomes/failure"][0, 0] = "the moon was full"
    from causalunet.results import open_results

    part = Stored(open_results(tmp_path / "part.zarr"))
    first = part.rows[0].label
    with pytest.raises(StoreError, match="This cell failed: the moon was full"):
        numbers.cell(part, choose(part, intervention=first, sample=0))
    with pytest.raises(StoreError, match="not run yet"):
        numbers.image_of(part, choose(part, intervention=first, sample=5))
    film = numbers.images_by_start(part, choose(part, intervention=first, sample=0))
    assert [image is None for image in film.values()] == [True, False, False]
    own = numbers.trends(part, choose(part, intervention=first))
    assert next(iter(own.values())).attrs["samples"] == 3  # those that were run with every start
    assert np.isnan(numbers.of_sample(part, choose(part, intervention=first, sample=5))).all()


def test_what_is_read_is_what_is_looked_at(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    read = xr.DataArray.values.fget

    def counted(array: xr.DataArray) -> np.ndarray:
        if {"channel", "y", "x"} <= set(array.dims):
            sizes.append(array.size)
        return read(array)

    monkeypatch.setattr(xr.DataArray, "values", property(counted))
    numbers.image_of(stored, choose(stored, intervention=LABEL))
    assert sizes == [3 * 32 * 32] * 2
