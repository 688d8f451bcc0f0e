"""Models that predict noise, image or v, with a variance or without: the same runs, by one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import causalunet as cu
from causalunet.errors import ModelError
from causalunet.execute import generate
from causalunet.models.openai_layout import TextUNet
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import step_noise
from causalunet.prediction import LEARNED, PREDICTIONS, Prediction, prediction_of
from causalunet.process import SCALES, Process
from causalunet.schedule import Level, Schedule, cosine_alpha_bar
from causalunet.testing import check_model
from tests.conftest import TINY_CONFIG

STEPS = 5
PROMPTS = ["a red circle", "a striped blue cross, dark background"]
ALPHA_BAR = cosine_alpha_bar()[:900]  # without the noisiest timesteps, where a rounding of x_0 is multiplied
CUT = cu.AblateSkip(top=2, window=cu.Window(4, 2))


class Restated(TextUNet):
    """The U-Net, with its noise written as something else; which is a closed form of x and noise."""

    prediction: Prediction

    def forward(self, x: Tensor, timesteps: Tensor, *context: Tensor) -> Tensor:
        eps, fraction = super().forward(x, timesteps, *context).chunk(2, dim=1)
        share = torch.from_numpy(ALPHA_BAR).to(x.device)[timesteps.long()].float()[:, None, None, None]
        a, b = share.sqrt(), (1 - share).sqrt()
        said = {"eps": eps, "x0": (x - b * eps) / a, "v": (eps - b * x) / a}[self.prediction.of]
        return torch.cat([said, fraction], dim=1) if self.prediction.variance else said


@dataclass(frozen=True)
class Restating(TextToImage):
    """A model that says what it predicts."""

    prediction: Prediction = LEARNED


@pytest.fixture(scope="module")
def restated(tiny_model: TextToImage) -> Callable[..., Restating]:
    def make(of: str, *, variance: bool) -> Restating:
        unet = Restated(TINY_CONFIG)
        unet.load_state_dict(tiny_model.unet.state_dict())
        unet.eval().requires_grad_(False).prediction = Prediction(of, variance)
        given = {name: getattr(tiny_model, name) for name in ("name", "tokenize", "reader")}
        return Restating(unet=unet, alpha_bar=ALPHA_BAR, prediction=Prediction(of, variance), **given)

    return make


def images(model: Any, sampler: Any, intervention: Any = CUT) -> NDArray[np.float32]:
    return generate(PROMPTS, model=model, sampler=sampler, intervention=intervention)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("of", ["x0", "v"])
@pytest.mark.parametrize("sampler", [cu.DDPM(steps=STEPS), cu.DDIM(steps=STEPS, guidance_scale=1)])
def test_a_model_restated_makes_the_same_images(
    tiny_model: TextToImage, restated: Callable[..., Restating], of: str, sampler: Any
) -> None:
    expected = images(replace(tiny_model, alpha_bar=ALPHA_BAR), sampler)
    np.testing.assert_allclose(images(restated(of, variance=True), sampler), expected, rtol=0, atol=2e-5)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("of", ["eps", "x0", "v"])
def test_without_a_variance_it_is_the_loop_of_diffusers(restated: Callable[..., Restating], of: str) -> None:
    """DDPM then draws with the posterior's variance, their ``fixed_small``."""
    model, kinds = restated(of, variance=False), {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
    settings: dict[str, Any] = {
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": kinds[of],
        "clip_sample": True,
    }
    schedule = Schedule.spaced(ALPHA_BAR, STEPS)
    for sampler, scheduler in (
        (cu.DDPM(steps=STEPS, guidance_scale=1), DDPMScheduler(900, variance_type="fixed_small", **settings)),
        (cu.DDIM(steps=STEPS, guidance_scale=1), DDIMScheduler(900, set_alpha_to_one=True, **settings)),
    ):
        scheduler.alphas_cumprod = torch.from_numpy(ALPHA_BAR)
        scheduler.set_timesteps(STEPS)
        scheduler.timesteps = torch.tensor(schedule.timesteps[::-1])
        x = torch.from_numpy(step_noise((0,), 0, model.image_shape)).double()
        for step in range(STEPS, 0, -1):
            a, b = schedule.alpha_bar(step), schedule.alpha_bar(step - 1)
            with torch.no_grad():
                times = torch.tensor([float(schedule.timestep(step))])
                said = model.unet(x.float(), times, *model.encode(PROMPTS[:1])).double()
            done = scheduler.step(said, schedule.timestep(step), x) if sampler.name == "ddim" else None
            x0 = {"eps": (x - (1 - a) ** 0.5 * said) / a**0.5, "x0": said, "v": a**0.5 * x - (1 - a) ** 0.5 * said}[of]
            x0 = x0.clamp(-1, 1)
            eps = (x - a**0.5 * x0) / (1 - a) ** 0.5
            if sampler.name == "ddim":
                assert done is not None
                torch.testing.assert_close(done.pred_original_sample, x0)
                x = b**0.5 * x0 + (1 - b) ** 0.5 * eps
            else:
                noise = torch.from_numpy(step_noise((0,), step, model.image_shape)).double()
                beta = 1 - a / b
                mean = (beta * b**0.5 * x0 + (1 - b) * (1 - beta) ** 0.5 * x) / (1 - a)
                x = mean + math.sqrt(beta * (1 - b) / (1 - a)) * noise if b < 1 else x0
        image = generate(PROMPTS[:1], model=model, sampler=sampler)
        np.testing.assert_allclose(image, (x.clamp(-1, 1) + 1) / 2, rtol=0, atol=2e-5)


@pytest.mark.thorough
def test_a_study_of_a_model_of_v(restated: Callable[..., Restating], tmp_path: Path) -> None:
    """Stored is the noise, whatever was predicted; the kind is part of what makes the images."""
    study = cu.Study(name="s", prompts=PROMPTS, sampler=cu.DDPM(steps=STEPS), interventions=[CUT])
    results = study.run(tmp_path / "s.zarr", model=restated("v", variance=False), progress=False)
    found = results.verify(quiet=True, deep=True)
    assert found.exit_code == 0, found.verdict
    assert results.attrs["identity"]["prediction"] == "v"
    with pytest.raises(cu.CausalUNetError, match=r"prediction is .*v.* there and .*image.* here"):
        study.run(tmp_path / "s.zarr", model=restated("x0", variance=False), progress=False)


def test_the_kit_asks_for_what_is_predicted(restated: Callable[..., Restating]) -> None:
    assert check_model(restated("v", variance=False), PROMPTS)
    wrong = replace(restated("v", variance=False), prediction=Prediction("v", variance=True))
    with pytest.raises(ModelError, match=r"expected a tensor \(1, 6, 16, 16\): v and variance, as its prediction says"):
        images(wrong, cu.DDPM(steps=STEPS, guidance_scale=1))


@given(
    of=st.sampled_from([of for of in PREDICTIONS if not Prediction(of).of_given]),
    process=st.sampled_from(list(SCALES)),
    share=st.floats(1e-3, 0.999),
    seed=st.integers(0, 99),
)
def test_image_and_noise_come_back_from_every_prediction(of: str, process: str, share: float, seed: int) -> None:
    x0, eps = np.random.default_rng(seed).standard_normal((2, 2, 3, 4, 4))
    level = Level(1.0, share, Process(process).scale(share))
    a, b = level.signal, level.noise
    value = {"eps": eps, "x0": x0, "v": a * eps - b * x0, "velocity": eps - x0, "score": -eps / b}[of]
    given = a * x0 + b * eps
    found = Prediction(of).image_and_noise(value, given / level.scale, level)
    for one, expected in zip(found, (x0, eps), strict=True):
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-9)


def test_what_is_predicted_is_kept_to_the_bit() -> None:
    value, x = torch.randn(2, 1, 3, 4, 4)
    assert Prediction("eps").image_and_noise(value, x * math.inf, Level(1.0, 0.3))[1] is value
    assert torch.equal(Prediction("x0").image_and_noise(value, x, Level(1.0, 0.3))[0], value)


def test_predictions_that_are_none() -> None:
    with pytest.raises(
        ModelError, match=r"A prediction of 'flow' is not known; known: eps, x0, v, velocity, score, residual, "
    ):
        Prediction("flow")

    class Told:
        name, prediction = "told", "v"

    with pytest.raises(ModelError, match=r"The model 'told' has prediction='v'; give a causalunet\.prediction"):
        prediction_of(Told())
    assert prediction_of(nn.Identity()) == LEARNED
