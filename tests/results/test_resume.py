"""Interrupted, resumed, repeated and refused runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import causalunet as cu
from causalunet.errors import StoreError
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.fill.recorder import Recorder
from causalunet.models.text_to_image import TextToImage
from tests.results.opened import assert_same, chunk_files

ONE_SAMPLE = 60_000
"""Bytes of memory that make a block of one sample, and a U-Net call of one sample."""

Run = Callable[..., None]


@pytest.fixture
def short(study: cu.Study) -> cu.Study:
    """Three samples, few calls."""
    return replace(
        study,
        sampler=cu.DDPM(steps=3),
        interventions=[cu.AblateBlock(2, cu.Window(2, 1)), cu.SkipSteps(cu.Window(1, 1)), cu.Null(cu.Window(2, 1))],
        record=cu.Record(activations="mid", summary="up.*", steps=(2,), of="all"),
    )


@pytest.fixture
def run(short: cu.Study, tiny_model: TextToImage) -> Run:
    def run_it(path: Path, **options: Any) -> None:
        short.run(path, **{"model": tiny_model, "memory": ONE_SAMPLE, "progress": False, **options})

    return run_it


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Number of images in every U-Net call."""
    made: list[int] = []
    call = TracedUNet.__call__

    def counted(unet: TracedUNet, *arguments: Any, **options: Any) -> Any:
        made.append(arguments[2])
        return call(unet, *arguments, **options)

    monkeypatch.setattr(TracedUNet, "__call__", counted)
    return made


def interrupt(monkeypatch: pytest.MonkeyPatch, run: Run, path: Path, block: int) -> None:
    """Run until the outcomes of a block would be written, counted from 0."""
    write, blocks = Recorder.write, iter(range(100))

    def interrupted(recorder: Recorder) -> None:
        if next(blocks) == block:
            raise KeyboardInterrupt
        write(recorder)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(path)


def files(path: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in path.rglob("*") if "locks" not in file.parts}


@pytest.mark.thorough
def test_an_interrupted_run_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    short: cu.Study,
    run: Run,
    calls: list[int],
    tiny_model: TextToImage,
) -> None:
    plan = short.plan(tiny_model, calibrate=False)
    whole, path = tmp_path / "whole.zarr", tmp_path / "interrupted.zarr"
    run(whole)
    assert len(calls) == sum(calls) == plan.unet_calls == 3 * len(plan.calls)
    calls.clear()

    interrupt(monkeypatch, run, path, block=1)
    assert sum(calls) == 2 * len(plan.calls)
    unfinished = cu.open_results(path)
    assert unfinished.baseline.status.values.tolist() == [1, 0, 0]
    assert unfinished.outcomes.status.values.tolist() == [[1, 0, 0]] * 3
    assert unfinished.outcomes.ssim.notnull().values.tolist() == [[True, False, False]] * 3
    assert unfinished.audit.unet_calls.values.tolist() == [len(plan.calls), 0, 0]
    calls.clear()

    chunks = {file: file.stat().st_mtime_ns for file in chunk_files(path)}
    run(path)
    assert sum(calls) == 2 * len(plan.calls), "the first block is not run again"
    assert_same(whole, path)
    assert cu.open_results(path).audit.unet_calls.values.tolist() == [len(plan.calls)] * 3
    assert chunks.items() <= files(path).items()


@pytest.mark.thorough
def test_a_run_interrupted_in_its_first_block_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    short: cu.Study,
    run: Run,
    calls: list[int],
    tiny_model: TextToImage,
) -> None:
    interrupt(monkeypatch, run, tmp_path / "results.zarr", block=0)
    assert not cu.open_results(tmp_path / "results.zarr").outcomes.status.any()
    calls.clear()
    run(tmp_path / "results.zarr")
    assert sum(calls) == short.plan(tiny_model, calibrate=False).unet_calls
    assert cu.open_results(tmp_path / "results.zarr").outcomes.status.all()


@pytest.mark.thorough
def test_another_memory_budget_goes_on_in_the_same_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, calls: list[int]
) -> None:
    path = tmp_path / "results.zarr"
    interrupt(monkeypatch, run, path, block=1)
    run(path, memory=1 << 30)
    results = cu.open_results(path)
    assert results.attrs["block"] == 1
    assert results.outcomes.status.all()
    assert results.outcomes.ssim.sel(kind="null").values == pytest.approx(1.0)


def test_a_complete_study_is_not_run_again(
    study: cu.Study, store: Path, tiny_model: TextToImage, calls: list[int]
) -> None:
    before = files(store)
    again = study.run(store, model=tiny_model, progress=False)
    study.run(store, model=tiny_model, progress=False, overwrite=True)
    assert calls == []
    assert files(store) == before
    assert again.outcomes.ssim.identical(cu.open_results(store).outcomes.ssim)


OTHER = {
    "name": ({"name": "other"}, 'name is "stored" there and "other" here'),
    "model": ({"model": "glide"}, 'model is "shapes" there and "glide" here'),
    "prompts": (
        {"prompts": ["a red circle", "a blue cross", "a green cross"]},
        "samples: the study lacks 'a striped cyan square, light background' with seed 3",
    ),
    "seeds": ({"seeds": [4]}, "samples: the study lacks 'a red circle' with seed 3, .* with seed 3"),
    "sampler": (
        {"sampler": cu.DDPM(steps=6, guidance_scale=2.0)},
        r"sampler\.guidance_scale is 3\.0 there and 2\.0 here",
    ),
    "interventions": (
        {"interventions": [cu.AblateBlock(1, cu.Window(2, 1))]},
        "interventions: the study lacks ablate_block .* and 4 more",
    ),
    "record": ({"record": cu.Record(dtype="float32")}, r"record\.steps is \[5, 2\] there and null here; record\.of is"),
}


@pytest.mark.parametrize(("values", "message"), OTHER.values(), ids=OTHER)
def test_another_study_is_refused(
    study: cu.Study, store: Path, tiny_model: TextToImage, calls: list[int], values: dict[str, Any], message: str
) -> None:
    before = files(store)
    with pytest.raises(StoreError, match=rf"holds another study: .*{message}.*\. Run into another path, or replace"):
        replace(study, **values).run(store, model=tiny_model, progress=False)
    assert calls == []
    assert files(store) == before


def test_all_differences_are_named(study: cu.Study, store: Path, tiny_model: TextToImage) -> None:
    unet = copy.deepcopy(tiny_model.unet)
    unet.out[2].bias += 1
    other = replace(tiny_model, unet=unet)
    with pytest.raises(StoreError, match=r'another study: model_fingerprint is "\w+" there and "\w+" here\. Run'):
        study.run(store, model=other, progress=False)
    with pytest.raises(
        StoreError, match=r"another study: name is .*; model_fingerprint is .*; samples: the study lacks"
    ):
        replace(study, name="other", seeds=[4]).run(store, model=other, progress=False)


@pytest.mark.thorough
def test_overwriting_replaces(copied: Callable[[], Path], short: cu.Study, run: Run, tmp_path: Path) -> None:
    path = copied()
    run(path, overwrite=True)
    run(tmp_path / "fresh.zarr")
    replaced = cu.open_results(path)
    assert replaced.attrs["digest"] == short.digest
    assert_same(path, tmp_path / "fresh.zarr")
    before = cu.open_results(path, at=replaced.history()[4].id)
    assert before.attrs["digest"] != short.digest, "history keeps what was replaced"
    assert before.outcomes.ssim.notnull().all()
