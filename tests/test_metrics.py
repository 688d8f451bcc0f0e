"""Metrics against scikit-image, SciPy, torchmetrics and a direct convolution, and the laws that they obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import convolve2d
from scipy.stats import wasserstein_distance
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from causalunet.errors import SpecError
from causalunet.metrics import (
    MS_SSIM_WEIGHTS,
    SSIM_DEFINITION,
    histogram_distance,
    moments,
    ms_ssim,
    mse,
    psnr,
    ssim,
)

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
SIZES = [(11, 11), (16, 16), (16, 41), (64, 23), (64, 64)]


def pair(height: int, width: int, seed: int = 0, images: int = 3) -> Pair:
    """Images in [0, 1] with structure at every scale, and disturbed copies, one weakly and one strongly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 8
    waves = np.sin(x * rng.uniform(0.2, 2, (images, 3, 1, 1)) + y * rng.uniform(0.2, 2, (images, 3, 1, 1)))
    a = np.clip(0.5 + 0.4 * waves + rng.normal(0, 0.05, (images, 3, height, width)), 0, 1)
    strength = np.linspace(0.02, 0.6, images)[:, None, None, None]
    b = np.clip(a + strength * rng.normal(0, 1, a.shape), 0, 1)
    return a.astype(np.float32), b.astype(np.float32)


def direct_ssim(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Equation 13 of Wang et al. 2004 in float64, the window slid over one (channel, y, x) image by convolution."""
    offsets = np.arange(-5, 6)
    gaussian = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(gaussian, gaussian) / gaussian.sum() ** 2
    values = []
    for one, other in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
        mean_a, mean_b = convolve2d(one, window, "valid"), convolve2d(other, window, "valid")
        variance_a = convolve2d(one**2, window, "valid") - mean_a**2
        variance_b = convolve2d(other**2, window, "valid") - mean_b**2
        covariance = convolve2d(one * other, window, "valid") - mean_a * mean_b
        values.append(
            ((2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2))
            / ((mean_a**2 + mean_b**2 + 0.01**2) * (variance_a + variance_b + 0.03**2))
        )
    return float(np.mean(values))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ssim_is_that_of_scikit_image(size: tuple[int, int]) -> None:
    a, b = pair(*size)
    expected = [
        structural_similarity(
            one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0
        )
        for one, other in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim(moments(a), moments(b)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ssim_is_that_of_a_direct_convolution(size: tuple[int, int]) -> None:
    a, b = pair(*size, seed=1)
    expected = [direct_ssim(one, other) for one, other in zip(a, b, strict=True)]
    assert min(expected) < 0.5 < max(expected), "the pairs do not span the scale"
    np.testing.assert_allclose(ssim(moments(a), moments(b)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_mse_and_psnr_are_those_of_scikit_image(size: tuple[int, int]) -> None:
    a, b = pair(*size, seed=2)
    error = mse(a, b)
    np.testing.assert_allclose(error, [mean_squared_error(x, y) for x, y in zip(a, b, strict=True)], rtol=1e-5)
    expected = [peak_signal_noise_ratio(x, y, data_range=1.0) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(error), expected, rtol=1e-5)


def test_psnr_is_per_image() -> None:
    error = np.array([1e-4, 1e-2, 1.0])
    np.testing.assert_allclose(psnr(error), [40.0, 20.0, 0.0], atol=1e-12)


def test_identical_images() -> None:
    a, _ = pair(16, 20)
    np.testing.assert_array_equal(ssim(moments(a), moments(a.copy())), 1.0)
    np.testing.assert_array_equal(mse(a, a.copy()), 0.0)
    np.testing.assert_array_equal(psnr(mse(a, a.copy())), np.inf)


def test_constant_images() -> None:
    black, white = np.zeros((3, 16, 16), np.float32), np.ones((3, 16, 16), np.float32)
    assert ssim(moments(black), moments(black)) == 1.0
    assert ssim(moments(black), moments(white)) == pytest.approx(0.01**2 / (1 + 0.01**2), rel=1e-3)
    assert psnr(mse(black, white)) == 0.0


@pytest.mark.parametrize("size", [(10, 16), (16, 10), (1, 1)], ids=str)
def test_images_smaller_than_the_window(size: tuple[int, int]) -> None:
    with pytest.raises(SpecError, match=rf"at least 11 x 11 pixels; got {size[0]} x {size[1]}"):
        moments(np.zeros((3, *size), np.float32))


@given(seed=st.integers(0, 2**32), height=st.integers(11, 24), width=st.integers(11, 24))
def test_laws(seed: int, height: int, width: int) -> None:
    a, b = pair(height, width, seed)
    forward, back = ssim(moments(a), moments(b)), ssim(moments(b), moments(a))
    np.testing.assert_allclose(forward, back, rtol=0, atol=1e-6)
    assert ((forward > -1) & (forward < 1)).all()
    np.testing.assert_array_equal(mse(a, b), mse(b, a))
    assert (mse(a, b) > 0).all()
    for view in (np.s_[..., ::-1], np.s_[..., ::-1, :], np.s_[:, ::-1]):
        np.testing.assert_allclose(ssim(moments(a[view]), moments(b[view])), forward, rtol=0, atol=2e-5)


@given(seed=st.integers(0, 2**32))
def test_images_do_not_see_each_other(seed: int) -> None:
    a, b = pair(12, 13, seed, images=5)
    alone = [ssim(moments(one), moments(other)) for one, other in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(moments(a), moments(b)), alone, rtol=0, atol=1e-6)
    assert np.ndim(alone[0]) == 0


def test_one_baseline_broadcasts_over_many_images() -> None:
    a, b = pair(16, 16, images=4)
    many = np.stack([a, b])
    found = ssim(moments(many), moments(a))
    assert found.shape == (2, 4)
    np.testing.assert_array_equal(found[0], 1.0)
    np.testing.assert_allclose(found[1], ssim(moments(b), moments(a)), rtol=0, atol=1e-6)


def test_noise_lowers_ssim() -> None:
    a, _ = pair(32, 32, images=1)
    noise = np.random.default_rng(3).normal(0, 1, a.shape)
    values = [ssim(moments(a), moments(np.clip(a + s * noise, 0, 1)))[0] for s in (0, 0.01, 0.05, 0.2, 1.0)]
    assert values == sorted(values, reverse=True)


def test_definition_names_what_is_computed() -> None:
    assert SSIM_DEFINITION["window"] == "Gaussian 11 x 11, sigma 1.5"
    assert (SSIM_DEFINITION["k1"], SSIM_DEFINITION["k2"], SSIM_DEFINITION["region"]) == (0.01, 0.03, "valid")


def direct_ms_ssim(a: NDArray[np.float32], b: NDArray[np.float32], scales: int) -> float:
    """Equation 7 of Wang et al. 2003 in float64, windows slid by convolution, of two (channel, y, x) images."""
    offsets = np.arange(-5, 6)
    gaussian = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(gaussian, gaussian) / gaussian.sum() ** 2
    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / np.sum(MS_SSIM_WEIGHTS[:scales])
    one, other, value = a.astype(np.float64), b.astype(np.float64), 1.0
    for scale in range(scales):
        terms = []
        for x, y in zip(one, other, strict=True):
            mean_x, mean_y = convolve2d(x, window, "valid"), convolve2d(y, window, "valid")
            variance_x = convolve2d(x**2, window, "valid") - mean_x**2
            variance_y = convolve2d(y**2, window, "valid") - mean_y**2
            covariance = convolve2d(x * y, window, "valid") - mean_x * mean_y
            term = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
            if scale == scales - 1:
                term = term * (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
            terms.append(term)
        value *= max(float(np.mean(terms)), 0.0) ** weights[scale]
        half = np.full((2, 2), 0.25)
        one, other = (np.stack([convolve2d(x, half, "valid")[::2, ::2] for x in images]) for images in (one, other))
    return value


@pytest.mark.parametrize(("size", "scales"), [((16, 16), 1), ((22, 31), 2), ((64, 45), 3), ((180, 176), 5)], ids=str)
def test_ms_ssim_is_that_of_its_paper(size: tuple[int, int], scales: int) -> None:
    a, b = pair(*size)
    expected = [direct_ms_ssim(one, other, scales) for one, other in zip(a, b, strict=True)]
    np.testing.assert_allclose(ms_ssim(a, b, scales), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ms_ssim(a, a, scales), 1.0, atol=1e-5)
    if scales == 1:
        np.testing.assert_allclose(ms_ssim(a, b, 1), np.maximum(ssim(moments(a), moments(b)), 0), atol=1e-6)


def test_ms_ssim_is_that_of_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("torchmetrics.functional.image", reason="the extra lpips brings torchmetrics")
    for scales, size in ((5, (192, 180)), (3, (64, 64))):
        a, b = pair(*size)
        weights = np.array(MS_SSIM_WEIGHTS[:scales]) / np.sum(MS_SSIM_WEIGHTS[:scales])
        expected = image.multiscale_structural_similarity_index_measure(
            torch.from_numpy(a), torch.from_numpy(b), data_range=1.0, betas=tuple(weights), reduction="none"
        )
        np.testing.assert_allclose(ms_ssim(a, b, scales), expected.numpy(), rtol=0, atol=1e-3)


def test_images_that_are_too_small_for_the_coarsest_scale_are_refused() -> None:
    with pytest.raises(SpecError, match="MS-SSIM of 5 scales needs images of at least 176 x 176"):
        ms_ssim(np.zeros((3, 64, 64)), np.zeros((3, 64, 64)))


@given(seed=st.integers(0, 1000), mirrored=st.booleans())
def test_distance_of_histograms_is_that_of_scipy(seed: int, mirrored: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 3, 7, 5)), rng.beta(2, 5, (2, 3, 7, 5))
    expected = [
        np.mean([wasserstein_distance(x.ravel(), y.ravel()) for x, y in zip(one, other, strict=True)])
        for one, other in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(histogram_distance(a[..., ::-1] if mirrored else a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(histogram_distance(a[..., ::-1], a), 0, atol=1e-15)
    np.testing.assert_allclose(histogram_distance(a, a * 0 + 0.5), np.abs(a - 0.5).mean(axis=(1, 2, 3)))
