"""Batch sizes: what the plan expects of a run is what the run does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import xarray as xr

import causalunet as cu
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.call.visits import CallResult
from causalunet.execute.measure.calibration import calibrate
from causalunet.execute.walk.batches import mean_batch_size, micro_batch_size, samples_per_block
from causalunet.models.text_to_image import TextToImage

INTERVENTIONS = [*cu.sweep(cu.AblateBlock, bottom=2, start=(6, 5, 3), length=2), cu.SkipSteps(cu.Window(2, 1))]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every U-Net call from now on."""
    seen: list[int] = []
    call = TracedUNet.__call__

    def counted(
        self: TracedUNet, action: Any, arguments: tuple[torch.Tensor, ...], *rest: Any, **more: Any
    ) -> CallResult:
        seen.append(len(arguments[0]))
        return call(self, action, arguments, *rest, **more)

    monkeypatch.setattr(TracedUNet, "__call__", counted)
    return seen


@pytest.mark.sampled(1)
@pytest.mark.parametrize("group", [2, 128])
@pytest.mark.parametrize("samples", [1, 2, 7])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_mean_call_is_as_planned_and_is_what_is_timed(
    run_study: Callable[..., xr.DataTree],
    tiny_model: TextToImage,
    rows: list[int],
    samples: int,
    guidance_scale: float,
    group: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("causalunet.plan.GROUP", group)
    budget = 1 << 22
    study = cu.Study(
        name="test",
        prompts=["a red circle"],
        seeds=range(samples),
        sampler=cu.DDPM(steps=7, guidance_scale=guidance_scale),
        interventions=INTERVENTIONS,
    )
    plan = study.plan(tiny_model, calibrate=False)
    per_sample = study.sampler.rows_per_sample
    micro_batch = micro_batch_size(plan.anatomy, budget, per_sample)
    expected = mean_batch_size(plan, budget, micro_batch)
    assert 1 <= expected <= micro_batch

    calibrate(plan, budget)
    assert rows == [expected * per_sample] * 3
    rows.clear()
    run_study(
        *INTERVENTIONS,
        steps=7,
        guidance_scale=guidance_scale,
        memory=budget,
        prompts=["a red circle"],
        seeds=range(samples),
    )
    assert sum(rows) == plan.unet_calls * per_sample
    if samples % samples_per_block(plan, budget, micro_batch) == 0:  # otherwise the last block is smaller
        assert expected == max(1, round(sum(rows) / len(rows) / per_sample))
