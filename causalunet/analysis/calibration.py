"""Ranges that few bits are to span, from recorded activations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from causalunet.design.fills import Quantize
from causalunet.design.limits import shown
from causalunet.dims import SAMPLE, STEP
from causalunet.errors import SpecError, StoreError
from causalunet.results.meaning.schema import COMPLETE

__all__ = ["calibrated", "quantized", "quantizer_range"]

_SHRUNK = 80
"""Ranges that are tried, each a hundredth shorter than the one before."""
_POWER = 2.4
"""Of the error that is least."""


def quantizer_range(values: ArrayLike, bits: int, method: Literal["minmax", "mse"] = "mse") -> tuple[float, float]:
    """Find the lowest and the highest of 2^bits levels: multiples of the distance between two, so that 0 stays 0.

    Parameters
    ----------
    values : array_like
        Of which there are some, finite.
    bits : int
        1 to 16.
    method : {"minmax", "mse"}
        ``minmax`` spans all values and 0. ``mse`` takes, of the ranges that are 0, 1, ... 79 hundredths shorter than
        that of the values, the one with the least mean of errors to the power of 2.4: what is beyond it is cut off so
        that the rest is finer.

    Returns
    -------
    tuple of float
        Low and high.

    Raises
    ------
    SpecError
        There are no values, they are not finite, or there is no such method.

    Notes
    -----
    Both are those of the code of Huang et al. 2024 (TFMQ-DM), whose zero point is an integer: low and high are moved by
    up to half of a level.

    Examples
    --------
    >>> quantizer_range([0.0, 0.5, 3.0], 2, "minmax")
    (0.0, 3.0)
    """
    given = np.asarray(values, np.float64).ravel()
    bits = Quantize(bits).bits  # checks it
    if not given.size or not np.isfinite(given).all():
        raise SpecError(f"A range needs some finite values; got {shown(values)}.")
    if method not in ("minmax", "mse"):
        raise SpecError(f"quantizer_range got method={shown(method)}; it is 'minmax' or 'mse'.")
    low, high = float(given.min()), float(given.max())
    if method == "minmax" or low == high:
        return _with_zero(min(low, 0.0), max(high, 0.0), bits)
    tried = [_with_zero(low * (1 - 0.01 * cut), high * (1 - 0.01 * cut), bits) for cut in range(_SHRUNK)]
    errors = [float((np.abs(quantized(given, bits, *one) - given) ** _POWER).mean()) for one in tried]
    return tried[int(np.argmin(errors))]


def quantized(values: ArrayLike, bits: int, low: float, high: float) -> NDArray[np.float64]:
    """Round to the nearest of 2^bits levels from low to high, as the fill `causalunet.Quantize` does."""
    step = (high - low) / (2**bits - 1)
    return np.asarray(low + np.rint((np.clip(np.asarray(values, np.float64), low, high) - low) / step) * step)


def calibrated(
    results: xr.DataTree,
    place: str,
    bits: int,
    *,
    steps: Iterable[int] | None = None,
    method: Literal["minmax", "mse"] = "mse",
) -> Quantize:
    """Make the fill that rounds a place to few bits, over the range that its recorded activations have.

    Parameters
    ----------
    results : xarray.DataTree
        With whole activations of the place in runs without intervention, ``Record(activations=[place])``.
    place : str
        Component, skip connection or place inside a component.
    bits : int
        1 to 16.
    steps : iterable of int, optional
        At which the activations are looked at; by default all that were recorded. One step alone gives the range of
        that step.
    method : {"minmax", "mse"}
        As for `quantizer_range`.

    Returns
    -------
    Quantize
        To be put in place over any window.

    Raises
    ------
    StoreError
        Activations of the place were not recorded, or not at these steps.
    SpecError
        As for `quantizer_range`.
    """
    at = f"activations/{place}"
    if "activations" not in results.children or place not in results["activations"].children:
        there = ", ".join(results["activations"].children) if "activations" in results.children else "none"
        raise StoreError(
            f"There are no activations of {place!r} to calibrate by; recorded are {there}. Run the study with "
            f"record=Record(activations=[{place!r}], dtype='float32')."
        )
    values: xr.DataArray = results[at].to_dataset()["baseline"]
    if steps is not None:
        chosen = list(steps)
        missing = sorted(set(chosen) - set(values[STEP].values.tolist()))
        if missing or not chosen:
            raise StoreError(
                f"Activations of {place!r} were recorded at steps {shown(values[STEP].values.tolist())}, and not at "
                f"{shown(missing or chosen)}."
            )
        values = values.sel({STEP: chosen})
    if not (results[at].to_dataset()["baseline_status"] == COMPLETE).all():
        raise StoreError(f"Some samples of {place!r} were not run yet or failed; run the study to its end.")
    numbers = values.transpose(SAMPLE, STEP, ...).values
    low, high = quantizer_range(numbers, bits, method)
    return Quantize(bits, low=low, high=high)


def _with_zero(low: float, high: float, bits: int) -> tuple[float, float]:
    """The range moved by up to half of a level, so that levels are multiples of their distance."""
    last = 2**bits - 1
    step = max((high - low) / last, 1e-8)
    zero = np.rint(-low / step)
    return float(-zero * step), float((last - zero) * step)
