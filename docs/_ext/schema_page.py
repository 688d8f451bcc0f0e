"""The directive `stored-form`: tables of every stored variable, from the schema itself."""

from __future__ import annotations

import itertools
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from causalunet.results.meaning.schema import (
    FORMAT,
    FORMAT_VERSION,
    VARIABLES,
    Variable,
)

_COLUMNS = ("variable", "along", "type", "unit", "meaning")


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
        made: list[nodes.Node] = [version]
        for group, variables in itertools.groupby(
            VARIABLES, key=lambda variable: variable.group
        ):
            section = nodes.section(ids=[nodes.make_id(f"group-{group}")])
            section += nodes.title("", "", nodes.literal(text=group))
            section += _table(list(variables))
            made.append(section)
        return made


def _table(variables: list[Variable]) -> nodes.table:
    table, group = (
        nodes.table(classes=["stored-form"]),
        nodes.tgroup(cols=len(_COLUMNS)),
    )
    group += [nodes.colspec(colwidth=width) for width in (18, 26, 10, 8, 38)]
    head = nodes.thead()
    head += _row([nodes.Text(name) for name in _COLUMNS])
    body = nodes.tbody()
    for one in variables:
        along = nodes.Text(", ".join(one.dims) or "nothing")
        body += _row(
            [
                nodes.literal(text=one.name),
                along,
                nodes.Text(one.dtype),
                nodes.Text(one.units),
                nodes.Text(one.meaning),
            ]
        )
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
