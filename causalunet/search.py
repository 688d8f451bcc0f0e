"""Searching a study for the frontier of an effect by bisection, instead of running all of it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.bisection import bisection
from causalunet.analysis.criteria import Criterion
from causalunet.analysis.direction import BETTER
from causalunet.design.families import Axis, Family, families
from causalunet.errors import SpecError
from causalunet.plan import BASELINE, Plan, make_plan
from causalunet.progress import show_progress

if TYPE_CHECKING:
    from causalunet.models.base import DiffusionModel

__all__ = ["search_plan"]

_READING = "a member that passes while the next harder one fails; the sweep's frontier if passing is monotone"
_ANSWER = {
    "start": ("step", "earliest start step without visible effect"),
    "length": ("length", "most consecutive steps without visible effect"),
    "relax": ("relax", "fewest steps between cuts without visible effect"),
}


def search_plan(
    plan: Plan,
    model: DiffusionModel,
    path: str | Path,
    *,
    by: Axis,
    criterion: Criterion,
    memory: int,
    overwrite: bool = False,
    source: dict[str, Any] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Find the frontier of every family of a study's interventions.

    Parameters and result are those of `causalunet.Study.search`, with the plan of the whole study.
    """
    found = families(plan.spec.interventions, by)
    if plan.spec.record.activations or plan.spec.record.summary:
        raise SpecError("A search records no activations; leave out record=, or run the study.")
    if criterion.variable not in BETTER:
        raise SpecError(
            f"A search measures {', '.join(BETTER)} while it runs, and {criterion} asks for {criterion.variable!r}. "
            "Run the study, add the outcome to its results, and ask first_redundant_step or longest_window."
        )
    criterion.passes(np.ones(plan.samples))  # too few samples for it are told here, before anything runs
    searches = [_Search(family) for family in found]
    from causalunet.execute.branches import Branches
    from causalunet.execute.runner import Runner

    with show_progress("U-Net calls", None, shown=progress) as shown:
        runner = Runner(plan, model, path, memory=memory, overwrite=overwrite, source=source)
        runner.advance, runner.say = shown.advance, shown.say
        branches = Branches(runner, plan, model, memory)
        branches.baseline()
        while asking := [search for search in searches if search.asked is not None]:
            members = sorted({search.member for search in asking})
            values = dict(zip(members, branches.run(members, criterion.variable), strict=True))
            for search in asking:
                search.answer(values[search.member], criterion)
    members = [index for family in found for index in family.members]
    every = make_plan(plan.spec, plan.anatomy, plan.schedule, plan.image_shape, runs=(BASELINE, *members)).unet_calls
    counts = {
        "unet_calls": branches.unet_calls,
        "unet_calls_run": runner.unet_calls_run,
        "unet_calls_sweep": every,
    }
    asked, offered = sum(len(search.values) for search in searches), len(members)
    shown.say(
        f"Search by {by}: {asked} of {offered} interventions asked, {branches.unet_calls:,} U-Net calls instead of "
        f"the sweep's {every:,} ({every / branches.unet_calls:.1f} times fewer)."
    )
    return _dataset(searches, by, criterion, counts)


class _Search:
    """The bisection of one family, and what was measured on the way."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.values: dict[int, NDArray[np.float64]] = {}
        self.found = -1
        self._asking: Generator[int, bool, int] = bisection(len(family.members))
        self.asked: int | None = next(self._asking)

    @property
    def member(self) -> int:
        """Index in the study of the intervention asked for."""
        return self.family.members[self.asked if self.asked is not None else 0]

    def answer(self, values: NDArray[np.float64], criterion: Criterion) -> None:
        """Take the outcomes of the intervention asked for, (sample,)."""
        if self.asked is None:
            return
        self.values[self.asked] = values
        try:
            self.asked = self._asking.send(bool(criterion.passes(values)))
        except StopIteration as done:
            self.asked, self.found = None, done.value


def _dataset(searches: Sequence[_Search], by: Axis, criterion: Criterion, counts: dict[str, int]) -> xr.Dataset:
    answer, meaning = _ANSWER[by]
    shape = (len(searches), max(len(search.family.members) for search in searches))
    statistic, candidates = np.full(shape, np.nan), np.full(shape, np.nan)
    for row, search in enumerate(searches):
        candidates[row, : len(search.family.members)] = search.family.values
        for column, values in search.values.items():
            statistic[row, column] = float(criterion.statistic(values))
    points = [search.family.values[search.found] if search.found >= 0 else np.nan for search in searches]
    names = dict.fromkeys(name for search in searches for name in search.family.common)
    common: dict[str, Any] = {
        name: ("family", [search.family.common.get(name, "" if name == "kind" else 0) for search in searches])
        for name in names
    }
    return xr.Dataset(
        {
            answer: ("family", np.array(points, dtype=np.float64), {"long_name": meaning, "units": "1"}),
            "asked": ("family", [len(search.values) for search in searches], {"units": "1"}),
            "candidates": (("family", "candidate"), candidates, {"units": "1"}),
            "statistic": (("family", "candidate"), statistic, {"long_name": str(criterion)}),
        },
        coords={"family": [search.family.name for search in searches], **common},
        attrs={"criterion": str(criterion), "by": by, "reading": _READING, **counts},
    )
