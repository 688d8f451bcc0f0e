"""From the rows of a U-Net call to one prediction per sample."""

from __future__ import annotations

from torch import Tensor

from causalunet.design.guidance import Guidance
from causalunet.prediction import Prediction

__all__ = ["guided"]


def guided(output: Tensor, guidance: Guidance, prediction: Prediction) -> tuple[Tensor, Tensor | None]:
    """Put the branches of a U-Net's output together.

    Parameters
    ----------
    output : Tensor, (branch * sample, channel, y, x)
        Rows of the first branch, then those of the next.
    guidance : Guidance
    prediction : Prediction
        What the model's U-Net puts out.

    Returns
    -------
    Tensor, (sample, channel, y, x)
        What is predicted.
    Tensor, (sample, channel, y, x), or None
        Fraction of the variance, of the first branch.
    """
    branches = [prediction.split(rows) for rows in output.chunk(len(guidance.branches))]
    return guidance.combine([value for value, _ in branches]), branches[0][1]
