"""Closeness within a run: of what is predicted at one of its steps, told without any image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.limits import is_integer, plain_number, shown
from causalunet.design.outcomes.base import Better, Outcome, OutcomeContext
from causalunet.errors import SpecError

__all__ = ["EstimateDistance", "NoiseDistance", "StepDistance"]


@dataclass(frozen=True, slots=True)
class StepDistance(Outcome):
    """A stored distance to the baseline, at one step.

    Parameters
    ----------
    step : int
        In T ... 1.
    """

    better: ClassVar[Better | None] = "lower"
    limits: ClassVar[tuple[float, float]] = (0.0, math.inf)
    of_images: ClassVar[bool] = False
    step: int

    def __post_init__(self) -> None:
        step = plain_number(self.step)
        if not is_integer(step) or step < 1:
            raise SpecError(f"{type(self).__name__} got step={shown(self.step)}; steps are integers from T down to 1.")
        object.__setattr__(self, "step", step)

    @property
    def variable(self) -> str:
        """With the step: a study may ask for several."""
        return f"{self.name}_{self.step}"

    def check(self, image_shape: tuple[int, ...], steps: int) -> None:
        """Raise `causalunet.SpecError` if runs have no such step."""
        if self.step > steps:
            raise SpecError(f"{type(self).__name__} asks for step {self.step}; the run has the steps {steps} ... 1.")

    def measure(
        self, images: NDArray[np.float32], baseline: NDArray[np.float32], context: OutcomeContext
    ) -> NDArray[np.float32]:
        """The distance of each run.

        Raises
        ------
        SpecError
            A run skips the step.
        """
        distances = context.stored[self.reads[0]]
        found: NDArray[np.float32] = distances[..., distances.shape[-1] - self.step]
        if np.isnan(found).any():
            raise SpecError(f"there is no U-Net call at step {self.step}, which the run skips")
        return found


@clear_calls
@dataclass(frozen=True, slots=True)
class EstimateDistance(StepDistance):
    """RMS difference of the estimate of x_0 at a step to the baseline's: what a cut has done by then.

    Parameters
    ----------
    step : int
        In T ... 1.
    """

    name: ClassVar[str] = "x0_distance"
    title: ClassVar[str] = "RMS difference of x0_hat"
    meaning: ClassVar[str] = "RMS difference of x0_hat to the baseline's"
    definition: ClassVar[str] = (
        "Root of the mean squared difference between the estimate of x_0 at the step and the baseline's, over channels "
        "and pixels, on the scale of x_0, which is [-1, 1] for pixel models."
    )
    reads: ClassVar[tuple[str, ...]] = ("trajectory/x0_distance",)


@clear_calls
@dataclass(frozen=True, slots=True)
class NoiseDistance(StepDistance):
    """RMS difference of the guided prediction of noise at a step to the baseline's.

    Parameters
    ----------
    step : int
        In T ... 1.
    """

    name: ClassVar[str] = "eps_distance"
    title: ClassVar[str] = "RMS difference of eps"
    meaning: ClassVar[str] = "RMS difference of guided eps to the baseline's"
    definition: ClassVar[str] = (
        "Root of the mean squared difference between the guided prediction of noise at the step and the baseline's, "
        "over channels and pixels, in standard deviations of the noise."
    )
    reads: ClassVar[tuple[str, ...]] = ("trajectory/eps_distance",)
