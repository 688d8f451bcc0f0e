"""The reference names everything that is public, and every error has its page."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import causalunet as cu
from causalunet import errors
from tests.docs.blocks import find, run

REFERENCE = Path(__file__).parents[2] / "docs/reference"
LISTED = {
    name
    for page in (REFERENCE / "api").glob("*.md")
    for name in re.findall(r"^   (\w+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
}
ERRORS = [name for name in errors.__all__ if name != "CausalUNetError"]


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".analysis",
        ".design",
        ".explore",
        ".jacobian",
        ".models",
        ".models.exact",
        ".report",
        ".results",
        ".script",
        ".testing",
    ],
)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    found = import_module(f"causalunet{module}")
    public = {name for name in found.__all__ if not inspect.ismodule(getattr(found, name))}
    assert public - LISTED - set(errors.__all__) - {"VARIABLES"} == set()


def test_the_reference_lists_nothing_else() -> None:
    named = ("", ".analysis", ".design", ".models", ".report", ".bound", ".results", ".script", ".plan", ".prompts")
    named = (*named, ".explore", ".testing", ".design.samplers", ".design.outcomes", ".models.exact", ".schedule")
    named = (*named, ".prediction", ".process", ".metrics", ".jacobian", ".thresholding")
    modules = [import_module(f"causalunet{name}") for name in named]
    assert [name for name in sorted(LISTED) if not any(hasattr(module, name) for module in modules)] == []


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_has_a_page_with_symptom_cause_and_cure(name: str) -> None:
    text = (REFERENCE / "errors" / f"{name}.md").read_text(encoding="utf-8")
    assert [word for word in ("**Symptom.**", "**Cause.**", "**Cure.**") if word not in text] == []
    assert f"[{name}]({name}.md)" in (REFERENCE / "errors/index.md").read_text(encoding="utf-8")
    assert isinstance(getattr(errors, name), type)


@pytest.mark.thorough
def test_errors_of_the_page_are_those_named_by_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Pages that show an error show the one that they are about."""
    shown = 0
    for name in ERRORS:
        page = REFERENCE / "errors" / f"{name}.md"
        if any(block.raises for block in find(page.read_text(encoding="utf-8"))):
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path)
                run(page)
            lines = capsys.readouterr().out.splitlines()
            assert [line for line in lines if line.startswith(f"{name}: ")], lines
            shown += 1
    assert shown >= 8
    assert issubclass(errors.StoreError, cu.CausalUNetError)
