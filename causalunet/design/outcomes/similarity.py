"""Closeness of two images: pixel by pixel, in small windows, or of their colours alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet import metrics
from causalunet.calls import clear_calls
from causalunet.design.limits import is_integer, plain_number, shown
from causalunet.design.outcomes.base import Better, Outcome, OutcomeContext
from causalunet.errors import SpecError

__all__ = ["MSE", "PSNR", "SSIM", "HistogramDistance", "MultiScaleSSIM"]

_Images = NDArray[np.float32]


@clear_calls
@dataclass(frozen=True, slots=True)
class SSIM(Outcome):
    """Structural similarity to the baseline image, as Wang et al. 2004 define it; see `causalunet.metrics.ssim`."""

    name: ClassVar[str] = "ssim"
    title: ClassVar[str] = "SSIM"
    meaning: ClassVar[str] = "structural similarity to the baseline image"
    definition: ClassVar[str] = (
        "Structural similarity in Gaussian windows of 11 x 11, sigma 1.5, averaged over the valid region and channels, "
        "on images in [0, 1] (Wang et al. 2004, doi:10.1109/TIP.2003.819861)."
    )
    better: ClassVar[Better | None] = "higher"
    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    threshold: ClassVar[float | None] = 0.8
    axis: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def check(self, image_shape: tuple[int, ...], steps: int) -> None:
        """Raise `causalunet.SpecError` if images are smaller than a window."""
        metrics.check_size(image_shape)

    def essence(self) -> dict[str, Any]:
        """The definition's numbers."""
        return {**self.to_json(), **metrics.SSIM_DEFINITION}

    def measure(self, images: _Images, baseline: _Images, context: OutcomeContext) -> NDArray[np.float64]:
        """SSIM of each image."""
        reference = metrics.moments(baseline)
        return np.stack([metrics.ssim(metrics.moments(of_run), reference) for of_run in images])


@clear_calls
@dataclass(frozen=True, slots=True)
class PSNR(Outcome):
    """Peak signal-to-noise ratio to the baseline image in dB, infinite if equal; see `causalunet.metrics.psnr`."""

    name: ClassVar[str] = "psnr"
    title: ClassVar[str] = "PSNR"
    meaning: ClassVar[str] = "peak signal-to-noise ratio to the baseline image, infinite if equal"
    definition: ClassVar[str] = (
        "Ten times the decimal logarithm of one over the mean squared error, on images in [0, 1] (Huynh-Thu and "
        "Ghanbari 2008, doi:10.1049/el:20080522)."
    )
    units: ClassVar[str] = "dB"
    better: ClassVar[Better | None] = "higher"
    limits: ClassVar[tuple[float, float]] = (0.0, math.inf)
    infinite: ClassVar[bool] = True
    digits: ClassVar[int] = 2

    @classmethod
    def check_threshold(cls, threshold: float) -> None:
        """Raise `causalunet.SpecError` for one such as 0.8, which is meant for SSIM."""
        if threshold <= 1:
            raise SpecError(
                f"Criterion got threshold={threshold!r} dB for PSNR, which all images reach; give such as threshold=25."
            )

    def measure(self, images: _Images, baseline: _Images, context: OutcomeContext) -> NDArray[np.float64]:
        """PSNR of each image."""
        return metrics.psnr(metrics.mse(images, baseline))


@clear_calls
@dataclass(frozen=True, slots=True)
class MSE(Outcome):
    """Mean squared error to the baseline image; see `causalunet.metrics.mse`."""

    name: ClassVar[str] = "mse"
    title: ClassVar[str] = "MSE"
    meaning: ClassVar[str] = "mean squared error to the baseline image"
    definition: ClassVar[str] = "Squared difference, averaged over pixels and channels, on images in [0, 1]."
    better: ClassVar[Better | None] = "lower"
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    digits: ClassVar[int] = 5

    def measure(self, images: _Images, baseline: _Images, context: OutcomeContext) -> NDArray[np.float64]:
        """MSE of each image."""
        return metrics.mse(images, baseline)


@clear_calls
@dataclass(frozen=True, slots=True)
class MultiScaleSSIM(Outcome):
    """Structural similarity at several resolutions; see `causalunet.metrics.ms_ssim`.

    Parameters
    ----------
    scales : int
        1 to 5. Five need images of 176 pixels; three do with 44, two with 22.
    """

    name: ClassVar[str] = "ms_ssim"
    title: ClassVar[str] = "MS-SSIM"
    meaning: ClassVar[str] = "structural similarity to the baseline image at several scales"
    definition: ClassVar[str] = (
        "Product over scales of mean contrast and structure, the last times luminance, each to its exponent of Wang et "
        "al. 2003 (doi:10.1109/ACSSC.2003.1292216), exponents of fewer than five scales divided by their sum."
    )
    better: ClassVar[Better | None] = "higher"
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    axis: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    scales: int = 5

    def __post_init__(self) -> None:
        scales = plain_number(self.scales)
        if not is_integer(scales) or not 1 <= scales <= len(metrics.MS_SSIM_WEIGHTS):
            raise SpecError(f"MultiScaleSSIM got scales={shown(self.scales)}; there are 1 to 5.")
        object.__setattr__(self, "scales", scales)

    @property
    def variable(self) -> str:
        """With the number of scales, where it is not five."""
        return self.name if self.scales == len(metrics.MS_SSIM_WEIGHTS) else f"{self.name}_{self.scales}"

    def check(self, image_shape: tuple[int, ...], steps: int) -> None:
        """Raise `causalunet.SpecError` if the coarsest images are smaller than a window."""
        metrics.check_size(image_shape, self.scales)

    def measure(self, images: _Images, baseline: _Images, context: OutcomeContext) -> NDArray[np.float64]:
        """MS-SSIM of each image."""
        return np.stack([metrics.ms_ssim(of_run, baseline, self.scales) for of_run in images])


@clear_calls
@dataclass(frozen=True, slots=True)
class HistogramDistance(Outcome):
    """How far the colours of an image are from the baseline's, wherever they are.

    See `causalunet.metrics.histogram_distance`. Beside an outcome that knows places it tells a change of tone from one
    of shape.
    """

    name: ClassVar[str] = "histogram_distance"
    title: ClassVar[str] = "histogram distance"
    meaning: ClassVar[str] = "Wasserstein-1 distance of pixel values to those of the baseline image"
    definition: ClassVar[str] = (
        "Wasserstein-1 distance between the values that a channel has in the two images, wherever they are, averaged "
        "over channels, on images in [0, 1] (Rubner et al. 2000, doi:10.1023/A:1026543900054)."
    )
    better: ClassVar[Better | None] = "lower"
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    digits: ClassVar[int] = 4

    def measure(self, images: _Images, baseline: _Images, context: OutcomeContext) -> NDArray[np.float64]:
        """The distance of each image."""
        return np.stack([metrics.histogram_distance(of_run, baseline) for of_run in images])
