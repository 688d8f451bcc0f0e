"""Anatomy: the blocks of a U-Net with the connections between them, and which of them a cut leaves dead."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalunet.design.anatomy import Anatomy, Edge
from causalunet.errors import ComponentError
from causalunet.report.style import GREY, legend_above, look, new_figure, style

__all__ = ["plot_anatomy"]

_SIDE = {"encoder": -1, "bottleneck": 0, "block": 0, "decoder": 1}
_LABEL = {-1: ((-7, 0), "right"), 0: ((0, -10), "center"), 1: ((7, 0), "left")}
"""Offset of a block's name in points, and its alignment, by side."""
_MARKS = {"encoder": 0, "bottleneck": 6, "block": 6, "decoder": 1}
_LEAST_GAP = 0.155  # inches between two blocks of an arm, so that their names do not touch


def plot_anatomy(anatomy: Anatomy, severed: Collection[str] = (), *, ax: Axes | None = None) -> Figure:
    """Draw a U-Net: the encoder down on the left, the bottleneck, the decoder up on the right.

    Parameters
    ----------
    anatomy : Anatomy
    severed : collection of str
        Blocks whose output is replaced, and skip connections that carry something else, such as ``["up.7"]`` or
        ``["skip.0", "mid"]``. They are crossed out, and what need not run for them is hollow, see `Anatomy.dead`.
    ax : matplotlib Axes, optional
        To draw into; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure
        Vertical: blocks between a block and the top of the U.

    Raises
    ------
    ComponentError
        The U-Net has no such block or skip connection.
    """
    _check(anatomy, severed)
    dead = anatomy.dead(severed)
    at = _places(anatomy)
    deepest = max((-y for _, y in at.values()), default=0)
    with style():
        own = new_figure(4.6, 0.9 + _LEAST_GAP * (deepest + 2)) if ax is None else None
        drawn = own.subplots() if own is not None else cast("Axes", ax)
        for edge in anatomy.edges:
            if edge.target in at:
                _draw_edge(drawn, edge, at, dead, severed)
        for role, position in _MARKS.items():
            _draw_blocks(drawn, anatomy, role, look(position).color, at, dead)
        cut: list[tuple[float, float]] = [at[name] for name in at if name in severed]
        cut += [_middle(at, anatomy.skips[name]) for name in anatomy.skips if name in severed]
        if cut:
            x, y = zip(*cut, strict=True)
            drawn.scatter(x, y, s=50, marker="x", color="black", zorder=4, label="replaced")
        drawn.set_xlim(-1.55, 1.55)
        drawn.set_ylim(-deepest - 1.6, 0.9)
        roles = {block.role for block in anatomy.components}
        arms = {position: role for role, position in _SIDE.items() if role in roles or role != "block"}
        drawn.set_xticks(list(arms), list(arms.values()))
        ticks = range(0, deepest + 1, max(1, deepest // 4))
        drawn.set_yticks([-tick for tick in ticks], list(map(str, ticks)))
        drawn.set_ylabel("blocks between this one and the top of the U")
        if own is not None:
            legend_above(own, [drawn])
            return own
        drawn.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return cast("Figure", drawn.get_figure(root=True))


def _check(anatomy: Anatomy, severed: Collection[str]) -> None:
    names = [severed] if isinstance(severed, str) else list(severed)
    unknown = [name for name in names if name not in anatomy.by_name and name not in anatomy.skips]
    if unknown or isinstance(severed, str):
        raise ComponentError(
            f"severed={severed!r} is not a list of blocks and skip connections of this U-Net; it has "
            f"{', '.join([*anatomy.by_name, *anatomy.skips])}."
        )


def _places(anatomy: Anatomy) -> dict[str, tuple[int, int]]:
    """Where each block is drawn: its arm, and down by its depth, or by execution order where depths coincide."""
    at = {block.name: (_SIDE[block.role], -block.depth) for block in anatomy.components}
    if len(set(at.values())) == len(at):
        return at
    return {block.name: (_SIDE[block.role], -place) for place, block in enumerate(anatomy.components)}


def _draw_edge(
    ax: Axes,
    edge: Edge,
    at: dict[str, tuple[int, int]],
    dead: Collection[str],
    severed: Collection[str],
) -> None:
    """A line, dotted where nothing goes along it that reaches the image."""
    used = edge.source not in dead and edge.target not in dead and edge.name not in severed
    (x0, y0), (x1, y1) = at[edge.source], at[edge.target]
    label = "skip connection" if edge.name else "path"
    if not used:
        label = "not used"
    named: dict[str, Any] = {} if label in ax.get_legend_handles_labels()[1] else {"label": label}
    colour = GREY if not edge.name else "0.7"
    ax.plot([x0, x1], [y0, y1], color=colour, linestyle="-" if used else ":", linewidth=0.8, zorder=1, **named)


def _draw_blocks(
    ax: Axes, anatomy: Anatomy, role: str, colour: str, at: dict[str, tuple[int, int]], dead: Collection[str]
) -> None:
    """Squares of one role with their names, hollow where a block need not run."""
    for block in anatomy.components:
        if block.role != role:
            continue
        x, y = at[block.name]
        hollow = block.name in dead
        label = "need not run" if hollow else "runs"
        named: dict[str, Any] = {} if label in ax.get_legend_handles_labels()[1] else {"label": label}
        ax.scatter(x, y, s=26, marker="s", facecolor="white" if hollow else colour, edgecolor=colour, zorder=3, **named)
        offset, align = _LABEL[x]
        ax.annotate(block.name, (x, y), offset, textcoords="offset points", ha=align, va="center", fontsize=6)


def _middle(at: dict[str, tuple[int, int]], edge: Edge) -> tuple[float, float]:
    (x0, y0), (x1, y1) = at[edge.source], at[edge.target]
    return (x0 + x1) / 2, (y0 + y1) / 2
