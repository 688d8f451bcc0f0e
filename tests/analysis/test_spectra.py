"""Power spectra against Parseval and waves; the Wiener gain against the exact denoiser of a stationary Gaussian."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import causalunet as cu
from causalunet.analysis import power_spectrum, wiener_gain
from causalunet.models.exact.gaussian import Gaussian


def labelled(values: Any) -> xr.DataArray:
    return xr.DataArray(values, dims=("sample", "y", "x"), coords={"sample": np.arange(len(values)) + 5})


@given(arrays(np.float64, st.tuples(st.just(2), st.integers(1, 7), st.integers(1, 7)), elements=st.floats(-9, 9)))
@settings(max_examples=40)
def test_powers_sum_to_the_squares(values: Any) -> None:
    power = power_spectrum(labelled(values))
    total = (power * power["frequencies"]).sum("wavenumber")
    np.testing.assert_allclose(total, (values**2).sum((1, 2)), atol=1e-8)
    assert power["sample"].values.tolist() == [5, 6]


@pytest.mark.parametrize(("along_y", "along_x"), [(0, 0), (2, 0), (0, 3), (2, 2), (-3, 1)])
def test_a_wave_has_its_wavenumber(along_y: int, along_x: int) -> None:
    y, x = np.mgrid[:12, :12] / 12
    wave = np.cos(2 * np.pi * (along_y * y + along_x * x))
    power = power_spectrum(labelled(wave[None]))[0]
    at = round(float(np.hypot(along_y, along_x)))
    expected = np.zeros(len(power))
    expected[at] = (wave**2).sum() / power["frequencies"][at]
    np.testing.assert_allclose(power, expected, atol=1e-9)


def test_order_of_dimensions_makes_no_difference() -> None:
    values = np.random.default_rng(0).normal(size=(2, 4, 6))
    turned = labelled(values).transpose("x", "sample", "y")
    np.testing.assert_allclose(power_spectrum(turned), power_spectrum(labelled(values)))


def test_what_is_no_image_is_told() -> None:
    with pytest.raises(cu.CausalUNetError, match="with y and x"):
        power_spectrum(xr.DataArray(np.zeros(3), dims="x"))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_the_gain_is_that_of_the_exact_denoiser_of_a_stationary_gaussian(share: float) -> None:
    """Of images on a torus the principal components are waves: the denoiser is a product in Fourier space."""
    size, rng = 6, np.random.default_rng(1)
    spread = np.abs(np.fft.fft2(rng.normal(size=(size, size)))) ** 2 + 0.1  # even, as of real images
    shift = np.fft.ifft2(spread).real  # covariance of a pixel with the first
    rows = [np.roll(shift, (i, j), (0, 1)).ravel() for i in range(size) for j in range(size)]
    variances, vectors = torch.linalg.eigh(torch.tensor(np.stack(rows)))
    model = Gaussian(torch.zeros(size**2, dtype=torch.float64), vectors, variances)
    x = rng.normal(size=(1, size, size))
    expected = model.denoise(torch.tensor(x.reshape(1, -1)), share).numpy().reshape(size, size)
    got = np.fft.ifft2(wiener_gain(share, spread) * np.fft.fft2(x[0])).real
    np.testing.assert_allclose(got, expected, atol=1e-10)
