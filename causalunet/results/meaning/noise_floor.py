"""How much of what a null intervention changes is rounding.

A call's rounding depends on how many rows are in the batch, and a run may amplify it: steps near pure noise divide by
a small signal, and a sample that stands between two images leans to one of them. So the image alone does not tell
rounding from a network that is random; what the first call of the null run differs by does, since its input is the
baseline's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NULL_DIFFERENCE", "beyond_rounding", "first_distance"]

NULL_DIFFERENCE = 1e-5
"""Of an image in [0, 1]: what is rounding without further question."""
_AMPLIFIED = 1e-2
"""Of an image in [0, 1], two and a half grey levels: what is not taken for rounding, however it arose."""
_CALL = 1e-5
"""RMS of the guided prediction of noise, in its standard deviations: what one call may round off."""


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


def beyond_rounding(null_difference: NDArray[Any], first: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a null intervention changed an image by more than rounding explains.

    Parameters
    ----------
    null_difference : ndarray, (sample,)
        Largest difference of an image in [0, 1]; NaN where none was run.
    first : ndarray, (sample,)
        From `first_distance`; NaN where it is not known, and nothing is explained.
    """
    difference = np.nan_to_num(np.asarray(null_difference, dtype=np.float64))
    explained = (np.nan_to_num(first, nan=np.inf) <= _CALL) & (difference <= _AMPLIFIED)
    return (difference > NULL_DIFFERENCE) & ~explained
