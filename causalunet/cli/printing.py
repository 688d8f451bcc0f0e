"""Text for terminals and pipes: lines are never folded inside a word, and nothing stored can steer a terminal."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from causalunet.design.limits import plain
from causalunet.errors import CausalUNetWarning, StorageError

__all__ = [
    "ago",
    "aligned",
    "complain",
    "count",
    "flush",
    "folded",
    "moment",
    "one_line",
    "plain",
    "quoted",
    "size",
    "tell",
    "told_warnings",
]

_HERE = {
    "overwrite=True": "--overwrite",
    "retry_failed=True": "--retry-failed",
    "force=True": "--force",
    "checkpoint='path/to/base.pt'": "--checkpoint path/to/base.pt",
    "results.history()": "causalunet ls STORE --history",
}
"""What messages call by its name in Python."""
_SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def one_line(value: Any, most: int = 200) -> str:
    """Text from a store on one line, and not more of it than fits."""
    return plain(_cut(value, most))


def quoted(value: Any, most: int = 60) -> str:
    """A name from a store, in quotes."""
    return repr(_cut(value, most))


def tell(text: str = "") -> None:
    """Print lines as they are."""
    with _written():
        print(plain(text))


def flush() -> None:
    """Hand on what was printed."""
    with _written():
        sys.stdout.flush()


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:  # such as a full disk below the file that the output goes to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StorageError(f"What is printed cannot be written to standard output: {error.strerror}.") from error


def complain(message: object) -> None:
    """Print one line on stderr."""
    text = " ".join(str(message).split())
    for name, here in _HERE.items():
        text = text.replace(name, here)
    print(f"causalunet: {plain(text)}", file=sys.stderr)


@contextmanager
def told_warnings() -> Iterator[None]:
    """Print the package's own warnings as lines, without a place in its code."""
    with warnings.catch_warnings():
        shown = warnings.showwarning
        warnings.simplefilter("always", CausalUNetWarning)

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, CausalUNetWarning):
                complain(f"warning: {message}")
            else:
                shown(message, category, *place, **more)

        warnings.showwarning = show
        yield


def aligned(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), indent: str = "") -> list[str]:
    """Columns as wide as they need to be.

    Parameters
    ----------
    rows : sequence of sequence of str
        Of one length.
    right : sequence of int
        Columns of numbers.
    indent : str
        Before every line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        indent
        + "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def folded(text: str, *, first: str, rest: str) -> str:
    """Fold a text at blanks to the width of the terminal, or to 80 columns."""
    width = max(40, shutil.get_terminal_size().columns)
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) or first.rstrip()


def _cut(value: Any, most: int) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def count(number: int, name: str) -> str:
    """Such as "1 cell" and "1,200 cells"."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def size(number: int | None) -> str:
    """Bytes in words."""
    if number is None:
        return "-"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number} B"


def moment(time: datetime.datetime) -> str:
    """Local time to the minute."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def ago(time: datetime.datetime) -> str:
    """How long ago a moment was."""
    seconds = max(0, int((datetime.datetime.now(datetime.UTC) - time).total_seconds()))
    for span, name in _SPANS:
        if seconds >= span:
            return f"{count(seconds // span, name)} ago"
    return "just now"
