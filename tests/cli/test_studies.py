"""Files with studies: what is one, what is none, and that the message has the line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import causalunet as cu
from causalunet.cli.studies import default_store, read_study
from causalunet.errors import SpecError
from tests.cli.conftest import Command

STUDY = """
import causalunet as cu
{name} = cu.Study(
    name={title!r}, model="tiny", prompts=["a red circle"], interventions=[cu.SkipSteps(cu.Window(2, 1))],
    sampler=cu.DDPM(steps=4),
)
"""


def written(path: Path, *texts: str) -> Path:
    path.write_text("".join(texts))
    return path


def test_a_specification_reads_back(spec: Path, study: cu.Study) -> None:
    read = read_study(spec)
    assert read == study
    assert type(read) is cu.Study


def test_a_python_file_gives_its_study(tmp_path: Path) -> None:
    path = written(tmp_path / "one.py", STUDY.format(name="anything", title="one"))
    assert read_study(path).name == "one"


def test_what_stands_under_main_is_not_run(tmp_path: Path) -> None:
    path = written(tmp_path / "one.py", STUDY.format(name="study", title="one"), "if __name__ == '__main__': 1 / 0")
    assert read_study(path).name == "one"


def test_a_file_imports_what_lies_beside_it(tmp_path: Path) -> None:
    written(tmp_path / "beside_the_study.py", "title = 'from beside'")
    text = STUDY.replace("{title!r}", "title").format(name="study")
    before = list(sys.path)
    try:
        path = written(tmp_path / "one.py", "from beside_the_study import title", text)
        assert read_study(path).name == "from beside"
    finally:
        sys.modules.pop("beside_the_study", None)
    assert sys.path == before


def test_one_of_several_is_named_by_variable_or_by_name(tmp_path: Path) -> None:
    both = STUDY.format(name="quick", title="of a minute"), STUDY.format(name="full", title="of a day")
    path = written(tmp_path / "both.py", *both, "again = quick\n")
    assert read_study(path, "quick").name == "of a minute"
    assert read_study(path, "again").name == "of a minute"
    assert read_study(path, "of a day").name == "of a day"
    with pytest.raises(SpecError, match=r"several studies: quick \('of a minute'\), full \('of a day'\)\. Say which"):
        read_study(path)
    with pytest.raises(SpecError, match=r"no study called 'medium'; it has quick"):
        read_study(path, "medium")


def test_a_field_that_stands_twice_is_refused_at_any_depth(study: cu.Study, tmp_path: Path) -> None:
    text = json.dumps(study.to_json())
    for field in ('"name": ', '"steps": ', '"window": ', '"label": '):
        assert field in text
        path = written(tmp_path / "twice.json", text.replace(field, f'{field}"other", {field}', 1))
        with pytest.raises(SpecError, match=rf"twice\.json .*the field {field[1:-3]!r} stands twice in one object"):
            read_study(path)


def test_many_fields_that_stand_twice_are_found_soon(tmp_path: Path) -> None:
    fields = ", ".join(f'"{number}": 0' for number in range(100_000))
    path = written(tmp_path / "many.json", f'{{{fields}, "99999": 1}}')
    with pytest.raises(SpecError, match="the field '99999' stands twice"):
        read_study(path)


WRONG_PYTHON = {
    "syntax": ("import causalunet\n\nstudy = (", r"wrong\.py, line 3: "),
    "error": ("import causalunet\nx = 1\nx / 0\n", r"wrong\.py, line 3: ZeroDivisionError: division by zero"),
    "inside": ("def f():\n    return missing\n\nf()\n", r"wrong\.py, line 2: NameError: .*missing"),
    "spec": ("import causalunet as cu\ncu.DDPM(steps=0)\n", r"wrong\.py, line 2: SpecError: DDPM got steps=0"),
    "import": ("import nowhere_at_all\n", r"wrong\.py, line 1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
    "exit": ("import sys\nsys.exit(0)\n", r"wrong\.py, line 2: the file ended the program"),
    "no study": ("study = 1\n", r"wrong\.py has no study\. Give a file with a study"),
    "empty": ("", r"wrong\.py has no study"),
    "bytes": ("\0", r"wrong\.py"),
}


@pytest.mark.parametrize(("text", "message"), WRONG_PYTHON.values(), ids=WRONG_PYTHON)
def test_a_python_file_that_fails_is_told_with_its_line(
    tmp_path: Path, command: Command, text: str, message: str
) -> None:
    told = command("run", written(tmp_path / "wrong.py", text), tmp_path / "out.zarr")
    assert told.code == 2
    assert re.search(message, told.err)
    assert told.err.count("\n") == 1
    assert not (tmp_path / "out.zarr").exists()


WRONG_JSON = {
    "cut off": ('{"name": "x",\n "prompts": [', r"wrong\.json, line 2: not JSON"),
    "not an object": ("[1, 2]", r"wrong\.json: "),
    "no study": ("{}", r"wrong\.json: "),
    "unknown field": ('{"name": "x", "hooks": []}', r"wrong\.json: "),
    "deep": ("[" * 100_000, r"wrong\.json is not JSON"),
    "no number": ('{"name": ' + "9" * 5000 + "}", r"wrong\.json is not JSON"),
    "too long": (json.dumps(" " * 4_000_000), r"wrong\.json has more than 4 MB"),
}


@pytest.mark.parametrize(("text", "message"), WRONG_JSON.values(), ids=WRONG_JSON)
def test_a_specification_that_is_none_is_told(tmp_path: Path, command: Command, text: str, message: str) -> None:
    told = command("run", written(tmp_path / "wrong.json", text), tmp_path / "out.zarr")
    assert told.code == 2
    assert re.search(message, told.err)
    assert told.err.count("\n") == 1
    assert len(told.err) < 2000


def test_what_is_no_study_file_is_told(tmp_path: Path, command: Command, store: Path) -> None:
    for place, message in (
        (tmp_path / "none.json", "does not exist"),
        (tmp_path, "neither a .json nor a .py"),
        (store, "neither a .json nor a .py"),
        (written(tmp_path / "study.yaml", "name: x"), "neither a .json nor a .py"),
    ):
        told = command("run", place)
        assert (told.code, told.err.count("\n")) == (2, 1)
        assert message in told.err
    (tmp_path / "folder.py").mkdir()
    assert "is not a file" in command("run", tmp_path / "folder.py").err


NAMES = {"first": "first", "from when on?": "from-when-on", "../../etc/x": "etc-x", ".hidden": "hidden", "é": "study"}


@pytest.mark.parametrize(("name", "file"), NAMES.items())
def test_results_lie_below_the_working_directory_whatever_the_name(study: cu.Study, name: str, file: str) -> None:
    renamed = cu.Study(name=name, prompts=study.prompts, interventions=study.interventions, sampler=study.sampler)
    assert default_store(renamed) == Path("results") / f"{file}.zarr"
