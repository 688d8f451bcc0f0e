"""Guidance is a value: written and read, by its scale alone where that says all, and of somebody else's."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

import causalunet as cu
from causalunet.design.guidance import CFG, GUIDANCES, Guidance, NoGuidance
from causalunet.design.samplers import Sampler
from causalunet.errors import SpecError
from causalunet.execute import generate
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import step_noise
from causalunet.schedule import Schedule

RESCALED = {"name": "guests.rescaled", "configuration": {"scale": 5.0, "share": 0.7}}


@pytest.mark.parametrize(
    ("given", "scale"), [(CFG(5), 5.0), (CFG(scale=1), 1.0), (NoGuidance(), 1.0), (CFG(3.0), 3.0), (CFG(0), 0.0)]
)
def test_where_the_scale_says_all_it_is_written_alone(given: Guidance, scale: float) -> None:
    """Studies, stores and digests of before are those of today."""
    sampler = cu.DDPM(steps=7, guidance=given)
    assert sampler == cu.DDPM(steps=7, guidance_scale=scale)
    assert sampler.to_json() == {"name": "ddpm", "configuration": {"steps": 7, "guidance_scale": scale}}
    assert sampler.guided_by == (NoGuidance() if scale == 1 else CFG(scale))
    assert sampler.rows_per_sample == len(sampler.guided_by.branches) == (1 if scale == 1 else 2)
    assert replace(sampler, guidance_scale=2).guided_by == CFG(2.0)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: CFG(-1), r"CFG got scale=-1; it must be a finite number"),
        (lambda: CFG(float("nan")), r"CFG got scale=nan"),
        (lambda: cu.DDPM(guidance=3), r"DDPM got guidance=3; give a guidance, such as CFG\(3\)"),
        (lambda: cu.DDIM(guidance=CFG(2), guidance_scale=5), r"DDIM got guidance_scale=5 beside a guidance of scale 2"),
        (lambda: Guidance.from_json({"name": "no", "configuration": {}}), r"Guidance 'no' is not known; known: .*cfg"),
        (lambda: Guidance.from_json({"name": "cfg", "configuration": {"weight": 1}}), "configuration"),
    ],
)
def test_what_is_no_guidance_is_told(build: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        build()


@pytest.mark.thorough
@pytest.mark.usefixtures("guests")
def test_a_guest_guides(tiny_model: TextToImage, tmp_path: Path) -> None:
    sampler = Sampler.from_json({"name": "ddim", "configuration": {"steps": 4, "guidance": RESCALED}})
    assert type(sampler.guided_by).__module__ == "guests.rescaled"
    assert sampler.guidance_scale == 5.0
    assert Sampler.from_json(json.loads(json.dumps(sampler.to_json()))) == sampler
    study = cu.Study(name="s", prompts=["a red circle"], sampler=sampler, interventions=[cu.SkipSteps(cu.Window(2, 1))])
    results = study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert results.verify(quiet=True, deep=True).exit_code == 0
    schedule, x = Schedule.spaced(tiny_model.alpha_bar, 4), torch.from_numpy(step_noise((0,), 0, (3, 16, 16)))
    context = [torch.cat(pair) for pair in zip(*map(tiny_model.encode, (["a red circle"], [""])), strict=True)]
    for step in (4, 3, 2, 1):
        times = torch.full((2,), float(schedule.timestep(step)))
        with torch.no_grad():
            cond, uncond = tiny_model.unet(torch.cat([x, x]), times, *context)[:, :3].split(1)
        eps = rescale_noise_cfg(uncond + 5 * (cond - uncond), cond, guidance_rescale=0.7)
        a, b = schedule.alpha_bar(step), schedule.alpha_bar(step - 1)
        x0 = ((x - (1 - a) ** 0.5 * eps) / a**0.5).clamp(-1, 1)
        x = b**0.5 * x0 + (1 - b) ** 0.5 * (x - a**0.5 * x0) / (1 - a) ** 0.5
    np.testing.assert_allclose(results.baseline.image, (x.clamp(-1, 1) + 1) / 2, rtol=0, atol=2e-4)
    plain = generate(["a red circle"], model=tiny_model, sampler=cu.DDIM(steps=4, guidance_scale=5))
    assert np.abs(results.baseline.image.values - plain).max() > 0.01
    with GUIDANCES.scoped(**{"guests.rescaled": None}):
        sys.modules["guests.rescaled"] = None  # type: ignore[assignment]
        found = cu.open_results(tmp_path / "s.zarr").verify(quiet=True)
    assert found.exit_code == 4
    assert "the guidance 'guests.rescaled'" in found.verdict
