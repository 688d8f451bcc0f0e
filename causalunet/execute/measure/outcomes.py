"""What is stored of a run's images: themselves, how alike they are to the baseline's, and what they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.outcomes import OutcomeContext, usual_outcomes
from causalunet.design.outcomes.measuring import measured
from causalunet.models.base import DiffusionModel

__all__ = ["baseline_values", "outcome_values"]


def baseline_values(model: DiffusionModel, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Stored variables of baseline images.

    Parameters
    ----------
    model : DiffusionModel
    images : ndarray, (sample, channel, y, x)

    Returns
    -------
    dict
        Name to values, (sample, ...).
    """
    values: dict[str, NDArray[Any]] = {"image": images}
    if model.factors:
        values["factor_code"], values["factor_probability"] = model.read_factors(images)
    return values


def outcome_values(
    model: DiffusionModel, images: NDArray[np.float32], baseline: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Stored variables of intervened images.

    Parameters
    ----------
    model : DiffusionModel
    images : ndarray, (intervention, sample, channel, y, x)
    baseline : mapping
        Of `baseline_values`: ``image`` and, if the model reads factors, ``factor_code``.

    Returns
    -------
    dict
        Name to values, (intervention, sample, ...).
    """
    context = OutcomeContext(
        stored={f"baseline/{name}": value for name, value in baseline.items()},
        read_factors=model.read_factors if model.factors else None,
    )
    values: dict[str, NDArray[Any]] = {"image": images}
    for outcome in usual_outcomes(factors=bool(model.factors)):
        values |= measured(outcome, images, baseline["image"], context)
    return values
