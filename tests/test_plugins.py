"""Packages that announce fills, kinds and models as entry points: found without an import, imported when asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import causalunet as cu
from causalunet import registry
from causalunet.cli.exits import Exit
from causalunet.design import Fill, Intervention
from causalunet.design.fills import FILLS
from causalunet.design.interventions import KINDS
from causalunet.errors import PluginError, SpecError
from causalunet.models import load_model, model_names
from causalunet.models.base import MODELS
from causalunet.models.text_to_image import TextToImage

PLUGINS = Path(__file__).parent / "plugins"
FLIP = {"name": "guests.flip", "configuration": {}}
FLIP_SKIP = {"name": "guests.flip_skip", "configuration": {"skip": 1, "window": [[3, 2]], "label": "mirrored"}}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if pip had installed the package, and nothing had imported it."""
    monkeypatch.syspath_prepend(PLUGINS)
    registry._announced.cache_clear()
    with FILLS.scoped(), KINDS.scoped(), MODELS.scoped():
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "guests"]:
        del sys.modules[name]
    registry._announced.cache_clear()


def test_names_are_listed_without_an_import() -> None:
    assert "guests.flip" in FILLS
    assert "guests.flip" in list(FILLS)
    assert len(FILLS) == len(list(FILLS))
    assert "guests.tiny" in model_names()
    assert not [name for name in sys.modules if name.partition(".")[0] == "guests"]


def test_what_is_asked_for_is_imported() -> None:
    fill = Fill.from_json(FLIP)
    assert (type(fill).__module__, fill.to_json()) == ("guests.flip", FLIP)
    item = Intervention.from_json(FLIP_SKIP)
    assert [edit.fill for edit in item.edits()] == [fill]
    assert "guests.tiny" not in sys.modules, "only what is asked for"


def test_a_model_needs_no_decorator() -> None:
    assert load_model("guests.tiny").name == "guests.tiny"
    study = cu.Study(
        name="s", model="guests.tiny", prompts=["a red circle"], interventions=[cu.SkipSteps(cu.Window(2, 1))]
    )
    assert study.plan(calibrate=False).samples == 1


def test_a_study_of_a_guest_runs_and_is_opened_by_a_process_that_has_not_imported_it(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = cu.Study(
        name="s",
        prompts=["a red circle"],
        sampler=cu.DDPM(steps=4),
        interventions=[Intervention.from_json(FLIP_SKIP), cu.Edit("mid", cu.Window(3, 2), Fill.from_json(FLIP))],
    )
    results = study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert results.verify(quiet=True).exit_code == 0
    assert float(results.outcomes.ssim.sel(kind="guests.flip_skip").squeeze()) < 1
    root, command = (
        Path(cu.__file__).parents[1],
        [sys.executable, "-m", "causalunet", "verify", str(tmp_path / "s.zarr")],
    )
    for path, status in ((f"{PLUGINS}:{root}", Exit.DONE), (str(root), Exit.UNCHECKED)):
        monkeypatch.setenv("PYTHONPATH", path)
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        assert ran.returncode == status, ran.stdout + ran.stderr
    assert "guests.flip" in ran.stdout, "without the package they are named"
    np.testing.assert_array_equal(cu.open_results(tmp_path / "s.zarr").outcomes.status, 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("guests.gone", "cannot be imported: ModuleNotFoundError: No module named 'guests.gone'"),
        ("guests.twin", "does not go by that name: guests.flip.Flip is registered under another, or none"),
        ("stray", "is not named after the package; there it should be called guests.stray"),
    ],
)
def test_what_a_package_announces_wrongly_is_told(name: str, said: str) -> None:
    with pytest.raises(PluginError, match=f"The fill '{name}', which the package guests announces as .*{said}"):
        Fill.from_json({"name": name, "configuration": {}})


def test_a_store_of_a_fill_that_cannot_be_imported_is_read_and_told_as_that(
    tiny_model: TextToImage, tmp_path: Path
) -> None:
    study = cu.Study(
        name="s",
        prompts=["a red circle"],
        sampler=cu.DDPM(steps=4),
        interventions=[cu.Edit("mid", cu.Window(3, 2), Fill.from_json(FLIP))],
    )
    study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    with FILLS.scoped(**{"guests.flip": None}):
        sys.modules["guests.flip"] = None  # type: ignore[assignment]
        found = cu.open_results(tmp_path / "s.zarr").verify(quiet=True)
        assert found.exit_code == 4
        assert "cannot be imported" in found.verdict


def test_nobody_else_takes_a_name_that_is_announced() -> None:
    def define() -> Any:
        return type("Other", (Fill,), {"name": "guests.flip"})

    with pytest.raises(SpecError, match=r"'guests\.flip' is announced by the package guests\. Give .*Other a name"):
        define()


def test_what_exists_is_named_where_nothing_is_found() -> None:
    with pytest.raises(SpecError, match=r"known fills: guests\.flip, .*, zero"):
        Fill.from_json({"name": "guests.flap", "configuration": {}})
    with pytest.raises(SpecError, match=r"No fill is called 'guests\.flap'; there are guests\.flip"):
        FILLS["guests.flap"]


def test_scoped_brings_back_what_was_there() -> None:
    before = {name: FILLS[name] for name in ("zero", "scale")}
    with FILLS.scoped(zero=None, mine=before["scale"]):
        assert "zero" not in FILLS
        assert FILLS["mine"] is before["scale"]
    assert "mine" not in FILLS
    assert FILLS["zero"] is before["zero"]
    assert json.loads(json.dumps(Fill.from_json({"name": "zero", "configuration": {}}).to_json()))
