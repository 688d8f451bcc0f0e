"""Closeness of two images, pixel by pixel or in small windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet import metrics
from causalunet.calls import clear_calls
from causalunet.design.outcomes.base import Better, Outcome, OutcomeContext

__all__ = ["MSE", "PSNR", "SSIM"]

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
        """Raise `SpecError` if images are smaller than a window."""
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

    def measure(self, images: _Images, baseline: _Images, context: OutcomeContext) -> NDArray[np.float64]:
        """PSNR of each image."""
        return metrics.psnr(metrics.mse(images, baseline))


@clear_calls
@dataclass(frozen=True, slots=True)
class MSE(Outcome):
    """Mean squared error to the baseline image; see `causalunet.metrics.mse`."""

    name: ClassVar[str] = "mse"
    title: ClassVar[str] = "mean squared error"
    meaning: ClassVar[str] = "mean squared error to the baseline image"
    definition: ClassVar[str] = "Squared difference, averaged over pixels and channels, on images in [0, 1]."
    better: ClassVar[Better | None] = "lower"
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    digits: ClassVar[int] = 5

    def measure(self, images: _Images, baseline: _Images, context: OutcomeContext) -> NDArray[np.float64]:
        """MSE of each image."""
        return metrics.mse(images, baseline)
