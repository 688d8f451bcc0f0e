"""What holds for the package as a whole: what it imports, its sizes, its docstrings, its version, its wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import causalunet
from tests.without_torch import run_without_torch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "causalunet"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "studies").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80

TORCH_FREE = (
    "causalunet",
    "causalunet.analysis",
    "causalunet.design",
    "causalunet.plan",
    "causalunet.report",
    "causalunet.results",
)

IMPORT_WITHOUT_TORCH = """
import importlib

module = importlib.import_module(sys.argv[1])
assert module.__file__, f"{sys.argv[1]} is a folder without __init__.py"
check()
"""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def undocumented(module: ast.Module) -> Iterator[str]:
    """Yield the public top-level names without a docstring.

    The docstring of a constant is the string below it; one string may stand below a group of adjacent lines.
    """
    documented, below = False, None
    for node in reversed(module.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names, documented = [node.name], ast.get_docstring(node) is not None or is_overload(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not is_type_variable(node):
            grouped = isinstance(below, ast.Assign | ast.AnnAssign) and below.lineno == node.end_lineno + 1
            names, documented = assigned(node), is_string(below) or (grouped and documented)
        else:
            names, documented = [], False
        if not documented:
            yield from (name for name in names if not name.startswith("_"))
        below = node


def assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def is_type_variable(node: ast.Assign | ast.AnnAssign) -> bool:
    return isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in {"TypeVar", "ParamSpec"}


def is_overload(node: ast.AST) -> bool:
    """Whether it is a signature of a function that follows."""
    return "overload" in map(ast.unparse, getattr(node, "decorator_list", ()))


def is_string(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@pytest.mark.parametrize("module", TORCH_FREE)
def test_imports_without_torch(module: str) -> None:
    done = run_without_torch(IMPORT_WITHOUT_TORCH, module, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_file_is_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{relative(path)} has {lines} lines; split it, {MAX_FILE_LINES} is the most."


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_are_small(path: Path) -> None:
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f"{node.name}, line {node.lineno}": node.end_lineno - node.lineno + 1 for node in functions}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES}
    assert not long, f"{relative(path)} has functions of more than {MAX_FUNCTION_LINES} lines: {long}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_public_names_are_documented(path: Path) -> None:
    module = parse(path)
    assert ast.get_docstring(module), f"{relative(path)} has no docstring."
    missing = list(undocumented(module))
    assert not missing, f"{relative(path)} has public names without a docstring: {', '.join(missing)}"


def test_names_of_the_package_are_those_for_use() -> None:
    names = [name for name in dir(causalunet) if not name.startswith("__")]
    assert names == sorted(causalunet.__all__)
    assert all(getattr(causalunet, name) is not None for name in names)


def test_lazy_names_are_what_type_checkers_see() -> None:
    module = parse(PACKAGE / "__init__.py")
    (seen,) = (node for node in module.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names if node.module != "causalunet"}
    assert homes == causalunet._HOME
    submodules = {alias.name for node in imports for alias in node.names if node.module == "causalunet"}
    assert set(causalunet.__all__) == {*homes, *submodules}


def test_modules_below_the_package_are_found() -> None:
    code = "import causalunet as cu; print(cu.schedule.__name__, cu.study.__name__, cu.Study.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("causalunet.schedule causalunet.study Study\n", "")


@pytest.mark.parametrize("name", ["absent", "a.b", "", "1"])
def test_what_is_no_name_of_the_package_is_no_attribute(name: str) -> None:
    assert not hasattr(causalunet, name)


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert causalunet.__version__ == project["version"]


def test_wheel_is_complete(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    weights = {relative(path) for path in (PACKAGE / "weights").glob("*.safetensors")}
    assert weights, "causalunet/weights holds no weights."
    data = {"causalunet/py.typed", "causalunet/report/page.html.jinja", "causalunet/data/imagenet_classes.txt"}
    wanted = {relative(path) for path in MODULES} | weights | data
    assert wanted <= packed, f"Not in the wheel: {sorted(wanted - packed)}"
