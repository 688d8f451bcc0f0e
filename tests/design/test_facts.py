"""What notebooks show of a study, its interventions, its results and its shortcuts: all of it, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

import causalunet as cu

HOSTILE = "<b>bold</b> & \x1b[2J"


def table(shown: str) -> tuple[str, dict[str, str]]:
    """Title and rows of the first table."""
    found = BeautifulSoup(shown, "html.parser").find("table")
    assert found is not None
    assert found.caption is not None
    rows = {row.th.get_text(): row.td.get_text() for row in found.find_all("tr") if row.th and row.td}
    return found.caption.get_text(), rows


@pytest.fixture
def study() -> cu.Study:
    return cu.Study(
        name=HOSTILE,
        prompts=[HOSTILE, *(f"prompt {number}" for number in range(8))],
        seeds=range(2),
        sampler=cu.DDIM(steps=5, guidance_scale=3.0),
        interventions=[
            *cu.sweep(cu.AblateBlock, bottom=1, start=(5, 3), length=2),
            cu.Edit(cu.Site("mid") @ cu.Channels(0, 1), cu.Window(4, 1), cu.Scale(0.5), branch="cond"),
        ],
        record=cu.Record(summary=["up.*"]),
        outcomes=["histogram_distance"],
    )


def test_a_study_says_what_it_asks_for(study: cu.Study) -> None:
    shown = study._repr_html_()
    title, rows = table(shown)
    assert "<b>" not in shown.replace("&lt;b&gt;", "")
    assert "\x1b" not in shown
    assert title.startswith("Study '<b>bold</b>")
    assert rows["sampler"] == "ddim, steps 5, guidance scale 3.0, eta 0.0"
    assert rows["samples"] == "18, 2 of each prompt"
    assert rows["prompts"].endswith("prompt 4 and 3 more")
    assert rows["interventions"] == "4 (2 ablate_block, 1 edit, 1 null)"
    assert "ablate_block bottom=1 5-4" in rows["of them"]
    assert rows["recorded"] == "statistics of up.*"
    assert rows["outcomes"] == "histogram_distance"


def test_an_intervention_says_each_edit(study: cu.Study) -> None:
    title, rows = table(study.interventions[2]._repr_html_())
    assert title == "Intervention 'edit mid 4-4 scale 0.5 branch=cond channels 0-1'"
    assert rows["edit 1"] == "mid rows cond channels 0-1: scale 0.5, steps 4-4"
    several = cu.Composition([cu.Edit(f"up.{number}", cu.Window(4, 2)) for number in range(8)])
    _, rows = table(several._repr_html_())
    assert [name for name in rows if name.startswith("edit")] == [f"edit {number}" for number in range(1, 7)]
    assert rows["and"] == "2 more"


def test_results_say_how_much_of_them_is_there(tmp_path: Path, tiny_model: Any) -> None:
    made = cu.Study(
        name=HOSTILE,
        prompts=["a red circle"],
        sampler=cu.DDPM(steps=2),
        interventions=[cu.SkipSteps(cu.Window(1, 1))],
    )
    results = made.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    shown = results._repr_html_()
    title, rows = table(shown)
    assert title.startswith("Results of the study '<b>bold")
    assert rows["cells"] == "2 of 2 complete"
    assert "xr-wrap" in shown, "xarray's own view stands below"
    assert "<b>bold" not in shown


def test_a_shortcut_says_what_it_leaves_out() -> None:
    shortcut = cu.Shortcut(name=HOSTILE, intervention=cu.SkipSteps(cu.Window(3, 1)), evidence={"lowest_ssim": 0.97})
    title, rows = table(shortcut._repr_html_())
    assert title.startswith("Shortcut '<b>bold")
    assert rows["left out"] == "skip_steps 3-3"
    assert rows["evidence, lowest ssim"] == "0.97"
