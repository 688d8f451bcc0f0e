"""How the command line ends."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """Exit status of a command."""

    DONE = 0
    PROBLEMS = 1
    """``verify`` found something wrong."""
    ERROR = 2
    """Told in one line."""
    INCOMPLETE = 3
    """All is well as far as it goes, and something is missing or has failed."""
    UNCHECKED = 4
    """``verify`` found nothing wrong, and something that this process cannot check."""
    INTERRUPTED = 130
    CUT_OFF = 141
    """Whoever read the output stopped reading."""
