"""How much of what a null intervention changes is rounding.

A call's rounding depends on how many rows are in the batch, and a run may amplify it: steps near pure noise divide by
a small signal, and a sample that stands between two images leans to one of them. So the image alone does not tell
rounding from a network that is random; what the first call of the null run differs by does, since its input is the
baseline's. How much a call may differ by is measured, of each model in its precision and on its device, and stored: see
``causalunet.execute.measure.rounding``. Stores of earlier versions have no such numbers, and get those of float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.limits import is_number

__all__ = ["NULL_DIFFERENCE", "Bounds", "beyond_rounding", "first_distance"]

NULL_DIFFERENCE = 1e-5
"""Of an image in [0, 1]: what is rounding without further question."""
_AMPLIFIED = 1e-2
"""Of an image in [0, 1], two and a half grey levels: what runs may make of the rounding of calls, unless they were
measured to make more of it."""
_CALL, _DRIFT = 1e-5, 1e-3
"""Where nothing was measured: RMS, and the largest number, of what a call of a U-Net in float32 may round off."""

_UNITS = {"float64": 2.0**-23, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Unit in the last place of what weights of a type put out: states are float32 at best."""
_MARGIN, _MARGIN_OF_RUNS = 10, 4
"""Between what was measured, on a few samples in batches of up to three, and what others may show."""
_LEAST, _MOST = (8, 32), (128, 1024)
"""Units in the last place, of RMS and of the largest number. A small U-Net may round alike in all batches that were
tried; and what differs by more than the most is no rounding, such as a norm that goes over the batch."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is taken for rounding.

    Attributes
    ----------
    call : float
        RMS of what the guided prediction of noise of a call differs by, in standard deviations of noise.
    drift : float
        Its largest number.
    image : float
        What runs may make of it, of an image in [0, 1].
    told : str
        Whose bounds these are.
    """

    call: float = _CALL
    drift: float = _DRIFT
    image: float = _AMPLIFIED
    told: str = "assumed for float32: none were measured"

    @classmethod
    def of(cls, measured: Sequence[Mapping[str, Any]]) -> Bounds:
        """Read what was measured, wherever the runs of a store were made; what cannot be read counts for nothing.

        Parameters
        ----------
        measured : sequence of mapping
            As `causalunet.execute.measure.rounding.rounding_of` gives it; ``image`` may be among it.
        """
        found = [one for each in measured if (one := _bounds_of(each)) is not None]
        if not found:
            return cls()
        # What was begun on one machine and finished on another differs by what the machines do, too.
        drift = max(_DRIFT if len(found) > 1 else 0.0, *(one.drift for one in found))
        return cls(
            max(one.call for one in found),
            drift,
            max(one.image for one in found),
            " and ".join(dict.fromkeys(one.told for one in found)),
        )


def _bounds_of(measured: Mapping[str, Any]) -> Bounds | None:
    call, largest, image = (measured.get(name, 0.0) for name in ("call", "largest", "image"))
    kinds = measured.get("dtypes")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        return None
    if not all(is_number(value) and value >= 0 for value in (call, largest, image)):
        return None
    unit = max((_UNITS.get(kind, _UNITS["float32"]) for kind in kinds), default=_UNITS["float32"])
    rms, most = (
        min(max(_MARGIN * value, least * unit), most * unit)
        for value, least, most in zip((call, largest), _LEAST, _MOST, strict=True)
    )
    name = measured.get("device_name")
    where = f" on {name:.40}" if isinstance(name, str) else ""
    return Bounds(rms, most, max(_AMPLIFIED, _MARGIN_OF_RUNS * image), f"measured in {', '.join(kinds)[:60]}{where}")


def first_distance(eps_distance: NDArray[Any]) -> NDArray[np.float64]:
    """What the first U-Net calls that null runs make by themselves differ by from the baseline's.

    Parameters
    ----------
    eps_distance : ndarray, (null intervention, sample, step)
        ``trajectory/eps_distance``, steps in the order in which they are run; NaN where there is no call.

    Returns
    -------
    ndarray of float64, (sample,)
        The largest over null interventions; 0 where nothing differs, NaN without any number.
    """
    values = np.asarray(eps_distance, dtype=np.float64)
    differs = np.nan_to_num(values) > 0
    at = differs.argmax(axis=-1)[..., None]
    first = np.where(differs.any(axis=-1), np.take_along_axis(values, at, axis=-1)[..., 0], 0.0)
    first = np.where(np.isnan(values).all(axis=-1), np.nan, first)
    largest: NDArray[np.float64] = np.fmax.reduce(first, axis=0, initial=np.nan)
    return largest


def beyond_rounding(
    null_difference: NDArray[Any], first: NDArray[Any], bounds: Bounds | None = None
) -> NDArray[np.bool_]:
    """Where a null intervention changed an image by more than rounding explains.

    Parameters
    ----------
    null_difference : ndarray, (sample,)
        Largest difference of an image in [0, 1]; NaN where none was run.
    first : ndarray, (sample,)
        From `first_distance`; NaN where it is not known, and nothing is explained.
    bounds : Bounds, optional
        By default those of a store that has none.
    """
    limits = bounds or Bounds()
    difference = np.nan_to_num(np.asarray(null_difference, dtype=np.float64))
    explained = (np.nan_to_num(first, nan=np.inf) <= limits.call) & (difference <= limits.image)
    return (difference > NULL_DIFFERENCE) & ~explained
