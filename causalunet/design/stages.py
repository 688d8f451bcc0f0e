"""Which of the U-Net calls of a step edits are made in: all, or the one that their window names as its stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.limits import shown
from causalunet.errors import SpecError

if TYPE_CHECKING:
    from causalunet.design.interventions import Edit

__all__ = ["check_stages", "in_stage", "stages_apart", "stages_of", "times_edited"]


def stages_apart(one: Edit, other: Edit) -> bool:
    """Whether two edits are of different calls of their steps."""
    stages = one.window.stage, other.window.stage
    return None not in stages and stages[0] != stages[1]


def stages_of(edits: Iterable[Edit]) -> range:
    """Calls of a step that are told apart by what is edited; the last one stands for all that follow it."""
    return range(max((edit.window.stage + 2 for edit in edits if edit.window.stage is not None), default=1))


def in_stage(edits: Iterable[Edit], stage: int) -> list[Edit]:
    """Edits that are made in one call of a step."""
    return [edit for edit in edits if edit.window.stage in (None, stage)]


def times_edited(edits: Iterable[Edit], made: NDArray[Any], places: Sequence[str]) -> NDArray[np.uint8]:
    """How often the edits of a run are to apply: once in every call that they are of, and once for each jump.

    Parameters
    ----------
    edits : iterable of Edit
        Of one run.
    made : ndarray of int, (step,)
        U-Net calls of the run at every step, T first.
    places : sequence of str
        Every place that is edited, and others.

    Returns
    -------
    ndarray of uint8, (step, place)
    """
    steps = len(made)
    every, single = np.zeros((steps, len(places)), bool), dict[int, NDArray[np.bool_]]()
    for edit in edits:
        stage = edit.window.stage
        found = every if stage is None else single.setdefault(stage, np.zeros_like(every))
        for part in edit.window.parts:
            found[steps - part.start : steps - part.stop + 1, places.index(edit.component)] = True
    # A place that several edits have parts of is edited once in a call.
    counts = [of_stage & (stage < made[:, None]) & ~every for stage, of_stage in single.items()]
    often = np.where(every, made[:, None], sum(counts, np.zeros_like(every, np.int64)))
    if "unet" in places:
        often[:, places.index("unet")] = every[:, places.index("unet")]
    return often.astype(np.uint8)


def check_stages(label: str, edits: Iterable[Edit], made: NDArray[Any], sampler: str) -> None:
    """Check that the calls which edits are of are made.

    Parameters
    ----------
    label : str
        Of the intervention.
    edits : iterable of Edit
    made : ndarray of int, (step,)
        U-Net calls of its run at every step, T first.
    sampler : str
        Name of the sampler.

    Raises
    ------
    SpecError
        A step has fewer calls.
    """
    for edit in edits:
        stage, steps = edit.window.stage, len(made)
        if stage is None:
            continue
        lacking = [step for step in edit.window if made[steps - step] <= stage]
        if lacking:
            calls = int(made[steps - lacking[0]])
            stages = "stage 0 alone" if calls == 1 else f"the stages 0 ... {calls - 1}"
            raise SpecError(
                f"{shown(label)} edits stage {stage} of step {lacking[0]}, and under the sampler {shown(sampler)} that "
                f"step takes {calls} U-Net call{'s' * (calls > 1)}: it has {stages}. Give another stage, a window "
                "without such steps, or no stage, to edit all calls."
            )
