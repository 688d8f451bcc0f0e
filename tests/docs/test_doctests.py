"""Examples in docstrings run, with stored results at hand where they speak of some."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import causalunet
from causalunet.design import AblateBlock, AblateSkip, SkipSteps, sweep
from tests.analysis.synthetic import write_results

MODULES = [
    module.name
    for module in pkgutil.walk_packages(causalunet.__path__, "causalunet.")
    if not module.name.endswith("__main__")
]


def examples() -> list[Any]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for name in MODULES for test in finder.find(importlib.import_module(name), name)]
    return [pytest.param(test, id=test.name) for test in tests if test.examples]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.DataTree]:
    """A working folder with results in it, as a user has."""
    path = tmp_path_factory.mktemp("doctests")
    starts = (20, 18, 16, 14, 12, 10, 8, 6)
    interventions = [
        *sweep(AblateBlock, bottom=(2, 4), start=starts, length=5),
        *sweep(AblateSkip, top=2, start=starts, length=5),
        *sweep(SkipSteps, start=(19, 17, 15, 13, 11, 9, 7), length=5),
    ]
    return path, write_results(path / "results/phases.zarr", interventions)


@pytest.mark.sampled(20)
@pytest.mark.parametrize("test", examples())
def test_examples_run(test: doctest.DocTest, folder: tuple[Path, xr.DataTree], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(doctest.SKIP in example.options for example in test.examples), "skipped examples show nothing"
    monkeypatch.chdir(folder[0])
    test.globs |= {"results": folder[1]}
    said: list[str] = []
    found = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert found.failed == 0, "".join(said)


def test_there_are_examples() -> None:
    assert len(examples()) >= 20
