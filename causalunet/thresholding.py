"""How far estimates of x_0 may go: as they are, clipped to [-1, 1], or thresholded by their own size.

The arithmetic is that of tensors and of NumPy's arrays alike: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from causalunet.calls import clear_calls
from causalunet.design.limits import is_number, shown
from causalunet.errors import ModelError

__all__ = ["THRESHOLDING", "Thresholding", "bounded"]

THRESHOLDING = "thresholding"
"""Of a model and of what stores say of it."""


@clear_calls
@dataclass(frozen=True, slots=True)
class Thresholding:
    """Dynamic thresholding (Saharia et al. 2022, section 2.3): estimates are clipped to [-s, s], and divided by s.

    s is a quantile of the sizes of each estimate's numbers, and 1 at least, so that estimates end in [-1, 1].

    Parameters
    ----------
    quantile : float
        Above 0, to 1.
    most : float
        The most that s may be, 1 or more; as of ``sample_max_value`` in diffusers. At 1 estimates are clipped.

    Raises
    ------
    ModelError
        One is no such number.
    """

    quantile: float = 0.995
    most: float = 1.0

    def __post_init__(self) -> None:
        if not is_number(self.quantile) or not 0 < self.quantile <= 1 or not is_number(self.most) or self.most < 1:
            raise ModelError(
                f"Thresholding got quantile={shown(self.quantile)} and most={shown(self.most)}; give a share above 0, "
                "to 1, and a number of at least 1."
            )

    def __str__(self) -> str:
        """In words."""
        return f"thresholded at quantile {self.quantile:g}, by {self.most:g} at most"

    def __call__(self, x0: Any) -> Any:
        """Threshold estimates, (sample, ...), each by itself."""
        sizes = abs(x0).reshape(len(x0), -1)
        has = hasattr(sizes, "quantile")  # tensors do
        s = sizes.quantile(self.quantile, 1) if has else np.quantile(sizes, self.quantile, axis=1)
        s = s.clip(1, self.most).reshape(-1, *(1,) * (x0.ndim - 1))
        return x0.clip(-s, s) / s

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any) -> Thresholding:
        """Read what `to_json` wrote.

        Raises
        ------
        ModelError
            It is something else.
        """
        if not isinstance(value, Mapping) or {*value} != {"quantile", "most"}:
            raise ModelError(f"{shown(value)} is no thresholding; it has quantile and most.")
        return Thresholding(**value)


def bounded(model: Any, x0: Any) -> Any:
    """Estimates of x_0 as a model has them: by its ``thresholding``, if it has one, and else clipped where it says so.

    Parameters
    ----------
    model : DiffusionModel
    x0 : Tensor, (sample, channel, y, x)

    Raises
    ------
    ModelError
        Its ``thresholding`` is something else than a `Thresholding`.
    """
    threshold = getattr(model, THRESHOLDING, None)
    if threshold is None:
        return x0.clip(-1, 1) if model.clip else x0
    if not isinstance(threshold, Thresholding):
        raise ModelError(
            f"The model {model.name!r} has thresholding={shown(threshold)}; give a "
            "causalunet.thresholding.Thresholding, such as Thresholding(0.95, 1.5), or None."
        )
    return threshold(x0)
