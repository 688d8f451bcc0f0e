"""Spacings against those of diffusers, as values, and in studies whose steps lie between timesteps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.design import Beta, Exponential, Given, Karras, Leading, Linspace, Sampler, Spacing, Trailing
from causalunet.design.samplers import SAMPLERS, Query, State
from causalunet.errors import ModelError, SpecError
from causalunet.models.openai_layout import TextUNet
from causalunet.models.text_to_image import TextToImage
from causalunet.schedule import Level, Schedule, TrainingSchedule, cosine_alpha_bar, linear_alpha_bar

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRAINING = TrainingSchedule(cosine_alpha_bar())
ALL = (
    Linspace(whole=False),
    Linspace(last=False),
    Leading(offset=1),
    Trailing(),
    Karras(rho=5),
    Exponential(sigma_max=50, whole=True),
    Beta(alpha=0.5),
    Given(timesteps=(990, 500.5, 3)),
)


def euler(**config: Any) -> Any:
    scheduler = EulerDiscreteScheduler(1000, **config)
    scheduler.alphas_cumprod = torch.from_numpy(linear_alpha_bar())  # of double precision
    return scheduler


LINEAR = TrainingSchedule(linear_alpha_bar())


@pytest.mark.parametrize(
    ("spacing", "config"),
    [
        (Leading(), {"timestep_spacing": "leading"}),
        (Leading(offset=1), {"timestep_spacing": "leading", "steps_offset": 1}),
        (Trailing(), {"timestep_spacing": "trailing"}),
        (Linspace(whole=False), {"timestep_spacing": "linspace"}),
        (Karras(), {"use_karras_sigmas": True}),
        (Exponential(), {"use_exponential_sigmas": True}),
        (Beta(), {"use_beta_sigmas": True}),
        (Karras(sigma_min=0.1, sigma_max=80), {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 80}),
    ],
)
@pytest.mark.parametrize("steps", [5, 10, 27])
def test_spacings_are_those_of_diffusers(spacing: Spacing, config: dict[str, Any], steps: int) -> None:
    scheduler = euler(**config)
    scheduler.set_timesteps(steps)
    found = spacing.times(LINEAR, steps)
    np.testing.assert_allclose(found, scheduler.timesteps, rtol=0, atol=2e-3)  # which are float32
    if isinstance(spacing, Linspace):  # between timesteps diffusers draws its line through sigma, not its logarithm
        return
    sigmas = [LINEAR.level(time).sigma for time in found]
    np.testing.assert_allclose(sigmas, scheduler.sigmas[:-1], rtol=2e-6)


@pytest.mark.parametrize(("spacing", "name"), [(Linspace(last=False), "linspace"), (Leading(last=False), "leading")])
@pytest.mark.parametrize("steps", [5, 10, 20, 50])
def test_without_the_last_they_are_those_of_dpm_solver(spacing: Spacing, name: str, steps: int) -> None:
    scheduler = DPMSolverMultistepScheduler(1000, timestep_spacing=name)
    scheduler.set_timesteps(steps)
    assert list(spacing.times(TRAINING, steps)) == scheduler.timesteps.tolist()


@given(time=st.floats(0, 999), schedule=st.sampled_from([cosine_alpha_bar(), linear_alpha_bar()]))
def test_level_and_time_give_each_other_back(time: float, schedule: Any) -> None:
    training = TrainingSchedule(schedule)
    level = training.level(time)
    back = training.level_of(level.log_snr)
    assert back.timestep == pytest.approx(time, abs=1e-6)
    assert back.alpha_bar == pytest.approx(level.alpha_bar, rel=1e-9)
    assert back.sigma == pytest.approx(math.exp(-level.log_snr / 2), rel=1e-9)


@given(share=st.floats(0, 1))
def test_time_of_a_level_is_that_of_diffusers(share: float) -> None:
    """Between the least and the most noise, by log sigma."""
    of_log = np.log([LINEAR.level(time).sigma for time in range(1000)])
    sigma = math.exp((1 - share) * of_log[0] + share * of_log[-1])
    expected = euler()._sigma_to_t(np.asarray(sigma), of_log)
    assert LINEAR.level_of(-2 * math.log(sigma)).timestep == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("spacing", ALL)
def test_json_gives_it_back_and_the_identity_tells_it(spacing: Spacing) -> None:
    assert Spacing.from_json(json.loads(json.dumps(spacing.to_json()))) == spacing
    sampler = cu.DDIM(steps=3, spacing=spacing)
    assert Sampler.from_json(json.loads(json.dumps(sampler.to_json()))) == sampler
    assert sampler != cu.DDIM(steps=3)


@given(st.sampled_from(ALL[:-1]), st.integers(1, 40))
def test_steps_fall_and_lie_within_the_training(spacing: Spacing, steps: int) -> None:
    schedule = replace(cu.DDIM(steps=steps), spacing=spacing).schedule(TRAINING.alpha_bar)
    assert schedule.steps == steps
    assert (np.diff(schedule.timesteps) > 0).all()
    assert 0 <= schedule.timesteps[0] <= schedule.timesteps[-1] <= 999
    assert len({type(time) for time in schedule.timesteps}) == 1


def test_the_usual_spacing_has_one_spelling_and_is_written_as_ever() -> None:
    assert cu.DDIM(steps=7, spacing=Linspace()) == cu.DDIM(steps=7)
    assert set(cu.DDIM(steps=7).to_json()["configuration"]) == {"steps", "guidance_scale", "eta"}
    schedule = cu.DDIM(steps=7).schedule(TRAINING.alpha_bar)
    assert schedule == Schedule.spaced(cosine_alpha_bar(), 7)
    assert all(isinstance(time, int) for time in schedule.timesteps)


def test_given_timesteps_are_so_many_steps() -> None:
    sampler = cu.DDIM(spacing=Given(timesteps=(900, 400.25, 0)))
    assert sampler.steps == 3
    assert sampler.schedule(TRAINING.alpha_bar).timesteps == (0.0, 400.25, 900.0)
    with pytest.raises(SpecError, match="steps=4 beside a spacing of 3"):
        cu.DDIM(steps=4, spacing=Given(timesteps=(900, 400, 0)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Given(timesteps=(5, 5)), "timestep 5 after 5"),
        (lambda: Given(timesteps=(1, 2)), "timestep 2 after 1"),
        (lambda: Given(timesteps=()), "give 1 to"),
        (lambda: Given(timesteps=(-1,)), "at least 0"),
        (lambda: Karras(rho=0), "Karras got rho=0"),
        (lambda: Karras(sigma_min=3, sigma_max=2), "it rises"),
        (lambda: Beta(alpha=math.nan), "Beta got alpha=nan"),
        (lambda: Leading(offset=-1), "Leading got offset=-1"),
        (lambda: Linspace(whole=1), "whole=1"),  # type: ignore[arg-type]
        (lambda: cu.DDIM(spacing="karras"), "spacing='karras'; give a spacing"),  # type: ignore[arg-type]
        (lambda: cu.DDIM(steps=1001).schedule(TRAINING.alpha_bar), "1001 sampling steps asked"),
        (lambda: cu.DDIM(steps=600, spacing=Leading(offset=999)).schedule(TRAINING.alpha_bar), "at 0 to 999"),
        (lambda: cu.DDIM(steps=5, spacing=Karras(sigma_max=1e9)).schedule(TRAINING.alpha_bar), "was trained from"),
        (
            lambda: cu.DDIM(steps=40, spacing=Karras(whole=True)).schedule(linear_alpha_bar(50)),
            r"Steps \d+ and \d+ of 40 lie at timesteps .*every step has to lie below",
        ),
        (lambda: Spacing.from_json({"name": "no", "configuration": {}}), "known spacings: .*karras"),
    ],
)
def test_what_cannot_be_is_told(make: Callable[[], object], said: str) -> None:
    with pytest.raises((SpecError, ModelError), match=said):
        make()


def test_a_study_between_timesteps_is_stored_and_read(tiny_model: TextToImage, tmp_path: Path) -> None:
    study = cu.Study(
        name="s",
        prompts=["a red circle"],
        sampler=cu.DDIM(steps=4, guidance_scale=1, spacing=Karras(sigma_max=50)),
        interventions=[cu.SkipSteps(cu.Window(3, 1))],
    )
    results = study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    times = results.baseline.timestep.values
    assert times.dtype == np.float64
    np.testing.assert_array_equal(times, study.sampler.schedule(tiny_model.alpha_bar).timesteps[::-1])
    assert not float(times[1]).is_integer()
    found = results.verify(quiet=True, deep=True)
    assert found.exit_code == 0, found.verdict
    study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)  # goes on with its own
    other = replace(study, sampler=replace(study.sampler, spacing=Exponential(sigma_max=50)))
    with pytest.raises(cu.CausalUNetError, match=r"sampler\.spacing is .*karras.* there and .*exponential"):
        other.run(tmp_path / "s.zarr", model=tiny_model, progress=False)


class OfWhole(TextUNet):
    """Takes the whole timestep below, as a row of a table."""

    def forward(self, x: Any, timesteps: Any, *context: Any) -> Any:
        """Without what lies behind the point."""
        return super().forward(x, timesteps.long(), *context)


class Saying(TextToImage):
    """Says so."""

    whole_timesteps = True


@pytest.mark.parametrize("says", [True, False])
def test_models_of_whole_timesteps_refuse_others_when_planned(tiny_model: TextToImage, says: bool) -> None:
    """Whether they say so, or it shows."""
    unet = (TextUNet if says else OfWhole)(tiny_model.unet.config).eval().requires_grad_(False)
    unet.load_state_dict(tiny_model.unet.state_dict())
    model = (Saying if says else TextToImage)("tiny", unet, tiny_model.tokenize, tiny_model.alpha_bar)

    def plan(spacing: Spacing) -> Any:
        study = cu.Study(
            name="s",
            prompts=["a red circle"],
            sampler=cu.DDIM(steps=4, guidance_scale=1, spacing=spacing),
            interventions=[cu.SkipSteps(cu.Window(3, 1))],
        )
        return study.plan(model, calibrate=False)

    said = ", and the sampler 'ddim' asks between" if says else r"\(it says the same at \d+\.5 as at \d+\)"
    with pytest.raises(SpecError, match=f"takes whole timesteps only ?{said}.*whole=True"):
        plan(Karras())
    assert plan(Karras(whole=True)).samples == 1


@pytest.mark.usefixtures("guests")
def test_further_calls_are_asked_for_too(tiny_model: TextToImage) -> None:
    """Steps at whole timesteps, and calls between them."""
    model = Saying("tiny", tiny_model.unet, tiny_model.tokenize, tiny_model.alpha_bar)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Between(cu.DDIM):
        name: ClassVar[str] = "between"

        def calls(self, at: Level, to: Level, passed: int) -> int:
            return 2 if passed else 1

        def further(self, state: State, estimates: Any, at: Level, to: Level, training: TrainingSchedule) -> Query:
            assert state.x.shape == estimates[0].x.shape
            return Query(state.x, training.level((at.timestep + max(to.timestep, 0)) / 2 + 0.25))

    with SAMPLERS.scoped(between=Between):
        study = cu.Study(
            name="s",
            prompts=["a red circle"],
            sampler=Between(steps=4, guidance_scale=1),
            interventions=[cu.SkipSteps(cu.Window(3, 1))],
        )
        with pytest.raises(SpecError, match=r"'between' asks between them, at \d+\.[27]5"):
            study.plan(model, calibrate=False)
