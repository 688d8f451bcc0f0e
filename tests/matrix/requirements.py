"""What is installed: lower bounds of pyproject.toml, pins of constraints.txt, the newest; and where that must fail."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.matrix.interpreters import Interpreter

__all__ = ["EXPECTED", "KINDS", "dependencies", "installing", "judged", "key", "lower_bound", "unresolvable"]

LOWER, PINS, NEWEST = "lower", "pins", "newest"
KINDS = (LOWER, PINS, NEWEST)
"""Lower bounds, pins, newest."""

EXPECTED = {
    (LOWER, (3, 14)): "matplotlib==3.10",
}
"""Sets that cannot be installed from wheels on a version of Python, and the requirement that pip must name: anything
else that cannot be installed is a failure, and so is one of these that can."""

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?P<versions>[^;\[]*)(?P<marker>;.*)?")


def dependencies(root: Path) -> list[str]:
    """What the reading side needs, as pyproject.toml says it; no extra, and so no torch."""
    return list(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])


def lower_bound(requirement: str) -> str:
    """The oldest version that a requirement allows, and only that one."""
    parsed = _REQUIREMENT.fullmatch(requirement.strip())
    bounds = re.findall(r">=\s*([^\s,]+)", parsed["versions"]) if parsed else []
    if parsed is None or len(bounds) != 1:
        raise ValueError(f"{requirement!r} in pyproject.toml has no lower bound; write it as 'name>=version'.")
    return f"{parsed['name']}=={bounds[0]}{parsed['marker'] or ''}"


def installing(kind: str, root: Path) -> list[str]:
    """Arguments of ``pip install`` that make a set of what the package alone leaves open."""
    if kind == LOWER:
        return [lower_bound(requirement) for requirement in dependencies(root)]
    return ["--constraint", str(root / "constraints.txt")] if kind == PINS else []


def key(kind: str, interpreter: Interpreter, root: Path) -> str:
    """Name of an environment; another one for other requirements."""
    content = [str(interpreter.path), str(interpreter), kind, *dependencies(root)]
    if kind == PINS:
        content.append((root / "constraints.txt").read_text(encoding="utf-8"))
    return f"{interpreter}-{kind}-{hashlib.sha256(chr(10).join(content).encode()).hexdigest()[:12]}"


def unresolvable(output: str) -> str | None:
    """Why pip's resolution found no set of versions, in its words; None if something else went wrong."""
    if "(from versions: none)" in output:  # not one file of that name: so it looks where no index can be reached
        return None
    for pattern in (r"No matching distribution found for .+", r"Cannot install .+ conflicting dependencies"):
        if found := re.search(rf"^ERROR: ({pattern})", output, re.MULTILINE):
            return found[1].strip()
    return None


def judged(kind: str, minor: Sequence[int], reason: str | None) -> str | None:
    """What is wrong with a set that was installed (no reason), or cannot be; None if it was to be so."""
    expected = EXPECTED.get((kind, tuple(minor[:2])))
    if expected is None:
        return None if reason is None else f"not installable, and not expected to be so: {reason}"
    if reason is None:
        return f"installable, and expected not to be for want of {expected}: strike it from EXPECTED"
    if not re.search(rf"(?<![\w.-]){re.escape(expected)}(?![\w.])", reason):
        return f"not installable for another reason than {expected}: {reason}"
    return None
