"""The directive `stored-form`: tables of every stored variable, from the schema itself."""

from __future__ import annotations

import itertools
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from causalunet.results.meaning.declaration import ORDINARY
from causalunet.results.meaning.schema import (
    FORMAT,
    FORMAT_VERSION,
    SOMETIMES,
    VARIABLES,
    Variable,
)

_VARIABLES = ("variable", "along", "type", "unit", "range", "meaning")
_COORDINATES = ("coordinate", "along", "type", "meaning")


class StoredForm(Directive):
    """One section for each group, with a table of its variables."""

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        version = nodes.paragraph()
        version += [
            nodes.Text("Format "),
            nodes.literal(text=FORMAT),
            nodes.Text(f", version {FORMAT_VERSION}."),
        ]
        made: list[nodes.Node] = [version, _section("Coordinates", _coordinates())]
        groups = list(dict.fromkeys(variable.group for variable in VARIABLES))
        stored = sorted(
            (*VARIABLES, *SOMETIMES), key=lambda variable: groups.index(variable.group)
        )
        for group, variables in itertools.groupby(
            stored, key=lambda variable: variable.group
        ):
            rows = _table(_VARIABLES, [_of_variable(one) for one in variables])
            made.append(_section(group, rows, literal=True))
        return made


def _section(title: str, table: nodes.table, *, literal: bool = False) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(f"group-{title}")])
    named = nodes.literal(text=title) if literal else nodes.Text(title)
    section += nodes.title("", "", named)
    section += table
    return section


def _coordinates() -> nodes.table:
    rows: list[list[nodes.Node]] = [
        [
            nodes.literal(text=one.name),
            nodes.Text(one.dim),
            nodes.Text(one.dtype),
            nodes.Text(one.meaning.replace("`", "")),
        ]
        for one in ORDINARY.coordinates
    ]
    return _table(_COORDINATES, rows)


def _of_variable(one: Variable) -> list[nodes.Node]:
    low, high = (f"{limit:g}".replace("inf", "\u221e") for limit in one.range)
    better = f"; {one.better} is better" if one.better else ""
    return [
        nodes.literal(text=one.name),
        nodes.Text(", ".join(one.dims) or "nothing"),
        nodes.Text(one.dtype),
        nodes.Text(one.units),
        nodes.Text("" if high == low.lstrip("-") else f"{low} ... {high}"),
        nodes.Text(f"{one.meaning}{better}"),
    ]


def _table(columns: tuple[str, ...], rows: list[list[nodes.Node]]) -> nodes.table:
    table, group = (
        nodes.table(classes=["stored-form"]),
        nodes.tgroup(cols=len(columns)),
    )
    group += [nodes.colspec(colwidth=100 // len(columns)) for _ in columns]
    head = nodes.thead()
    head += _row([nodes.Text(name) for name in columns])
    body = nodes.tbody()
    body += [_row(cells) for cells in rows]
    group += [head, body]
    table += group
    return table


def _row(cells: list[nodes.Node]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        paragraph = nodes.paragraph()
        paragraph += cell
        entry = nodes.entry()
        entry += paragraph
        row += entry
    return row


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("stored-form", StoredForm)
    return {"parallel_read_safe": True}
