"""The explorer as a Panel app: widgets that change what is looked at, and a page that shows it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from io import StringIO
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import panel as pn
from bokeh.embed import file_html
from bokeh.models import CustomJS, GlyphRenderer, LayoutDOM, TapTool
from bokeh.plotting import figure as BokehFigure
from bokeh.resources import INLINE

from causalunet.design.limits import plain
from causalunet.errors import CausalUNetError, SpecError
from causalunet.explore import words
from causalunet.explore.choice import Choice, choose, from_query, to_query
from causalunet.explore.figures import CLICKABLE, drawn
from causalunet.explore.rows import nearest
from causalunet.explore.stored import Stored
from causalunet.explore.widgets import Widgets
from causalunet.report.interactive.style import DARK, LIGHT

if TYPE_CHECKING:
    from panel.viewable import Viewable

__all__ = ["Explorer"]

_RESOURCES = files("causalunet.explore")
_SCRIPT = _RESOURCES.joinpath("explore.js").read_text(encoding="utf-8")
_LOOK = _RESOURCES.joinpath("look.css").read_text(encoding="utf-8")
_TEXT = _RESOURCES.joinpath("text.css").read_text(encoding="utf-8")
_CLICK = "const at = source.selected.indices[0]; if (at !== undefined) { source.selected.indices = []; " + (
    "if (source.data.key[at] !== '') window.causalunetExplore.send(`go ${source.data.key[at]}`); }"
)


class Explorer:
    """What is looked at, and everything on the page that shows or changes it.

    Parameters
    ----------
    stored : Stored
    query : str
        Link to what is looked at first.
    dark : bool
    standing : bool
        Whether it is a page of its own, with an address that follows what is looked at.
    """

    def __init__(self, stored: Stored, query: str = "", *, dark: bool = False, standing: bool = False) -> None:
        self.stored, self.dark, self.standing = stored, dark, standing
        self.choice, self.told = from_query(stored, query)
        own = [] if standing else [_look(dark)]
        self.name = _html(_name(stored), own)
        self.number, self.of, self.notice = _html("", own), _html("", own), _html("", own)
        self.figure = pn.pane.Bokeh(None, sizing_mode="stretch_width", theme=None)
        self.caption, self.tables, self.code = _html("", own), _html("", own), _html("", own)
        self.widgets = Widgets(stored, self.change)
        self.lines = pn.widgets.TextInput(visible=False)
        self.inbox = pn.widgets.TextInput(visible=False, tags=["causalunet-inbox"])
        self.inbox.param.watch(self._receive, "value")
        self.exports = self._exports()
        self.main = pn.Column(
            self.notice,
            self.number,
            self.of,
            self.figure,
            self.caption,
            self.exports,
            self.code,
            self.tables,
            self.lines,
            sizing_mode="stretch_width",
        )
        self.show()

    def change(self, field: str, value: Any) -> None:
        """Look at something else.

        Parameters
        ----------
        field : str
            Of `Choice`, or of `Row`: then the nearest intervention that has it is looked at.
        value
        """
        choice = self.choice
        if field in Choice.__slots__:
            choice = choose(self.stored, **{**_fields(choice), field: value})
        else:
            row = nearest(self.stored.rows, self.stored.rows_by_label[choice.intervention], field, value)
            choice = replace(choice, intervention=row.label)
        if choice != self.choice:
            self.choice, self.told = choice, []
            self.show()

    def show(self) -> None:
        """Show what is looked at."""
        told = list(self.told)
        with pn.io.hold():
            self.widgets.show(self.choice)
            self.of.object = words.sample_words(self.stored, self.choice.sample)
            self.caption.object = words.caption(self.choice)
            self.number.object = self._try(told, "", words.headline)
            self.figure.object = self._try(told, None, self._figure)
            self.figure.visible = self.figure.object is not None
            self.tables.object = self._try(told, "", words.tables)
            self.lines.value = words.code(self.stored, self.choice)
            self.code.object = (
                f"<pre tabindex='0'>import causalunet as cu\n\n{words.escaped_lines(self.lines.value)}</pre>"
            )
            self.notice.object = words.notice(dict.fromkeys(told))
        if self.standing and pn.state.location is not None:
            pn.state.location.search = f"?{to_query(self.choice)}" + ("&theme=dark" if self.dark else "")

    def follow(self, query: str) -> None:
        """Look at what a link says, as when the browser goes back."""
        choice, told = from_query(self.stored, query)
        if choice != self.choice:
            self.choice, self.told = choice, told
            self.show()

    def page(self) -> pn.Template:
        """The page of its own."""
        template = pn.Template(_RESOURCES.joinpath("page.html.jinja").read_text(encoding="utf-8"), location=True)
        template.add_variable("look", _LOOK + _RESOURCES.joinpath("page.css").read_text(encoding="utf-8"))
        template.add_variable("script", _SCRIPT)
        for name in ("name", "inbox", "main"):
            template.add_panel(name, getattr(self, name))
        template.add_panel("views", self.widgets.views)
        template.add_panel("side", self.widgets.side)
        return template

    def inside(self) -> Viewable:
        """The same as a part of a notebook."""
        side = pn.Column(self.widgets.side, width=280)
        return pn.Column(
            self.name, self.widgets.views, pn.Row(side, self.main), self.inbox, sizing_mode="stretch_width"
        )

    def _figure(self, stored: Stored, choice: Choice) -> LayoutDOM:
        made = drawn(stored, choice, DARK if self.dark else LIGHT)
        made.tags = ["causalunet-figure"]
        for one in made.select({"type": BokehFigure}):
            points = [found for found in one.renderers if isinstance(found, GlyphRenderer) and found.name == CLICKABLE]
            if points:
                one.add_tools(TapTool(renderers=points))
            for renderer in points:
                script = CustomJS(args={"source": renderer.data_source}, code=f"{_SCRIPT}\n{_CLICK}")
                renderer.data_source.selected.js_on_change("indices", script)
        return made

    def _try(self, told: list[str], otherwise: Any, make: Any) -> Any:
        """What is there to show; what is not is told."""
        try:
            return make(self.stored, self.choice)
        except CausalUNetError as error:
            told.append(str(error))
            return otherwise

    def _receive(self, event: Any) -> None:
        """Do what a click or a key asked for; a browser may ask for anything, and what is not there is left alone."""
        asked: list[str] = f"{event.new}  ".split(" ")
        _, action, *rest = asked
        with suppress(SpecError, ValueError, KeyError):
            if action == "go":
                for field, text in parse_qsl(rest[0], max_num_fields=5):
                    self.change(field, text if field == "intervention" else int(text))
            elif action == "open":
                self.follow(rest[0])
            elif action == "view":
                self.change("view", dict(enumerate(self.stored.views, 1))[int(rest[0])])
            elif action == "move":
                self.widgets.move(rest[0], int(rest[1]))

    def _exports(self) -> Viewable:
        buttons = []
        for kind in ("png", "svg"):
            button = pn.widgets.Button(label=kind.upper(), **self.widgets.plain)
            button.js_on_click(code=f"{_SCRIPT}\nwindow.causalunetExplore.picture('{kind}', 'causalunet')")
            buttons.append(button)
        page = pn.widgets.FileDownload(
            callback=self._as_page, filename="causalunet.html", label="HTML", **self.widgets.plain
        )
        copy = pn.widgets.Button(label="Copy code", **self.widgets.plain)
        copy.js_on_click(args={"lines": self.lines}, code=f"{_SCRIPT}\nwindow.causalunetExplore.copy(lines.value)")
        return pn.FlexBox(*buttons, page, copy, gap="6px", margin=(10, 0))

    def _as_page(self) -> StringIO:
        try:
            made = drawn(self.stored, self.choice, DARK if self.dark else LIGHT)
        except CausalUNetError as error:
            return StringIO(words.notice([str(error)]))
        return StringIO(file_html(made, INLINE, title=plain(self.choice.intervention)))


def _fields(choice: Choice) -> dict[str, Any]:
    return {name: getattr(choice, name) for name in Choice.__slots__}


def _html(text: str, own: list[str]) -> pn.pane.HTML:
    return pn.pane.HTML(text, stylesheets=[*own, _TEXT], margin=0, sizing_mode="stretch_width")


def _look(dark: bool) -> str:
    """Colours for a part of a notebook, which has no page of ours around it."""
    light, night = _LOOK.split(":host(.dark), :root.dark")
    return light + (":host" + night if dark else "")


def _name(stored: Stored) -> str:
    attrs = stored.results.attrs
    study = attrs.get("study")
    model = study.get("model") if isinstance(study, dict) else None
    size = f"{len(stored.rows):,} interventions on {len(stored.samples):,} samples of {model}"
    told = f"{size}, digest {attrs.get('digest')}"
    return f"<h1>{words.title(stored)}</h1><p class='sub'>{words.escaped(told)}</p>"
