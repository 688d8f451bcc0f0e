"""Every block of Python on the site and in the READMEs runs as typed, or says why not."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from causalunet.design.fills import FILLS
from causalunet.design.interventions import KINDS
from causalunet.design.outcomes import OUTCOMES
from causalunet.design.samplers import SAMPLERS
from causalunet.design.views import VIEWS
from causalunet.models.base import MODELS
from causalunet.registry import Registry
from causalunet.results.engine.backend import begin
from tests.docs.blocks import find, run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
STUDY = DOCS / "tutorials/when.py"
BUILT = {"_build", "_gallery", "generated", "results"}

PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("studies/*/README.md"), *DOCS.rglob("*.md")]
    if not BUILT & set(path.relative_to(ROOT).parts)
)
ELSEWHERE = {ROOT / "README.md", DOCS / "results.md"}
"""Run by test_readme.py, one after the other."""
WITH_CODE = [
    page
    for page in PAGES
    if page not in ELSEWHERE and any(not block.reason for block in find(page.read_text(encoding="utf-8")))
]
MARKS = {page: pytest.mark.slow for page in WITH_CODE if page.parent == STUDY.parent} | {
    DOCS / page: pytest.mark.thorough for page in ("cheatsheet.md", "index.md", "concepts/samplers.md")
}
"""Tutorials, which `make docs` executes as well, up to their exercises; and others that take half a minute and more."""
GALLERY = sorted(DOCS.glob("gallery/*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def tutorials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder of the tutorials, in which their study was run."""
    folder = tmp_path_factory.mktemp("docs") / "tutorials"
    folder.mkdir()
    shutil.copy(STUDY, folder)
    shutil.copytree(DOCS / "gallery", folder.parent / "gallery")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_script(folder / "when.py")
    return folder


def of_tests(entry: object) -> bool:
    """Whether a test of this process registered it: which ones did is chance where several processes share the work."""
    return getattr(entry, "__module__", "").startswith("tests.")


def run_script(path: Path) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(compile(path.read_text(encoding="utf-8"), path, "exec", dont_inherit=True), namespace)
    return namespace


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=MARKS.get(page, ()), id=relative(page)) for page in WITH_CODE],
)
def test_every_block_runs_as_typed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path
    if page.parent == STUDY.parent:
        made = request.getfixturevalue("tutorials")
        shutil.copytree(made, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, STUDY.stem, raising=False)
    registries: tuple[Registry[Any], ...] = (FILLS, KINDS, MODELS, OUTCOMES, SAMPLERS, VIEWS)
    for registry in registries:
        known = {name: one for name, one in registry._entries.items() if not of_tests(one)}
        monkeypatch.setattr(registry, "_entries", known)  # pages add kinds of their own, and may name them as tests do
    begin()  # or a page that leaves the engine's logs on would leave them on for every test after it
    with mock.patch.dict(os.environ):  # pages set variables, which processes started by later tests would have
        run(page)


@pytest.mark.slow  # `make docs` draws them as well
@pytest.mark.parametrize("script", GALLERY, ids=relative)
def test_every_figure_of_the_gallery_is_drawn(script: Path, tutorials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tutorials.parent / "gallery")
    figure = run_script(script)["figure"]
    assert len(figure.axes) > 0  # type: ignore[attr-defined]
    code = script.read_text(encoding="utf-8").rpartition('"""')[2].strip()
    assert len([line for line in code.splitlines() if line.strip()]) <= 16, "about ten lines"


def test_every_block_that_is_not_run_says_why() -> None:
    reasons = [block.reason for page in PAGES for block in find(page.read_text(encoding="utf-8")) if block.reason]
    assert all(len(reason.split()) >= 3 for reason in reasons)
    assert len(WITH_CODE) >= 20


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^(```+|~~~+).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]+`", "", text)
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), f"{relative(page)} links to {target}"
