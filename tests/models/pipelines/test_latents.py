"""Latents decoded: as many together as a memory budget allows, and what was stored when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.errors import MemoryExhaustedError, ModelError, SpecError
from causalunet.execute.walk.decoding import Decoding, images_at_once
from causalunet.models.pipelines import PipelineModel
from tests.models.pipelines.tiny import PROMPTS, pixels, stable_diffusion

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own

LARGEST = 16 * 16 * 16
"""Numbers of the widest output of the tiny decoder: 16 channels, at full size before its last block."""


@pytest.fixture(scope="module")
def pipe() -> Any:
    return stable_diffusion()


@pytest.fixture(scope="module")
def model(pipe: Any) -> PipelineModel:
    return cu.from_pipeline(pipe)


@pytest.fixture
def rows(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Latents in each call of the pipeline's own decoder."""
    seen, decode = list[int](), pipe.vae.decode

    def counted(latents: torch.Tensor, **options: Any) -> Any:
        seen.append(len(latents))
        return decode(latents, **options)

    monkeypatch.setattr(pipe.vae, "decode", counted)
    return seen


def study(seeds: int = 5) -> cu.Study:
    sampler = cu.DDIM(steps=2, guidance_scale=5.0)
    item = cu.AblateBlock(bottom=1, window=cu.Window(1, 1))
    return cu.Study(name="latents", prompts=PROMPTS[:1], seeds=range(seeds), interventions=[item], sampler=sampler)


@pytest.fixture(scope="module")
def results(model: PipelineModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return study(2).run(tmp_path_factory.mktemp("latents") / "s.zarr", model=model, progress=False)


def test_the_decoders_widest_output_is_found(model: PipelineModel) -> None:
    assert model.decoder_values == LARGEST
    assert images_at_once(model, 3 * 8 * 4 * LARGEST) == 3
    assert images_at_once(model, 1) == 1
    assert images_at_once(cu.from_pipeline(pixels()), 8 * 4 * 3 * 16 * 16) == 1, "in pixels it is the image"


def test_as_many_are_decoded_together_as_fit(model: PipelineModel, rows: list[int]) -> None:
    latents = torch.randn(5, *model.image_shape, generator=torch.Generator().manual_seed(0))
    together = Decoding(model, 1 << 30)(latents)
    bounded = Decoding(model, 2 * 8 * 4 * LARGEST)(latents)
    assert rows == [5, 2, 2, 1]
    np.testing.assert_allclose(bounded, together, rtol=0, atol=1e-5)


@pytest.mark.thorough
def test_runs_decode_within_their_budget(model: PipelineModel, rows: list[int], tmp_path: Path) -> None:
    study().run(tmp_path / "s.zarr", model=model, memory=2 * 8 * 4 * LARGEST, progress=False)
    assert max(rows) <= 2
    rows.clear()
    study().run(tmp_path / "t.zarr", model=model, memory=1 << 30, progress=False)
    assert max(rows) == 5


def test_a_decoder_that_runs_out_of_memory_gets_less(model: PipelineModel, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, seen, most = torch.zeros(5, *model.image_shape), list[int](), [2]

    def decode(self: PipelineModel, x0: torch.Tensor) -> Any:
        seen.append(len(x0))
        if len(x0) > most[0]:
            raise torch.OutOfMemoryError
        return np.zeros((len(x0), *self.picture_shape), np.float32)

    monkeypatch.setattr(PipelineModel, "decode", decode)
    decoding = Decoding(model, 1 << 30)
    decoding._together.samples = 5
    assert decoding(latents).shape == (5, *model.picture_shape)
    assert seen == [5, 3, 2, 2, 1]
    most[0] = 0
    with pytest.raises(MemoryExhaustedError, match="fits into memory, or one image of a decoder"):
        decoding(latents)


def test_estimates_are_decoded_on_request(pipe: Any, model: PipelineModel, results: Any, rows: list[int]) -> None:
    """As the pipeline's own decoder does it; the last estimate of DDIM is the image."""
    images = cu.decode_x0(results, model=model, steps=[1, 2], samples=[1], memory=1)
    assert images.dims == ("sample", "step", "channel", "y", "x")
    assert images.step.values.tolist() == [1, 2]
    assert set(rows) == {1}
    latents = torch.from_numpy(results.baseline.x0_hat.sel(sample=[1]).sel(step=2).values)
    with torch.inference_mode():
        own = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    np.testing.assert_allclose(images.sel(step=2), (own / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(images.sel(step=1), results.baseline.image.sel(sample=[1]), rtol=0, atol=1e-5)
    every = cu.decode_x0(results, model=model)
    assert every.sizes == {"sample": 2, "step": 2, "channel": 3, "y": 16, "x": 16}
    assert every.seed.values.tolist() == [0, 1]


def test_what_cannot_be_decoded_is_told(model: PipelineModel, results: Any) -> None:
    with pytest.raises(SpecError, match=r"got the step 3; the results have 1 to 2. Give steps among them"):
        cu.decode_x0(results, model=model, steps=[3])
    with pytest.raises(SpecError, match="got the sample 7; the results have 0 to 1"):
        cu.decode_x0(results, model=model, samples=[7])
    with pytest.raises(ModelError, match=r"made by a model of fingerprint .*Give the model that made them"):
        cu.decode_x0(results, model=cu.from_pipeline(stable_diffusion(sample_size=8, layers_per_block=1)))
