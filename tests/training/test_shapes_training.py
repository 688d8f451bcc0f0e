"""Training of the embedded model: resumed runs are the same runs, and the loss falls."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from causalunet.models.shapes import load_shapes
from causalunet.training.denoising import draw_timesteps
from causalunet.training.shapes import ShapesTrainingConfig, train_shapes

TINY = ShapesTrainingConfig(iterations=4, batch_size=2, warmup=2, decay=2, focus_from=3)


def run(directory: Path, *, stop_after: int | None = None) -> None:
    records = train_shapes(TINY, directory, checkpoint_every=2, report_every=1)
    for _ in itertools.islice(records, stop_after):
        pass


@pytest.mark.thorough
def test_a_resumed_run_is_the_uninterrupted_run_and_its_weights_load(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "parts", stop_after=3)
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["iteration"] == 2
    run(tmp_path / "parts")
    whole, parts = (load_file(tmp_path / name / "shapes.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert load_shapes(tmp_path / "whole" / "shapes.safetensors").anatomy.parameters == sum(
        value.numel() for value in whole.values()
    )
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in log] == [1, 2, 3, 4]
    assert all(np.isfinite(record["loss"]) for record in log)


@pytest.mark.parametrize("noisiest", [None, 0.2, 0.033, 0.001])
def test_timesteps_cover_the_schedule(noisiest: float | None) -> None:
    timesteps = draw_timesteps(1000, np.random.default_rng(0), noisiest=noisiest)
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    share = noisiest or 0.2
    assert (timesteps >= 1000 * (1 - share)).mean() == pytest.approx(
        share if noisiest is None else (1 + share) / 2, abs=0.01
    )


def test_the_rate_rises_stays_and_falls() -> None:
    config = ShapesTrainingConfig()
    assert config.rate(0) < config.rate(50) < config.rate(config.warmup) == config.learning_rate
    assert config.rate(config.iterations - config.decay) == config.learning_rate
    assert config.rate(config.iterations) == 0.0
