"""How much is at stake: how large the parts of a study are, and when what was run is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from causalunet.execute.fill.parts import Part
from causalunet.models.devices import device_of
from causalunet.plan import Plan

__all__ = ["CELLS", "SECONDS", "Pace", "paced", "portions"]

SECONDS = 10.0
"""What one commit to the next should take at most."""
CELLS = 64
"""Cells that are committed together at most."""

_COMMITS = 1000  # of a long study: each makes the store's list of chunks anew, and a store keeps them all
_MORE_CALLS = 1.02  # times as many U-Net calls as in parts of all interventions
_CORE, _MOST_CORES = 50e9, 4  # operations a second of a core in small batches; more cores help such batches little
_ACCELERATOR = 10e12


def paced(plan: Plan) -> Plan:
    """The plan of a study in parts that take about `SECONDS` and have at most `CELLS` cells.

    How long a part takes is reckoned from its operations and not from a clock, so that a study is cut alike whenever
    it is run on a machine, and its numbers are the same to the last bit. Samples are parted first; interventions only
    where a single sample takes longer, and as long as that adds hardly any U-Net call, since they share some. A part
    may be as large as the thousandth of a study.

    Parameters
    ----------
    plan : Plan
        Of the whole study.
    """
    interventions = max(1, len(plan.spec.interventions))
    cells = max(CELLS, interventions * plan.samples // _COMMITS)
    flops = max(SECONDS * _speed(device_of(plan.bound.model)), plan.flops / _COMMITS)
    chosen = group = plan.group
    while group > 1 and (min(group, interventions) > cells or _flops(plan, group) > flops):
        group //= 2
        if plan.calls_if_grouped(group) > _MORE_CALLS * plan.calls_per_sample:
            break
        chosen = group
    cut = plan if chosen == plan.group else plan.grouped(chosen)
    return replace(cut, part_cells=cells, part_flops=flops)


def portions(part: Part, plan: Plan) -> Iterator[Part]:
    """Cut a part by samples, into as many as it takes.

    Parameters
    ----------
    part : Part
    plan : Plan
        Of that part, from the plan of a study that was `paced`.
    """
    cells = plan.part_cells // max(1, len(part.interventions))
    most = max(1, int(min(cells, plan.part_flops * plan.samples / max(1, plan.flops))))
    for start in range(part.samples.start, part.samples.stop, most):
        yield replace(part, samples=slice(start, min(start + most, part.samples.stop)))


class Pace:
    """When what was run is committed: before more than some cells, or more than some seconds of work, are at stake.

    Parameters
    ----------
    seconds : float
    cells : int
    clock : callable
        Gives the time in seconds.
    """

    def __init__(
        self, seconds: float = SECONDS, cells: int = CELLS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._most, self._clock = seconds, cells, clock
        self._cells, self._last, self._begun = 0, 0.0, 0.0
        self._since: float | None = None

    def begin(self) -> None:
        """Note that a part is begun."""
        self._begun = self._clock()
        self._since = self._begun if self._since is None else self._since

    def end(self, cells: int) -> None:
        """Note that the part was run."""
        self._cells += cells
        self._last = self._clock() - self._begun

    def due(self, cells: int) -> bool:
        """Whether to commit before a part of some cells is run, which may take as long as the last."""
        if self._since is None:
            return False
        expected = self._clock() - self._since + self._last
        return self._cells + cells > self._most or expected > self._seconds

    def committed(self) -> None:
        """Note that nothing is at stake any more."""
        self._cells, self._since = 0, None


def _speed(device: torch.device) -> float:
    return _CORE * min(torch.get_num_threads(), _MOST_CORES) if device.type == "cpu" else _ACCELERATOR


def _flops(plan: Plan, group: int) -> float:
    """Operations of a part of one sample."""
    return plan.flops / plan.samples * min(1.0, group / max(1, len(plan.spec.interventions)))
