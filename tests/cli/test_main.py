"""The command as a process: closed streams, narrow terminals, Ctrl-C at any moment, options anywhere."""

from __future__ import annotations

import argparse
import io
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import causalunet
from causalunet.cli import commands, main
from causalunet.console import make_console, print_table
from tests.cli.conftest import Command

ROOT = Path(__file__).parents[2]
PROCESS = [sys.executable, "-m", "causalunet"]


def ended_unseen(*words: object) -> int:
    """Exit status of a command whose standard streams are closed, as Python has them then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["causalunet", *map(str, words)])
        for name in ("stdin", "stdout", "stderr"):
            patch.setattr(sys, name, None)
        code = main()
        for name in ("stdin", "stdout", "stderr"):
            getattr(sys, name).close()
    return code


GIVEN = {
    "run": ("run", "SPEC", "new.zarr"),
    "plan": ("run", "SPEC", "new.zarr", "--dry-run"),
    "resume": ("resume", "STORE"),
    "status": ("status", "STORE"),
    "verify": ("verify", "STORE"),
    "verify quietly": ("verify", "--quiet", "STORE"),
    "ls": ("ls", "STORE"),
    "history": ("ls", "STORE", "--history"),
    "export": ("export", "STORE", "plain.zarr"),
    "report": ("report", "STORE", "page.html"),
    "models": ("models",),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", GIVEN)
def test_closed_streams_are_no_fault(name: str, spec: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copied.parent)
    assert ended_unseen(*({"SPEC": spec, "STORE": copied}.get(word, word) for word in GIVEN[name])) == 0


def test_errors_are_counted_where_nobody_sees_them(tmp_path: Path) -> None:
    assert ended_unseen("status", tmp_path / "nothing.zarr") == 2


def test_no_file_of_a_store_gets_the_number_of_a_closed_stream(store: Path) -> None:
    # Leaves at once, as the command does: the engine may abort while the interpreter is torn down.
    code = (
        "import os, sys, causalunet.cli as cli; cli.main(); os.write(2, os.readlink(b'/proc/self/fd/1')); os._exit(0)"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" "$@" >&-', sys.executable, "-c", code, "status", str(store)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, "/dev/null")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_output_that_cannot_be_written_is_told(store: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROCESS, "status", str(store)], stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT
        )
    assert done.returncode == 2
    assert done.stderr == (
        "causalunet: What is printed cannot be written to standard output: No space left on device.\n"
    )


INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[-1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from causalunet.cli import main
sys.exit(main())
"""


@pytest.mark.sampled(4)
@pytest.mark.parametrize("module", ["argparse", "causalunet.cli.commands", "numpy", "rich", "xarray", "zarr"])
def test_ctrl_c_while_modules_are_imported_ends_in_one_line(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "models", module], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "causalunet: interrupted before anything was done.\n"


def test_little_is_imported_before_ctrl_c_is_answered() -> None:
    code = "import sys, causalunet.cli; print(*sorted(name for name in sys.modules if name.startswith('causalunet')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["causalunet", "causalunet.cli", "causalunet.cli.exits"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("columns", ["0", "1", "20"])
@pytest.mark.parametrize("name", ["models", "verify"])
def test_tables_keep_their_words_on_narrow_terminals(
    name: str, columns: str, command: Command, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [{"STORE": str(store)}.get(word, word) for word in GIVEN[name]]
    monkeypatch.setenv("COLUMNS", "200")
    wide = command(*words).out
    monkeypatch.setenv("COLUMNS", columns)
    told = command(*words)
    assert told.code == 0
    letters = r"[\w./,%]+"
    assert sorted(re.findall(letters, told.out)) == sorted(re.findall(letters, wide))


def test_a_table_is_printed_whole_and_as_it_is() -> None:
    table = Table()
    table.add_column("what", overflow="fold")
    table.add_row("[red]a-word-that-is-longer-than-the-console[/red] and more")
    console = Console(width=12, record=True, file=io.StringIO(), force_jupyter=False)
    print_table(table, console)
    assert "[red]a-word-that-is-longer-than-the-console[/red]" in console.export_text()
    assert console.width == 12


@pytest.mark.parametrize(("columns", "width"), [("0", 80), ("1", 80), ("39", 80), ("40", 40), ("200", 200)])
def test_a_console_has_a_width_that_can_be_read(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert make_console().width == width


def test_the_version_is_told(command: Command) -> None:
    told = command("--version")
    assert (told.code, told.out) == (0, f"causalunet {causalunet.__version__}\n")


MIXED = {
    "run": (["first.py", "x.zarr"], [["--dry-run"], ["--study", "a"], ["--memory", "1GB"]]),
    "resume": (["x.zarr"], [["--retry-failed"], ["--device", "cpu"]]),
    "measure": (["x.zarr", "ms_ssim", "scales=2"], [["--retry-failed"]]),
    "status": (["x.zarr", "y.zarr"], []),
    "verify": (["x.zarr"], [["--quiet"], ["--deep"], ["--at", "v1"]]),
    "ls": (["x.zarr"], [["--history"], ["--at", "v1"]]),
    "export": (["x.zarr", "plain.zarr"], [["--at", "v1"]]),
    "explore": (["x.zarr"], [["--at", "v1"], ["--port", "5006"], ["--token"]]),
    "report": (["x.zarr", "page.html"], [["--title", "a"], ["--force"], ["--threshold", "0.5"]]),
    "evaluate": (["shapes"], [["--prompts", "3"], ["--held-out"]]),
    "train": (["shapes"], [["--iterations", "3"]]),
}


def orders(places: list[str], options: list[list[str]]) -> Iterator[list[str]]:
    """Options at every place, while what is given in order stays in order."""
    parts = [*[[place] for place in places], *options]
    for order in itertools.permutations(range(len(parts))):
        if [one for one in order if one < len(places)] == list(range(len(places))):
            yield [word for one in order for word in parts[one]]


@pytest.mark.parametrize("name", MIXED)
def test_options_stand_anywhere(name: str) -> None:
    found = [vars(commands._parser().parse_args([name, *words])) for words in orders(*MIXED[name])]
    assert all(one == found[0] for one in found)
    given = list(found[0].values())
    assert all(
        place in given or any(isinstance(one, list) and place in one for one in given) for place in MIXED[name][0]
    )


def test_every_command_is_tried() -> None:
    subparsers = commands._parser()._subparsers
    assert subparsers
    (action,) = (one for one in subparsers._group_actions if isinstance(one, argparse._SubParsersAction))
    assert {*MIXED, "models"} == set(action.choices)


@pytest.mark.parametrize(
    "words", [("run",), ("export", "x.zarr"), ("ls", "--bogus"), ("status",), ("run", "a", "b", "c")]
)
def test_what_is_missing_or_too_much_is_told(words: tuple[str, ...], command: Command) -> None:
    told = command(*words)
    assert told.code == 2
    assert re.search(r"error: (the following arguments are required: [A-Z]|unrecognized arguments: )", told.err)
