"""Fills that scale a part of a value's spectrum: bands of a Haar transform, and low frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.fills.base import Fill, exact, finite
from causalunet.design.limits import is_integer, plain_number, shown
from causalunet.dims import X, Y
from causalunet.errors import SpecError

__all__ = ["BandScale", "FrequencyScale"]

_BANDS = ("low", "high", "horizontal", "vertical", "diagonal")


@clear_calls
@dataclass(frozen=True, slots=True)
class BandScale(Fill):
    """The value with one band of its one-level Haar transform over the last two dimensions scaled.

    Parameters
    ----------
    factor : float
        1 changes nothing, 0 takes the band away.
    band : {"low", "high", "horizontal", "vertical", "diagonal"}
        ``low`` are means of squares of 2 x 2; ``high`` all that is left; ``horizontal`` differences along x,
        ``vertical`` along y, ``diagonal`` along both. Of odd sizes the last row or column is left as it is.
    """

    name: ClassVar[str] = "band_scale"
    dims: ClassVar[tuple[str, ...]] = (Y, X)
    factor: float = 0.0
    band: Literal["low", "high", "horizontal", "vertical", "diagonal"] = "high"

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", finite("BandScale", "factor", self.factor))
        if not isinstance(self.band, str) or self.band not in _BANDS:
            raise SpecError(f"BandScale got band={shown(self.band)}; it is one of {', '.join(_BANDS)}.")

    def apply(self, value: Any) -> Any:
        """The value with the band scaled."""
        changed, (height, width) = value.clone(), (size - size % 2 for size in value.shape[-2:])
        even = value[..., :height, :width]
        a, b, c, d = (even[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        signs = {"low": (1, 1, 1), "horizontal": (-1, 1, -1), "vertical": (1, -1, -1), "diagonal": (-1, -1, 1)}
        own = "low" if self.band == "high" else self.band
        p, q, r = signs[own]
        part = (a + p * b + q * c + r * d) / 4
        for (i, j), sign in zip(((0, 0), (0, 1), (1, 0), (1, 1)), (1, p, q, r), strict=True):
            there, of_band = even[..., i::2, j::2], sign * part
            if self.band == "high":  # what is not "low"
                new = of_band + self.factor * (there - of_band)
            else:
                new = there + (self.factor - 1) * of_band
            changed[..., :height, :width][..., i::2, j::2] = new
        return changed


@clear_calls
@dataclass(frozen=True, slots=True)
class FrequencyScale(Fill):
    """The value with its low frequencies over the last two dimensions scaled, as FreeU does to skip connections.

    Parameters
    ----------
    factor : float
        1 changes nothing; FreeU's ``s`` are below 1.
    threshold : int
        Frequencies -threshold ... threshold - 1 of the discrete Fourier transform along y and along x are low. They lie
        unevenly around 0, as in FreeU's own code, and what is not real of the result is left out as there.

    Notes
    -----
    Si et al. 2024, "FreeU: Free Lunch in Diffusion U-Net", equations 6 to 8.
    """

    name: ClassVar[str] = "frequency_scale"
    dims: ClassVar[tuple[str, ...]] = (Y, X)
    factor: float = 0.9
    threshold: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", finite("FrequencyScale", "factor", self.factor))
        threshold = plain_number(self.threshold)
        if not is_integer(threshold) or not 1 <= threshold <= 2**15:
            raise SpecError(f"FrequencyScale got threshold={shown(self.threshold)}; give an integer of at least 1.")
        object.__setattr__(self, "threshold", threshold)

    def apply(self, value: Any) -> Any:
        """The value with its low frequencies scaled."""
        precise = exact(value)
        # the transform onto so few frequencies and back is one small matrix along each dimension
        (ay, by), (ax, bx) = ((precise.new_tensor(part) for part in self._low(size)) for size in value.shape[-2:])
        low = ay @ precise @ ax.mT - by @ precise @ bx.mT
        return (precise + (self.factor - 1) * low).to(value.dtype)

    def _low(self, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Real and imaginary part of what keeps low frequencies alone, (place, place)."""
        kept = np.arange(max(-self.threshold, -(size // 2)), min(self.threshold, size - size // 2))
        waves = np.exp(2j * np.pi * np.outer(np.arange(size), kept) / size)
        projection = waves @ waves.conj().T / size
        return projection.real, projection.imag
