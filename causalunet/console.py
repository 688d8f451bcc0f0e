"""Consoles to print on, however narrow the terminal says that it is."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table

__all__ = ["make_console", "print_table"]

_NARROWEST, _USUAL, _WIDEST = 40, 80, 1000


def make_console(file: TextIO | None = None, *, stderr: bool = False) -> Console:
    """Console on a stream, by default standard output; 80 columns wide where less than 40 are said to be there."""
    console = Console(file=file, stderr=stderr)
    if console.width < _NARROWEST:
        console.width = _USUAL
    return console


def print_table(table: Table, console: Console) -> None:
    """Print a table at the width of the console, or wider where words would be broken; nothing in it is markup.

    Parameters
    ----------
    table : rich.table.Table
    console : rich.console.Console
    """
    least = console.measure(table, options=console.options.update(width=_WIDEST, markup=False)).minimum
    width = console.width
    console.width = max(width, least)
    try:
        console.print(table, markup=False, highlight=False)
    finally:
        console.width = width
