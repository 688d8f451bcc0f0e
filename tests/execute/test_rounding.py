"""What calls round off where nothing is changed: measured on the model at hand, and what is made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.design.starts import Noise, first_states
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.measure import rounding
from causalunet.execute.measure.rounding import computed_on, rounding_of, rounding_of_runs
from causalunet.execute.planning import plan_study
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Plan
from causalunet.results.meaning import noise_floor
from tests.analysis.synthetic import edited
from tests.models.pipelines.tiny import pixels

PROMPT = "a red circle"


def plan_of(model: Any, sampler: Any) -> Plan:
    study = cu.Study(name="test", prompts=[PROMPT], interventions=[cu.Null(window=cu.Window(1, 1))], sampler=sampler)
    return plan_study(study.bind(model))


def test_it_is_what_batches_of_other_sizes_and_orders_differ_by(tiny_model: TextToImage) -> None:
    """By a loop of its own, at the first step."""
    sampler = cu.DDPM(steps=1, guidance_scale=3.0)
    measured = rounding_of(plan_of(tiny_model, sampler))
    x = torch.from_numpy(first_states([Noise(seed) for seed in range(3)], tiny_model.image_shape))
    context = [torch.cat([one, none]) for one, none in zip(*map(tiny_model.encode, ([PROMPT], [""])), strict=True)]
    time = float(sampler.schedule(cu.schedule.TrainingSchedule(tiny_model.alpha_bar)).level(1).timestep)

    def eps(rows: list[int]) -> torch.Tensor:
        repeated = [part.repeat_interleave(len(rows), dim=0) for part in context]
        output = tiny_model.unet(torch.cat([x[rows]] * 2), torch.full((2 * len(rows),), time), *repeated)
        cond, uncond = output[:, :3].chunk(2)
        return uncond + 3.0 * (cond - uncond)

    with torch.inference_mode():
        layouts = [eps([0, 1, 2]), eps([2, 1, 0]).flip(0), torch.cat([eps([0]), eps([1]), eps([2])])]
    off = [one - other for one in layouts for other in layouts]
    assert measured["call"] == pytest.approx(
        max(float(d.square().mean(dim=(1, 2, 3)).sqrt().max()) for d in off), rel=0.1
    )
    assert measured["largest"] == pytest.approx(max(float(d.abs().max()) for d in off), rel=0.3)
    assert measured["largest"] > 0


@pytest.mark.thorough
def test_half_precision_has_bounds_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float16 null runs in other batches than the baseline differ by what in float32 would be no rounding."""
    monkeypatch.setattr(noise_floor, "_AMPLIFIED", 1e-3)  # as if two steps more had been run
    model = cu.from_pipeline(pixels().to(torch.float16))
    nulls = [cu.Null(window=cu.Window(start, 7)) for start in (10, 9, 8)]  # which go through the network together
    sampler = cu.DDIM(steps=10, guidance_scale=1.0)
    study = cu.Study(name="half", prompts=["one"], interventions=nulls, sampler=sampler)
    results = study.run(tmp_path / "half.zarr", model=model, progress=False)
    assert float(results.audit.null_difference.max()) > 1e-3, "else this tests nothing"
    (measured,) = results.attrs["rounding"]
    assert measured["dtypes"] == ["float16"]
    assert measured["image"] > 1e-3
    assert results.verify(quiet=True), results.verify(quiet=True)
    with edited(tmp_path / "half.zarr") as root:
        del root.attrs["rounding"]
    older = cu.open_results(tmp_path / "half.zarr").verify(quiet=True)
    assert not older
    (finding,) = [one for one in older.findings if one.check == "noise floor"]
    assert "assumed for float32: none were measured" in finding.problems[0]


class Drawing:
    """Calls a U-Net, and adds something drawn at random to what it says."""

    def __init__(self, unet: TracedUNet, spread: float) -> None:
        self.unet, self.spread = unet, spread

    def __call__(self, *given: Any, **options: Any) -> Any:
        said = self.unet(*given, **options)
        return replace(said, output=said.output + self.spread * torch.randn_like(said.output))


def test_nothing_is_measured_of_runs_that_do_not_repeat(tiny_model: TextToImage) -> None:
    """A network that is random would else have bounds as wide as what it draws."""
    plan = plan_of(tiny_model, cu.DDIM(steps=2))
    unet = TracedUNet(tiny_model.unet, plan.anatomy)
    found = rounding_of_runs(plan, unet, [0])
    assert found is not None
    assert 0 < found < 1e-4
    drawing: Any = Drawing(unet, 1e-3)
    assert rounding_of_runs(plan, drawing, [0]) is None


@pytest.mark.thorough
def test_another_machine_adds_its_own(tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def study(seeds: int) -> cu.Study:
        item = cu.AblateBlock(bottom=1, window=cu.Window(2, 1))
        return cu.Study(
            name="two", prompts=[PROMPT], seeds=range(seeds), interventions=[item], sampler=cu.DDPM(steps=2)
        )

    path = tmp_path / "two.zarr"
    study(1).run(path, model=tiny_model, progress=False)
    commits = len(list(cu.open_results(path).history()))
    study(1).run(path, model=tiny_model, progress=False)
    assert len(list(cu.open_results(path).history())) == commits, "nothing was run, so nothing is written"
    told = computed_on(tiny_model)
    monkeypatch.setattr(rounding, "computed_on", lambda model: told | {"device_name": "another CPU"})
    results = study(2).run(path, model=tiny_model, progress=False)
    assert [one["device_name"] for one in results.attrs["rounding"]] == ["cpu", "another CPU"]
    assert np.isfinite(results.audit.null_difference).all()
