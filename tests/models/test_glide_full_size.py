"""GLIDE at its full size, 385 M parameters: loaded from a file, run in a study, cut without a changed bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import causalunet as cu
from causalunet.execute import TracedUNet
from causalunet.models import load_glide
from causalunet.models.glide import Glide
from causalunet.noise import initial_noise
from causalunet.plan import Action, PlacedFill
from causalunet.prompts import imagenet
from tests.execute.reference import Change, changed
from tests.models.full_size import TOKENIZE, random_glide

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BOTTOM = (2, 4, 8)
PROMPTS = imagenet(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Glide:
    path = tmp_path_factory.mktemp("glide") / "base.pt"
    torch.save(random_glide().state_dict(), path)
    loaded = load_glide(path, tokenize=TOKENIZE)
    path.unlink()
    return loaded


@pytest.fixture(scope="module")
def results(model: Glide, tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    study = cu.Study(
        name="full size",
        model="glide",
        prompts=PROMPTS,
        sampler=cu.DDPM(steps=3, guidance_scale=3.0),
        interventions=cu.sweep(cu.AblateBlock, bottom=BOTTOM, start=2, length=1),
    )
    return study.run(tmp_path_factory.mktemp("study") / "results.zarr", model=model, progress=False)


def test_weights_are_whole(model: Glide) -> None:
    assert sum(parameter.numel() for parameter in model.unet.parameters()) == 385_030_726
    assert all(bool(parameter.any()) for parameter in model.unet.parameters())


def test_the_study_runs(results: xr.DataTree) -> None:
    images = results.outcomes.image.values
    assert images.shape == (len(BOTTOM) + 1, 1, 3, 64, 64)
    assert np.isfinite(images).all()
    ssim = results.outcomes.ssim.values[:, 0]
    assert (ssim[:-1] < 1).all()
    assert ssim[-1] == pytest.approx(1, abs=1e-4), "the null intervention"
    assert len({image.tobytes() for image in images}) == len(images)


@torch.inference_mode()
@pytest.mark.parametrize("bottom", BOTTOM)
def test_skipping_dead_blocks_changes_no_bit(model: Glide, bottom: int) -> None:
    place = f"up.{bottom - 1}"
    action = Action(frozenset({PlacedFill(cu.Site(place), cu.Zero())}), model.anatomy.dead({place}))
    x = torch.from_numpy(initial_noise([0], model.image_shape)).repeat(2, 1, 1, 1)
    arguments = (x, torch.full((2,), 500.0), *model.encode([*PROMPTS, ""]))
    cut = TracedUNet(model.unet, model.anatomy)(action, arguments, 1).output
    with changed(model.unet, [Change("up", bottom - 1)]):
        zeroed = model.unet(*arguments)
    assert cut.std() > 1e-3
    assert torch.equal(cut, zeroed)


def test_a_shortcut_is_applied_with_and_without_tracing(model: Glide) -> None:
    shortcut = cu.Shortcut(
        name="cut, relax, cut, stop",
        intervention=cu.AblateBlock(bottom=8, window=cu.cut_relax_cut(5, cut=1, relax=1))
        + cu.SkipSteps(cu.Window(1, 1)),
        sampler=cu.DDPM(steps=5, guidance_scale=3.0),
        model="glide",
        fingerprint=model.fingerprint,
    )
    live = model.anatomy.live_flops(model.anatomy.dead({"up.7"}))
    assert shortcut.cost(model)["flops_share"] == (2 * model.anatomy.flops + 2 * live) / (5 * model.anatomy.flops)
    plain, traced = (shortcut.apply(PROMPTS, model=model, traced=traced) for traced in (False, True))
    assert plain.shape == (1, 3, 64, 64)
    np.testing.assert_array_equal(plain, traced)
