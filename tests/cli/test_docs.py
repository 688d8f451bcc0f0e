"""The page on the command line: its session works as typed, and it tells every command and option."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from causalunet.cli import _parser
from causalunet.models.base import _LOADERS
from tests.cli.conftest import Command

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)}


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def section_of(name: str) -> str:
    return next(text for title, text in SECTIONS.items() if name in title.split(", "))


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (option for option in action.option_strings if option not in ("-h", "--help"))


def test_the_session_works_as_typed(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(_LOADERS, "shapes", _LOADERS["tiny"])  # which takes less time
    (script,) = re.findall(r"^```python\n(.*?)^```$", SECTIONS["A session"], flags=re.MULTILINE | re.DOTALL)
    (session,) = re.findall(r"^```shell\n(.*?)^```$", SECTIONS["A session"], flags=re.MULTILINE | re.DOTALL)
    Path("first.py").write_text(script)
    lines = [shlex.split(line, comments=True) for line in session.splitlines()]
    assert len(lines) == 10
    for program, *arguments in lines:
        assert program == "causalunet"
        told = command(*arguments)
        assert (told.code, told.err) == (0, ""), (arguments, told)
    assert "Which step can be skipped?" in Path("results/first.html").read_text()
    assert Path("archive/first.zarr/zarr.json").exists()


def test_every_command_and_option_is_told() -> None:
    for name, parser in commands().items():
        section = section_of(name)
        assert f"`causalunet {name}" in section, name
        for option in options(parser):
            assert f"`{option}" in section, (name, option)


def test_every_option_told_is_one() -> None:
    for title, section in SECTIONS.items():
        named = [commands()[name] for name in title.split(", ") if name in commands()]
        known = {option for parser in named for option in options(parser)}
        if named:
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section)) <= known, title
