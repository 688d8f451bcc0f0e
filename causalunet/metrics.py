"""Closeness of two images: SSIM and MS-SSIM as Wang et al. define them, PSNR, MSE, distance of histograms.

All are per image, never pooled over a batch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import SpecError

__all__ = [
    "MS_SSIM_WEIGHTS",
    "SSIM_DEFINITION",
    "Moments",
    "check_size",
    "histogram_distance",
    "moments",
    "ms_ssim",
    "mse",
    "psnr",
    "ssim",
]

_TAPS, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03

SSIM_DEFINITION = {
    "window": f"Gaussian {_TAPS} x {_TAPS}, sigma {_SIGMA}",
    "k1": _K1,
    "k2": _K2,
    "data_range": 1.0,
    "region": "valid",
    "channels": "mean over RGB",
    "images": "float32 in [0, 1]",
    "source": "Wang et al. 2004, doi:10.1109/TIP.2003.819861",
}
"""Stored with every result, because other definitions of the same name give other numbers."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, from fine to coarse (Wang et al. 2003, section 3.2)."""


class Moments(NamedTuple):
    """Local means and variances of images, computed once for a baseline that many images are compared with.

    Attributes
    ----------
    images, mean, variance : ndarray of float32
        (..., channel, y, x); mean and variance over the valid region only.
    """

    images: NDArray[np.float32]
    mean: NDArray[np.float32]
    variance: NDArray[np.float32]


@lru_cache(maxsize=16)
def _band(size: int) -> NDArray[np.float32]:
    """The Gaussian filter as a banded matrix, (size - taps + 1, size)."""
    offsets = np.arange(_TAPS) - _TAPS // 2
    kernel: NDArray[np.float64] = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    band = np.zeros((size - _TAPS + 1, size))
    for row in range(band.shape[0]):
        band[row, row : row + _TAPS] = kernel / kernel.sum()
    return band.astype(np.float32)


def check_size(shape: tuple[int, ...], scales: int = 1) -> None:
    """Raise `SpecError` if images, (..., y, x), are too small for SSIM, or for MS-SSIM of so many scales."""
    height, width = shape[-2:]
    least = _TAPS * 2 ** (scales - 1)
    if min(height, width) < least:
        name = "SSIM" if scales == 1 else f"MS-SSIM of {scales} scales"
        raise SpecError(f"{name} needs images of at least {least} x {least} pixels; got {height} x {width}.")


def _blur(images: NDArray[np.float32]) -> NDArray[np.float32]:
    check_size(images.shape)
    height, width = images.shape[-2:]
    return np.asarray(_band(height) @ images @ _band(width).T, dtype=np.float32)


def moments(images: NDArray[np.floating]) -> Moments:
    """Local means and variances of images in [0, 1], (..., channel, y, x)."""
    values = np.asarray(images, dtype=np.float32)
    mean = _blur(values)
    return Moments(values, mean, _blur(values * values) - mean * mean)


def ssim(a: Moments, b: Moments) -> NDArray[np.float64]:
    """Structural similarity, averaged over pixels and channels.

    Parameters
    ----------
    a, b : Moments
        From `moments`; leading dimensions broadcast.

    Returns
    -------
    ndarray of float64
        One value per image, at most 1.

    Notes
    -----
    Equal to ``skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)``.
    """
    luminance, structure = _terms(a, b)
    return _averaged(luminance * structure)


def _terms(a: Moments, b: Moments) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Luminance, and contrast times structure, by pixel."""
    c1, c2 = _K1**2, _K2**2
    covariance = _blur(a.images * b.images) - a.mean * b.mean
    luminance = (2 * a.mean * b.mean + c1) / (a.mean * a.mean + b.mean * b.mean + c1)
    return luminance, (2 * covariance + c2) / (a.variance + b.variance + c2)


def _averaged(values: NDArray[np.floating]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = values.mean(axis=(-3, -2, -1), dtype=np.float64)
    return np.minimum(mean, 1.0)  # float32 rounding may carry equal images past it


def ms_ssim(a: NDArray[np.floating], b: NDArray[np.floating], scales: int = 5) -> NDArray[np.float64]:
    """Structural similarity at several resolutions, each half the one before.

    Parameters
    ----------
    a, b : ndarray
        Images in [0, 1], (..., channel, y, x); leading dimensions broadcast.
    scales : int
        With fewer than five the exponents are the first of ``MS_SSIM_WEIGHTS``, divided by their sum.

    Returns
    -------
    ndarray of float64
        One value per image, in 0 ... 1: what is negative at a scale counts as 0 there.

    Notes
    -----
    Each scale gives contrast and structure, averaged over the valid region and channels, the last one luminance too.
    ``torchmetrics.functional.image.multiscale_structural_similarity_index_measure`` agrees to within 0.001.
    Source: Wang, Simoncelli and Bovik 2003, doi:10.1109/ACSSC.2003.1292216.
    """
    one, other = (np.asarray(images, np.float32) for images in (a, b))
    check_size(one.shape, scales)
    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
    value: NDArray[np.float64] = np.ones(np.broadcast_shapes(one.shape, other.shape)[:-3])
    for scale, weight in enumerate(weights):
        luminance, structure = _terms(moments(one), moments(other))
        term = _averaged(structure if scale < scales - 1 else luminance * structure)
        value = value * np.maximum(term, 0.0) ** weight
        one, other = _halved(one), _halved(other)
    return value


def _halved(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 x 2 pixels; what is left over at an odd edge is dropped."""
    height, width = (2 * (size // 2) for size in images.shape[-2:])
    even = images[..., :height, :width]
    pairs = even[..., 0::2, :] + even[..., 1::2, :]
    return np.asarray((pairs[..., 0::2] + pairs[..., 1::2]) / 4, dtype=np.float32)


def histogram_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Wasserstein-1 distance between the pixel values of two images, averaged over channels.

    Where the pixels are does not matter: it is 0 for an image that is mirrored.

    Parameters
    ----------
    a, b : ndarray
        Images in [0, 1], (..., channel, y, x), of one size; leading dimensions broadcast.

    Returns
    -------
    ndarray of float64
        One value per image, in 0 ... 1.

    Notes
    -----
    Of two samples of one size it is the mean difference of their sorted values. Equal to the mean over channels of
    ``scipy.stats.wasserstein_distance``.
    """
    first, second = (np.sort(_flat(images), axis=-1).astype(np.float64) for images in (a, b))
    value: NDArray[np.float64] = np.abs(first - second).mean(axis=(-2, -1))
    return value


def _flat(images: NDArray[np.floating]) -> NDArray[np.floating]:
    return images.reshape(*images.shape[:-2], -1)


def mse(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean squared error per image, (..., channel, y, x) to (...)."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    value: NDArray[np.float64] = np.square(difference).mean(axis=(-3, -2, -1))
    return value


def psnr(error: NDArray[np.floating]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB from a mean squared error on a range of 1; infinite for identical images."""
    with np.errstate(divide="ignore"):
        value: NDArray[np.float64] = -10 * np.log10(np.asarray(error, np.float64))
    return value
