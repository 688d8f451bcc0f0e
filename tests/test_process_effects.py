"""What the package changes for its whole process is listed, documented, can be switched off, and is all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from causalunet.errors import SpecError
from causalunet.execute.call.allocator import keep_freed_memory
from causalunet.process_effects import EFFECTS, LEAVE_ALONE, backtrace_kept, left_alone

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "use-in-a-program.md"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (LEAVE_ALONE, *(variable for effect in EFFECTS.values() for variable, _ in effect.own)):
        monkeypatch.delenv(variable, raising=False)


def used(folder: Path, **variables: str) -> tuple[dict[str, Any], bool]:
    """Use the package in a process of its own: what that changed, and whether icechunk logged."""
    command = [sys.executable, "-m", "tests.process_effects", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert not done.stderr
    *logged, last = done.stdout.splitlines()
    return json.loads(last), any("LocalFileSystem" in line for line in logged)


@pytest.mark.thorough
def test_a_process_is_left_as_it_was_but_for_the_effects_that_are_listed(tmp_path: Path) -> None:
    found, logged = used(tmp_path)
    assert found["changed"] == {}
    assert found["mapped"] in ([True, False], [None, None])  # large blocks come from kept memory, where that is glibc's
    assert not logged


@pytest.mark.thorough
def test_no_effect_is_left_when_all_are_left_alone(tmp_path: Path) -> None:
    found, logged = used(tmp_path, **{LEAVE_ALONE: "all"})
    assert found["changed"] == {}
    assert found["mapped"] in ([True, True], [None, None])
    assert logged  # the user's own store is warned of again


@pytest.mark.parametrize("name", EFFECTS)
def test_each_effect_is_left_alone_by_its_name_and_by_the_variables_of_the_library(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not left_alone(name)
    for value in (name, f" {name} ,", "all"):
        monkeypatch.setenv(LEAVE_ALONE, value)
        assert left_alone(name)
    monkeypatch.setenv(LEAVE_ALONE, ",".join(EFFECTS.keys() - {name}))
    assert not left_alone(name)
    for variable, text in EFFECTS[name].own:
        monkeypatch.setenv(variable, f"{text}something")
        assert left_alone(name)
        monkeypatch.delenv(variable)


def test_what_dask_sets_for_its_workers_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = pytest.importorskip("dask.config")
    pytest.importorskip("distributed")
    for variable, value in config.get("distributed.nanny.pre-spawn-environ").items():
        monkeypatch.setenv(variable, str(value))
    assert not left_alone("malloc")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert left_alone("malloc")


def test_tunables_of_other_parts_of_glibc_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
    assert not left_alone("malloc")


def test_an_effect_that_does_not_exist_is_an_error_that_names_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEAVE_ALONE, "malloc,logs")
    with pytest.raises(SpecError, match=r"'logs'.*malloc, icechunk-logs, nnsight-backtrace, and all"):
        left_alone("malloc")


def test_malloc_is_left_alone_also_after_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_freed_memory()
    monkeypatch.setenv(LEAVE_ALONE, "malloc")
    assert not keep_freed_memory()


def test_the_environment_is_changed_only_while_nnsight_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "NNSIGHT_DISABLE_CPP_BACKTRACE"
    before = dict(os.environ)
    with backtrace_kept():
        assert os.environ[variable] == "0"
    assert dict(os.environ) == before
    monkeypatch.setenv(LEAVE_ALONE, "nnsight-backtrace")
    with backtrace_kept():
        assert variable not in os.environ
    monkeypatch.delenv(LEAVE_ALONE)
    monkeypatch.setenv(variable, "1")
    with backtrace_kept():
        assert os.environ[variable] == "1"
    assert os.environ[variable] == "1"


def test_the_page_lists_every_effect_and_every_variable() -> None:
    page = PAGE.read_text()
    for effect in EFFECTS.values():
        for word in (effect.name, *(variable for variable, _ in effect.own)):
            assert f"`{word}`" in page
    assert f"`{LEAVE_ALONE}`" in page
