"""Large studies go through a block in groups of interventions, each committed when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.execute.fill.open_store import _largest_block
from causalunet.execute.fill.pace import Pace
from causalunet.execute.fill.parts import Part, Progress
from causalunet.execute.walk.lockstep import run_block
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import BASELINE, Plan
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.schema import COMPLETE, FAILED, MISSING
from tests.results.opened import assert_same

STUDY = cu.Study(
    name="groups",
    prompts=["a red circle", "a blue cross"],
    sampler=cu.DDPM(steps=5),
    interventions=[
        *cu.sweep(cu.AblateBlock, bottom=(1, 2), start=(5, 3), length=2),
        cu.SkipSteps(cu.Window(4, 2)),
        cu.SkipSteps(cu.Window(2, 1)),
    ],
    record=cu.Record(summary="up.*", steps=(4, 1), of="all"),
)


@pytest.fixture
def groups_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalunet.plan.GROUP", 3)
    monkeypatch.setattr("causalunet.execute.fill.store_filler.Pace", partial(Pace, 0.0))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Plan]]:
    """Plan of every part that is run."""
    run: list[Plan] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        run.append(arguments[1])
        return run_block(*arguments, **options)

    monkeypatch.setattr("causalunet.execute.fill.part_runner.run_block", noted)
    return run


@pytest.mark.thorough
@pytest.mark.usefixtures("groups_of_three")
def test_groups_give_what_one_piece_gives(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[Plan]
) -> None:
    grouped = STUDY.run(tmp_path / "groups.zarr", model=tiny_model, progress=False)
    served = [{run for call in plan.calls for run in call.runs} for plan in parts]
    assert served == [{BASELINE, 0, 1, 2}, {BASELINE, 3, 4, 5}, {BASELINE, 6}], "the baseline is replayed to compare"
    planned = STUDY.plan(tiny_model, calibrate=False).unet_calls
    replayed = sum(len(plan.calls) for plan in parts) - planned // 2
    assert 0 <= replayed <= 4, "two recorded steps in each of two parts, unless a run makes the same call"
    assert [commit.added.get("cells", 0) for commit in grouped.history()][:3] == [2, 6, 6]
    assert grouped.verify(quiet=True)
    monkeypatch.undo()
    whole = STUDY.run(tmp_path / "whole.zarr", model=tiny_model, progress=False)
    for path in ("outcomes/ssim", "outcomes/image", "trajectory/x0_distance", "activation_summary/cosine"):
        group, _, name = path.partition("/")
        np.testing.assert_allclose(grouped[group][name], whole[group][name], atol=1e-5, err_msg=path)
    np.testing.assert_array_equal(grouped.audit.fired, whole.audit.fired)


@pytest.mark.usefixtures("groups_of_three")
def test_plans_foretell_the_calls_of_groups(tiny_model: TextToImage, tmp_path: Path, parts: list[Plan]) -> None:
    plain = cu.Study.from_json({**STUDY.to_json(), "record": {}})
    results = plain.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    planned = plain.plan(tiny_model, calibrate=False).unet_calls
    assert 2 * sum(len(plan.calls) for plan in parts) == planned == int(results.audit.unet_calls.sum())


@pytest.mark.thorough
@pytest.mark.usefixtures("groups_of_three")
def test_a_run_goes_on_after_its_last_group(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[Plan]
) -> None:
    STUDY.run(tmp_path / "whole.zarr", model=tiny_model, progress=False)
    parts.clear()

    def interrupted(*arguments: Any, **options: Any) -> Any:
        parts.append(arguments[1])
        if len(parts) == 2:
            raise KeyboardInterrupt
        return run_block(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("causalunet.execute.fill.part_runner.run_block", interrupted)
        with pytest.raises(KeyboardInterrupt):
            STUDY.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    seen = cu.open_results(tmp_path / "s.zarr")
    assert seen.outcomes.status.values.tolist() == [[1, 1]] * 3 + [[0, 0]] * 4
    parts.clear()
    STUDY.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert len(parts) == 2
    assert_same(tmp_path / "s.zarr", tmp_path / "whole.zarr")


class Statuses:
    """What `Progress` asks of a writer."""

    def __init__(self, baseline: list[int], cells: list[list[int]]) -> None:
        self.stored = {"baseline/status": np.array(baseline), "outcomes/status": np.array(cells)}

    def read(self, path: str, index: tuple[Any, ...]) -> np.ndarray:
        return (self.stored[path])[index]

    def has(self, path: str) -> bool:
        return path in self.stored


@pytest.fixture
def missing(tiny_model: TextToImage) -> Callable[..., list[Part]]:
    study = cu.Study(
        name="three cells",
        prompts=["a red circle"],
        seeds=range(4),
        sampler=cu.DDPM(steps=5),
        interventions=[cu.SkipSteps(cu.Window(2, 1)), cu.SkipSteps(cu.Window(3, 1)), cu.Null(cu.Window(3, 1))],
    )
    layout = Layout(study.plan(tiny_model, calibrate=False), {}, 4)

    def ask(baseline: list[int], cells: list[list[int]], *, retry: bool = False, **options: Any) -> list[Part]:
        progress = Progress(Statuses(baseline, cells), layout, retry_failed=retry)  # type: ignore[arg-type]
        return progress.missing(slice(0, 4), **options)

    return ask


def test_parts_are_what_is_missing(missing: Callable[..., list[Part]]) -> None:
    one, none, bad = COMPLETE, MISSING, FAILED
    whole = [[one] * 4] * 3
    assert missing([one] * 4, whole) == []
    assert missing([none] * 4, [[none] * 4] * 3) == [Part(slice(0, 4), (BASELINE, 0, 1, 2))]
    hole = [[one, none, none, one], [one] * 4, [one, one, none, one]]
    assert missing([one] * 4, hole) == [Part(slice(1, 2), (0,)), Part(slice(2, 3), (0, 2))]
    assert missing([one, one, none, none], [[one, one, none, none]] * 3) == [Part(slice(2, 4), (BASELINE, 0, 1, 2))]
    assert missing([one] * 4, [[none] * 4] * 3, runs=[1]) == [Part(slice(0, 4), (1,))]
    assert missing([none] * 4, [[none] * 4] * 3, runs=[]) == [Part(slice(0, 4), (BASELINE,))]
    failed = [[one, bad, one, one], [one] * 4, [one] * 4]
    assert missing([one] * 4, failed) == []
    assert missing([one] * 4, failed, retry=True) == [Part(slice(1, 2), (0,))]
    no_baseline = [[one, bad, one, one]] * 3
    assert missing([one, bad, one, one], no_baseline) == []
    assert missing([one, bad, one, one], no_baseline, retry=True) == [Part(slice(1, 2), (BASELINE, 0, 1, 2))]


@pytest.mark.thorough
def test_statuses_are_read_in_proportion_to_what_is_run(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all of them for each part, which took 28 s at 160 samples."""
    read, values = StudyWriter.read, list[int]()

    def counted(writer: StudyWriter, path: str, index: tuple[Any, ...] = ()) -> Any:
        found = read(writer, path, index)
        if path.endswith("/status"):
            values.append(found.size)
        return found

    monkeypatch.setattr(StudyWriter, "read", counted)
    monkeypatch.setattr("causalunet.execute.fill.store_filler.Pace", partial(Pace, 0.0))
    monkeypatch.setattr("causalunet.execute.fill.open_store.samples_per_block", lambda *_: 1)
    totals = []
    for samples in (4, 12):
        study = cu.Study(
            name="s",
            prompts=["a red circle"],
            seeds=range(samples),
            sampler=cu.DDPM(steps=2, guidance_scale=1),
            interventions=[cu.SkipSteps(cu.Window(1, 1)), cu.AblateBlock(bottom=1, window=cu.Window(2, 1))],
        )
        values.clear()
        study.run(tmp_path / f"{samples}.zarr", model=tiny_model, progress=False)
        totals.append(sum(values) / samples)
    assert totals[1] < 1.3 * totals[0], totals


@given(st.integers(1, 300), st.integers(1, 40))
def test_there_is_a_block_for_every_share_and_none_is_smaller_than_it_must_be(samples: int, shares: int) -> None:
    block, wanted = _largest_block(samples, shares), min(shares, samples)
    assert -(-samples // block) >= wanted
    larger = range(block + 1, -(-samples // shares) + 1)  # the largest then has no more than its share
    assert all(-(-samples // other) < wanted for other in larger)


@pytest.mark.parametrize(("samples", "shares", "block"), [(6, 4, 1), (24, 2, 12), (10, 4, 3), (5, 1, 5), (3, 8, 1)])
def test_blocks_of_shares(samples: int, shares: int, block: int) -> None:
    assert _largest_block(samples, shares) == block
