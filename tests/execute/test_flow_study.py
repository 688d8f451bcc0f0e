"""Studies on a transformer that was trained by flow matching, compared with a loop by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import causalunet as cu
from causalunet.design import Trailing
from causalunet.errors import ComponentError, SpecError
from causalunet.models import load_shapes_flow
from causalunet.models.shapes_flow import FlowModel
from causalunet.noise import initial_noise
from causalunet.testing import check_model

STEPS, SCALE = 4, 3.0
PROMPTS = ["a solid red circle at the top, dark background", "a striped blue cross in the centre, light background"]
CUT = cu.Edit("block.7", cu.Window(3, 2), cu.Zero())


@pytest.fixture(scope="module")
def model() -> FlowModel:
    return load_shapes_flow()


def by_hand(model: FlowModel, *cut: int) -> list[Tensor]:
    """States of x_t = (1 - t) image + t noise by Euler's method in t, a block's output zeroed at some steps."""
    network: Any = model.unet.network
    context = network.encode_text(*(torch.from_numpy(part) for part in model.tokens([*PROMPTS, "", ""])))
    x = torch.from_numpy(initial_noise([0, 1], model.image_shape))
    states = [x]
    for step in range(STEPS, 0, -1):
        handles = []
        if step in cut:
            handles.append(network.blocks[7].register_forward_hook(lambda _m, _i, output: torch.zeros_like(output)))
        with torch.inference_mode():
            said = network(torch.cat([x, x]), torch.full((4,), step / STEPS), *context)
        for handle in handles:
            handle.remove()
        told, untold = said.chunk(2)
        x = x - (untold + SCALE * (told - untold)) / STEPS
        states.append(x)
    return states


@pytest.mark.thorough
def test_a_study_is_the_loop_by_hand(model: FlowModel, tmp_path: Path) -> None:
    study = cu.Study(
        name="flow",
        model="shapes-flow",
        prompts=PROMPTS,
        sampler=cu.Euler(steps=STEPS, guidance_scale=SCALE, spacing=Trailing()),
        interventions=[CUT],
        record=cu.Record(activations=("block.7", "output"), dtype="float32"),
    )
    results = study.run(tmp_path / "s.zarr", model=model, progress=False)
    assert (found := results.verify(quiet=True, deep=True)).exit_code == 0, str(found)
    plain = by_hand(model)
    t = np.arange(STEPS, 0, -1) / STEPS
    scale = np.hypot(1 - t, t)[:, None, None, None]
    expected = np.stack([state.numpy() for state in plain[:-1]], axis=1)
    np.testing.assert_allclose(results.baseline.x_t * scale, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(results.baseline.timestep, 1000 * t - 1)
    for images, states in (
        (results.baseline.image, plain),
        (results.outcomes.image.sel(kind="edit")[0], by_hand(model, *CUT.window)),
    ):
        np.testing.assert_allclose(images, (states[-1].clamp(-1, 1) + 1) / 2, rtol=0, atol=1e-5)
    assert np.abs(results.outcomes.image.sel(kind="edit")[0] - results.baseline.image).max() > 0.1
    assert float(results.outcomes.ssim.sel(kind="null").min()) == 1
    codes, _ = model.read_factors(results.baseline.image.values)
    assert codes.shape == (2, 5)
    assert results["activations/output"].baseline.dims == ("sample", "step", "token", "pixel")
    assert results["activations/block.7"].baseline.shape == (2, STEPS, 64, 128)
    commits = len(results.history())
    assert len(study.run(tmp_path / "s.zarr", model=model, progress=False).history()) == commits
    assert results.attrs["identity"]["process"] == "straight"


def test_it_is_what_studies_rely_on(model: FlowModel) -> None:
    assert check_model(model, PROMPTS, places=("embedding", "block.0", "block.11", "output"))
    assert model.anatomy.dead({"block.5"}) == {"embedding", *(f"block.{number}" for number in range(6))}


def test_what_does_not_fit_is_told_when_planned(model: FlowModel) -> None:
    def planned(**fields: Any) -> None:
        cu.Study(name="s", model="shapes-flow", prompts=PROMPTS, **fields).plan(model, calibrate=False)

    with pytest.raises(
        SpecError, match="noise alone and no signal, and the sampler 'dpmpp_multistep' divides by the signal"
    ):
        planned(interventions=[CUT], sampler=cu.DPMMultistep(steps=STEPS))
    with pytest.raises(ComponentError, match=r"the model has none\. It has embedding, block\.0"):
        planned(interventions=[cu.AblateBlock(1, cu.Window(3, 1))], sampler=cu.Euler(steps=STEPS))
