"""Fills that make something of a value: clamped, noisy, quantised, filtered, projected; against arithmetic by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

import causalunet as cu
from causalunet.design import FillContext
from causalunet.errors import ComponentError, SpecError
from causalunet.testing import check_fill

FILLS = [
    cu.AddNoise(0.5, 3),
    cu.BandScale(0.0, "low"),
    cu.BandScale(0.5, "high"),
    cu.BandScale(2.0, "diagonal"),
    cu.Clamp(-0.5, 0.25),
    cu.FrequencyScale(0.5, 1),
    cu.Quantize(4),
    cu.Quantize(4, "channel"),
    cu.Quantize(2, low=-1, high=1),
]
VALUE = torch.randn(3, 6, 7, 10, generator=torch.Generator().manual_seed(0))


def put(fill: cu.design.Fill, value: torch.Tensor = VALUE, step: int = 5, **more: Any) -> np.ndarray:
    times = torch.zeros(len(value))
    return fill.put(value, FillContext(step, times, times, **more)).numpy()


@pytest.mark.parametrize("fill", FILLS, ids=str)
def test_they_do_what_studies_rely_on(fill: cu.design.Fill) -> None:
    check_fill(fill)


def test_directions_do_what_studies_rely_on() -> None:
    values = [
        torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(1)).to(kind)
        for kind in (torch.float32, torch.bfloat16)
    ]
    for keep in ("off", "onto"):
        check_fill(cu.Project([[1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 1.0, 0.0]], keep), values=values)


def test_bounds_are_those_of_numpy() -> None:
    np.testing.assert_array_equal(put(cu.Clamp(-0.5, 0.25)), np.clip(VALUE.numpy(), -0.5, 0.25))


def test_noise_is_of_the_rows_size_and_follows_from_seed_and_step_alone() -> None:
    large = VALUE * torch.tensor([1.0, 10.0, 0.1])[:, None, None, None]
    added = put(cu.AddNoise(0.5, 3), large) - large.numpy()
    size = np.sqrt((large.numpy() ** 2).mean(axis=(1, 2, 3)))
    drawn = added / size[:, None, None, None] / 0.5
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-4)
    assert drawn[0].std() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(put(cu.AddNoise(0.5, 3), large[1:2])[0], put(cu.AddNoise(0.5, 3), large)[1])
    assert not np.allclose(put(cu.AddNoise(0.5, 3)), put(cu.AddNoise(0.5, 4)))
    assert not np.allclose(put(cu.AddNoise(0.5, 3)), put(cu.AddNoise(0.5, 3), step=4))


@pytest.mark.parametrize("per", ["row", "channel"])
def test_levels_are_the_nearest_of_an_even_grid(per: Any) -> None:
    got, bits = put(cu.Quantize(3, per)), 3
    for row, quantised in zip(VALUE.numpy(), got, strict=True):
        parts = [(row, quantised)] if per == "row" else list(zip(row, quantised, strict=True))
        for value, found in parts:
            levels = np.linspace(value.min(), value.max(), 2**bits)
            nearest = levels[np.abs(value.reshape(-1, 1) - levels).argmin(axis=1)].reshape(value.shape)
            np.testing.assert_allclose(found, nearest, atol=1e-5)
            assert len(np.unique(found.round(4))) <= 2**bits


def test_channels_are_where_the_place_has_them() -> None:
    tokens = VALUE.reshape(3, 6, 70).transpose(1, 2).contiguous()
    got = put(cu.Quantize(3, "channel"), tokens, dims=("row", "token", "channel"))
    np.testing.assert_array_equal(got, put(cu.Quantize(3, "channel")).reshape(3, 6, 70).transpose(0, 2, 1))
    direction = np.arange(6) - 2.0
    got = put(cu.Project(direction), tokens, dims=("row", "token", "channel"))
    np.testing.assert_allclose(got, put(cu.Project(direction)).reshape(3, 6, 70).transpose(0, 2, 1), atol=1e-6)


def test_levels_that_are_given_and_a_value_that_is_one_number() -> None:
    expected = np.array([-1, -1 / 3, 1 / 3, 1])[
        np.abs(np.clip(VALUE.numpy(), -1, 1)[..., None] - np.array([-1, -1 / 3, 1 / 3, 1])).argmin(-1)
    ]
    np.testing.assert_allclose(put(cu.Quantize(2, low=-1, high=1)), expected, atol=1e-6)
    same = torch.full((2, 3, 4, 4), 0.3)
    np.testing.assert_array_equal(put(cu.Quantize(2), same), same.numpy())


@pytest.mark.parametrize("band", ["low", "high", "horizontal", "vertical", "diagonal"])
def test_bands_are_those_of_the_haar_matrix(band: Any) -> None:
    one = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    both = np.kron(one, one)  # low, along x, along y, along both
    kept = {"low": [0], "horizontal": [1], "vertical": [2], "diagonal": [3], "high": [1, 2, 3]}[band]
    scaled = both.T @ np.diag([0.25 if i in kept else 1.0 for i in range(4)]) @ both
    value, expected = VALUE.numpy(), VALUE.numpy().copy()
    for y in range(0, 6, 2):
        for x in range(0, 10, 2):
            block = value[:, :, y : y + 2, x : x + 2].reshape(3, 6, 4)
            expected[:, :, y : y + 2, x : x + 2] = (block @ scaled.T).reshape(3, 6, 2, 2)
    np.testing.assert_allclose(put(cu.BandScale(0.25, band)), expected, atol=1e-6)


@pytest.mark.parametrize("threshold", [1, 2, 9])
def test_low_frequencies_are_those_of_freeu(threshold: int) -> None:
    filters = pytest.importorskip("diffusers.utils.torch_utils")
    expected = filters.fourier_filter(VALUE, threshold=threshold, scale=0.3)
    if threshold < 4:  # beyond the size its slices begin before the first and are empty
        np.testing.assert_allclose(put(cu.FrequencyScale(0.3, threshold)), expected.numpy(), atol=1e-5)
    else:
        np.testing.assert_allclose(put(cu.FrequencyScale(0.3, threshold)), 0.3 * VALUE.numpy(), atol=1e-5)


def test_what_is_projected_lies_in_the_span_or_outside_of_it() -> None:
    directions = np.array([[1.0, 2.0, 0.0, -1.0, 0.5, 0.0], [0.0, 1.0, 1.0, 0.0, 0.0, 3.0]])
    flat = VALUE.numpy().transpose(0, 2, 3, 1).reshape(-1, 6)
    off, onto = (put(cu.Project(directions, keep)).transpose(0, 2, 3, 1).reshape(-1, 6) for keep in ("off", "onto"))
    fitted, *_ = scipy.linalg.lstsq(directions.T, flat.T)
    np.testing.assert_allclose(onto, (directions.T @ fitted).T, atol=1e-5)
    np.testing.assert_allclose(off + onto, flat, atol=1e-5)
    np.testing.assert_allclose(off @ directions.T, 0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: cu.Clamp(1, -1), "low=1 above high=-1"),
        (lambda: cu.Clamp(float("nan")), "give a finite number"),
        (lambda: cu.AddNoise(-1), "finite number of at least 0"),
        (lambda: cu.AddNoise(1, -1), "integer of at least 0"),
        (lambda: cu.Quantize(0), "give 1 to 16"),
        (lambda: cu.Quantize(8, "head"), "'row' or 'channel'"),
        (lambda: cu.Quantize(8, low=0), "both low and high"),
        (lambda: cu.Quantize(8, low=1, high=1), "low=1 not below high=1"),
        (lambda: cu.BandScale(0, "middle"), "it is one of low, high"),
        (lambda: cu.BandScale(float("inf")), "finite number"),
        (lambda: cu.FrequencyScale(0.5, 0), "integer of at least 1"),
        (lambda: cu.Project([]), "give finite numbers"),
        (lambda: cu.Project("up"), "give finite numbers"),
        (lambda: cu.Project([[1, 0], [2, 0]]), "2 directions of Project span 1 dimensions"),
        (lambda: cu.Project([1, 0], "into"), "'off' or 'onto'"),
    ],
)
def test_what_they_cannot_be_is_told(make: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()


def test_where_they_cannot_act_is_told_when_a_study_is_planned(tiny_model: Any) -> None:
    window, anatomy = cu.Window(2, 1), tiny_model.anatomy
    with pytest.raises(ComponentError, match=r"'band_scale' acts along y, x, and text has no y: it has token, channel"):
        anatomy.check(cu.Edit("text", window, cu.BandScale()))
    with pytest.raises(ComponentError, match="directions of 999 numbers, and mid has"):
        anatomy.check(cu.Edit("mid", window, cu.Project(np.ones(999))))
    anatomy.check(cu.Edit("mid.joint.heads", window, cu.Quantize(4, "channel")))


def test_studies_put_them_in_place(tiny_model: Any, run_study: Any) -> None:
    window = cu.Window(3, 3)
    edits = [cu.Edit("mid", window, fill) for fill in FILLS[:7]]
    edits += [
        cu.Edit("mid.joint.heads", window, cu.Quantize(2, "channel")),
        cu.Edit("skip.1", window, cu.FrequencyScale()),
    ]
    results = run_study(*edits, steps=3)
    results.verify()
    assert (abs(results.outcomes.image - results.baseline.image).max(["channel", "y", "x", "sample"])[:9] > 1e-6).all()
