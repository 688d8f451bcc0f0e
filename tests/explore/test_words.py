"""Texts of a store are shown as texts, whatever they hold; the code makes the figure."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bokeh.models import Axis, ColumnDataSource

import causalunet as cu
from causalunet.explore import words
from causalunet.explore.choice import Choice, choose
from causalunet.explore.figures import drawn
from causalunet.explore.stored import Stored
from causalunet.report.interactive.style import LIGHT
from tests.explore.stores import HOSTILE

VIEWS = ("curves", "images", "factors", "trajectory", "plan", "audit")


class Read(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        assert not {name for name, _ in attrs} - {"class", "scope", "tabindex", "role"}

    def handle_data(self, data: str) -> None:
        self.text += data


def every_text(stored: Stored, choice: Choice) -> str:
    parts = [words.headline(stored, choice), words.sample_words(stored, choice.sample), words.title(stored)]
    return "".join([*parts, words.caption(choice), words.tables(stored, choice), words.notice([HOSTILE])])


@pytest.mark.parametrize("view", VIEWS)
def test_texts_of_a_store_are_escaped(hostile: Path, view: str) -> None:
    stored = Stored(cu.open_results(hostile))
    for label in (stored.rows[0].label, HOSTILE):
        read = Read(every_text(stored, choose(stored, view=view, intervention=label)))
        assert not read.tags & {"img", "script", "a"}
        assert HOSTILE in read.text
    code = Read(words.escaped_lines(words.code(stored, choose(stored, view=view, intervention=HOSTILE))))
    assert code.tags == set()


@pytest.mark.parametrize("view", VIEWS)
def test_no_text_of_a_store_is_read_as_tex(hostile: Path, view: str) -> None:
    """Bokeh reads dollar signs in titles and labels as TeX, unless the text is said to be plain."""
    stored = Stored(cu.open_results(hostile))
    figure = drawn(stored, choose(stored, view=view, intervention=HOSTILE), LIGHT)
    for axis in figure.select({"type": Axis}):
        labels = [axis.axis_label, *axis.major_label_overrides.values()]
        assert not [label for label in labels if isinstance(label, str) and "$" in label]


def sources(figure: Any) -> list[dict[str, Any]]:
    return [dict(one.data) for one in figure.select({"type": ColumnDataSource})]


@pytest.mark.parametrize("view", VIEWS)
def test_the_two_lines_make_the_figure(stored: Stored, view: str) -> None:
    choice = choose(stored, view=view, intervention="ablate_block bottom=4 12-9", sample=2, step=7, outcome="mse")
    lines = words.code(stored, choice)
    assert len(lines.splitlines()) == 2
    scope: dict[str, Any] = {"cu": cu}
    exec(lines, scope)
    made, expected = sources(scope["figure"]), sources(drawn(stored, choice, LIGHT))
    assert len(made) == len(expected) > 0
    key = lambda columns: (sorted(columns), str(columns))  # noqa: E731 - models come in no order
    for one, other in zip(sorted(made, key=key), sorted(expected, key=key), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_equal(one[name], other[name])
