"""Ten faults in networks of four families: each is found by the check, and told by the message, that the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import causalunet as cu
from causalunet.errors import ConformanceError, SpecError
from causalunet.models.text_to_image import TextToImage
from causalunet.testing import MISFIRES, check_model, plant
from tests.models.pipelines.tiny import PROMPTS, dit, stable_diffusion
from tests.models.test_networks import Plain, made

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "misfires.md").read_text()
ROWS = {
    cells[0]: cells[1:]
    for cells in ([cell.strip() for cell in line.strip("| ").split("|")] for line in PAGE.splitlines())
    if len(cells) == 5 and cells[0] not in ("fault", "---")
}
DIALECTS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "diffusers' U-Net": (lambda: cu.from_pipeline(stable_diffusion(layers_per_block=1)), PROMPTS),
    "a stack of transformer blocks": (lambda: cu.from_pipeline(dit()), ["207", "360"]),
    "a network from the wild": (lambda: made(network=Plain(3), classes=3, null_class=2), ["0", "1"]),
}
OPENAI = "OpenAI's layout"


@cache
def model_of(dialect: str) -> Any:
    return DIALECTS[dialect][0]()


def place_of(model: Any) -> str:
    names = list(model.anatomy.by_name)
    return "mid" if "mid" in names else names[len(names) // 2]


def told(model: Any, prompts: list[str]) -> dict[str, str]:
    """What check_model finds wrong, by check; edits are tried where the fault is."""
    try:
        check_model(model, prompts, places=place_of(model))
    except ConformanceError as error:
        findings = error.report.findings
        return {one.check: "; ".join(one.problems) for one in findings if one.problems}
    return {}


def test_the_page_has_all_of_them() -> None:
    assert {name: (row[0], row[1]) for name, row in ROWS.items()} == {
        name: (one.told, one.found_by) for name, one in MISFIRES.items()
    }
    assert len(ROWS) == 10
    dialects = {OPENAI, *DIALECTS}
    assert all(f"| {dialect} |" in PAGE for dialect in dialects)


@pytest.mark.sampled(18)
@pytest.mark.parametrize("dialect", [OPENAI, *DIALECTS])
@pytest.mark.parametrize("misfire", ROWS)
def test_a_row_of_the_page(dialect: str, misfire: str, tiny_model: TextToImage) -> None:
    model, prompts = (
        (tiny_model, ["a red circle", "a striped blue cross"])
        if dialect == OPENAI
        else (model_of(dialect), DIALECTS[dialect][1])
    )
    _, check, said, _ = ROWS[misfire]
    wrong = told(plant(model, misfire), prompts)
    assert list(wrong) == [check], wrong
    assert said in wrong[check]
    assert re.search(MISFIRES[misfire].says, wrong[check])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_without_a_fault_nothing_is_found(dialect: str) -> None:
    assert not told(model_of(dialect), DIALECTS[dialect][1])


def test_planting_leaves_the_model_as_it_is(tiny_model: TextToImage) -> None:
    before = [name for name, _ in tiny_model.unet.named_modules()]
    plant(tiny_model, "never called")
    assert [name for name, _ in tiny_model.unet.named_modules()] == before
    with pytest.raises(SpecError, match="No misfire is called 'unheard of'; there are an edge too few, called twice"):
        plant(tiny_model, "unheard of")
