"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr
from rich.table import Table
from rich.text import Text

from causalunet.analysis.described import described
from causalunet.analysis.summary import summary_table
from causalunet.design.limits import plain
from causalunet.design.outcomes import Outcome

__all__ = ["cell", "table_by_start"]


def table_by_start(
    results: xr.DataTree,
    selections: Mapping[str, Any] | None = None,
    *,
    variable: str | Outcome = "ssim",
    probability: float = 0.95,
    allow_incomplete: bool = False,
) -> Table:
    """Means with confidence intervals, a row per start step and a column per selection.

    Parameters
    ----------
    results, selections, variable, probability, allow_incomplete
        As for `causalunet.analysis.summary_table`.

    Returns
    -------
    rich.table.Table
        Cells such as "0.912 [0.872, 0.947]"; bounds are rounded outwards. A dash where there is no intervention
        with that start.
    """
    summary = summary_table(
        results, selections, variable=variable, probability=probability, allow_incomplete=allow_incomplete
    )
    told = described(variable, summary["mean"].attrs)
    samples, kind = int(summary["samples"].max()), summary["interval"].attrs["interval_kind"]
    table = Table(
        title=f"Mean {told.label} by start step",
        caption=f"In brackets the {100 * probability:g} % interval ({kind}); n = {samples}",
    )
    table.add_column("start", justify="right")
    for name in summary["selection"].values:
        table.add_column(Text(plain(str(name))), justify="right", overflow="fold")
    for start in summary["start"].values:
        row = summary.sel(start=start)
        cells = zip(row["mean"].values, row["interval"].values, row["samples"].values, strict=True)
        # Text, not str: rich reads brackets as markup.
        table.add_row(str(start), *(Text(cell(mean, bounds, told.digits) if n else "-") for mean, bounds, n in cells))
    return table


def cell(mean: float, bounds: Iterable[float], digits: int) -> str:
    """Mean and interval as text, such as "0.912 [0.872, 0.947]"; bounds are rounded outwards."""
    low, high = (
        _outward(bound, digits, towards) for bound, towards in zip(bounds, (math.floor, math.ceil), strict=True)
    )
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _outward(value: float, digits: int, towards: Any) -> float:
    """Round down or up; what is off the grid by less than 1e-9 is on it."""
    return towards(round(value * 10**digits, 9)) / 10**digits if math.isfinite(value) else value
