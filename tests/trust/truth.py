"""What an uninterrupted run stored, and the comparison of other stores with it, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import causalunet as cu
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.plan import BASELINE
from causalunet.results.meaning.declaration import ORDINARY
from causalunet.results.meaning.schema import COMPLETE
from tests.trust.children import Cell

CLOCK = {"audit/seconds"}
"""Differs from run to run."""
GROWING = {"audit/unet_calls", "audit/drift", "audit/null_difference"}
"""Written again by every part of a sample, or by one of them."""

Values = dict[str, tuple[tuple[str, ...], NDArray[Any]]]


def read(results: xr.DataTree) -> Values:
    """Every variable and coordinate: dimensions and values, by path."""
    found: Values = {}
    for node in results.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            found[f"{node.path.strip('/')}/{name}"] = (tuple(map(str, variable.dims)), np.asarray(variable.values))
    return found


@dataclass
class Seen:
    """What a reader saw.

    Attributes
    ----------
    cells : set of Cell
        Complete ones, with the baselines.
    wrong : list of str
        Differences to the truth.
    whole : bool
        Whether nothing is missing.
    """

    cells: set[Cell] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    whole: bool = False


class Truth:
    """The values that every store of the study must hold where it says that it holds any.

    Parameters
    ----------
    path : Path
        Store of an uninterrupted run.
    seconds : float
        That the run took.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self.values = read(cu.open_results(path))

    def compare(self, results: xr.DataTree) -> Seen:
        """Compare everything that a store shows, with the truth and with its history."""
        there = read(results)
        seen = self.compare_values(there)
        if isinstance(results, cu.results.Results) and results.source.commit:  # exports have no history
            self._count(results, there, seen)
        return seen

    def compare_values(self, there: Values) -> Seen:
        """Complete cells are right, and of the others nothing is there."""
        seen = Seen()
        if there.keys() != self.values.keys():
            seen.wrong.append(f"other arrays: {sorted(there.keys() ^ self.values.keys())}")
            return seen
        cells, baselines = there["outcomes/status"][1] == COMPLETE, there["baseline/status"][1] == COMPLETE
        seen.cells = {(int(run), int(sample)) for run, sample in np.argwhere(cells)}
        seen.cells |= {(BASELINE, int(sample)) for sample in np.flatnonzero(baselines)}
        seen.whole = bool(cells.all() and baselines.all())
        for path, (dims, values) in there.items():
            if path in CLOCK or (path in GROWING and not seen.whole):
                continue
            if dims[:2] == (INTERVENTION, SAMPLE):
                mask = cells
            elif dims[:1] == (SAMPLE,) and ORDINARY.variable_at(path) is not None:
                mask = baselines
            else:
                mask = np.ones(values.shape[:1], bool)
            self._compare(path, values, self.values[path][1], mask, seen)
        return seen

    @staticmethod
    def _compare(path: str, values: NDArray[Any], true: NDArray[Any], mask: NDArray[np.bool_], seen: Seen) -> None:
        if not same(values[mask], true[mask]):
            seen.wrong.append(f"{path} differs")
        rest = values[~mask]
        if rest.size and not (np.isnan(rest).all() if rest.dtype.kind == "f" else not rest.astype(bool).any()):
            seen.wrong.append(f"{path} holds something of cells that are not complete")

    @staticmethod
    def _count(results: cu.results.Results, there: Values, seen: Seen) -> None:
        """History and arrays agree on how many cells there are, so none was committed twice."""
        commits = results.history()  # of now: another process may have gone on since the results were opened
        ids = [commit.id for commit in commits]
        history = [commit.added for commit in commits[ids.index(results.source.commit) :]]
        cells = sum(added.get("cells", 0) + added.get("baselines", 0) for added in history)
        if cells != len(seen.cells):
            seen.wrong.append(f"{cells} cells were committed and {len(seen.cells)} are there")
        calls = sum(added.get("unet_calls", 0) for added in history)
        if calls != there["audit/unet_calls"][1].sum():
            seen.wrong.append(f"history counts {calls} U-Net calls, the store {there['audit/unet_calls'][1].sum()}")


def same(one: NDArray[Any], two: NDArray[Any]) -> bool:
    """Whether two arrays are equal bit for bit."""
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    return one.tolist() == two.tolist() if one.dtype.kind in "TOU" else one.tobytes() == two.tobytes()
