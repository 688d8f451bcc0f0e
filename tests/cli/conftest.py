"""The tiny model by name, a study in a file, and its store; commands as a user gives them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import causalunet as cu
from causalunet.cli import main
from causalunet.models.base import MODELS
from causalunet.models.text_to_image import TextToImage


class Told(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Told]


@pytest.fixture(scope="session", autouse=True)
def tiny_by_name(tiny_model: TextToImage) -> Iterator[None]:
    with MODELS.scoped(tiny=lambda: tiny_model):
        yield


@pytest.fixture(scope="session", autouse=True)
def logs_of_transformers() -> None:
    """Have transformers log to a stream that lives on: it keeps the first that it meets, and a test's is closed."""
    if importlib.util.find_spec("transformers"):
        importlib.import_module("transformers.utils.logging").get_logger()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Give a command in this process."""

    def give(*arguments: object) -> Told:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(str(ended.code))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Told(code, printed.out, printed.err)

    return give


@pytest.fixture(scope="session")
def study() -> cu.Study:
    """Three samples, four interventions, an output of one component."""
    return cu.Study(
        name="a tiny study",
        model="tiny",
        prompts=["a red circle", "a blue cross", "a striped cyan square, light background"],
        seeds=[3],
        sampler=cu.DDPM(steps=4),
        interventions=[*cu.sweep(cu.AblateBlock, bottom=2, start=(3, 2), length=1), cu.SkipSteps(cu.Window(2, 1))],
        record=cu.Record(activations=("mid",), steps=(2,)),
    )


@pytest.fixture(scope="session")
def spec(study: cu.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study as JSON."""
    path = tmp_path_factory.mktemp("spec") / "tiny.json"
    path.write_text(json.dumps(study.to_json(), indent=1))
    return path


@pytest.fixture(scope="session")
def store(study: cu.Study, spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's results, tagged; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "tiny.zarr"
    assert main(["run", str(spec), str(path)]) == 0
    cu.open_results(path).tag("paper-v1")
    return path


@pytest.fixture
def copied(store: Path, tmp_path: Path) -> Path:
    """A copy of the store that a test may break."""
    return Path(shutil.copytree(store, tmp_path / "copy.zarr"))
