"""What the images of runs show, told by the model's factor reader."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.outcomes.base import Outcome, OutcomeContext, OutcomeVariable, ReadFactors
from causalunet.design.outcomes.dims import OutcomeDim
from causalunet.dims import DIMS, FACTOR
from causalunet.errors import SpecError

__all__ = ["FactorReading"]

_OF_BASELINE = "baseline/factor_code"
_NO_READER = "Factors are read by the model's own reader, and the model has none: the embedded model 'shapes' has."

_DEFINITION = (
    "Most probable value of each factor, such as colour and shape, by the reader that comes with the model, and the "
    "probability that it gives that value."
)


@clear_calls
@dataclass(frozen=True, slots=True)
class FactorReading(Outcome):
    """What each image shows, as the model's factor reader tells it, and whether that is what the baseline shows.

    It has three variables, one number of each per factor: ``factor_code``, ``factor_probability``, ``factor_changed``.
    `causalunet.analysis.factor_changes` makes shares of samples of them.
    """

    name: ClassVar[str] = "factors"
    definition: ClassVar[str] = _DEFINITION
    reads: ClassVar[tuple[str, ...]] = (_OF_BASELINE,)

    @property
    def variables(self) -> tuple[OutcomeVariable, ...]:
        """Code, probability and change."""
        code = "most probable value of each factor, as an index"
        changed = "whether another value is read than in the baseline image"
        told = (
            ("factor_code", code, "int8", (0.0, math.inf)),
            ("factor_probability", "probability of that value", "float32", (0.0, 1.0)),
            ("factor_changed", changed, "bool", (0.0, 1.0)),
        )
        return tuple(
            OutcomeVariable(
                name=name, meaning=meaning, definition=_DEFINITION, dims=(FACTOR,), dtype=dtype, limits=limits
            )
            for name, meaning, dtype, limits in told
        )

    def brings(self, image_shape: tuple[int, ...], factors: Mapping[str, Sequence[str]]) -> tuple[OutcomeDim, ...]:
        """The factors that the model reads.

        Raises
        ------
        SpecError
            It reads none.
        """
        if not factors:
            raise SpecError(_NO_READER)
        return (OutcomeDim(name=FACTOR, labels=tuple(factors), meaning=DIMS[FACTOR]),)

    def of_baseline(self, baseline: NDArray[np.float32], context: OutcomeContext) -> Mapping[str, NDArray[Any]]:
        """Code and probability, with which every run's are compared."""
        code, probability = _reader(context)(baseline)
        return {"factor_code": code, "factor_probability": probability}

    def measure(
        self, images: NDArray[np.float32], baseline: NDArray[np.float32], context: OutcomeContext
    ) -> Mapping[str, NDArray[Any]]:
        """Read the images of runs, and those of the baseline unless they were read already.

        Raises
        ------
        SpecError
            There is no reader.
        """
        reader = _reader(context)
        read_before = context.stored.get(_OF_BASELINE)
        if read_before is None:
            read_before, _ = reader(baseline)
        read, certainty = reader(images.reshape(-1, *images.shape[2:]))
        code, probability = (part.reshape(*images.shape[:2], -1) for part in (read, certainty))
        return {"factor_code": code, "factor_probability": probability, "factor_changed": code != read_before}


def _reader(context: OutcomeContext) -> ReadFactors:
    if context.read_factors is None:
        raise SpecError(_NO_READER)
    return context.read_factors
