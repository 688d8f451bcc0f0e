"""On a GPU, studies give what they give on a CPU, keep what was promised of them, and live with a GPU's memory.

Skipped without one. With TF32 off, numbers are those of a CPU up to rounding; with PyTorch's defaults, under which
convolutions round to TF32, what is stored is checked as everywhere else.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import causalunet as cu
from causalunet.execute.fill.pace import Pace
from causalunet.execute.walk.lockstep import run_block
from causalunet.models.text_to_image import TextToImage
from causalunet.models.vocabulary import tokenize
from causalunet.results.meaning.schema import COMPLETE
from causalunet.testing import check_model
from tests.execute.test_reference import CASES, PROMPTS, STEPS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch reaches through CUDA")

DEVICE = "cuda"
TOLERANCE = 2e-5
"""Of images in [0, 1] after eight steps, in float32."""


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether convolutions and products of matrices round their inputs to TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def gpu_model(tiny_model: TextToImage) -> TextToImage:
    """The tiny model, its weights on the GPU."""
    unet = copy.deepcopy(tiny_model.unet).to(DEVICE)
    return TextToImage("tiny", unet, tokenize, tiny_model.alpha_bar)


def study(*interventions: Any, **fields: Any) -> cu.Study:
    return cu.Study(
        name="gpu",
        interventions=interventions,
        **{"prompts": PROMPTS, "sampler": cu.DDPM(steps=STEPS, guidance_scale=3.0), **fields},
    )


def run(one: cu.Study, path: Path, model: Any, **options: Any) -> xr.DataTree:
    return one.run(path, model=model, progress=False, **options)


def test_every_case_of_the_reference(tiny_model: TextToImage, gpu_model: TextToImage, tmp_path: Path) -> None:
    one = study(*(case.intervention for case in CASES.values()))
    expected = run(one, tmp_path / "cpu.zarr", tiny_model)
    with tf32(False):
        found = run(one, tmp_path / "gpu.zarr", gpu_model)
    np.testing.assert_allclose(found.outcomes.image, expected.outcomes.image, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(found.outcomes.unet_calls, expected.outcomes.unet_calls)
    assert found.attrs["study"] == expected.attrs["study"]


@pytest.mark.parametrize(
    ("sampler", "intervention"),
    [
        pytest.param(cu.DDIM(steps=STEPS, eta=0.3), cu.AblateSkip(2, cu.Window(6, 3)), id="DDIM"),
        pytest.param(cu.DDPM(steps=STEPS), cu.Edit("up.1", cu.Window(6, 3), cu.Hold()), id="Hold"),
        pytest.param(
            cu.DDPM(steps=STEPS),
            cu.Edit("up.1", cu.Window(6, 3), cu.Patch(PROMPTS[1], 4)),
            id="Patch",
        ),
        pytest.param(
            cu.DDPM(steps=STEPS), cu.AblateSkip(2, cu.Window(6, 3), view=cu.Channels(range(3))), id="Channels"
        ),
    ],
)
def test_samplers_donors_and_views(
    tiny_model: TextToImage, gpu_model: TextToImage, tmp_path: Path, sampler: Any, intervention: Any
) -> None:
    one = study(intervention, sampler=sampler)
    expected = run(one, tmp_path / "cpu.zarr", tiny_model)
    with tf32(False):
        found = run(one, tmp_path / "gpu.zarr", gpu_model)
    np.testing.assert_allclose(found.outcomes.image, expected.outcomes.image, rtol=0, atol=TOLERANCE)
    assert (np.abs(expected.outcomes.image - expected.baseline.image) > 1e-3).any(), "it changes nothing"


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_results_do_not_depend_on_the_batch(gpu_model: TextToImage, tmp_path: Path, samples: int) -> None:
    one = study(*cu.sweep(cu.AblateBlock, bottom=(1, 3), start=(8, 5), length=2), seeds=range(3))
    row = 1 << 18
    with tf32(False):
        alone = run(one, tmp_path / "alone.zarr", gpu_model, memory=1)
        together = run(one, tmp_path / "together.zarr", gpu_model, memory=row * samples)
    np.testing.assert_allclose(alone.outcomes.image, together.outcomes.image, rtol=0, atol=1e-5)


def test_a_store_made_with_the_defaults_verifies_on_the_gpu(tmp_path: Path) -> None:
    model = cu.load_model("shapes", device=DEVICE)
    one = study(
        cu.Null(window=cu.Window(20, 20)),
        *cu.sweep(cu.AblateBlock, bottom=(4, 10), start=(20, 10), length=4),
        prompts=["a solid red circle at the top, dark background"],
        seeds=(0, 1),
        sampler=cu.DDPM(steps=20),
        record=cu.Record(activations=["mid"]),
    )
    run(one, tmp_path / "run.zarr", model)
    results = cu.open_results(tmp_path / "run.zarr")
    told = results.verify(deep=True)
    print(told)
    assert told.exit_code == 0
    null = np.abs(results.outcomes.image.isel(intervention=0) - results.baseline.image).max()
    print(f"a null intervention moved images by {float(null):.2e}")


def test_an_interrupted_run_goes_on_bit_for_bit(
    gpu_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causalunet.plan.GROUP", 3)
    monkeypatch.setattr("causalunet.execute.fill.store_filler.Pace", partial(Pace, 0.0))
    one = study(*cu.sweep(cu.AblateBlock, bottom=(1, 2, 3), start=(8, 6, 4), length=2))
    whole = run(one, tmp_path / "whole.zarr", gpu_model)
    parts = 0

    def interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal parts
        parts += 1
        if parts == 2:
            raise KeyboardInterrupt
        return run_block(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("causalunet.execute.fill.part_runner.run_block", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(one, tmp_path / "parts.zarr", gpu_model)
    assert 0 < int((cu.open_results(tmp_path / "parts.zarr").outcomes.status == COMPLETE).sum()) < 2 * 10
    in_parts = run(one, tmp_path / "parts.zarr", gpu_model)
    np.testing.assert_array_equal(in_parts.outcomes.image, whole.outcomes.image)
    np.testing.assert_array_equal(in_parts.baseline.x_t, whole.baseline.x_t)


def test_what_the_model_is_taken_for(gpu_model: TextToImage) -> None:
    assert check_model(gpu_model, ["a red circle", "a striped blue cross, dark background"])


@pytest.mark.parametrize("name", ["exact-gaussian", "exact-mixture", "exact-optimal", "exact-wiener"])
def test_models_whose_truth_is_known(name: str, tmp_path: Path) -> None:
    cpu = cu.load_model(name)
    place = next(component.name for component in cpu.anatomy.components if component.name not in {"mean", "evidence"})
    one = study(
        cu.Edit(place, cu.Window(5, 3)), prompts=[cu.NO_PROMPT], sampler=cu.DDPM(steps=STEPS, guidance_scale=1.0)
    )
    expected = run(one, tmp_path / "cpu.zarr", cpu)
    with tf32(False):
        found = run(one, tmp_path / "gpu.zarr", cu.load_model(name, device=DEVICE))
    np.testing.assert_allclose(found.outcomes.image, expected.outcomes.image, rtol=0, atol=2e-4)


def test_batches_are_halved_where_the_memory_of_the_gpu_ends(tmp_path: Path) -> None:
    model = cu.load_model("shapes", device=DEVICE)
    one = study(cu.AblateSkip(2, cu.Window(2, 1)), seeds=range(64), sampler=cu.DDPM(steps=2))
    expected = run(one, tmp_path / "whole.zarr", model, memory=1 << 36)
    torch.cuda.empty_cache()
    used = torch.cuda.memory_allocated()
    share = (used + (200 << 20)) / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(300 << 20, dtype=torch.uint8, device=DEVICE)
        found = run(one, tmp_path / "little.zarr", model, memory=1 << 36)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (found.outcomes.status == COMPLETE).all()
    np.testing.assert_allclose(found.outcomes.image, expected.outcomes.image, rtol=0, atol=5e-3)
