"""Python blocks of pages: found, and run as a reader would, in the order of the page.

python -m tests.docs.blocks docs/howto/resume.md     # runs one page here and prints what it prints
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Block", "find", "run"]

_OPENING = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|:{3,})(?P<info>[^`]*)$")
_REASON = re.compile(r"<!-- not run: (?P<reason>.+?) -->\s*\Z", re.DOTALL)
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
    """

    line: int
    code: str
    reason: str
    raises: bool


def find(text: str) -> Iterator[Block]:
    """Blocks of Python of a Markdown page, with the reason that stands above those that are not run."""
    lines = text.splitlines()
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
        if _PYTHON.match(info):
            yield _block(lines, number, start, end, len(opening["indent"]))
        number = end + 1


def _block(lines: list[str], opening: int, start: int, end: int, indent: int) -> Block:
    body = [line[indent:] if not line[:indent].strip() else line for line in lines[start:end]]
    options = 0
    while options < len(body) and body[options].startswith(":"):
        options += 1
    said = _REASON.search("\n".join(lines[:opening]))
    raises = any("raises-exception" in line for line in body[:options])
    return Block(start + options + 1, "\n".join(body[options:]) + "\n", said["reason"] if said else "", raises)


def run(page: Path, *, namespace: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the blocks of a page one after the other in one namespace, by default an empty one.

    Raises
    ------
    AssertionError
        A block that shows an error raised none.
    """
    namespace = {} if namespace is None else namespace
    namespace["__name__"] = "page"
    for block in find(page.read_text(encoding="utf-8")):
        if block.reason:
            continue
        # Line numbers of a traceback are those of the page.
        code = compile("\n" * (block.line - 1) + block.code, page, "exec", dont_inherit=True)
        if not block.raises:
            exec(code, namespace)
            continue
        try:
            exec(code, namespace)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
        else:
            raise AssertionError(f"{page}:{block.line} shows an error, and raised none.")
    return namespace


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    run(Path(sys.argv[1]))
