"""The widgets that say what is looked at; each shows only what can be chosen beside the rest."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import panel as pn

from causalunet.analysis.described import described
from causalunet.design.limits import plain
from causalunet.explore.choice import Choice
from causalunet.explore.rows import FIELDS, options
from causalunet.explore.stored import Stored

__all__ = ["Widgets"]

_CSS = files("causalunet.explore").joinpath("widgets.css").read_text(encoding="utf-8")
_NAMES = {
    "kind": "Kind",
    "depth": "Depth",
    "place": "Place",
    "variant": "Which",
    "length": "Length (steps)",
    "start": "Start step",
    "sample": "Sample",
    "outcome": "Outcome",
    "step": "Step looked at",
    "token": "Token",
    "maps": "Attention of",
}
_SLIDERS = ("length", "start", "sample", "step", "token")
_OF_VIEW = {"outcome": ("curves", "images", "factors", "trajectory"), "step": ("trajectory", "attention")}
_OF_ATTENTION = ("maps", "token")


class Widgets:
    """The widgets.

    Parameters
    ----------
    stored : Stored
    change : callable
        Called with a field and its new value.
    """

    def __init__(self, stored: Stored, change: Callable[[str, Any], None]) -> None:
        self.stored, self._change, self._showing = stored, change, False
        self.plain: dict[str, Any] = {"stylesheets": [_CSS], "margin": 0}
        self.views = pn.widgets.RadioButtonGroup(
            options={name.capitalize(): name for name in stored.views},
            stylesheets=[_CSS],
            sizing_mode="stretch_width",
            margin=0,
        )
        self.views.param.watch(lambda event: self._asked("view", event.new), "value")
        self.by_field = {name: self._make(name) for name in _NAMES}
        self.side = pn.Column(sizing_mode="stretch_width", margin=0)
        self._known: dict[str, list[Any]] = {}

    def show(self, choice: Choice) -> None:
        """Let every widget show what is looked at, and what else could be."""
        row = self.stored.rows_by_label[choice.intervention]
        values = {name: getattr(row, name) for name in FIELDS}
        self._known = {name: options(self.stored.rows, row, name) for name in FIELDS}
        for name, known in self._of_choice(choice).items():
            self._known[name] = known
            values[name] = getattr(choice, name)
        self._showing = True
        try:
            self.views.value = choice.view
            for name, known in self._known.items():
                if len(known) > 1:
                    named = {self._label(name, one): one for one in known}
                    self.by_field[name].param.update(options=named, value=values[name])
            self.side.objects = [self.by_field[name] for name in _NAMES if len(self._known.get(name, ())) > 1]
        finally:
            self._showing = False
        self._values = values

    def move(self, field: str, by: int) -> None:
        """Go on to the next or the last but one of what a field can be; at an end nothing happens."""
        known = self._known[field]
        at = known.index(self._values[field]) + by
        if 0 <= at < len(known):
            self._change(field, known[at])

    def _of_choice(self, choice: Choice) -> dict[str, list[Any]]:
        known: dict[str, list[Any]] = {
            "sample": self.stored.samples,
            "outcome": self.stored.outcomes,
            "step": self.stored.steps,
            "maps": list(self.stored.maps),
            "token": list(range(self.stored.tokens(choice.maps))),
        }
        shown = {name for name in known if choice.view in _OF_VIEW.get(name, (choice.view,))}
        return {
            name: known[name]
            for name in known
            if name in shown and (name not in _OF_ATTENTION or choice.view == "attention")
        }

    def _make(self, name: str) -> Any:
        common: dict[str, Any] = {"label": _NAMES[name], "stylesheets": [_CSS], "sizing_mode": "stretch_width"}
        common["margin"] = (6, 0)
        if name in _SLIDERS:
            widget = pn.widgets.DiscreteSlider(options=[0, 1], **common)
            widget.param.watch(lambda event: self._asked(name, event.new), "value_throttled")
        else:
            widget = pn.widgets.Select(options=[""], **common)
            widget.param.watch(lambda event: self._asked(name, event.new), "value")
        return widget

    def _asked(self, name: str, value: Any) -> None:
        if not self._showing:
            self._change(name, value)

    def _label(self, name: str, value: Any) -> str:
        if name == "outcome":
            return plain(described(value, self.stored.cells[value].attrs).label)
        return plain(str(value)) or "none"
