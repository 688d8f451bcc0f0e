"""What verifying a store found: check by check, and what it comes to."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from causalunet.console import make_console, print_table
from causalunet.design.limits import plain, shown

__all__ = ["Finding", "Verification", "findings_table"]

_MOST_NAMED = 5
_NOT_HERE = "not checkable here: "


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
    looked_at : str
        How much of what.
    problems : tuple of str
        Empty if all is well.
    damage : bool
        Whether a problem means that the store is wrong, and not only unfinished.
    unchecked : tuple of str
        What this process cannot check, such as ``the fill 'mine'``, whose class it has not imported.
    """

    check: str
    looked_at: str
    problems: tuple[str, ...] = ()
    damage: bool = True
    unchecked: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """All there is to tell; empty if all was checked and is well."""
        return (*self.problems, *(f"{_NOT_HERE}{what}" for what in self.unchecked))


def findings_table(findings: Iterable[Finding]) -> Table:
    """Findings as a table, one row each; of many problems the first."""
    table = Table()
    table.add_column("check")
    table.add_column("looked at", justify="right")
    table.add_column("found", overflow="fold")
    for finding in findings:
        named = list(finding.lines[:_MOST_NAMED])
        if len(finding.lines) > _MOST_NAMED:
            named.append(f"and {len(finding.lines) - _MOST_NAMED:,} more")
        table.add_row(finding.check, finding.looked_at, plain("\n".join(named)) or "ok")
    return table


@dataclass(frozen=True, slots=True, repr=False)
class Verification:
    """What `Results.verify` found; true if all was checked and is well.

    Attributes
    ----------
    where : str
    findings : tuple of Finding
    """

    where: str
    findings: tuple[Finding, ...]

    def __repr__(self) -> str:
        """One line: the table has been printed."""
        return f"<Verification of {shown(self.where)}: {plain(self.verdict)}>"

    def __bool__(self) -> bool:
        """Whether nothing is wrong, nothing is missing, and nothing could not be checked."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """What it comes to, as a number.

        0 if all is well; 1 if something is wrong; 4 if nothing is, and something cannot be checked by this process; 3
        if the store is sound but not complete.
        """
        wrong = [finding for finding in self.findings if finding.problems]
        if any(finding.damage for finding in wrong):
            return 1
        return 4 if self.unchecked else 3 if wrong else 0

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What this process cannot check, each named once."""
        return tuple(dict.fromkeys(what for finding in self.findings for what in finding.unchecked))

    @property
    def verdict(self) -> str:
        """What it comes to, in words."""
        if self.exit_code == 4:
            more = f" and {len(self.unchecked) - 3:,} more" if len(self.unchecked) > 3 else ""
            return f"{_NOT_HERE}{', '.join(self.unchecked[:3])}{more}; nothing else is wrong"
        return {0: "sound and complete", 1: "NOT sound", 3: "sound, not complete"}[self.exit_code]

    def table(self) -> Table:
        """The findings as a table."""
        return findings_table(self.findings)

    def print(self, console: Console | None = None) -> None:
        """Print the verdict and the table."""
        console = console or make_console()
        console.print(plain(f"{self.where}: {self.verdict}"), markup=False, highlight=False, soft_wrap=True)
        print_table(self.table(), console)

    def __str__(self) -> str:
        """Verdict and table as text."""
        text = io.StringIO()
        self.print(Console(width=120, file=text))
        return text.getvalue()
