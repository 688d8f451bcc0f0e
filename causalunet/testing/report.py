"""Checks one after the other, none of which keeps the next from being made, and the report of them all."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from rich.console import Console

from causalunet.console import print_table
from causalunet.design.limits import plain, shown
from causalunet.errors import CausalUNetError, ConformanceError
from causalunet.results.guard.findings import Finding, findings_table

__all__ = ["Checks", "Conformance"]


@dataclass(frozen=True, slots=True, repr=False)
class Conformance:
    """What a function of the kit found; true if all is well. ``print`` shows it as a table.

    Attributes
    ----------
    subject : str
        What was checked.
    findings : tuple of Finding
        Of every check, in the order in which they were made: ``check``, ``looked_at`` and ``problems``, which is empty
        if all is well; ``unchecked`` names checks that an earlier one would have had to pass first.
    """

    subject: str
    findings: tuple[Finding, ...]

    def __bool__(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.problems for finding in self.findings)

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong, each with the name of the check that found it."""
        return tuple(f"{finding.check}: {problem}" for finding in self.findings for problem in finding.problems)

    @property
    def verdict(self) -> str:
        """What it comes to, in words."""
        passed = sum(not finding.lines for finding in self.findings)
        left = sum(bool(finding.unchecked) for finding in self.findings)
        after = f", {left} not made before these are mended" if left else ""
        failed = len(self.findings) - passed - left
        return f"passes {passed} checks" if self else f"fails {failed} of {len(self.findings)} checks{after}"

    def __repr__(self) -> str:
        """One line; ``print`` shows the table."""
        return f"<Conformance of {shown(self.subject)}: {plain(self.verdict)}>"

    def __str__(self) -> str:
        """Verdict and table as text."""
        text = io.StringIO()
        console = Console(width=120, file=text)
        console.print(plain(f"{self.subject} {self.verdict}"), markup=False, highlight=False, soft_wrap=True)
        print_table(findings_table(self.findings), console)
        return text.getvalue()


class Checks:
    """Checks of one subject.

    Parameters
    ----------
    subject : str
        Such as ``the fill 'zero'``.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._findings: list[Finding] = []

    def run(
        self, name: str, looked_at: str, check: Callable[[], Iterable[str] | None], needs: Collection[str] = ()
    ) -> bool:
        """Make a check, whatever it ends in.

        Parameters
        ----------
        name : str
        looked_at : str
            How much of what.
        check : callable
            Gives problems, each in words, or raises one.
        needs : collection of str
            Checks without which this one says nothing; it is made only if all of them passed.

        Returns
        -------
        bool
            Whether it passed.
        """
        failed = [finding.check for finding in self._findings if finding.check in needs and finding.lines]
        if failed:
            self._findings.append(Finding(name, "-", unchecked=(f"needs {' and '.join(map(repr, failed))}",)))
            return False
        problems: list[str] = []
        try:
            problems.extend(check() or ())
        except CausalUNetError as error:
            problems.append(str(error))
        except MemoryError:
            raise
        except Exception as error:  # what is checked is foreign code, and the next check is made all the same
            problems.append(f"ended in {type(error).__name__}: {' '.join(str(error).split()):.300}")
        self._findings.append(Finding(name, looked_at, tuple(problems)))
        return not problems

    def done(self) -> Conformance:
        """Give the report.

        Raises
        ------
        ConformanceError
            A check failed.
        """
        report = Conformance(self._subject, tuple(self._findings))
        if report:
            return report
        error = ConformanceError("\n".join([f"{self._subject} {report.verdict}:", *report.problems]))
        error.report = report
        raise error
