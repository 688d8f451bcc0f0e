"""The table of what guests bring: each alone in an empty package, found by its announcement, checked by the kit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import causalunet as cu
from causalunet import testing
from causalunet.design import Fill, Intervention, Sampler, Start, View
from causalunet.design.outcomes import Outcome
from causalunet.models import load_model
from causalunet.models.text_to_image import TextToImage
from tests.conftest import installed

PACKAGE = Path(cu.__file__).parent
GUESTS = Path(__file__).parent / "plugins" / "guests"
ANNOUNCED = Path(__file__).parent / "plugins" / "guests-1.0.dist-info" / "entry_points.txt"
PAGE = Path(__file__).parents[1] / "docs" / "howto" / "extend.md"
ROW = re.compile(r"^\| an? (\w+)[^|]*\| `(\w+)` \| `guests\.(\w+)` \| (\d+) \| (\d+) \|", re.MULTILINE)
BROUGHT = [match.groups() for match in ROW.finditer(PAGE.read_text())]


def spec(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def check(name: str, model: TextToImage) -> testing.Conformance:
    """What the kit has for it."""
    checks: dict[str, Callable[[str], testing.Conformance]] = {
        "dpmpp_2m": lambda name: testing.check_sampler(Sampler.from_json(spec(name, steps=8))),
        "checkerboard": lambda name: testing.check_view(View.from_json(spec(name))),
        "blend": lambda name: testing.check_fill(Fill.from_json(spec(name))),
        "edge_loss": lambda name: testing.check_outcome(Outcome.from_json(spec(name, least=0.01))),
        "colour_distance": lambda name: testing.check_outcome(Outcome.from_json(spec(name, labels=["r", "g", "b"]))),
        "mirrored": lambda name: testing.check_start(Start.from_json(spec(name, seed=1))),
        "flip_skip": lambda name: testing.check_intervention(
            Intervention.from_json(spec(name, skip=1, window=[[3, 2]], label="")), anatomy=model.anatomy, steps=4
        ),
        "stack": lambda name: testing.check_model(load_model(name), ["anything"], places="block.1"),
    }
    return checks[name](f"guests.{name}")


def files_of(name: str, folder: Path) -> list[Path]:
    """Put the file that is announced under a name alone into an empty package, with its announcement."""
    group, line = "", ""
    for text in ANNOUNCED.read_text().splitlines():
        group = text if text.startswith("[") else group
        if text.startswith(f"guests.{name} ="):
            line = text
            break
    module = line.partition("=")[2].strip().partition(":")[0].partition(".")[2]
    written = [GUESTS / f"{module}.py"]
    (folder / "guests").mkdir()
    (folder / "guests" / "__init__.py").write_text("")
    for path in written:
        (folder / "guests" / path.name).write_text(path.read_text())
    announcements = folder / "guests-1.0.dist-info"
    announcements.mkdir()
    (announcements / "METADATA").write_text("Metadata-Version: 2.1\nName: guests\nVersion: 1.0\n")
    # A file may bring several that belong together; all of it is announced, and nothing else.
    (announcements / "entry_points.txt").write_text(f"{group}\n{line}\n")
    return written


def test_the_table_has_everything_that_can_be_brought() -> None:
    assert {base for _, base, *_ in BROUGHT} == {
        *("Sampler", "View", "Fill", "Outcome", "Start", "Intervention", "DiffusionModel")
    }


@pytest.mark.parametrize(("what", "name", "written", "changed"), [(row[0], *row[2:]) for row in BROUGHT])
def test_what_is_brought_is_one_file_and_changes_none_of_the_package(
    what: str,
    name: str,
    written: str,
    changed: str,
    tiny_model: TextToImage,
    tmp_path: Path,
) -> None:
    files = files_of(name, tmp_path)
    assert len(files) == int(written), what
    known = [path for path in PACKAGE.rglob("*.py") if f"guests.{name}" in path.read_text()]
    assert len(known) == int(changed), known
    with installed(tmp_path):
        assert check(name, tiny_model)
