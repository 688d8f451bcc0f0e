"""U-Nets of OpenAI's packages beside the packages' own sampling loops, given the same noise; and other sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

import causalunet as cu
from causalunet.errors import ModelError
from causalunet.execute.walk.generate import generate
from causalunet.models import from_unet
from causalunet.noise import initial_noise, step_noise
from causalunet.schedule import cosine_alpha_bar, linear_alpha_bar
from tests.execute.reference import Change, changed
from tests.models import stand_ins

STEPS, SEED = 5, 3
FEW: dict[str, Any] = {
    "in_channels": 3,
    "model_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": (1, 2),
    "attention_resolutions": (2,),
}


@contextmanager
def our_noise(module: Any, shape: tuple[int, int, int]) -> Iterator[None]:
    """Let a loop draw what the package draws, from the first step on."""
    steps = iter(range(STEPS, -1, -1))

    def drawn(like: Tensor) -> Tensor:
        return torch.from_numpy(step_noise([SEED], next(steps), shape))

    with mock.patch.object(module, "randn_like", drawn, create=True):
        yield


def start(shape: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(initial_noise([SEED], shape))


def as_image(x: Tensor) -> Any:
    return ((x[0].clamp(-1, 1) + 1) / 2).numpy()


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("learned", [False, True])
def test_4000_rescaled_timesteps_are_p_sample_loop(schedule: str, learned: bool) -> None:
    """As improved-diffusion trains unless told otherwise: its own spaced diffusion, its own loop."""
    official = pytest.importorskip("improved_diffusion.unet").UNetModel
    diffusion, respace = (
        pytest.importorskip(f"improved_diffusion.{name}") for name in ("gaussian_diffusion", "respace")
    )
    unet = stand_ins.randomised(official(out_channels=6 if learned else 3, **FEW))
    kind = diffusion.ModelVarType
    own = respace.SpacedDiffusion(
        use_timesteps=respace.space_timesteps(4000, [STEPS]),
        betas=diffusion.get_named_beta_schedule(schedule, 4000),
        model_mean_type=diffusion.ModelMeanType.EPSILON,
        model_var_type=kind.LEARNED_RANGE if learned else kind.FIXED_LARGE,
        loss_type=diffusion.LossType.MSE,
        rescale_timesteps=True,
    )
    unet.eval()
    shape = (3, 16, 16)
    # th.randn_like of that module, and of nothing else
    library = mock.Mock(wraps=torch)
    with mock.patch.object(diffusion, "th", library), our_noise(library, shape):
        expected = own.p_sample_loop(unet, (1, *shape), noise=start(shape), clip_denoised=True)
    alpha_bar = {"cosine": cosine_alpha_bar, "linear": linear_alpha_bar}[schedule](4000)
    model = from_unet(unet, name="4000", image_size=16, alpha_bar=alpha_bar, rescale_timesteps=True)
    (found,) = generate(["any"], [SEED], model=model, sampler=cu.DDPM(steps=STEPS, guidance_scale=1))
    # Their first step takes the posterior variance of the second where the variance is fixed.
    np.testing.assert_allclose(found, as_image(expected), rtol=0, atol=1e-5)


def test_a_null_class_guides_as_by_hand_in_the_official_forward(tmp_path: Path) -> None:
    """guided-diffusion with a class that stands for none: a loop over its own forward, the unconditional row first."""
    official = pytest.importorskip("guided_diffusion.unet").UNetModel
    unet = stand_ins.randomised(official(image_size=16, out_channels=6, num_classes=4, resblock_updown=True, **FEW))
    alpha_bar, scale = linear_alpha_bar(), 2.5
    model = from_unet(unet, name="classes", alpha_bar=alpha_bar, classes=("cat", "dog", "fish"), null_class=3)
    study = cu.Study(
        name="classes",
        prompts=["dog"],
        seeds=[SEED],
        sampler=cu.DDIM(steps=STEPS, guidance_scale=scale),
        interventions=[
            cu.Edit("up.1", cu.Window(4, 2), branch="cond"),
            cu.Edit("skip.1", cu.Window(4, 2), branch="cond"),
        ],
    )
    results = study.run(tmp_path / "s.zarr", model=model, progress=False)
    images = {None: results.baseline.image.values[0], "up": None, "skip": None}
    images["up"], images["skip"] = results.outcomes.image.sel(kind="edit").values[:, 0]
    taken = [round(i * 999 / (STEPS - 1)) for i in range(STEPS)]
    share = [1.0, *(float(alpha_bar[t]) for t in taken)]
    for place, image in images.items():
        x = start((3, 16, 16))
        for step in range(STEPS, 0, -1):
            cuts = [Change(place, 1, branch="cond")] if place and step in (4, 3) else []
            with torch.no_grad(), changed(unet, cuts, {"cond": slice(1, 2)}):
                rows = unet(torch.cat([x, x]), torch.full((2,), taken[step - 1]), y=torch.tensor([3, 1]))
            uncond, cond = rows[:, :3].split(1)
            x0 = (x - (1 - share[step]) ** 0.5 * (uncond + scale * (cond - uncond))) / share[step] ** 0.5
            x0 = x0.clamp(-1, 1)
            eps = (x - share[step] ** 0.5 * x0) / (1 - share[step]) ** 0.5
            x = share[step - 1] ** 0.5 * x0 + (1 - share[step - 1]) ** 0.5 * eps
        np.testing.assert_allclose(image, as_image(x), rtol=0, atol=1e-5, err_msg=str(place))
        assert place is None or np.abs(image - images[None]).max() > 1e-3


@pytest.mark.parametrize("kind", ["stand-in", "guided-diffusion", "improved-diffusion"])
def test_sizes_that_are_no_squares(kind: str) -> None:
    if kind == "stand-in":
        unet: Any = stand_ins.UNetModel(out_channels=3)
    elif kind == "guided-diffusion":
        unet = pytest.importorskip("guided_diffusion.unet").UNetModel(image_size=16, out_channels=3, **FEW)
    else:
        unet = pytest.importorskip("improved_diffusion.unet").UNetModel(out_channels=3, **FEW)
    stand_ins.randomised(unet)
    alpha_bar = linear_alpha_bar()
    model = from_unet(unet, name="wide", image_size=(8, 24), alpha_bar=alpha_bar)
    assert model.image_shape == (3, 8, 24)
    assert model.anatomy.by_name["mid"].shape[1:] == (4, 12)
    assert {one.level for one in model.anatomy.components} == {0, 1}
    (found,) = generate(["any"], [SEED], model=model, sampler=cu.DDIM(steps=2, guidance_scale=1))
    x, share = start((3, 8, 24)), [1.0, float(alpha_bar[0]), float(alpha_bar[999])]
    for step, timestep in ((2, 999), (1, 0)):
        with torch.no_grad():
            eps = unet(x, torch.tensor([timestep]))
        x0 = ((x - (1 - share[step]) ** 0.5 * eps) / share[step] ** 0.5).clamp(-1, 1)
        eps = (x - share[step] ** 0.5 * x0) / (1 - share[step]) ** 0.5
        x = share[step - 1] ** 0.5 * x0 + (1 - share[step - 1]) ** 0.5 * eps
    np.testing.assert_allclose(found, as_image(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((8, 15), r"image of shape \(3, 8, 15\). Is image_size right"),
        ((8, 0), r"image_size=\(8, 0\) is no size; give a number of pixels, or \(y, x\)"),
        ((8, 8, 8), "is no size"),
        ("8", "is no size"),
    ],
)
def test_sizes_that_cannot_be_are_told(size: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        from_unet(stand_ins.UNetModel(), name="x", image_size=size, alpha_bar=linear_alpha_bar())
