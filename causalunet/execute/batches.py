"""How many rows go through the U-Net at once, and how many samples through a study at once."""

from __future__ import annotations

import math

from causalunet.design.anatomy import Anatomy
from causalunet.plan import Plan

__all__ = ["micro_batch_size", "samples_per_block"]

_TENSORS_PER_BLOCK = 8  # outputs, normalised copies and convolution workspace alive around one block
_MOST_ROWS = 64  # a CPU gains nothing beyond, and a progress bar should move


def micro_batch_size(anatomy: Anatomy, budget: int, rows_per_sample: int) -> int:
    """Samples per U-Net call that keep activations under a memory budget.

    Parameters
    ----------
    anatomy : Anatomy
    budget : int
        Bytes.
    rows_per_sample : int
        Two under guidance.
    """
    shapes = [component.shape for component in anatomy.components]
    largest = max(math.prod(shape) for shape in shapes)
    kept = sum(math.prod(component.shape) for component in anatomy.components if component.role == "encoder")
    row = 4 * (kept + _TENSORS_PER_BLOCK * largest)
    return max(1, min(_MOST_ROWS, budget // row) // rows_per_sample)


def samples_per_block(plan: Plan, budget: int, micro_batch: int) -> int:
    """Samples that go through all interventions together, between two writes of finished cells.

    Few, so that an interrupted run loses little; enough that the mean call is filled; and never more than fit into the
    budget with every live state and prediction.
    """
    image = 4 * math.prod(plan.image_shape)
    widest = max(sum(map(len, groups.values())) for groups in plan.by_step.values())
    runs = 1 + len(plan.spec.interventions)
    fit = budget // (image * (4 * widest + 2 * runs))
    mean_calls = len(plan.calls) / plan.schedule.steps
    filled = math.ceil(micro_batch / mean_calls)
    return max(1, min(plan.samples, fit, filled))
