"""What is stored of a run's images: themselves, how alike they are to the baseline's, and what they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet import metrics
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
    error = metrics.mse(images, baseline["image"])
    reference = metrics.moments(baseline["image"])
    values: dict[str, NDArray[Any]] = {
        "image": images,
        "ssim": np.stack([metrics.ssim(metrics.moments(image), reference) for image in images]),
        "psnr": metrics.psnr(error),
        "mse": error,
    }
    if model.factors:
        flat = images.reshape(-1, *images.shape[2:])
        read, certainty = (part.reshape(*images.shape[:2], -1) for part in model.read_factors(flat))
        values |= {
            "factor_code": read,
            "factor_probability": certainty,
            "factor_changed": read != baseline["factor_code"],
        }
    return values
