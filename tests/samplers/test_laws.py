"""What every sampler has to keep to, those of the package and of guests: skipped steps, and the past of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.design import Given, Sampler
from causalunet.design.samplers import SAMPLERS
from causalunet.errors import SpecError
from causalunet.execute import generate
from causalunet.models.exact import ExactModel, ImageBank, load_gaussian
from causalunet.noise import initial_noise, step_noise
from causalunet.prediction import prediction_of
from causalunet.schedule import Level, TrainingSchedule, cosine_alpha_bar
from causalunet.testing import check_sampler
from tests.samplers.walks import levels_of, walk

pytestmark = pytest.mark.usefixtures("guests")

STEPS = 8
NULL = cu.Null(cu.Window(4, 2))
SEEDS = (0, 1)
GUESTS = ("guests.heun", "guests.dpmpp_2m")
SKIPPED = {"in the middle": cu.Window(6, 2), "early and late": cu.Windows((cu.Window(7, 1), cu.Window(2, 1)))}


@pytest.fixture(scope="module")
def model() -> ExactModel:
    """Of a few pixels, without the noisiest timesteps, which multiply what is rounded off."""
    images = np.random.default_rng(0).uniform(size=(6, 3, 12, 12)).astype(np.float32)
    bank = ImageBank(images, [f"image {number}" for number in range(6)])
    return load_gaussian(bank, groups=3, alpha_bar=cosine_alpha_bar()[:900])


MORE: list[tuple[str, dict[str, Any]]] = [
    ("dpmpp_multistep", {"order": 3}),
    ("dpmpp_singlestep", {"order": 3}),
    ("dpmpp_singlestep", {"order": 3, "stochastic": True}),
    ("pndm", {"runge_kutta": True}),
    ("unipc", {"order": 3}),
    ("dpm_solver_v3", {"order": 3, "pseudo_corrector": True}),
]
"""That look further back, or take more calls, than they do by default."""


OWN = [name for name in SAMPLERS if SAMPLERS[name].__module__.startswith("causalunet.")]
"""Whatever other tests have entered before these were collected."""


@pytest.fixture(params=[*((name, {}) for name in sorted({*OWN, *GUESTS})), *MORE], ids=str)
def sampler(request: pytest.FixtureRequest) -> Sampler:
    name, given = request.param
    return Sampler.from_json({"name": name, "configuration": {"steps": STEPS, "guidance_scale": 1.0, **given}})


def called_of(window: cu.Window | cu.Windows) -> list[int]:
    return [step for step in range(STEPS, 0, -1) if step not in set(window)]


def denoiser(model: ExactModel) -> Callable[[Any, Level], tuple[Any, Any]]:
    """The U-Net called plainly."""
    context = model.encode([cu.NO_PROMPT] * len(SEEDS))

    def denoise(x: Any, level: Level) -> tuple[Any, Any]:
        with torch.inference_mode():
            value = model.unet(x, torch.full((len(x),), level.timestep), *context)
        prediction = prediction_of(model)
        return prediction.image_and_noise(prediction.split(value)[0], x, level)

    return denoise


@pytest.mark.sampled(27)
@pytest.mark.parametrize("window", SKIPPED.values(), ids=SKIPPED)
def test_skipped_steps_are_a_run_on_the_steps_that_are_left(
    sampler: Sampler, window: cu.Window | cu.Windows, model: ExactModel
) -> None:
    """With the noise of the steps that are called, and a past of those alone, which knows nothing of the others."""
    found = generate(
        [cu.NO_PROMPT], SEEDS, model=model, sampler=sampler, intervention=cu.SkipSteps(window), traced=False
    )
    schedule, called = sampler.schedule(model.alpha_bar), called_of(window)
    training = TrainingSchedule(model.alpha_bar)
    levels = levels_of(training, [schedule.timestep(step) for step in called])
    x = torch.from_numpy(initial_noise(SEEDS, model.image_shape))
    noises = [torch.from_numpy(step_noise(SEEDS, step, model.image_shape)) for step in called]

    def between(passed: int, stage: int) -> torch.Tensor:
        return torch.from_numpy(step_noise(SEEDS, called[passed], model.image_shape, stage))

    by_hand = walk(sampler, denoiser(model), levels, training, x, noises, between=between)
    np.testing.assert_allclose(found, model.decode(by_hand.states[-1]), rtol=0, atol=1e-5)


@pytest.mark.sampled(1)
def test_runs_forked_from_stored_baselines_are_runs_from_noise(
    sampler: Sampler, model: ExactModel, tmp_path: Path
) -> None:
    """Bit for bit, with all that a sampler looks back on; a run with a null intervention is the baseline."""
    early, late = cu.SkipSteps(cu.Window(7, 1)), cu.SkipSteps(cu.Window(3, 1))

    def run(*interventions: cu.SkipSteps) -> Any:
        study = cu.Study(
            name="s", prompts=[cu.NO_PROMPT], seeds=SEEDS, sampler=sampler, interventions=[*interventions, NULL]
        )
        return study.run(tmp_path / "s.zarr", model=model, progress=False)

    run(early)
    grown = run(early, late)
    assert float(grown.audit.null_difference.max()) == 0
    from_noise = {
        item.label: generate([cu.NO_PROMPT], SEEDS, model=model, sampler=sampler, intervention=item)
        for item in (early, late)
    }
    for label, expected in from_noise.items():
        np.testing.assert_array_equal(grown.outcomes.image.sel(intervention=label), expected)
    assert np.abs(from_noise[early.label] - from_noise[late.label]).max() > 1e-4, "the case tests nothing"
    found = grown.verify(quiet=True, deep=True)
    assert found.exit_code == 0, found.verdict


@pytest.mark.sampled(12)
def test_runs_do_not_depend_on_batch_or_order(sampler: Sampler, model: ExactModel) -> None:
    given: dict[str, Any] = {"model": model, "sampler": sampler, "traced": False}
    together = generate([cu.NO_PROMPT], SEEDS, **given)
    np.testing.assert_allclose(generate([cu.NO_PROMPT], SEEDS[::-1], **given)[::-1], together, rtol=0, atol=1e-5)
    np.testing.assert_allclose(generate([cu.NO_PROMPT], SEEDS, memory=1, **given), together, rtol=0, atol=1e-5)


@pytest.mark.sampled(13)
def test_conformance(sampler: Sampler) -> None:
    """Of fields that are not the defaults, where there are others."""
    others: dict[str, Any] = {
        "order": 1 if isinstance(sampler, cu.EVODiff) else 3,
        "eta": 0.4,
        "churn": 30.0,
        "runge_kutta": True,
        "variant": "bh1",
        "timestep_scaling": 7.0,
    }
    others |= {"variance": "large", "stochastic": True, "official": True}
    known = {entry.name for entry in fields(sampler)}
    assert check_sampler(replace(sampler, **{name: value for name, value in others.items() if name in known}))
    assert check_sampler(sampler)


def test_skipped_steps_are_a_spacing_without_them(sampler: Sampler, model: ExactModel) -> None:
    """Where no noise is drawn, which steps have by their number."""
    if sampler.draws:
        return
    window = cu.Window(6, 2)
    found = generate(
        [cu.NO_PROMPT], SEEDS, model=model, sampler=sampler, intervention=cu.SkipSteps(window), traced=False
    )
    schedule = sampler.schedule(model.alpha_bar)
    spacing = Given(timesteps=tuple(schedule.timestep(step) for step in called_of(window)))
    thinned = replace(sampler, steps=len(called_of(window)), spacing=spacing)
    np.testing.assert_allclose(
        found, generate([cu.NO_PROMPT], SEEDS, model=model, sampler=thinned, traced=False), rtol=0, atol=1e-5
    )


def test_noise_that_was_not_trained_is_told_when_planned(model: ExactModel) -> None:
    """Churn goes below a level, and below the last there is none."""
    study = cu.Study(
        name="s",
        prompts=[cu.NO_PROMPT],
        sampler=cu.EDM(steps=STEPS, guidance_scale=1, sigma_min=1e-3),
        interventions=[NULL],
    )
    with pytest.raises(SpecError, match="the model was trained from"):
        study.plan(model, calibrate=False)
    assert replace(study, sampler=cu.EDM(steps=STEPS, guidance_scale=1)).plan(model, calibrate=False).samples == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: cu.EulerAncestral(eta=0), "Euler draws no noise"),
        (lambda: cu.EDM(churn=0), "EDM got churn=0"),
        (lambda: cu.EDM(sigma_min=3, sigma_max=2), "sigma_min=3 above sigma_max=2"),
        (lambda: cu.DPMMultistep(order=4), "DPMMultistep got order=4; it is 1, 2 or 3"),
        (lambda: cu.DPMMultistep(stochastic=1), "stochastic=1; it is True or False"),  # type: ignore[arg-type]
        (lambda: cu.DPMSinglestep(order=True), "DPMSinglestep got order=True"),
        (lambda: cu.DEIS(order=0), "DEIS got order=0"),
        (lambda: cu.UniPC(variant="bh3"), "'bh1' or 'bh2'"),
        (lambda: cu.PNDM(runge_kutta="yes"), "runge_kutta='yes'"),  # type: ignore[arg-type]
        (lambda: cu.LCM(timestep_scaling=-1), "timestep_scaling=-1"),
        (lambda: cu.DDPM(variance="learned"), "DDPM got variance='learned'"),
    ],
)
def test_what_samplers_cannot_be(make: Callable[[], Sampler], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()
