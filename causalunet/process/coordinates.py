"""Processes whose noise is not the same everywhere: coordinates of an image, such as frequencies, have their own.

Coordinates are those in a basis that is orthonormal along y and along x, so that standard normal noise of pixels is
standard normal noise of coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.errors import ModelError
from causalunet.process.base import Process

__all__ = ["Pyramid", "ShortestPath"]

_NEAR = 1e-9
"""Relative: a share that went through a store or a schedule is the same share."""


@clear_calls
@dataclass(frozen=True, slots=True)
class ShortestPath(Process):
    """Every frequency loses its signal at the pace at which images of its variance become white noise the shortest way.

    A frequency whose variance among images is S0 has a share (1 - S0^tau) / (1 - S0) of signal variance, so that the
    variance of its states is S0^tau, a geodesic from S0 to 1. Here alpha_bar is tau, from 1 at the image to 0: the
    share of a frequency of variance 1. S0 = c1 / (c2 + f)^power, and f in periods per image is the distance from
    frequency 0.

    Shortest path diffusion (Das et al. 2023, arXiv 2306.00501, section 4).

    Parameters
    ----------
    of : str
        How large x is; not asked of others than ``"variance-preserving"``.
    c1, c2, power : float
        Above 0; by default those of the official code, measured on natural images of 64 pixels.

    Notes
    -----
    Coordinates are those of the Hartley transform along y and along x. It is real, and a pair of its frequencies of
    opposite signs is that of a Fourier transform turned, so that what is the same for both is the same in both.
    """

    name: ClassVar[str] = "shortest-path"
    split: ClassVar[bool] = True

    c1: float = 1.59
    c2: float = 0.0086
    power: float = 2.0

    def __post_init__(self) -> None:
        super(ShortestPath, self).__post_init__()
        if self.of != "variance-preserving":
            raise ModelError(f"{type(self).__name__} got of={self.of!r}; it is 'variance-preserving'.")
        for name in ("c1", "c2", "power"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ModelError(f"{type(self).__name__} got {name}={value!r}; give a finite number above 0.")
            object.__setattr__(self, name, float(value))

    def variance(self, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
        """S0, the variance among images, of frequencies in periods per image."""
        return np.asarray(self.c1 / np.abs(self.c2 + frequency) ** self.power)

    def basis(self, size: int) -> NDArray[np.float64]:
        """The Hartley transform, cos + sin of 2 pi i j / size over the root of size."""
        angles = 2 * np.pi * np.outer(np.arange(size), np.arange(size)) / size
        return np.asarray((np.cos(angles) + np.sin(angles)) / math.sqrt(size))

    def bands(self, height: int, width: int) -> NDArray[np.int64]:
        """A band for every distance from frequency 0, the lowest first."""
        return _rings(height, width)[1]

    def shares(self, alpha_bar: float, height: int, width: int) -> NDArray[np.float64]:
        """(1 - S0^tau) / (1 - S0), tau where S0 is 1."""
        variance = self.variance(np.sqrt(_rings(height, width)[0]))
        logs = np.log(variance)
        with np.errstate(invalid="ignore", divide="ignore"):
            # Not by variance - 1: rounding, which is another on every processor, would leave noise where there is none.
            found = np.expm1(alpha_bar * logs) / np.expm1(logs)
        return np.where(np.abs(variance - 1) < _NEAR, alpha_bar, np.clip(found, 0.0, 1.0))


@lru_cache(maxsize=32)
def _rings(height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Squared distances from frequency 0, ascending, and which of them every frequency has."""
    along_y, along_x = (np.minimum(np.arange(size), size - np.arange(size)) for size in (height, width))
    squared, band = np.unique(along_y[:, None] ** 2 + along_x[None, :] ** 2, return_inverse=True)
    return squared.astype(np.float64), band.reshape(height, width).astype(np.int64)


@clear_calls
@dataclass(frozen=True, slots=True)
class Pyramid(Process):
    """States of level l have half as many pixels along y and x as those of level l - 1, and the U-Net is given those.

    x_l = signals_l H^l x_0 + noises_l eps, where H takes the sum of 2 by 2 pixels over 2, so that H H' = 1. The U-Net
    says what H^(l - 1) x_0 is, an image of twice the size. Stored states are of full size: what is finer than level l
    shows is noise in them, which the U-Net is not given.

    Upsampling diffusion (UDPM; Abu-Hussein & Giryes 2023, arXiv 2305.16269, equations 5 and 6).

    Parameters
    ----------
    of : str
        Not asked: ``signals`` and ``noises`` say how large x is.
    signals, noises : tuple of float
        Of every level from 1 on, above 0; their ratio falls. Level l is timestep l - 1 of a model.

    Notes
    -----
    Coordinates are those of the Haar transform along y and along x: what is finer than level l shows, and what is not,
    are apart in it.
    """

    name: ClassVar[str] = "pyramid"
    split: ClassVar[bool] = True
    resized: ClassVar[bool] = True

    signals: tuple[float, ...] = ()
    noises: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super(Pyramid, self).__post_init__()
        for name in ("signals", "noises"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if not self.signals or len(self.signals) != len(self.noises):
            raise ModelError(
                f"Pyramid got signals of {len(self.signals)} levels and noises of {len(self.noises)}; give both of "
                "every level, from 1 on."
            )
        shares = self.alpha_bars
        if not all(0 < value < math.inf for value in (*self.signals, *self.noises)) or (np.diff(shares) >= 0).any():
            raise ModelError("Pyramid takes signals and noises above 0 whose ratio falls from level to level.")

    @property
    def alpha_bars(self) -> NDArray[np.float64]:
        """Share of signal variance at every level, (level,): a model's ``alpha_bar``."""
        signal, noise = np.square(self.signals), np.square(self.noises)
        return np.asarray(signal / (signal + noise))

    def halvings(self, alpha_bar: float) -> int:
        """The level: how many shares are at least this one."""
        return int((self.alpha_bars >= alpha_bar * (1 - _NEAR)).sum())

    def scale(self, alpha_bar: float) -> float:
        """Root of the sum of squares of signal and noise of the level; 1 at the image."""
        level = self.halvings(alpha_bar)
        return math.hypot(self.signals[level - 1], self.noises[level - 1]) if level else 1.0

    def basis(self, size: int) -> NDArray[np.float64]:
        """The Haar transform to as many levels as there are; the coarsest coordinates first.

        Raises
        ------
        ModelError
            The size cannot be halved so often.
        """
        levels = len(self.signals)
        if size % 2**levels:
            raise ModelError(f"Pyramid has {levels} levels, which halve an image of {size} pixels so often; it cannot.")
        return _haar(size, levels)

    def bands(self, height: int, width: int) -> NDArray[np.int64]:
        """Band 0 is what the coarsest level shows, band b what level L - b shows more than the coarser ones."""
        finest = np.maximum.outer(self._numbers(height), self._numbers(width))
        return np.asarray(finest, dtype=np.int64)

    def shares(self, alpha_bar: float, height: int, width: int) -> NDArray[np.float64]:
        """That of the level for what it shows, and 0 for what is finer."""
        levels = len(self.signals)
        shown = levels - self.halvings(alpha_bar)
        return np.where(np.arange(levels + 1) <= shown, alpha_bar, 0.0)

    def _numbers(self, size: int) -> NDArray[np.int64]:
        """Bands of the coordinates along one side."""
        levels = len(self.signals)
        coarsest = size >> levels
        return np.repeat(np.arange(levels + 1), [coarsest, *(coarsest << band for band in range(levels))])


@lru_cache(maxsize=32)
def _haar(size: int, levels: int) -> NDArray[np.float64]:
    if not levels:
        return np.eye(size)
    pairs = np.eye(size // 2)
    means, differences = np.kron(pairs, [1, 1]) / math.sqrt(2), np.kron(pairs, [1, -1]) / math.sqrt(2)
    return np.concatenate([_haar(size // 2, levels - 1) @ means, differences])
