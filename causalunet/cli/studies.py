"""Finding a study in a file: a specification that is only read, or a Python file that is run."""

from __future__ import annotations

import json
import re
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from causalunet.cli.printing import one_line, quoted
from causalunet.design.limits import read_json
from causalunet.errors import CausalUNetError, SpecError
from causalunet.study import Study

__all__ = ["default_store", "read_study"]

_MOST_BYTES = 4_000_000
_RUN_NAME = "__study__"
"""What ``__name__`` is in a study's file: not "__main__", so that nothing under that condition runs."""


def read_study(path: Path, name: str | None = None) -> Study:
    """Read the study of a file.

    Parameters
    ----------
    path : Path
        Ending in ``.json``, with what `Study.to_json` gave, nothing of which is executed; or in ``.py``, which is
        executed, with studies as variables at its top level.
    name : str, optional
        Of the variable, or of the study itself.

    Raises
    ------
    SpecError
        There is no such file, it cannot be read, or no single study is meant; the message has the line.
    """
    ending = path.suffix.lower()
    if ending not in (".json", ".py"):
        raise SpecError(f"{path} is neither a .json nor a .py file. {_WHAT}")
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise SpecError(f"{path} {what}. {_WHAT}")
    studies = _of_json(path) if ending == ".json" else _of_python(path)
    return _chosen(studies, name, path)


def default_store(study: Study) -> Path:
    """Where a study is run into unless told otherwise."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", study.name)[:100].strip("-.")
    return Path("results") / f"{slug or 'study'}.zarr"


_WHAT = (
    "Give a file with a study: .json, as json.dumps(study.to_json()) writes it, or .py, with "
    "study = causalunet.Study(...) at its top level."
)


def _of_json(path: Path) -> dict[str, Study]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > _MOST_BYTES:
        raise SpecError(f"{path} has more than {_MOST_BYTES // 1_000_000} MB; no study is so long.")
    try:
        value = read_json(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SpecError(f"{path}, line {error.lineno}: not JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not JSON: {one_line(error)}.") from error
    try:
        return {path.stem: Study.from_json(value)}
    except CausalUNetError as error:
        raise SpecError(f"{path}: {error}") from error


def _of_python(path: Path) -> dict[str, Study]:
    with _importing_beside(path):
        try:
            found = runpy.run_path(str(path), run_name=_RUN_NAME)
        except (Exception, SystemExit) as error:
            raise SpecError(f"{_place(error, path)}: {_what(error)}") from error
    return {name: value for name, value in found.items() if isinstance(value, Study)}


@contextmanager
def _importing_beside(path: Path) -> Iterator[None]:
    """Let a file import what lies beside it, as if Python had been started with it."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _place(error: BaseException, path: Path) -> str:
    """The file and line at fault: the last line of the file that an error passed through."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{error.filename or path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _what(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "the file ended the program before it was read to its end."
    if isinstance(error, SyntaxError):
        return f"{error.msg}."
    return f"{type(error).__name__}: {one_line(error, 1000)}"


def _chosen(studies: dict[str, Study], name: str | None, path: Path) -> Study:
    distinct: dict[str, Study] = {}
    for variable, study in studies.items():
        if not any(study is other for other in distinct.values()):
            distinct[variable] = study
    if not distinct:
        raise SpecError(f"{path} has no study. {_WHAT}")
    listed = ", ".join(f"{variable} ({quoted(study.name)})" for variable, study in distinct.items())
    if name is not None:
        of_name = [study for study in distinct.values() if study.name == name]
        matching = [studies[name]] if name in studies else of_name
        if len(matching) != 1:
            number = "several studies" if matching else "no study"
            raise SpecError(f"{path} has {number} called {name!r}; it has {listed}.")
        return matching[0]
    if len(distinct) > 1:
        raise SpecError(f"{path} has several studies: {listed}. Say which with --study NAME.")
    return next(iter(distinct.values()))
