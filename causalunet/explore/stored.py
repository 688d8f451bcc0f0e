"""What a store has to look at, read when it is first asked for, and kept where it is small."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from causalunet.analysis.selection import outcomes
from causalunet.analysis.sweeps import sweeps
from causalunet.dims import INTERVENTION, SAMPLE, STEP, TOKEN
from causalunet.errors import StoreError
from causalunet.explore.rows import Row, read_rows

__all__ = ["Stored"]

_MAPS = (".maps", ".logits")


class Stored:
    """Opened results, with what can be chosen in them.

    Parameters
    ----------
    results : xarray.DataTree
        As `causalunet.open_results` gives it.

    Raises
    ------
    StoreError
        The study has no interventions, and so nothing to compare.
    """

    def __init__(self, results: xr.DataTree) -> None:
        self.results = results
        self.kept: dict[tuple[Hashable, ...], xr.Dataset] = {}  # curves that were looked at
        self.cells = outcomes(results)
        self.baseline = results["baseline"].to_dataset()
        if not self.cells.sizes[INTERVENTION]:
            raise StoreError("The study has no interventions to look at; causalunet.report writes what it recorded.")

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Interventions, in the order of the study."""
        return read_rows(self.cells)

    @cached_property
    def rows_by_label(self) -> dict[str, Row]:
        """The same, by label."""
        return {row.label: row for row in self.rows}

    @cached_property
    def samples(self) -> list[int]:
        """Coordinates of the samples."""
        return [int(sample) for sample in self.baseline[SAMPLE].values]

    @cached_property
    def steps(self) -> list[int]:
        """T ... 1."""
        return [int(step) for step in self.baseline[STEP].values]

    @cached_property
    def outcomes(self) -> list[str]:
        """Variables with one number per cell and a direction, those of every study first."""
        found = [
            str(name)
            for name, array in self.cells.data_vars.items()
            if set(array.dims) == {INTERVENTION, SAMPLE} and array.attrs.get("better") in ("higher", "lower")
        ]
        return sorted(found, key=lambda name: (name != "ssim", name != "psnr", name))

    @cached_property
    def sweeps(self) -> dict[str, list[str]]:
        """Names to labels of interventions that are alike in everything but their start."""
        return {name: selection[INTERVENTION] for name, selection in sweeps(self.cells).items()}

    @cached_property
    def maps(self) -> dict[str, xr.Dataset]:
        """Recorded attention maps and logits, by their place."""
        if "activations" not in self.results.children:
            return {}
        groups = self.results["activations"].children
        return {name: groups[name].to_dataset() for name in groups if name.endswith(_MAPS)}

    def tokens(self, place: str) -> int:
        """Number of tokens that the maps of a place ask; 0 where there are none."""
        return int(self.maps[place].sizes.get(TOKEN, 0)) if place in self.maps else 0

    @cached_property
    def factors(self) -> dict[str, list[str]]:
        """Factors with the names of their values; empty where the model has no reader."""
        named: Any = self.results.attrs.get("factors")
        return dict(named) if named and "factor_code" in self.cells.data_vars else {}

    @cached_property
    def views(self) -> list[str]:
        """What there is to look at, as far as the study has it."""
        told = {"factors": bool(self.factors), "attention": bool(self.maps)}
        every = ("curves", "images", "factors", "trajectory", "attention", "plan", "audit")
        return [view for view in every if told.get(view, True)]

    def at(self, label: str) -> int:
        """Position of an intervention."""
        return list(self.rows_by_label).index(label)

    def prompt(self, sample: int) -> str:
        """Prompt of a sample; empty for none."""
        return str(self.baseline["prompt"].values[self.samples.index(sample)])

    def seed(self, sample: int) -> int:
        """Seed of a sample."""
        return int(np.asarray(self.baseline["seed"].values)[self.samples.index(sample)])
