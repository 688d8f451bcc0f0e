"""Code of the READMEs, the site and the gallery passes a type checker: what is documented is typed as it is used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import find
from tests.docs.test_pages import DOCS, GALLERY, PAGES, ROOT, relative

EXPECTED = """
import causalunet as cu
from typing import assert_type
import xarray as xr

cut = cu.AblateBlock(bottom=2, window=cu.Window(9, 2))
study = cu.Study(name="x", prompts=["a"], seeds=range(4), interventions=[cut, *cu.sweep(cu.SkipSteps, start=[5, 3])])
assert_type(study.prompts, tuple[str, ...])
assert_type(study.seeds, tuple[int, ...] | None)
assert_type(cu.Record(activations="mid", steps=range(1, 3)).activations, tuple[str, ...])
assert_type(cu.Windows([cu.Window(9, 2), cu.Window(4, 2)]).parts, tuple[cu.Window, ...])
assert_type(cu.Null(cu.Window(9, 2), ["mid"]).components, tuple[str, ...])
results = study.run("x.zarr")
for group in (results.baseline, results.outcomes, results.trajectory, results.audit):
    assert_type(group, xr.DataTree)
"""
REFUSED = {
    'cu.Study(name="x", prompts=["a"], interventions=["cut"])': "list-item",
    'cu.Study(name="x", prompts=["a"], intervention=[])': "call-arg",
    'cu.Study(name="x", prompts=["a"], interventions=[], seeds=4)': "arg-type",
    "cu.DDPM(guidance=3)": "arg-type",
    "cu.Window(start=20, stop=15)": "call-arg",
    "cu.Record(activations=[3])": "list-item",
}


def checked(folder: Path, modules: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run mypy over modules of the package ``pages``, which pyproject.toml has options for."""
    (folder / "pages").mkdir()
    for name, code in modules.items():
        (folder / "pages" / re.sub(r"\W", "_", name)).with_suffix(".py").write_text(code, encoding="utf-8")
    cache = os.environ.get("MYPY_CACHE_DIR", str(ROOT / ".mypy_cache"))  # what `make lint` has left is used
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", cache, str(folder / "pages")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": os.pathsep.join([str(folder), str(DOCS / "tutorials")])},
    )


def code_of(page: Path) -> str:
    """Blocks of a page, each on its lines; without those that show an error."""
    lines: list[str] = []
    for block in find(page.read_text(encoding="utf-8")):
        if not block.raises:
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_documented_code_passes_a_type_checker(tmp_path: Path) -> None:
    modules = {relative(page): code for page in PAGES if (code := code_of(page)).strip()}
    assert {"README.md", "docs/tutorials/1-first-intervention.md", "docs/tutorials/8-own-model.md"} <= set(modules)
    modules |= {relative(script): script.read_text(encoding="utf-8") for script in GALLERY}
    done = checked(tmp_path, modules)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"in {len(modules)} source files" in done.stdout


@pytest.mark.thorough
def test_types_are_those_of_use(tmp_path: Path) -> None:
    head = "import causalunet as cu\n\n"
    done = checked(tmp_path, {"expected": EXPECTED, "refused": head + "\n".join(REFUSED) + "\n"})
    assert "expected.py" not in done.stdout, done.stdout
    told = dict(re.findall(r"refused\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE))
    assert told == {str(line): code for line, code in enumerate(REFUSED.values(), 3)}, done.stdout


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.glob("tutorials/?-*.md"))], ids=relative)
def test_code_keeps_its_lines(page: Path) -> None:
    text, lines = page.read_text(encoding="utf-8").splitlines(), code_of(page).splitlines()
    assert any(lines)
    assert all(line.strip() == text[number].strip() for number, line in enumerate(lines) if line)
