"""The exit status of the process is that of the command, whatever happens while the interpreter ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from causalunet.cli import _leave
from causalunet.cli.exits import Exit
from tests.cli.conftest import Command

ROOT = Path(__file__).parents[2]
RUNS = int(os.environ.get("CAUSALUNET_EXIT_RUNS", "100"))

FRAGILE = """
import os, runpy, sys

class Late:
    def __del__(self):
        os.abort()

sys.late = Late()
way = sys.argv.pop(1)
if ":" in way:
    module, function = way.split(":")
    sys.exit(getattr(__import__(module, fromlist=[function]), function)())
runpy.run_module(way, run_name="__main__")
"""
"""A process that aborts when its interpreter is torn down, as the storage engine's threads make it now and then."""

SCRIPT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]["causalunet"]


def ended(*words: object, way: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FRAGILE, way, *map(str, words)], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.sampled(1)
@pytest.mark.parametrize("way", [SCRIPT, "causalunet", "causalunet.cli"])
def test_the_interpreter_is_not_torn_down_whichever_way_the_command_is_given(way: str) -> None:
    done = ended("--version", way=way)
    assert (done.returncode, done.stdout[:11], done.stderr) == (0, "causalunet ", "")


ENDS = {
    "help": (Exit.DONE, ("--help",)),
    "help of a command": (Exit.DONE, ("verify", "--help")),
    "nothing asked": (Exit.ERROR, ()),
    "usage": (Exit.ERROR, ("verify",)),
    "error": (Exit.ERROR, ("status", "nothing.zarr")),
    "sound": (Exit.DONE, ("verify", "STORE")),
    "damaged": (Exit.PROBLEMS, ("verify", "DAMAGED")),
    "listed": (Exit.DONE, ("ls", "STORE")),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ENDS)
def test_every_end_is_the_end_of_the_process(name: str, store: Path, copied: Path) -> None:
    status, words = ENDS[name]
    if "DAMAGED" in words:
        chunk = max((copied / "chunks").iterdir(), key=lambda file: file.stat().st_size)
        chunk.write_bytes(chunk.read_bytes()[:-1])
    done = ended(*({"STORE": store, "DAMAGED": copied}.get(word, word) for word in words))
    assert done.returncode == status, done.stderr
    assert done.stderr if status == Exit.ERROR else done.stdout


HOOKED = """
import atexit, threading, time

def last():
    time.sleep(0.2)
    print("the thread", flush=True)

atexit.register(lambda: print("the hook"))
threading.Thread(target=last).start()
"""


def test_threads_are_waited_for_and_hooks_run_before_the_end(tmp_path: Path) -> None:
    study = tmp_path / "study.py"
    study.write_text(HOOKED)
    done = ended("run", study)
    assert (done.returncode, done.stdout) == (Exit.ERROR, "the thread\nthe hook\n")
    assert "no study" in done.stderr


def test_an_output_that_nobody_reads_is_told_of_help_too() -> None:
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "causalunet", "--help"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, check=False, cwd=ROOT, env=buffered)
    os.close(write)
    assert (done.returncode, done.stderr) == (Exit.CUT_OFF, b"")


def test_a_process_that_was_forked_ends_by_itself() -> None:
    _leave([0], os.getpid() + 1)


def test_a_model_that_asks_for_the_end_of_the_process_is_told(
    store: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object, **__: object) -> None:
        sys.exit(0)

    monkeypatch.setattr("causalunet.cli.stores.open_results", end)
    told = command("verify", store)
    assert told.code == Exit.ERROR
    assert "asked for the end of the process (SystemExit(0))" in told.err


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_exit_status_is_right_every_time(store: Path) -> None:
    """As many runs as ``CAUSALUNET_EXIT_RUNS`` says, 100 by default."""
    words = [sys.executable, "-m", "causalunet", "verify", "--quiet", str(store)]
    found = Counter(subprocess.run(words, capture_output=True, check=False, cwd=ROOT).returncode for _ in range(RUNS))
    assert found == {0: RUNS}
