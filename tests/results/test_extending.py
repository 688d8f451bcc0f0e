"""Studies that grow: what is stored is kept, what is new starts from the stored baseline, and both fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import causalunet as cu
from causalunet.errors import StoreError
from causalunet.execute.walk.lockstep import run_block
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import BASELINE, Plan
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter

ROUNDING = 1e-5
SMALL = cu.Study(
    name="growing",
    prompts=["a red circle", "a blue cross"],
    seeds=[3],
    sampler=cu.DDPM(steps=5),
    interventions=[*cu.sweep(cu.AblateBlock, bottom=2, start=(5, 3), length=2), cu.SkipSteps(cu.Window(3, 1))],
    record=cu.Record(activations="mid", summary="up.*", steps=(4, 2), of="all", dtype="float32"),
)
GROWN = {
    "interventions": {
        "interventions": [
            cu.AblateSkip(1, cu.Window(5, 3)),  # a longer window: the null intervention becomes longer too
            *(item for item in SMALL.interventions if item.kind != "null"),
            cu.SkipSteps(cu.Window(2, 1)),
        ]
    },
    "samples": {"seeds": [1, 3], "prompts": ["a green square", *SMALL.prompts]},
    "components": {"record": replace(SMALL.record, activations=("down.0", "mid"), summary=("up.*", "down.1"))},
}
FORMS = {
    "whole too": {"record": replace(SMALL.record, activations=("mid", "up.1"))},
    "summary too": {"record": replace(SMALL.record, summary=("mid", "up.*"))},
}
GROWN |= FORMS
GROWN["everything"] = GROWN["interventions"] | GROWN["samples"] | GROWN["components"]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Plan, int]]]:
    """Plan of every part that is run, with its number of samples."""
    run: list[tuple[Plan, int]] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        run.append((arguments[1], len(arguments[2].seeds)))
        return run_block(*arguments, **options)

    monkeypatch.setattr("causalunet.execute.fill.part_runner.run_block", noted)
    return run


def by_name(results: xr.DataTree, path: str) -> dict[tuple[str, ...], np.ndarray]:
    """Values of a variable by what they are of, whatever their place."""
    group, _, name = path.rpartition("/")
    dataset = results[group].to_dataset()
    array = dataset[name]
    names = {
        "intervention": [str(digest) for digest in dataset["digest"].values] if "digest" in dataset.coords else [],
        "sample": [f"{p} {s}" for p, s in zip(dataset["prompt"].values, dataset["seed"].values, strict=True)]
        if "prompt" in dataset.coords
        else [],
        "component": [str(c) for c in dataset["component"].values] if "component" in dataset.coords else [],
        "place": [str(c) for c in dataset["place"].values] if "place" in dataset.coords else [],
    }
    own = [dim for dim in array.dims if names.get(str(dim))]
    values = array.transpose(*own, ...).values
    return {
        tuple(names[dim][i] for dim, i in zip(own, index, strict=True)): np.asarray(values[index])
        for index in np.ndindex(*values.shape[: len(own)])
    }


def variables(results: xr.DataTree) -> list[str]:
    skipped = {"audit/seconds", "audit/unet_calls", "audit/drift"}
    paths = [f"{node.path[1:]}/{name}" for node in results.leaves for name in node.to_dataset().data_vars]
    return [path for path in paths if path not in skipped]


def assert_alike(grown: xr.DataTree, fresh: xr.DataTree) -> None:
    """All that the fresh store holds stands in the grown one, to rounding."""
    for path in variables(fresh):
        there, here = by_name(grown, path), by_name(fresh, path)
        assert here.keys() <= there.keys(), path
        for key, values in here.items():
            if path == "outcomes/psnr":  # equal images have no end of it, those equal to rounding more than 100 dB
                np.testing.assert_allclose(np.minimum(there[key], 100), np.minimum(values, 100), rtol=1e-3)
            elif values.dtype.kind == "f":
                tolerance = 100 * ROUNDING if path.endswith("norm") or "activations" in path else ROUNDING
                np.testing.assert_allclose(there[key], values, rtol=1e-3, atol=tolerance, err_msg=f"{path} {key}")
            else:
                np.testing.assert_array_equal(there[key], values, err_msg=f"{path} {key}")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, id=name, marks=[pytest.mark.thorough if name == "everything" else pytest.mark.slow])
        for name, change in GROWN.items()
    ],
)
def test_a_grown_study_is_as_if_it_had_been_so_from_the_start(
    change: dict[str, Any], tiny_model: TextToImage, tmp_path: Path
) -> None:
    before = SMALL.run(tmp_path / "grown.zarr", model=tiny_model, progress=False)
    stored = {path: by_name(before, path) for path in variables(before)}
    larger = replace(SMALL, **change)
    grown = larger.run(tmp_path / "grown.zarr", model=tiny_model, progress=False)
    fresh = larger.run(tmp_path / "fresh.zarr", model=tiny_model, progress=False)
    assert_alike(grown, fresh)
    assert grown.verify(quiet=True), grown.verify()
    assert grown.attrs["digest"] == larger.digest
    assert cu.Study.from_json(grown.attrs["study"]) == larger
    for path, values in stored.items():  # what was stored stays bit for bit
        now = by_name(grown, path) if path != "audit/null_difference" else values  # the largest of all null runs
        for key, value in values.items():
            np.testing.assert_array_equal(now[key], value, err_msg=f"{path} {key}")


def test_added_interventions_start_from_the_stored_baseline(
    tiny_model: TextToImage, tmp_path: Path, plans: list[tuple[Plan, int]]
) -> None:
    plain = replace(SMALL, record=cu.Record())
    plain.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    plans.clear()
    late = cu.AblateBlock(1, cu.Window(2, 2))
    grown = replace(plain, interventions=[*plain.interventions, late])
    grown.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    ((plan, samples),) = plans
    assert BASELINE not in {run for call in plan.calls for run in call.runs}
    assert [call.step for call in plan.calls] == [2, 1], "two calls, not five"
    assert samples == 2


@pytest.mark.thorough
def test_added_samples_run_alone(tiny_model: TextToImage, tmp_path: Path, plans: list[tuple[Plan, int]]) -> None:
    SMALL.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    plans.clear()
    replace(SMALL, seeds=[3, 4]).run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert sum(samples for _, samples in plans) == 2


@pytest.mark.thorough
def test_added_components_of_the_baseline_take_one_call_per_recorded_step(
    tiny_model: TextToImage, tmp_path: Path, plans: list[tuple[Plan, int]]
) -> None:
    of_baseline = replace(SMALL, record=replace(SMALL.record, of="baseline"))
    of_baseline.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    plans.clear()
    more = replace(of_baseline, record=replace(of_baseline.record, activations=("mid", "down.*")))
    grown = more.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert [[call.step for call in plan.calls] for plan, _ in plans] == [[4, 2]]
    fresh = more.run(tmp_path / "f.zarr", model=tiny_model, progress=False)
    assert_alike(grown, fresh)


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMS)
def test_what_is_stored_of_a_component_is_not_written_again_for_more_of_it(
    form: str, tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay is equal to rounding only, so it may not replace what stands there."""
    SMALL.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    written: list[tuple[str, Any]] = []
    write = StudyWriter.write

    def noted(self: StudyWriter, path: str, index: Any, values: Any) -> None:
        written.append((path, index))
        write(self, path, index, values)

    monkeypatch.setattr(StudyWriter, "write", noted)
    replace(SMALL, **FORMS[form]).run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    values = [(path, index) for path, index in written if path.startswith("activation")]
    if form == "whole too":
        assert {path.rpartition("/")[0] for path, _ in values} == {"activations/up.1"}
    else:
        column = cu.open_results(tmp_path / "s.zarr").activation_summary.component.values.tolist().index("mid")
        assert {path.rpartition("/")[0] for path, _ in values} == {"activation_summary"}
        assert {str(index[-1]) for _, index in values} == {str(slice(column, column + 1))}


@pytest.mark.thorough
def test_growing_waits_for_nobody_and_says_so(tiny_model: TextToImage, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    SMALL.run(path, model=tiny_model, progress=False)
    larger = replace(SMALL, **GROWN["interventions"])
    with Repository.open(Location.parse(path)).claim("block-000000", wait="no") as free:
        assert free
        with pytest.raises(StoreError, match="Another process is running the study"):
            larger.run(path, model=tiny_model, progress=False)
        SMALL.run(path, model=tiny_model, progress=False)  # nothing to do, so nothing to wait for
    assert len(larger.run(path, model=tiny_model, progress=False).outcomes.intervention) == 7


def test_a_study_that_became_smaller_is_refused(tiny_model: TextToImage, tmp_path: Path) -> None:
    replace(SMALL, **GROWN["everything"]).run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    with pytest.raises(StoreError, match=r"interventions: the study lacks .*samples: .*record\.summary: .*down\.1"):
        SMALL.run(tmp_path / "s.zarr", model=tiny_model, progress=False)


@pytest.mark.thorough
def test_history_tells_what_each_commit_added(tiny_model: TextToImage, tmp_path: Path) -> None:
    results = SMALL.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    results.tag("paper-v1")
    grown = replace(SMALL, **GROWN["samples"]).run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    history = grown.history()
    messages = [commit.message for commit in history]
    assert messages[-2:] == ["a study laid out", "Repository initialized"]
    assert "grown by 4 samples" in messages
    assert sum(commit.added.get("cells", 0) for commit in history) == grown.outcomes.status.size
    assert sum(commit.added.get("unet_calls", 0) for commit in history) == int(grown.audit.unet_calls.sum())
    assert [commit.tags for commit in history if commit.tags] == [("paper-v1",)]
    assert not any(prompt in repr(history) for prompt in grown.outcomes.prompt.values), "history holds no prompts"
    assert str(tmp_path) not in repr(history), "history holds no paths"
    tagged = cu.open_results(tmp_path / "s.zarr", at="paper-v1")
    xr.testing.assert_identical(tagged.outcomes.ssim.load(), results.outcomes.ssim.load())
    assert cu.open_results(tmp_path / "s.zarr", at=history[0].id).outcomes.sizes["sample"] == 6
    with pytest.raises(StoreError, match=r"has no tag or commit 'paper-v2'\. Tags: paper-v1\."):
        cu.open_results(tmp_path / "s.zarr", at="paper-v2")
    with pytest.raises(StoreError, match="has a tag 'paper-v1' already, and tags never move"):
        grown.tag("paper-v1")


@pytest.mark.thorough
def test_what_was_opened_stays_as_it_was(tiny_model: TextToImage, tmp_path: Path) -> None:
    """Results opened before a study grows are those of then."""
    before = SMALL.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    replace(SMALL, **GROWN["everything"]).run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert before.outcomes.ssim.shape == before.outcomes.ssim.load().shape == (4, 2)
    assert before.outcomes.ssim.notnull().all()


def test_only_stores_have_a_history(results_of: Callable[[Path], cu.results.Results], tmp_path: Path) -> None:
    results = results_of(tmp_path / "s.zarr")
    exported = cu.open_results(results.export(tmp_path / "e.zarr"))
    with pytest.raises(StoreError, match="is an export: it has no history"):
        exported.history()
    with pytest.raises(StoreError, match="is an export: it has no history"):
        exported.tag("paper-v1")
    with pytest.raises(StoreError, match="is an export: it has no history"):
        cu.open_results(tmp_path / "e.zarr", at="paper-v1")
    with pytest.raises(StoreError, match="not a store"):
        cu.results.Results.from_dict({"/outcomes": results.outcomes.to_dataset()}).verify()


@pytest.fixture
def results_of(tiny_model: TextToImage) -> Callable[[Path], cu.results.Results]:
    return lambda path: replace(SMALL, record=cu.Record()).run(path, model=tiny_model, progress=False)
