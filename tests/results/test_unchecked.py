"""A store with kinds and fills that a process does not know is not damaged: what cannot be checked is told as that."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import causalunet as cu
from causalunet.cli import main
from causalunet.cli.exits import Exit
from causalunet.design import Fill
from causalunet.design.fills import FILLS
from causalunet.design.interventions import KINDS
from causalunet.models.text_to_image import TextToImage
from tests.analysis.synthetic import edited


@dataclass(frozen=True, slots=True)
class Negated(Fill):
    """A fill of a user's own."""

    name: ClassVar[str] = "negated in a test"

    def apply(self, value: Any) -> Any:
        """Turn the sign."""
        return -value


@dataclass(frozen=True, slots=True)
class Doubled(cu.design.Intervention):
    """A kind of a user's own."""

    kind: ClassVar[str] = "doubled in a test"
    window: cu.Window

    def edits(self) -> tuple[cu.Edit, ...]:
        """One edit."""
        return (cu.Edit("mid", self.window, cu.Scale(2.0)),)


FILL, KIND = "the fill 'negated in a test'", "the kind 'doubled in a test'"
CUT = cu.AblateBlock(1, cu.Window(1, 1))
ITEMS = [cu.Edit("up.1", cu.Window(3, 1), Negated()), CUT, Doubled(cu.Window(2, 1)) + cu.AblateSkip(1, cu.Window(1, 1))]


@pytest.fixture(scope="module")
def own(tiny_model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.zarr"
    study = cu.Study(name="own", prompts=["a red circle"], sampler=cu.DDPM(steps=3), interventions=ITEMS)
    assert study.run(path, model=tiny_model, progress=False).verify(quiet=True).exit_code == 0
    return path


@pytest.fixture
def copy(own: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(own, tmp_path / "copy.zarr"))


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Be a process that has not imported the classes."""

    def act() -> None:
        monkeypatch.delitem(FILLS._entries, Negated.name)
        monkeypatch.delitem(KINDS._entries, Doubled.kind)

    return act


def test_what_is_not_imported_is_named_and_nothing_is_called_wrong(own: Path, forget: Callable[[], None]) -> None:
    forget()
    found = cu.open_results(own).verify(quiet=True)
    assert (found.exit_code, bool(found), found.unchecked) == (4, False, (FILL, KIND))
    assert found.verdict == f"not checkable here: {FILL}, {KIND}; nothing else is wrong"
    assert repr(found).endswith(f": {found.verdict}>")  # what was printed does not stand there again
    assert len(repr(found)) < 300 + len(found.verdict)
    assert "NOT sound" not in str(found)
    assert not any(finding.problems for finding in found.findings)


def test_the_command_has_a_status_for_it(
    own: Path, forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    forget()
    assert main(["verify", str(own)]) == Exit.UNCHECKED == 4
    assert capsys.readouterr().out.startswith(f"{own}: not checkable here: {FILL}, {KIND}")
    assert main(["verify", "--quiet", str(own)]) == 4
    assert capsys.readouterr().out.splitlines() == [
        f"{own}: study: not checkable here: {name}" for name in (FILL, KIND)
    ]


def test_exports_too(own: Path, tmp_path: Path, forget: Callable[[], None]) -> None:
    exported = cu.open_results(own).export(tmp_path / "export.zarr")
    forget()
    assert cu.open_results(exported).verify(quiet=True).exit_code == 4


ALSO = {
    "something wrong": ("outcomes/ssim", np.nan, 1),
    "another study": ("", None, 1),
    "something missing": ("outcomes/status", 0, 4),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ALSO)
def test_the_rest_is_checked(name: str, copy: Path, forget: Callable[[], None]) -> None:
    path, value, code = ALSO[name]
    with edited(copy) as root:
        if path:
            root[path][1, 0] = value  # type: ignore[index]
        else:
            root.attrs["study"] = {**root.attrs["study"], "name": "better"}  # type: ignore[dict-item]
    forget()
    found = cu.open_results(copy).verify(quiet=True)
    assert found.exit_code == code
    assert found.unchecked == (FILL, KIND)
    if code == 4:
        assert "1 cells not run yet" in str(found)


@pytest.mark.parametrize("fails", ["__post_init__", "edits"])
def test_a_class_that_is_another_one_now_is_no_damage(own: Path, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: Any) -> None:
        raise ZeroDivisionError("mine")

    monkeypatch.setattr(Doubled, fails, other)
    found = cu.open_results(own).verify(quiet=True)
    assert (found.exit_code, found.unchecked) == (4, (f"{KIND} as it is defined here (ZeroDivisionError: mine)",))


def test_kinds_of_the_package_that_cannot_be_read_are_wrong(copy: Path) -> None:
    with edited(copy) as root:
        row = 1
        spec = str(root["outcomes/spec"][row])  # type: ignore[index]
        for group in ("outcomes", "trajectory", "audit"):
            root[f"{group}/spec"][row] = spec.replace('"bottom": 1', '"bottom": 0')  # type: ignore[index]
    found = cu.open_results(copy).verify(quiet=True)
    assert found.exit_code == 1
    assert "intervention 1 cannot be read back" in str(found)
