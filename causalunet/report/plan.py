"""Plan: what an intervention leaves out, step by step (figure 11)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalunet.analysis.selection import select_interventions
from causalunet.design.fills import Zero
from causalunet.design.interventions import Edit, Intervention
from causalunet.errors import SpecError
from causalunet.report.style import legend_above, look, new_figure, step_axis, style

__all__ = ["plot_plan"]

_ROWS = {"up": "decoder block {}", "skip": "skip connection {}", "mid": "bottleneck", "down": "encoder block {}"}


def plot_plan(results: xr.DataTree, selection: Mapping[str, Any], *, ax: Axes | None = None) -> Figure:
    """Draw which component an intervention replaces at which step, and which steps it skips.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        What picks one intervention, such as ``{"intervention": label}``.
    ax : matplotlib Axes, optional
        To draw into; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure
        Steps from T down to 1, a row per component named; skipped steps are hatched over all rows.

    Raises
    ------
    SpecError
        The selection is not of one intervention.
    """
    chosen = select_interventions(results, selection)
    labels = [str(label) for label in chosen["intervention"].values]
    if len(labels) != 1:
        raise SpecError(f"A plan is of one intervention; {len(labels)} are selected: {', '.join(labels[:5])}.")
    edits = Intervention.from_json(json.loads(str(chosen["spec"].values[0]))).edits()
    rows = sorted({edit.component for edit in edits if edit.component != "unet"}, key=_order)
    with style():
        own = new_figure(5.2, 0.9 + 0.3 * max(1, len(rows))) if ax is None else None
        drawn = own.subplots() if own is not None else cast("Axes", ax)
        for edit in edits:
            _draw(drawn, edit, rows)
        drawn.set_ylim(max(1, len(rows)) - 0.5, -0.5)
        drawn.set_yticks(range(len(rows)), [_name(row) for row in rows])
        drawn.tick_params(left=False)
        step_axis(drawn, results["baseline"].sizes["step"])
        drawn.set_xlabel("step")
        if own is not None:
            legend_above(own, [drawn])
            return own
        drawn.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return cast("Figure", drawn.get_figure(root=True))


def _draw(ax: Axes, edit: Edit, rows: list[str]) -> None:
    """Bars over the steps of an edit; step t covers t - 0.5 ... t + 0.5."""
    skipped = edit.component == "unet"
    replaced = "replaced by zeros" if isinstance(edit.fill, Zero) else f"replaced: {edit.fill.name}"
    severed = ", with all that feeds only it" if edit.fill.severs and not edit.fill.takes_input else ""
    label = "step skipped" if skipped else replaced + severed
    for part in edit.window.parts:
        named: dict[str, Any] = {} if label in ax.get_legend_handles_labels()[1] else {"label": label}
        if skipped:
            ax.axvspan(part.stop - 0.5, part.start + 0.5, facecolor="0.92", edgecolor="0.6", hatch="///", lw=0, **named)
        else:
            row, colour = rows.index(edit.component), look(0 if edit.fill.severs else 1).color
            ax.broken_barh([(part.stop - 0.5, part.length)], (row - 0.35, 0.7), facecolors=colour, **named)


def _order(component: str) -> tuple[int, int, str]:
    """Those of a U from the top of its decoder round to that of its encoder, then others by name."""
    kind, number = _parted(component)
    if kind not in _ROWS:
        return len(_ROWS), 0, component
    return list(_ROWS).index(kind), -number if kind == "up" else number, component


def _name(component: str) -> str:
    kind, number = _parted(component)
    return _ROWS[kind].format(number) if kind in _ROWS else component


def _parted(component: str) -> tuple[str, int]:
    """Kind and number of a place of a U; no kind if it is called otherwise."""
    kind, _, number = component.partition(".")
    return (kind, int(number or 0)) if (number or "0").isdecimal() else ("", 0)
