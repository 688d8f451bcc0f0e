"""The matrix itself: which interpreters it finds, which versions it asks for, what it takes for a failure."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import causalunet as cu
from tests.matrix import requirements, sound_store
from tests.matrix.__main__ import CHECKS, crossed, table
from tests.matrix.environments import Combination, Failed, environment, run
from tests.matrix.interpreters import MINORS, Interpreter, candidates, distinct, find
from tests.matrix.requirements import EXPECTED, KINDS, dependencies, installing, judged, key, lower_bound, unresolvable

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ABSENT = """ERROR: Could not find a version that satisfies the requirement matplotlib==3.10 (from versions: 3.10.5)
ERROR: No matching distribution found for matplotlib==3.10
"""
CONFLICT = """ERROR: Cannot install numpy==2.0 and x because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit the documentation
"""
OFFLINE = """WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'
ERROR: Could not find a version that satisfies the requirement matplotlib==3.10 (from versions: none)
ERROR: No matching distribution found for matplotlib==3.10
"""


def stand_in(path: Path, version: str, implementation: str = "CPython", status: int = 0) -> Path:
    """A program that answers as an interpreter does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = ", ".join(version.split("."))
    path.write_text(f"""#!/bin/sh\necho '["{implementation}", [{numbers}], "{path}"]'\nexit {status}\n""")
    path.chmod(0o755)
    return path


def test_interpreters_are_found_on_the_path_and_among_pyenvs(tmp_path: Path) -> None:
    one = stand_in(tmp_path / "bin/python3.11", "3.11.2")
    stand_in(tmp_path / "bin/python3", "3.10.13")
    stand_in(tmp_path / "bin/python3.12", "3.12.9", status=127)  # pyenv's stand-in for a version that is not chosen
    stand_in(tmp_path / "bin/python3.13", "3.13.0", implementation="PyPy")
    (tmp_path / "bin/python3.14").write_text("not executable")
    two = stand_in(tmp_path / "home/.pyenv/versions/3.12.1/bin/python3", "3.12.1")
    stand_in(tmp_path / "home/.pyenv/versions/3.11.2/bin/python3", "3.11.2")
    three = stand_in(tmp_path / "elsewhere/python", "3.14.0")
    paths = {"PATH": f"{tmp_path / 'bin'}:/nowhere:", "HOME": str(tmp_path / "home")}
    assert find(paths) == [Interpreter((3, 11, 2), str(one)), Interpreter((3, 12, 1), str(two))]
    assert find({**paths, "MATRIX_PYTHONS": str(three)})[-1] == Interpreter((3, 14, 0), str(three))
    assert [found.path for found in find({**paths, "PYENV_ROOT": str(tmp_path)})] == [str(one)]


def test_pyenv_is_asked_where_its_versions_are(tmp_path: Path) -> None:
    command = tmp_path / "bin/pyenv"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n[ $1 = root ] && echo {tmp_path / 'root'}\n")
    command.chmod(0o755)
    found = stand_in(tmp_path / "root/versions/3.13.7/bin/python3", "3.13.7")
    assert str(found) in candidates({"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)})


def test_this_interpreter_is_found(tmp_path: Path) -> None:
    """Also from within a virtual environment, as the one that it was made of."""
    (found,) = find({"PATH": "", "HOME": str(tmp_path), "MATRIX_PYTHONS": sys.executable})
    assert found.version == sys.version_info[:3]
    assert Path(found.path).samefile(getattr(sys, "_base_executable", sys.executable))


@pytest.mark.parametrize(("version", "told"), [("3.10.13", "Python 3.10.13; the matrix is of 3.11"), (None, "not run")])
def test_an_interpreter_that_is_named_must_fit(version: str | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "python" if version is None else stand_in(tmp_path / "python", version)
    with pytest.raises(SystemExit, match=told):
        find({"MATRIX_PYTHONS": str(path), "PATH": "", "HOME": str(tmp_path)})


def test_each_version_counts_once() -> None:
    found = [Interpreter((3, 12, 1), "a"), Interpreter((3, 11, 7), "b"), Interpreter((3, 12, 1), "c")]
    assert [one.path for one in distinct([*found, Interpreter((3, 10, 1), "d"), Interpreter((3, 15, 0), "e")])] == [
        "b",
        "a",
    ]


@pytest.mark.parametrize(
    ("requirement", "bound"),
    [
        ("icechunk>=1.1.21,<3", "icechunk==1.1.21"),
        ("x < 3, >= 2.1", "x==2.1"),
        ("typing_extensions>=4; python_version < '3.13'", "typing_extensions==4; python_version < '3.13'"),
    ],
)
def test_lower_bounds_are_the_oldest_versions_allowed(requirement: str, bound: str) -> None:
    assert lower_bound(requirement) == bound


@pytest.mark.parametrize("requirement", ["numpy", "numpy<3", "numpy==2", "numpy>2", "numpy>=1,>=2", "a @ https://b"])
def test_a_requirement_without_a_lower_bound_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match="has no lower bound"):
        lower_bound(requirement)


def test_bounds_and_pins_of_the_project_agree() -> None:
    """What the package says that it needs allows its lower bounds and its pins, and is no part of running."""
    needed = [Requirement(text) for text in dependencies(ROOT)]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#")
    pins = {name.lower(): version for name, version in pins.items()}
    lower = [Requirement(text) for text in installing(requirements.LOWER, ROOT)]
    assert [one.name for one in lower] == [one.name for one in needed]
    for one, oldest in zip(needed, lower, strict=True):
        assert one.specifier.contains(str(oldest.specifier).removeprefix("=="))
        assert one.specifier.contains(pins[one.name])
    assert not {one.name for one in needed} & {"torch", "nnsight", "einops", "safetensors"}


def test_the_pythons_that_are_claimed_are_in_the_matrix() -> None:
    claimed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if line.startswith("Programming Language")]
    minors = [f"{major}.{minor}" for major, minor in MINORS]
    assert claimed == ["3", *minors[: len(claimed) - 1]]
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={minors[0]}")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python {', '.join(claimed[1:-1])} and {claimed[-1]}," in readme


def test_other_requirements_have_another_environment(tmp_path: Path) -> None:
    python, other = Interpreter((3, 12, 1), "/a"), Interpreter((3, 12, 2), "/a")
    (tmp_path / "constraints.txt").write_text("numpy==2.3\n")
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2"]\n')
    first = {kind: key(kind, python, tmp_path) for kind in KINDS}
    assert len({*first.values(), *(key(kind, other, tmp_path) for kind in KINDS)}) == 6
    (tmp_path / "constraints.txt").write_text("numpy==2.4\n")
    assert [kind for kind in KINDS if key(kind, python, tmp_path) != first[kind]] == [requirements.PINS]
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2.1"]\n')
    assert all(key(kind, python, tmp_path) != first[kind] for kind in KINDS)


def test_pips_resolution_is_told_from_other_failures() -> None:
    assert unresolvable(ABSENT) == "No matching distribution found for matplotlib==3.10"
    assert str(unresolvable(CONFLICT)).startswith("Cannot install numpy==2.0 and x")
    assert unresolvable(OFFLINE) is None
    assert unresolvable("ERROR: Could not install packages due to an OSError: no space left") is None


def test_what_cannot_be_installed_must_be_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPECTED, ("lower", (3, 14)), "matplotlib==3.10")
    reason = "No matching distribution found for matplotlib==3.10"
    assert judged("lower", (3, 14), reason) is None
    assert judged("pins", (3, 14), None) is None
    assert "not expected" in str(judged("pins", (3, 14), reason))
    assert "not expected" in str(judged("lower", (3, 13), reason))
    assert "strike it" in str(judged("lower", (3, 14), None))
    assert "another reason" in str(judged("lower", (3, 14), "No matching distribution found for numpy==2.2.5"))
    assert "another reason" in str(judged("lower", (3, 14), f"{reason}.1"))


def test_expectations_name_what_is_asked_for() -> None:
    for (kind, minor), requirement in EXPECTED.items():
        assert minor in MINORS
        assert requirement in installing(kind, ROOT)


def test_ci_takes_the_newest_and_the_oldest() -> None:
    found = [Interpreter((3, 11, 2), "a"), Interpreter((3, 11, 7), "b"), Interpreter((3, 12, 1), "c")]
    assert crossed(found, ci=True) == [(found[1], "lower"), (found[2], "newest")]
    assert crossed(found[:1], ci=True) == [(found[0], "lower"), (found[0], "newest")]
    assert len(crossed(found, ci=False)) == 9
    with pytest.raises(SystemExit, match=r"MATRIX_PYTHONS=/path/to/python3\.11"):
        crossed(found[2:], ci=True)
    with pytest.raises(SystemExit, match=r"no Python 3\.11 to 3\.14"):
        crossed([], ci=False)


def combination(kind: str, tmp_path: Path, **results: str) -> Combination:
    return Combination(Interpreter((3, 14, 0), "/a"), kind, ROOT, tmp_path, tmp_path, results)


def test_the_table_tells_failures_from_what_cannot_be(tmp_path: Path) -> None:
    rows = [
        combination("lower", tmp_path, install="not installable, as expected: no wheel"),
        combination("pins", tmp_path, install="ok", write="ok", open="DamageError: damaged"),
        combination("newest", tmp_path, install="not installable, and not expected to be so: no wheel"),
    ]
    lines = table(rows).splitlines()
    assert lines[0].split()[:3] == ["Python", "versions", "install"]
    assert "not installable" in lines[1]
    assert "FAILED" not in lines[1]
    assert lines[2].split() == ["3.14.0", "pins", "ok", "ok", "-", "FAILED", *["-"] * (len(CHECKS) - 4)]
    assert lines[3].split()[2] == "FAILED"
    assert [row.left_out for row in rows] == [True, False, False]


def test_a_command_that_fails_is_told_by_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run([sys.executable, "-c", "print(1)"], log) == "1\n"
    with pytest.raises(Failed, match=r"^ValueError: two$"):
        run([sys.executable, "-c", "raise ValueError('two')"], log)
    assert "[0, " in log.read_text()
    assert "[1, " in log.read_text()


def test_a_command_that_comes_to_no_end_is_told_by_where_it_is(tmp_path: Path) -> None:
    code = "import faulthandler, time; faulthandler.dump_traceback_later(0.1, exit=True); print(1, flush=True); "
    with pytest.raises(Failed, match=r"(?s)^Timeout \(0:00:00.1.*line 1 in <module>$") as told:
        run([sys.executable, "-c", f"{code}time.sleep(60)"], tmp_path / "log")
    assert str(told.value) in (tmp_path / "log").read_text()


def test_processes_get_nothing_of_the_callers_python(tmp_path: Path) -> None:
    given = environment({"PYTHONPATH": "/a", "VIRTUAL_ENV": "/b", "PATH": "/c", "PIP_CERT": "/d"}, tmp_path)
    assert {"PATH", "PIP_CERT", "OMP_NUM_THREADS"} <= given.keys()
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & given.keys()


@pytest.mark.thorough
def test_the_store_of_the_matrix_is_sound_and_its_parts_add_up(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    blocks = sound_store.blocks()
    sound_store.lay_out(path)
    sound_store.add_blocks(path, blocks[:3])
    assert cu.open_results(path).verify(deep=True, quiet=True).exit_code == 3
    sound_store.add_blocks(path, blocks[3:])
    results = cu.open_results(path)
    assert results.verify(deep=True, quiet=True), str(results.verify(deep=True, quiet=True))
    np.testing.assert_array_equal(results.outcomes.image.values, sound_store.values()["outcomes/image"])


def test_the_script_needs_nothing_but_python(tmp_path: Path) -> None:
    """Not even the package: it runs before anything is installed."""
    command = [sys.executable, "-S", "-m", "tests.matrix", "--ci", "--folder", str(tmp_path / "m")]
    paths = {"PATH": "", "HOME": str(tmp_path), "PYENV_ROOT": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=paths, cwd=ROOT)
    assert done.returncode == 1
    assert "MATRIX_PYTHONS=" in done.stderr
    assert done.stdout.count("none found") == len(MINORS)
