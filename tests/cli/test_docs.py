"""The page on the command line: its session works as typed, and it tells every command and option."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from causalunet.cli.commands import _parser
from causalunet.models.base import MODELS
from tests.cli.conftest import Command
from tests.without_torch import run_without_torch

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cli.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)}


WITHOUT_TORCH = """
import json

from causalunet.cli import main

for command in json.loads(sys.argv[1]):
    assert main(command) == 0, command
check()
for command in (["run", "first.py"], ["resume", "results/first.zarr"], ["models"]):
    assert main(command) == 2, command
"""


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def section_of(name: str) -> str:
    return next(text for title, text in SECTIONS.items() if name in title.split(", "))


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (option for option in action.option_strings if option not in ("-h", "--help"))


@pytest.mark.thorough
def test_the_session_works_as_typed_and_needs_torch_only_to_run(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setitem(MODELS._entries, "shapes", MODELS["tiny"])  # which takes less time
    (script,) = re.findall(r"^```python\n(.*?)^```$", SECTIONS["A session"], flags=re.MULTILINE | re.DOTALL)
    (session,) = re.findall(r"^```shell\n(.*?)^```$", SECTIONS["A session"], flags=re.MULTILINE | re.DOTALL)
    Path("first.py").write_text(script)
    lines = [words for line in session.splitlines() if (words := shlex.split(line, comments=True))]
    assert {line[0] for line in lines} == {"causalunet"}
    before, reading, after = lines[:2], lines[2:-1], lines[-1:]
    assert [line[1] for line in (*before, *after)] == ["run", "run", "resume"]
    assert {line[1] for line in reading} == {"measure", "status", "verify", "ls", "report", "export"}
    for line in before:
        told = command(*line[1:])
        assert (told.code, told.err) == (0, ""), (line, told)
    done = run_without_torch(WITHOUT_TORCH, json.dumps([line[1:] for line in reading]))
    assert done.returncode == 0, done
    assert done.stderr.count("pip install 'causalunet[run]'") == 3
    assert "Which step can be skipped?" in Path("results/first.html").read_text()
    assert Path("archive/first.zarr/zarr.json").exists()
    for line in after:
        assert command(*line[1:]).code == 0


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
