"""At most 64 cells or ten seconds of work are at stake, and how often is committed changes no number."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.execute.fill import pace
from causalunet.execute.fill.pace import CELLS, Pace, paced, portions
from causalunet.execute.fill.parts import Part
from causalunet.execute.walk.batches import samples_per_block
from causalunet.execute.walk.lockstep import run_block
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import BASELINE, Plan
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from tests.results.opened import assert_same

ROOT = Path(__file__).parents[2]


def model_on(device: str) -> SimpleNamespace:
    """As much of a model as says where it computes."""
    weight = SimpleNamespace(device=torch.device(device))
    return SimpleNamespace(unet=SimpleNamespace(parameters=lambda: [weight], buffers=list))


STUDY = cu.Study(
    name="paced",
    prompts=["a red circle"],
    seeds=range(4),
    sampler=cu.DDPM(steps=4, guidance_scale=1.0),
    interventions=[
        *cu.sweep(cu.AblateBlock, bottom=(1, 2), start=(4, 3), length=1),
        *cu.sweep(cu.AblateSkip, top=(1, 2), start=(3, 2), length=1),
        cu.SkipSteps(cu.Window(2, 1)),
    ],
)
Run = Callable[..., xr.DataTree]


@pytest.fixture
def run(tiny_model: TextToImage, tmp_path: Path) -> Run:
    def run_it(name: str = "s.zarr", study: cu.Study = STUDY, **options: Any) -> xr.DataTree:
        return study.run(tmp_path / name, model=tiny_model, progress=False, **options)

    return run_it


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A clock on which only parts take time: as long as ``"part"`` says; ``"parts"`` counts them."""
    times = {"now": 0.0, "part": 0.0, "parts": 0.0, "interrupt": math.inf}

    def timed(*arguments: Any, **options: Any) -> Any:
        times["parts"] += 1
        if times["parts"] > times["interrupt"]:
            raise KeyboardInterrupt
        times["now"] += times["part"]
        return run_block(*arguments, **options)

    monkeypatch.setattr("causalunet.execute.fill.part_runner.run_block", timed)
    monkeypatch.setattr("causalunet.execute.fill.store_filler.Pace", partial(Pace, clock=lambda: times["now"]))
    return times


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two interventions, all samples."""
    monkeypatch.setattr("causalunet.plan.GROUP", 2)


def commits(results: xr.DataTree) -> list[int]:
    """Cells of every commit, in their order."""
    return [commit.added["cells"] for commit in reversed(results.history()) if "cells" in commit.added]


@given(
    st.floats(0.001, 40.0),
    st.integers(1, 100),
    st.integers(1, 60),
)
def test_neither_cells_nor_seconds_are_at_stake_beyond_what_one_part_has(seconds: float, cells: int, n: int) -> None:
    now, at_stake, began, gaps = 0.0, 0, 0.0, []
    paced_by = Pace(clock=lambda: now)
    for _ in range(n):
        if paced_by.due(cells):
            gaps.append((now - began, at_stake))
            paced_by.committed()
            at_stake = 0
        began = now if at_stake == 0 else began
        paced_by.begin()
        now += seconds
        paced_by.end(cells)
        at_stake += cells
    assert all(gap <= max(10.0, seconds) * (1 + 1e-9) and many <= max(CELLS, cells) for gap, many in gaps)
    together = max(1, min(CELLS // cells, math.floor(10.0 / seconds * (1 + 1e-9))))
    assert abs(len(gaps) - (n - 1) // together) <= n // 50, "nor is it committed more often than that"


@pytest.mark.sampled(1)
@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize(("seconds", "expected"), [(0.0, [40]), (4.0, [16, 16, 8]), (11.0, [8] * 5)])
def test_a_run_commits_by_the_clock(run: Run, clock: dict[str, float], seconds: float, expected: list[int]) -> None:
    clock["part"] = seconds
    results = run()
    assert clock["parts"] == 5
    assert commits(results) == expected
    assert results.verify(quiet=True), results.verify()


@pytest.mark.thorough
def test_a_run_commits_by_the_number_of_cells(run: Run, clock: dict[str, float]) -> None:
    results = run(study=replace(STUDY, seeds=range(20)))
    cells = commits(results)
    assert sum(cells) == 20 * 10
    assert all(number <= CELLS for number in cells)
    assert len(cells) == math.ceil(20 / (CELLS // 10))


@pytest.mark.thorough
@pytest.mark.usefixtures("pairs")
def test_how_often_is_committed_changes_no_number(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: dict[str, float]
) -> None:
    recorded = replace(STUDY, record=cu.Record(activations="mid", summary="up.*", steps=(4, 1), of="all"))
    whole = run("whole.zarr", recorded)
    clock["part"] = 20.0
    often = run("often.zarr", recorded)
    assert len(commits(often)) > len(commits(whole)) == 1
    assert_same(tmp_path / "often.zarr", tmp_path / "whole.zarr")


@pytest.mark.thorough
@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize(("parts", "safe"), [(0, 0), (1, 0), (3, 16), (4, 32)])
def test_an_interrupt_says_what_is_safe_and_it_is(
    run: Run, clock: dict[str, float], tmp_path: Path, parts: int, safe: int
) -> None:
    clock["part"], clock["interrupt"] = 4.0, parts
    with pytest.raises(KeyboardInterrupt) as stopped:
        run()
    assert stopped.value.__notes__ == [f"{safe} of 40 cells are safe in {tmp_path / 's.zarr'}"]
    assert int((cu.open_results(tmp_path / "s.zarr").outcomes.status == 1).sum()) == safe
    clock["interrupt"], clock["parts"] = math.inf, 0
    results = run()
    assert clock["parts"] == (40 - safe) // 8, "what was safe is not run again, and nothing else is"
    run("whole.zarr")
    assert_same(tmp_path / "s.zarr", tmp_path / "whole.zarr")
    assert results.verify(quiet=True)


def test_a_search_that_is_interrupted_says_what_is_safe(
    tiny_model: TextToImage, clock: dict[str, float], tmp_path: Path
) -> None:
    clock["interrupt"] = 2
    with pytest.raises(KeyboardInterrupt) as stopped:
        STUDY.search(tmp_path / "s.zarr", model=tiny_model, progress=False)
    safe = int((cu.open_results(tmp_path / "s.zarr").outcomes.status == 1).sum())
    assert safe > 0
    assert stopped.value.__notes__ == [f"{safe} of 40 cells are safe in {tmp_path / 's.zarr'}"]


@pytest.mark.thorough
def test_stores_of_earlier_versions_are_gone_on_with_in_small_parts(
    run: Run, clock: dict[str, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = replace(STUDY, seeds=range(20))
    with monkeypatch.context() as patch:
        patch.setattr("causalunet.execute.fill.open_store.samples_per_block", lambda *_: 20)
        clock["interrupt"] = 0
        with pytest.raises(KeyboardInterrupt):
            run(study=study)
    writer = StudyWriter(Repository.open(Location.parse(tmp_path / "s.zarr")))
    assert writer.attributes.group == 128
    del writer.root.attrs["group"]
    writer.commit("as it was before there was such a thing", {})
    clock["interrupt"] = math.inf
    results = run(study=study)
    assert results.attrs["block"] == 20
    assert commits(results) == [60, 60, 60, 20]
    assert results.verify(quiet=True)


@pytest.fixture(params=[1, 2, 64])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    return int(request.param)


@pytest.fixture(scope="module")
def quick_plans() -> dict[str, Plan]:
    """Plans of ``make study`` that no one has cut."""
    place = ROOT / "studies" / "temporal_dynamics" / "study.py"
    spec = importlib.util.spec_from_file_location("temporal_dynamics", place)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    model = cu.load_model("shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "paced", lambda plan: plan)
        return {name: study.plan(model, calibrate=False) for name, study in script.quick(None).items()}


def parts_of(plan: Plan) -> Iterator[Part]:
    """Parts of a study of which nothing is there."""
    group, count = plan.group, len(plan.spec.interventions)
    for start in range(0, count, group):
        runs = tuple(range(start, min(start + group, count)))
        part = Part(slice(0, plan.samples), (BASELINE, *runs) if start == 0 else runs)
        yield from portions(part, plan.part(part.runs, forked=part.forked))


@pytest.mark.parametrize("name", ["open", "prompted"])
def test_the_quick_study_takes_no_call_more(quick_plans: dict[str, Plan], name: str, threads: int) -> None:
    before = quick_plans[name]
    assert before.unet_calls == {"open": 4424, "prompted": 2212}[name]
    after = paced(before)
    run = 0
    for part in parts_of(after):
        plan = after.part(part.runs, forked=part.forked)
        samples = part.samples.stop - part.samples.start
        assert part.cells <= CELLS
        assert plan.flops / plan.samples * samples <= 1.3 * after.part_flops
        run += len(plan.calls) * samples
    assert run == after.unet_calls == before.unet_calls


def test_samples_are_parted_before_interventions(quick_plans: dict[str, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, seen = quick_plans["open"], []
    for core in (1e15, 60e9, 50e9, 20e9, 1e8):
        monkeypatch.setattr(pace, "_CORE", core)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        cut = paced(plan)
        seen.append((samples_per_block(cut, 1 << 30, 64), min(cut.group, 31)))
        assert cut.unet_calls <= pace._MORE_CALLS * plan.unet_calls
    assert seen[0] == (2, 31), "64 cells"
    assert all(block == 1 for block, group in seen if group < 31)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < seen[1] == (1, 31)


def test_interventions_that_share_most_calls_stay_together(tiny_model: TextToImage, run: Run) -> None:
    lengths = replace(
        STUDY,
        sampler=cu.DDPM(steps=40),
        interventions=cu.sweep(cu.AblateBlock, bottom=1, start=40, length=range(1, 39)),
    )
    plan = lengths.plan(tiny_model, calibrate=False)
    assert plan.group == 128, "a tiny model is fast"
    slow = paced(replace(plan, part_flops=0.0))
    assert slow.group == 128
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "_CORE", 1.0)
        slow = paced(plan)
    assert slow.group == 64 > len(slow.spec.interventions), "a finer cut would make the first calls of all again"


def test_a_fast_device_has_larger_parts(quick_plans: dict[str, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    plan = quick_plans["prompted"]
    on_cpu, on_gpu = (paced(replace(plan, bound=replace(plan.bound, model=model_on(name)))) for name in ("cpu", "cuda"))
    assert (on_cpu.group, on_gpu.group) == (16, 128)
    assert samples_per_block(on_gpu, 1 << 30, 32) == 2, "64 cells"


@pytest.mark.thorough
def test_long_studies_are_committed_a_thousand_times(tiny_model: TextToImage) -> None:
    many = replace(STUDY, seeds=range(100_000)).plan(tiny_model, calibrate=False)
    assert many.part_cells == 1000
