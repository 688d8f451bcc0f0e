"""Searching a study for the frontier of an effect by bisection, instead of running all of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.bisection import bisection
from causalunet.analysis.criteria import Criterion
from causalunet.design.families import Axis, Family, families
from causalunet.design.outcomes import usual_outcomes
from causalunet.errors import SpecError
from causalunet.plan import BASELINE, Plan
from causalunet.progress import show_progress

__all__ = ["search_plan"]

_READING = "a member that passes while the next harder one fails; the sweep's frontier if passing is monotone"
_LEFT_OUT = (
    "The search left such samples out of the judgement of their family, and took an intervention that has too few "
    "others for one that does not pass; 'samples' and 'failed' of its result count them. "
)
_ANSWER = {
    "start": ("step", "earliest start step without visible effect"),
    "length": ("length", "most consecutive steps without visible effect"),
    "relax": ("relax", "fewest steps between cuts without visible effect"),
}


def search_plan(
    plan: Plan,
    path: str | Path,
    *,
    by: Axis,
    criterion: Criterion,
    memory: int | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    source: dict[str, Any] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Find the frontier of every family of a study's interventions.

    Parameters and result are those of `causalunet.Study.search`, with the plan of the whole study.
    """
    found = families(plan.spec.interventions, by)
    if plan.spec.record.activations or plan.spec.record.summary:
        raise SpecError("A search records no activations; leave out record=, or run the study.")
    if criterion.variable not in (measured := _measured(plan)):
        raise SpecError(
            f"A search measures {', '.join(measured)} while it runs, and {criterion} asks for {criterion.variable!r}. "
            "Run the study, add the outcome to its results, and ask first_redundant_step or longest_window."
        )
    criterion.passes(np.ones(plan.samples))  # too few samples for it are told here, before anything runs
    searches = [_Search(family, criterion) for family in found]
    from causalunet.execute.fill.on_demand import RunsOnDemand
    from causalunet.execute.fill.run_plan import told_what_is_safe
    from causalunet.execute.fill.store_filler import StoreFiller

    with show_progress("U-Net calls", None, shown=progress) as shown:
        runner = StoreFiller(plan, path, memory=memory, overwrite=overwrite, retry_failed=retry_failed, source=source)
        runner.advance, runner.say = shown.advance, shown.say
        branches = RunsOnDemand(runner, plan)
        with told_what_is_safe(runner):
            branches.baseline()
            while asking := [search for search in searches if search.asked is not None]:
                members = sorted({search.member for search in asking})
                values = dict(zip(members, branches.run(members, criterion.variable), strict=True))
                for search in asking:
                    search.answer(values[search.member])
    members = [index for family in found for index in family.members]
    every = plan.part((BASELINE, *members)).unet_calls
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
    branches.warn_of_failures(_LEFT_OUT)
    return _dataset(searches, by, criterion, counts)


def _measured(plan: Plan) -> list[str]:
    """Variables with one number per cell that are measured of every run."""
    outcomes = (*usual_outcomes(factors=bool(plan.bound.model.factors)), *plan.spec.outcomes)
    return [one.name for outcome in outcomes for one in outcome.variables if not one.dims]


class _Search:
    """The bisection of one family, and what was measured on the way.

    Members are compared on the same samples: those of which none of them failed.
    """

    def __init__(self, family: Family, criterion: Criterion) -> None:
        self.family, self._criterion = family, criterion
        self.values: dict[int, NDArray[np.float64]] = {}
        self.found = -1
        self.asked: int | None = 0

    @property
    def member(self) -> int:
        """Index in the study of the intervention asked for."""
        return self.family.members[self.asked if self.asked is not None else 0]

    @property
    def samples(self) -> NDArray[np.bool_]:
        """Which samples are judged by: those that failed in no member, (sample,).

        Members that have too few samples to be judged do not pass, and take none from the others.
        """
        shown = [there for values in self.values.values() if self._enough(there := ~np.isnan(values))]
        return np.logical_and.reduce(shown) if shown else np.zeros(len(next(iter(self.values.values()))), bool)

    def statistic(self, member: int) -> float:
        """What the criterion makes of a member, NaN where it has too few samples."""
        values = self.values[member][self.samples]
        return float(self._criterion.statistic(values)) if self._judged(values) else np.nan

    def answer(self, values: NDArray[np.float64]) -> None:
        """Take the outcomes of the intervention asked for, (sample,), NaN where it failed."""
        if self.asked is None:
            return
        self.values[self.asked] = values
        # From the beginning: samples that failed now no longer count for what was judged before.
        asking = bisection(len(self.family.members))
        asked = next(asking)
        try:
            while asked in self.values:
                asked = asking.send(self._passes(asked))
            self.asked = asked
        except StopIteration as done:
            self.asked, self.found = None, done.value

    def _passes(self, member: int) -> bool:
        values = self.values[member][self.samples]
        return self._judged(values) and bool(self._criterion.passes(values))

    def _judged(self, values: NDArray[np.float64]) -> bool:
        return self._enough(there := ~np.isnan(values)) and bool(there.all())

    def _enough(self, there: NDArray[np.bool_]) -> bool:
        return int(there.sum()) >= self._criterion.fewest


def _dataset(searches: Sequence[_Search], by: Axis, criterion: Criterion, counts: dict[str, int]) -> xr.Dataset:
    answer, meaning = _ANSWER[by]
    shape = (len(searches), max(len(search.family.members) for search in searches))
    statistic, candidates, failed = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.int64)
    for row, search in enumerate(searches):
        candidates[row, : len(search.family.members)] = search.family.values
        for column, values in search.values.items():
            statistic[row, column], failed[row, column] = search.statistic(column), np.isnan(values).sum()
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
            "samples": ("family", [search.samples.sum() for search in searches], {"long_name": "samples judged by"}),
            "candidates": (("family", "candidate"), candidates, {"units": "1"}),
            "statistic": (("family", "candidate"), statistic, {"long_name": str(criterion)}),
            "failed": (("family", "candidate"), failed, {"long_name": "samples of which it failed"}),
        },
        coords={"family": [search.family.name for search in searches], **common},
        attrs={"criterion": str(criterion), "by": by, "reading": _READING, **counts},
    )
