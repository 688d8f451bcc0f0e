"""Python blocks of pages: found, and run as a reader would, in the order of the page.

python -m tests.docs.blocks docs/howto/resume.md     # runs one page here and prints what it prints
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Block", "fenced", "find", "run"]

_OPENING = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|:{3,})(?P<info>[^`]*)$")
_REASON = re.compile(r"<!-- not run: (?P<reason>.+?) -->\s*\Z", re.DOTALL)
_SHOWN = re.compile(r"\s*^ *```text\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"[+-]?[\d,]+(?:\.(?P<decimals>\d*))?(?P<exponent>e[+-]?\d+)?")
_PYTHON = re.compile(r"python3?\b|\{code-cell\}|\{code-block\} python|\{code\} python|pycon\b")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of Python.

    Attributes
    ----------
    line : int
        Of the page, where its code begins.
    code : str
    reason : str
        Why it is not run; empty if it is.
    raises : bool
        Whether the page shows the error that it ends with.
    shown : str
        What it prints, as far as the page shows that in a block of text below it.
    """

    line: int
    code: str
    reason: str
    raises: bool
    shown: str = ""


def find(text: str) -> Iterator[Block]:
    """Blocks of Python of a Markdown page, with the reason that stands above those that are not run."""
    lines = text.splitlines()
    for start, end, info, indent in _fences(lines):
        if _PYTHON.match(info):
            yield _block(lines, start - 1, (start, end), indent)


def fenced(text: str) -> Iterator[tuple[int, list[str]]]:
    """Blocks of any language that a page shows as they are: number of the first line, and lines without indentation."""
    lines = text.splitlines()
    for start, end, _, indent in _fences(lines):
        yield start + 1, [line[indent:] for line in lines[start:end]]


def _fences(lines: list[str]) -> Iterator[tuple[int, int, str, int]]:
    """First line, end, language and indentation of blocks of code, those within directives too."""
    number, directives = 0, [""]
    while number < len(lines):
        opening = _OPENING.match(lines[number])
        if not opening:
            number += 1
            continue
        start, fence, info = number + 1, opening["fence"], opening["info"].strip()
        if not info and directives[-1] and fence.startswith(directives[-1]):
            directives.pop()
            number += 1
            continue
        if fence[0] == ":" or (info.startswith("{") and not _PYTHON.match(info)):
            directives.append(fence)  # what stands in it is looked at line by line
            number += 1
            continue
        closing = re.compile(rf"^ *{fence[0]}{{{len(fence)},}} *$")
        end = next((at for at in range(start, len(lines)) if closing.match(lines[at])), len(lines))
        yield start, end, info, len(opening["indent"])
        number = end + 1


def _block(lines: list[str], opening: int, code: tuple[int, int], indent: int) -> Block:
    start, end = code
    body = [line[indent:] if not line[:indent].strip() else line for line in lines[start:end]]
    options = 0
    while options < len(body) and body[options].startswith(":"):
        options += 1
    said = _REASON.search("\n".join(lines[:opening]))
    raises = any("raises-exception" in line for line in body[:options])
    shown = _SHOWN.match("\n".join(lines[end + 1 :]))
    return Block(
        line=start + options + 1,
        code="\n".join(body[options:]) + "\n",
        reason=said["reason"] if said else "",
        raises=raises,
        shown=shown["text"] if shown else "",
    )


def run(page: Path, *, namespace: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the blocks of a page one after the other in one namespace, by default an empty one.

    Raises
    ------
    AssertionError
        A block that shows an error raised none, or what is shown below a block is not what it prints.
    """
    namespace = {} if namespace is None else namespace
    namespace["__name__"] = "page"
    for block in find(page.read_text(encoding="utf-8")):
        if block.reason:
            continue
        # Line numbers of a traceback are those of the page.
        code = compile("\n" * (block.line - 1) + block.code, page, "exec", dont_inherit=True)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
        except Exception as error:
            if not block.raises:
                raise
            print(f"{type(error).__name__}: {error}")
        else:
            assert not block.raises, f"{page}:{block.line} shows an error, and raised none."
        finally:
            print(printed.getvalue(), end="")
        missing = first_missing(block.shown, printed.getvalue())
        assert not missing, f"{page}:{block.line} does not print {missing!r} there, but\n{printed.getvalue()}"
    return namespace


def first_missing(shown: str, printed: str) -> str:
    """First word of a text that is not printed at its place; empty if all are.

    The page may leave words out and break lines elsewhere. Numbers agree within 2 %, one unit of the last digit shown,
    or 1e-6: another processor rounds otherwise.
    """
    words = iter(printed.split())
    return next((word for word in shown.split() if not any(_alike(word, other) for other in words)), "")


def _alike(shown: str, printed: str) -> bool:
    if shown == printed:
        return True
    one, other = (_NUMBER.fullmatch(word.strip("[](){},:;%")) for word in (shown, printed))
    if not one or not other:
        return False
    a, b = (float(found[0].replace(",", "")) for found in (one, other))
    last = 1.5 * 10.0 ** -len(one["decimals"]) if one["decimals"] and not one["exponent"] else 0.0
    return abs(a - b) <= max(0.02 * abs(a), last, 1e-6)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    run(Path(sys.argv[1]))
