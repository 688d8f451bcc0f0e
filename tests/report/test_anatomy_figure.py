"""The U that is drawn: what runs and what need not, by what `Anatomy.dead` says."""

from __future__ import annotations

import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from causalunet.errors import ComponentError
from causalunet.report import plot_anatomy
from tests.analysis.synthetic import small_anatomy

ANATOMY = small_anatomy()


def hollow(figure: Figure) -> int:
    """How many blocks are drawn hollow."""
    squares = [one for one in figure.axes[0].collections if len(one.get_paths()[0].vertices) > 4]
    return sum(same_color(one.get_facecolor()[0], "white") for one in squares)


@pytest.mark.parametrize("severed", [[], ["up.2"], ["skip.0", "mid"], ["mid", "skip.5"]])
def test_dead_blocks_are_hollow_and_their_edges_dotted(severed: list[str]) -> None:
    figure = ANATOMY.plot(severed)
    (ax,) = figure.axes
    dead = ANATOMY.dead(severed)
    assert {text.get_text() for text in ax.texts} == set(ANATOMY.by_name)
    assert hollow(figure) == len(dead)
    unused = [
        edge
        for edge in ANATOMY.edges
        if edge.target != "out" and ({edge.source, edge.target} & dead or edge.name in severed)
    ]
    assert sum(line.get_linestyle() == ":" for line in ax.lines) == len(unused)
    (legend,) = figure.legends
    assert ("replaced" in [text.get_text() for text in legend.get_texts()]) == bool(severed)


def test_into_given_axes_and_what_is_not_there() -> None:
    figure = Figure()
    assert plot_anatomy(ANATOMY, ["up.1"], ax=figure.subplots()) is figure
    for severed in (["up.9"], "up.1"):
        with pytest.raises(ComponentError, match=r"not a list of blocks.*down\.0.*skip\.5"):
            plot_anatomy(ANATOMY, severed)


def test_blocks_as_a_table() -> None:
    table = ANATOMY.to_frame()
    assert table.index.tolist() == list(ANATOMY.by_name)
    assert table.loc["up.3"].to_dict() == {
        "role": "decoder",
        "level": 0,
        "depth": 0,
        "output": "4 x 8 x 8",
        "flops": 100,
        "parameters": 10,
    }
