"""Views and models of another shape that packages announce: one file each, and nothing of the package is changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.design import View
from causalunet.models import load_model
from causalunet.models.text_to_image import TextToImage
from causalunet.testing import check_model, check_view

pytestmark = pytest.mark.usefixtures("guests")


@pytest.mark.thorough
def test_views_are_one_file(tiny_model: TextToImage, tmp_path: Path) -> None:
    """A block of places in one method, and what is none in three; used like those of the package."""
    second, board = (View.from_json({"name": f"guests.{name}"}) for name in ("every_second", "checkerboard"))
    assert check_view(second)
    assert check_view(board)
    window = cu.Window(4, 2)
    first, others = (View.from_json({"name": "guests.every_second", "configuration": {"first": n}}) for n in (0, 1))
    items = [
        cu.Edit("mid", window, view=second),
        cu.Edit("up.2", window, cu.Scale(0.5), view=board @ cu.Channels(0, 1)),
        cu.Edit("mid", window, view=first) + cu.Edit("mid", window, cu.Zero(), view=others),
        cu.Edit("mid", window),
    ]
    study = cu.Study(name="s", prompts=["a red circle"], sampler=cu.DDPM(steps=4), interventions=items)
    results = study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert results.verify(quiet=True).exit_code == 0
    images = results.outcomes.image.values[:, 0]
    np.testing.assert_allclose(images[2], images[3], rtol=0, atol=1e-5)
    assert all(np.abs(image - images[3]).max() > 1e-4 for image in images[:2])
    # By hand: every second channel of the bottleneck, in the whole run.
    kept = torch.tensor([0.0, 1.0]).repeat(8)[:, None, None]
    always = replace(study, interventions=(cu.Edit("mid", cu.Window(4, 4), view=second),))
    found = always.run(tmp_path / "always.zarr", model=tiny_model, progress=False).outcomes.image.values[0]
    handle = tiny_model.unet.middle_block.register_forward_hook(lambda _module, _given, output: output * kept)
    hooked = always.run(tmp_path / "hooked.zarr", model=tiny_model, progress=False).baseline.image.values
    handle.remove()
    np.testing.assert_allclose(found, hooked, rtol=0, atol=1e-5)


def test_a_model_of_another_shape_is_one_file(tmp_path: Path) -> None:
    model = load_model("guests.stack")
    assert check_model(model, ["anything"], places="block.1")
    study = cu.Study(
        name="s",
        model="guests.stack",
        prompts=["anything"],
        sampler=cu.DDPM(steps=4, guidance_scale=1),
        interventions=[cu.Edit("block.1", cu.Window(3, 2), view=cu.Channels(0))],
    )
    results = study.run(tmp_path / "s.zarr", progress=False)
    assert results.verify(quiet=True).exit_code == 0
    assert float(results.outcomes.ssim.sel(kind="null").min()) == 1
