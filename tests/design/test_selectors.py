"""What interventions are selected by beside their stored coordinates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given

import causalunet as cu
from causalunet.design import Intervention
from causalunet.design.selectors import SELECTORS, selectors
from tests.design.examples import interventions as any_interventions
from tests.design.examples import single_interventions

WINDOW = cu.Window(4, 2)
EDITS = [
    cu.Edit(place, WINDOW, fill, branch)
    for place in ("mid", "up.1", "skip.0")
    for fill in (cu.Zero(), cu.Scale(0.5), cu.Scale(2.0))
    for branch in ("both", "cond")
]


@given(single_interventions())
def test_selectors_are_the_fields(item: Intervention) -> None:
    found = selectors(json.loads(json.dumps(item.to_json())))
    assert found["component"] == getattr(item, "component", "")
    assert found["branch"] == getattr(item, "branch", "")
    words = [str(value) for value in (item.fill.name, *astuple(item.fill))] if isinstance(item, cu.Edit) else []
    assert found["fill"] == " ".join(words)


@given(any_interventions())
def test_a_composition_has_what_its_parts_have_in_common(item: Intervention) -> None:
    def leaves(one: Intervention) -> Iterator[dict[str, str]]:
        if isinstance(one, cu.Composition):
            for part in one.parts:
                yield from leaves(part)
        else:
            yield selectors(one.to_json())

    found = selectors(item.to_json())
    for name in SELECTORS:
        values = {leaf[name] for leaf in leaves(item)} - {""}
        if found[name]:
            assert found[name] in values
        if len(values) < 2:
            assert found[name] == "".join(values)


@pytest.fixture(scope="module")
def results(run_study: Any) -> cu.Results:
    return run_study(*EDITS, cu.AblateBlock(1, WINDOW), steps=4, prompts=["a red circle"])


def test_edits_are_selected_by_what_they_were_given(results: cu.Results) -> None:
    for group in (results.outcomes.ssim, results.trajectory.ran, results.audit.declared):
        for edit in EDITS:
            for fill in (edit.fill, "zero" if edit.fill == cu.Zero() else f"scale {edit.fill.factor}"):  # type: ignore[attr-defined]
                found = group.sel(component=edit.component, fill=fill, branch=edit.branch)
                assert found.intervention.values.tolist() == [edit.label]
        assert group.sel(component="up.1").sizes["intervention"] == 6
        assert group.sel(fill=[cu.Zero(), cu.Scale(2.0)], component=["mid", "skip.0"]).sizes["intervention"] == 8
    with pytest.raises(KeyError, match=r"scale 0\.5"):
        results.outcomes.ssim.sel(fill="scale 0.7")


def test_tables_and_analyses_know_them(results: cu.Results) -> None:
    table = results.to_frame("ssim")
    assert {"component", "fill", "branch"} <= set(table.columns)
    assert table[table.fill == "zero"].shape[0] == 6
    curve = cu.analysis.mean_curve(results, by="component", fill="zero", branch="cond", probability=None)
    assert set(curve.component.values) == {"mid", "up.1", "skip.0"}
