"""Closeness of two images: SSIM as Wang et al. define it, PSNR, MSE. All per image, never pooled over a batch."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import SpecError

__all__ = ["SSIM_DEFINITION", "Moments", "check_size", "moments", "mse", "psnr", "ssim"]

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


def check_size(shape: tuple[int, ...]) -> None:
    """Raise `SpecError` if images, (..., y, x), are too small for SSIM."""
    height, width = shape[-2:]
    if min(height, width) < _TAPS:
        raise SpecError(f"SSIM needs images of at least {_TAPS} x {_TAPS} pixels; got {height} x {width}.")


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
    c1, c2 = _K1**2, _K2**2
    covariance = _blur(a.images * b.images) - a.mean * b.mean
    luminance = (2 * a.mean * b.mean + c1) / (a.mean * a.mean + b.mean * b.mean + c1)
    structure = (2 * covariance + c2) / (a.variance + b.variance + c2)
    value = (luminance * structure).mean(axis=(-3, -2, -1), dtype=np.float64)
    return np.minimum(value, 1.0)  # float32 rounding may carry equal images past it


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
