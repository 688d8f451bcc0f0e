"""How many rows go through the U-Net at once, and how many samples through a study at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from causalunet.design.anatomy import Anatomy
from causalunet.errors import MemoryExhaustedError
from causalunet.plan import BASELINE, Action, Plan, Stretch
from causalunet.tree import widths_of

__all__ = ["MicroBatch", "mean_batch_size", "micro_batch_size", "out_of_memory", "places_asked", "samples_per_block"]

_TENSORS_PER_BLOCK = 8  # outputs, normalised copies and convolution workspace alive around one block
_TENSORS_PER_MAP = 4  # logits and maps, each before an edit and after
_MOST_ROWS = 64  # a CPU gains nothing beyond, and a progress bar should move


@dataclass
class MicroBatch:
    """Samples per U-Net call; less once memory ran out.

    Parameters
    ----------
    samples : int
    """

    samples: int

    def halve(self, error: BaseException) -> None:
        """Go on with half as many.

        Raises
        ------
        MemoryExhaustedError
            There was only one.
        """
        if self.samples == 1:
            raise MemoryExhaustedError(
                "Not even one sample of a U-Net call fits into memory, or one image of a decoder. Free some, or run "
                "on a machine with more; what was committed stays, and the same command goes on after it."
            ) from error
        self.samples = (self.samples + 1) // 2  # for good: the next batch would run out of memory as this one did
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says that memory ran out."""
    seen: set[int] = set()
    # nnsight and user code wrap what the allocator raised, and an error can be behind itself.
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text):
            return True
        error = error.__cause__ or error.__context__
    return False


def micro_batch_size(anatomy: Anatomy, budget: int, rows_per_sample: int, places: Iterable[str] = ()) -> int:
    """Samples per U-Net call that keep activations under a memory budget.

    Parameters
    ----------
    anatomy : Anatomy
    budget : int
        Bytes, from `budget_of`.
    rows_per_sample : int
        Two under guidance.
    places : iterable of str
        That are edited, recorded or kept, from `places_asked`: what is inside components counts beside these, and
        logits and maps of attention several times over, since no module need hold them.
    """
    shapes = [component.shape for component in anatomy.components]
    largest = max(math.prod(shape) for shape in shapes)
    # Outputs of the encoder stay alive until the decoder has taken them; of all else a few tensors live at once.
    kept = sum(math.prod(component.shape) for component in anatomy.components if component.role == "encoder")
    inside = [anatomy.inner_by_name[name] for name in {*places} & anatomy.inner_by_name.keys()]
    held = sum(math.prod(place.shape) for place in inside if not place.weight)
    maps = max((math.prod(place.shape) for place in inside if place.attention), default=0)
    row = 4 * (kept + _TENSORS_PER_BLOCK * largest + held + _TENSORS_PER_MAP * maps)
    return max(1, min(_MOST_ROWS, budget // row) // rows_per_sample)


def places_asked(plan: Plan) -> frozenset[str]:
    """Places that the calls of a plan edit, record or keep.

    Parameters
    ----------
    plan : Plan
    """
    recorded = plan.spec.record.places(plan.anatomy)
    edited = {
        placed.site.component
        for program in plan.programs.values()
        for span in program
        for placed in span.action.every_fill
    }
    return frozenset(edited | {*recorded} | {kept.place for kept in plan.kept})


def samples_per_block(plan: Plan, budget: int, micro_batch: int) -> int:
    """Samples that go through all interventions together, between two writes of finished cells.

    Few, so that an interrupted run loses little; enough that the mean call is filled, unless that is more than a plan's
    ``part_cells`` or ``part_flops``; and never more than fit into the budget with every live state and prediction.
    """
    state, image = (4 * math.prod(shape) for shape in (plan.image_shape, plan.bound.picture_shape))
    # Blocks are made for one group of interventions: groups go through a block one after another.
    together = min(len(plan.spec.interventions), plan.group)
    share = together / max(1, len(plan.spec.interventions)) or 1.0
    parted = min(plan.part_cells / max(1, together), plan.part_flops * plan.samples / max(1, plan.flops * share))
    runs = 1 + together + len(plan.sources.lowest)
    widest = min(runs, plan.widest_step)
    # What the earlier calls of a step gave is kept until its last.
    kept = 4 + 3 * (plan.most_calls - 1)
    fit = budget // (state * (kept * widest + 3 * plan.schedule.steps) + image * 2 * runs + plan.kept_bytes)
    mean_calls = min(plan.calls_per_sample / plan.schedule.steps, runs)
    filled = math.ceil(micro_batch / mean_calls)
    return max(1, int(min(plan.samples, fit, filled, parted)))


def mean_batch_size(plan: Plan, budget: int, micro_batch: int) -> int:
    """Samples in the mean U-Net call of a run: a small study fills no call, and the last of an action is seldom full.

    Parameters
    ----------
    plan : Plan
    budget : int
        Bytes.
    micro_batch : int
        The most samples of a call.
    """
    block = samples_per_block(plan, budget, micro_batch)
    alike: dict[tuple[Action, int], list[Stretch]] = {}
    for stretch in plan.stretches:
        group = 0 if stretch.replays or stretch.runs[0] <= BASELINE else stretch.runs[0] // plan.group
        alike.setdefault((stretch.action, group), []).append(stretch)
    # Only calls of one action and group go together; how many do changes where a stretch begins or ends.
    widths = [width for stretches in alike.values() for width in widths_of(stretches)]
    calls = sum(steps * math.ceil(block * width / micro_batch) for steps, width in widths)
    return max(1, round(block * sum(map(len, plan.stretches)) / calls))
