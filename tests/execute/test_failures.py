"""What goes wrong while a study runs: cells fail and are marked, memory runs out and batches shrink, writers die."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.errors import CausalUNetWarning, MemoryExhaustedError, StorageError, StoreError
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.call.visits import CallResult
from causalunet.execute.fill.store_filler import StoreFiller
from causalunet.execute.walk.batches import MicroBatch, out_of_memory
from causalunet.models.text_to_image import TextToImage
from causalunet.results.engine.background_writer import BackgroundWriter
from tests.results.opened import assert_same

CUT, JUMP = cu.AblateBlock(2, cu.Window(4, 2)), cu.SkipSteps(cu.Window(2, 1))
STUDY = cu.Study(
    name="failing", prompts=["a red circle", "a blue cross"], sampler=cu.DDPM(steps=5), interventions=[CUT, JUMP]
)
Run = Callable[..., xr.DataTree]


@pytest.fixture
def run(tiny_model: TextToImage, tmp_path: Path) -> Run:
    def run_it(name: str = "s.zarr", **options: Any) -> xr.DataTree:
        study = options.pop("study", STUDY)
        return study.run(tmp_path / name, model=tiny_model, progress=False, **options)

    return run_it


def spoil(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
    """Change what U-Net calls give, by action and timesteps."""
    call = TracedUNet.__call__

    def spoiled(unet: TracedUNet, action: Any, arguments: Any, *others: Any, **more: Any) -> CallResult:
        result = call(unet, action, arguments, *others, **more)
        return CallResult(wrong(action, result.output.clone()), result.activations, result.fired)

    monkeypatch.setattr(TracedUNet, "__call__", spoiled)


@pytest.mark.thorough
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_cells_that_are_not_finite_are_marked_and_the_rest_is_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    whole = run("whole.zarr")

    def wrong(action: Any, output: torch.Tensor) -> torch.Tensor:
        if any(
            fill.site.component.startswith("up") or fill.site.component == "mid" for fill in action.fills
        ) and not any(fill.fill.name == "identity" for fill in action.fills):
            output[1] = value  # the second sample's conditional row
        return output

    with monkeypatch.context() as patch:
        spoil(patch, wrong)
        with pytest.warns(CausalUNetWarning, match=r"1 of 6 cells failed: the U-Net's prediction at step 4 is not fin"):
            results = run()
    cut, others = results.outcomes.to_dataset().isel(intervention=0), slice(1, None)
    assert cut.status.values.tolist() == [1, 2]
    assert cut.failure.values.tolist() == ["", "the U-Net's prediction at step 4 is not finite"]
    for name in ("ssim", "psnr", "mse", "image"):
        assert np.isnan(cut[name].values[1]).all()
        np.testing.assert_array_equal(cut[name].values[0], whole.outcomes[name].values[0, 0])
        np.testing.assert_array_equal(results.outcomes[name].values[others], whole.outcomes[name].values[others])
    found = results.verify(quiet=True)
    assert found.exit_code == 3, found
    assert "1 cells failed" in str(found)
    with pytest.warns(CausalUNetWarning, match="1 of 6 cells failed"):
        assert run().outcomes.status.values[0].tolist() == [1, 2], "failed cells are left alone"
    again = run(retry_failed=True)
    assert again.outcomes.status.values.tolist() == whole.outcomes.status.values.tolist()
    np.testing.assert_allclose(again.outcomes.ssim, whole.outcomes.ssim, atol=1e-5)
    assert set(again.outcomes.failure.values.ravel()) == {""}
    assert again.verify(quiet=True)


@pytest.mark.thorough
def test_without_a_baseline_all_cells_of_a_sample_fail(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(action: Any, output: torch.Tensor) -> torch.Tensor:
        if not action.fills:
            output[0] = float("nan")
        return output

    with monkeypatch.context() as patch:
        spoil(patch, wrong)
        with pytest.warns(CausalUNetWarning, match=r"3 of 6 cells failed: baseline: the U-Net's prediction at step 5"):
            results = run()
    assert results.baseline.status.values.tolist() == [2, 1]
    assert (results.outcomes.status.values == [[2, 1]] * 3).all()
    assert np.isnan(results.baseline.image.values[0]).all()
    assert results.verify(quiet=True).exit_code == 3
    assert run(retry_failed=True).verify(quiet=True)


@pytest.mark.thorough
def test_failed_cells_of_a_recorded_study_are_no_damage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = replace(STUDY, record=cu.Record(activations="mid", summary="up.*", steps=(4, 1), of="all"))

    def wrong(action: Any, output: torch.Tensor) -> torch.Tensor:
        if any(fill.fill.name == "identity" for fill in action.fills):  # the null run
            output[:] = float("nan")
        return output

    with monkeypatch.context() as patch:
        spoil(patch, wrong)
        with pytest.warns(CausalUNetWarning, match="2 of 6 cells failed"):
            results = run(study=recorded)
    assert results.verify(quiet=True).exit_code == 3, results.verify()
    assert np.isnan(results.audit.null_difference).all(), "nothing was measured"
    again = run(study=recorded, retry_failed=True)
    assert again.verify(quiet=True), again.verify()


@pytest.mark.thorough
def test_cells_added_to_a_failed_baseline_fail_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(action: Any, output: torch.Tensor) -> torch.Tensor:
        if not action.fills:
            output[0] = float("nan")
        return output

    larger = replace(STUDY, interventions=[*STUDY.interventions, cu.SkipSteps(cu.Window(3, 1))])
    with monkeypatch.context() as patch:
        spoil(patch, wrong)
        with pytest.warns(CausalUNetWarning, match="3 of 6 cells failed"):
            run()
    with pytest.warns(CausalUNetWarning, match="4 of 8 cells failed"):
        grown = run(study=larger)
    assert grown.outcomes.status.values.tolist() == [[2, 1]] * 4
    whole = run(study=larger, retry_failed=True)
    assert whole.verify(quiet=True), whole.verify()


@pytest.mark.thorough
def test_a_study_that_another_process_changed_is_not_gone_on_with(
    run: Run, tiny_model: TextToImage, tmp_path: Path
) -> None:
    plan = STUDY.plan(tiny_model, calibrate=False)
    larger = replace(STUDY, interventions=[*STUDY.interventions, cu.SkipSteps(cu.Window(3, 1))])
    for name, changed in (("grown.zarr", larger), ("replaced.zarr", replace(STUDY, name="other"))):
        early = StoreFiller(plan, tmp_path / name, memory=1 << 30)
        before = run(name, study=changed, overwrite=True)
        with pytest.raises(StoreError, match="Another process has extended or replaced the study"):
            early.fill()
        assert cu.open_results(tmp_path / name).history()[0].id == before.history()[0].id, "nothing was written"


@pytest.mark.thorough
def test_batches_shrink_until_memory_suffices(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    study = replace(STUDY, seeds=range(3))
    whole = run("whole.zarr", study=study)
    sizes = []
    call = TracedUNet.__call__

    def limited(unet: TracedUNet, action: Any, arguments: Any, *others: Any, **more: Any) -> CallResult:
        sizes.append(len(arguments[0]))
        if len(arguments[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return call(unet, action, arguments, *others, **more)

    monkeypatch.setattr(TracedUNet, "__call__", limited)
    results = run(study=study)
    np.testing.assert_allclose(results.outcomes.ssim, whole.outcomes.ssim, atol=1e-5)
    assert results.verify(quiet=True), "an edit is counted once, however often its call was tried"
    assert sum(size > 4 for size in sizes) <= 5, "the smaller batch is kept"


def test_too_little_memory_for_one_sample_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> CallResult:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(TracedUNet, "__call__", none)
        with pytest.raises(MemoryExhaustedError, match="Not even one sample of a U-Net call fits into memory"):
            run()
    assert run().verify(quiet=True)


@given(st.integers(1, 1000))
def test_halving_ends_at_one(samples: int) -> None:
    batch, sizes = MicroBatch(samples), [samples]
    while batch.samples > 1:
        batch.halve(MemoryError())
        sizes.append(batch.samples)
    assert all(2 * small >= large > small for large, small in itertools.pairwise(sizes))
    with pytest.raises(MemoryExhaustedError):
        batch.halve(MemoryError())


def test_only_memory_errors_are_memory_errors() -> None:
    wrapped = ValueError("in a trace")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert out_of_memory(MemoryError())
    assert out_of_memory(wrapped)
    for other in (None, RuntimeError("shape mismatch"), ValueError("out of memory of the past"), KeyError("x")):
        assert not out_of_memory(other)
    circle = ValueError()
    circle.__context__ = circle
    assert not out_of_memory(circle)


@pytest.mark.thorough
def test_a_run_after_a_failed_write_is_that_of_one_piece(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("whole.zarr")
    with monkeypatch.context() as patch:
        patch.setattr("zarr.Array.__setitem__", refuse("No space left on device", 28, after=40))
        with pytest.raises(StorageError, match="the disk is full; free some space"):
            run(memory=1 << 30)
    run(memory=1 << 30)
    assert_same(tmp_path / "whole.zarr", tmp_path / "s.zarr")


def refuse(text: str, number: int, after: int) -> Callable[..., None]:
    """Writing an array that fails from some write on."""
    import zarr

    write, writes = zarr.Array.__setitem__, iter(range(10**9))

    def refusing(array: Any, index: Any, values: Any) -> None:
        if next(writes) >= after:
            raise OSError(number, text)
        write(array, index, values)

    return refusing


def keep_writing(writer: BackgroundWriter, write: Callable[[], None]) -> None:
    for _ in range(100):
        writer.put(write)
        time.sleep(0.01)


def test_errors_of_the_writing_thread_are_raised_in_the_one_that_waits() -> None:
    writer, done = BackgroundWriter(), []

    def fail() -> None:
        raise StorageError("the disk is full")

    writer.put(lambda: done.append(1))
    writer.put(fail)
    with pytest.raises(StorageError, match="the disk is full"):
        keep_writing(writer, lambda: done.append(2))
    writer.discard()
    writer.put(lambda: done.append(3))
    writer.drain()
    assert done[0] == 1
    assert done[-1] == 3


def test_a_writing_thread_that_died_is_told() -> None:
    writer, stuck = BackgroundWriter(waiting=1), threading.Event()

    def die() -> None:
        stuck.wait()
        raise SystemExit

    writer.put(die)
    stuck.set()
    with pytest.raises(StorageError, match="thread that writes results has died"):
        keep_writing(writer, lambda: None)


@given(st.lists(st.integers(), max_size=50), st.integers(1, 5))
def test_writes_keep_their_order(values: list[int], waiting: int) -> None:
    writer, written = BackgroundWriter(waiting), []
    for value in values:
        writer.put(lambda value=value: written.append(value))
    writer.drain()
    assert written == values
