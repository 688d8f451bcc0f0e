"""The app without a browser: widgets, keys, clicks and links change what is looked at, and all show the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import param
import pytest

from causalunet.explore.app import Explorer
from causalunet.explore.choice import choose, to_query
from causalunet.explore.stored import Stored


@pytest.fixture
def explorer(stored: Stored) -> Explorer:
    return Explorer(stored, "view=curves&intervention=ablate_block+bottom%3D4+12-9&sample=2")


def slide(widget: Any, value: int) -> None:
    """Let go of a slider; only browsers write to this."""
    with param.edit_constant(widget):
        widget.value_throttled = value


def receive(explorer: Explorer, message: str) -> None:
    explorer._receive(SimpleNamespace(new=f"1 {message}"))


def test_widgets_show_what_is_looked_at(explorer: Explorer) -> None:
    shown = {name: widget.value for name, widget in explorer.widgets.by_field.items()}
    expected = {"kind": "ablate_block", "depth": "bottom 4", "length": 4, "start": 12, "sample": 2, "outcome": "ssim"}
    assert {name: shown[name] for name in expected} == expected
    assert explorer.widgets.views.value == "curves"
    assert "0.9" in explorer.number.object or "0.8" in explorer.number.object


def test_every_widget_changes_it(explorer: Explorer) -> None:
    widgets = explorer.widgets.by_field
    widgets["depth"].value = "bottom 2"
    assert explorer.choice.intervention == "ablate_block bottom=2 12-9"
    slide(widgets["start"], 6)
    assert explorer.choice.intervention == "ablate_block bottom=2 6-3"
    slide(widgets["length"], 2)
    assert explorer.choice.intervention == "ablate_block bottom=2 6-5"
    widgets["kind"].value = "null"
    assert explorer.choice.intervention == "null 12-11"
    assert widgets["start"] not in explorer.widgets.side.objects  # there is one start only
    slide(widgets["sample"], 5)
    assert explorer.choice.sample == 5
    widgets["outcome"].value = "psnr"
    assert "PSNR" in explorer.number.object
    explorer.widgets.views.value = "trajectory"
    slide(widgets["step"], 3)
    assert (explorer.choice.view, explorer.choice.step) == ("trajectory", 3)


def test_keys_and_clicks(explorer: Explorer) -> None:
    receive(explorer, "move start 1")
    assert explorer.choice.intervention == "ablate_block bottom=4 6-3"
    receive(explorer, "move start 1")  # there is no later one
    assert explorer.choice.intervention == "ablate_block bottom=4 6-3"
    receive(explorer, "move sample -1")
    assert explorer.choice.sample == 1
    receive(explorer, "move depth -1")
    assert explorer.choice.intervention == "ablate_block bottom=2 6-3"
    receive(explorer, "view 2")
    assert explorer.choice.view == "images"
    receive(explorer, "view 9")
    assert explorer.choice.view == "images"
    receive(explorer, "go intervention=skip_steps+12-11")
    assert explorer.choice.intervention == "skip_steps 12-11"
    receive(explorer, "go sample=4")
    assert explorer.choice.sample == 4


@pytest.mark.parametrize("nonsense", ["go intervention=gone", "go sample=x", "move", "view x", "", "move moon 1", "go"])
def test_nonsense_from_a_browser_changes_nothing(explorer: Explorer, nonsense: str) -> None:
    before = explorer.choice
    receive(explorer, nonsense)
    assert explorer.choice == before


def test_links_are_followed(explorer: Explorer, stored: Stored) -> None:
    there = choose(stored, view="audit", intervention="null 12-11", sample=1)
    explorer.follow(f"?{to_query(there)}")
    assert explorer.choice == there
    assert "null 12-11" in explorer.lines.value
    explorer.follow("?sample=77")
    assert "sample=77 is not in these results" in explorer.notice.object


def test_what_cannot_be_shown_is_told(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    from causalunet.errors import StoreError
    from causalunet.explore import app

    def fail(*_: object) -> None:
        raise StoreError("<b>gone</b>")

    monkeypatch.setattr(app, "drawn", fail)
    explorer.change("sample", 0)
    assert not explorer.figure.visible
    assert "&lt;b&gt;gone" in explorer.notice.object


def test_a_page_of_the_figure_is_made(explorer: Explorer) -> None:
    page = explorer._as_page().read()
    assert page.lstrip().startswith("<!DOCTYPE html>")
    assert "cdn.bokeh.org" not in page.split("<script")[1]
