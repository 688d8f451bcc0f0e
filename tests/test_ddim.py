"""DDIM against diffusers' scheduler, a second implementation in plain torch, and the laws that define it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import causalunet as cu
from causalunet.design.samplers import DDIM, DDPM, Estimate, Sampler, State
from causalunet.errors import SpecError
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import step_noise
from causalunet.prediction import Prediction
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.schedule import Level, Schedule, cosine_alpha_bar
from tests.test_sampler import SCALE, guided, noises_of

PROMPTS = ("a red circle", "a cyan square on the right")
ETAS = st.floats(0, 1)
LEVELS = st.tuples(st.floats(1e-4, 0.98), st.floats(0.01, 0.99)).map(
    lambda pair: (pair[0], pair[0] + pair[1] * (1 - pair[0]))
)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("clip", [True, False])
def test_loop_is_that_of_diffusers(eta: float, clip: bool) -> None:
    """With every timestep taken, which is where both space them alike."""
    steps = 50
    training = cosine_alpha_bar(steps)
    scheduler = DDIMScheduler(steps, beta_schedule="squaredcos_cap_v2", clip_sample=clip, set_alpha_to_one=True)
    scheduler.alphas_cumprod = torch.from_numpy(training)  # of double precision
    scheduler.set_timesteps(steps)
    schedule, sampler = Schedule.spaced(training, steps), DDIM(steps=steps, eta=eta)
    initial, *noises = noises_of(range(steps, 0, -1), torch.float64)
    expected, state = initial, State(initial)
    for step, noise in zip(range(steps, 0, -1), noises, strict=True):
        timestep = int(schedule.timestep(step))
        output = guided(expected, torch.full((len(expected),), timestep))[:, :3]
        done = scheduler.step(
            output, timestep, expected, eta=eta, use_clipped_model_output=True, variance_noise=noise if eta else None
        )
        at, to = schedule.level(step), schedule.level(step - 1)
        eps = guided(state.x, torch.full((len(initial),), timestep))[:, :3]
        x0 = Prediction("eps").image_and_noise(eps, state.x, at)[0]
        x0 = x0.clamp(-1, 1) if clip else x0
        state = sampler.step(state, said(x0, eps), at, to, noise if eta else None)
        expected = done.prev_sample
        if step > 1:  # after its last call diffusers adds noise too, of a variance that is 0
            torch.testing.assert_close(state.x, expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(state.x, done.pred_original_sample, rtol=1e-7, atol=1e-7)


def said(x0: Any, eps: Any = None, fraction: Any = None) -> tuple[Estimate]:
    """What the one call of a step said; where it looked plays no part for these samplers."""
    return (Estimate(x0, eps, fraction, None, Level(1.0, 0.5)),)


def coefficients(eta: float, a: float, b: float) -> tuple[float, float, float]:
    """Weights of x, x0 and noise in a step, found by feeding ones and zeros; arrays of NumPy do as well as tensors."""
    one, zero = np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 1))
    inputs = [(one, zero, zero), (zero, one, zero), (zero, zero, one)]
    x, x0, noise = (
        DDIM(eta=eta).step(State(x), said(x0), Level(1.0, a), Level(0.0, b), noise).x.item() for x, x0, noise in inputs
    )
    return x, x0, noise


@given(eta=ETAS, levels=LEVELS)
def test_step_keeps_the_marginal(eta: float, levels: tuple[float, float]) -> None:
    """For any eta, x of the diffused x0 is drawn as the forward process would have: what defines DDIM."""
    a, b = levels
    x, x0, noise = coefficients(eta, a, b)
    assert x * math.sqrt(a) + x0 == pytest.approx(math.sqrt(b), rel=1e-7)
    assert x**2 * (1 - a) + noise**2 == pytest.approx(1 - b, rel=1e-6)


@given(levels=LEVELS)
def test_with_eta_1_it_is_the_posterior_of_ddpm(levels: tuple[float, float]) -> None:
    a, b = levels
    low = torch.full((1, 1, 1, 1), -1.0, dtype=torch.float64)
    one, zero = torch.ones_like(low), torch.zeros_like(low)
    for found, (x, x0, noise) in zip(
        coefficients(1.0, a, b), [(one, zero, zero), (zero, one, zero), (zero, zero, one)], strict=True
    ):
        step = DDPM().step(State(x), said(x0, fraction=low), Level(1.0, a), Level(0.0, b), noise)
        assert found == pytest.approx(step.x.item(), rel=1e-6, abs=1e-9)


@given(levels=LEVELS, between=st.floats(0.1, 0.9))
def test_without_noise_a_jump_is_two_steps_along_one_estimate(levels: tuple[float, float], between: float) -> None:
    """The line through one x0 is straight: only a new prediction bends it."""
    a, b = levels
    middle = a + between * (b - a)
    x, x0 = torch.randn(2, 1, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sampler, estimate = DDIM(), said(x0)
    half = sampler.step(State(x), estimate, Level(2.0, a), Level(1.0, middle), None)
    whole = sampler.step(half, estimate, Level(1.0, middle), Level(0.0, b), None)
    jump = sampler.step(State(x), estimate, Level(2.0, a), Level(0.0, b), None)
    torch.testing.assert_close(whole.x, jump.x)


def by_hand(model: TextToImage, row: int, *, steps: int, eta: float, absent: tuple[int, ...], cut: Any) -> Tensor:
    """One sample, from noise, with the sigma of the paper and a hook in the U-Net."""
    schedule = Schedule.spaced(model.alpha_bar, steps)
    shape = model.image_shape
    x = torch.from_numpy(step_noise((row,), 0, shape)).double()
    cond, uncond = model.encode([PROMPTS[row]]), model.encode([""])
    called = [step for step in range(steps, 0, -1) if step not in absent]
    for step, target in zip(called, [*called[1:], 0], strict=True):
        hook = model.unet.middle_block.register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
        if step not in cut:
            hook.remove()
        with torch.no_grad():
            timestep = torch.tensor([schedule.timestep(step)])
            eps, base = (model.unet(x.float(), timestep, *text).double()[:, :3] for text in (cond, uncond))
        hook.remove()
        eps = base + SCALE * (eps - base)
        a, b = schedule.alpha_bar(step), schedule.alpha_bar(target)
        x0 = ((x - math.sqrt(1 - a) * eps) / math.sqrt(a)).clamp(-1, 1)
        eps = (x - math.sqrt(a) * x0) / math.sqrt(1 - a)
        sigma = eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
        noise = torch.from_numpy(step_noise((row,), step, shape)).double()
        x = math.sqrt(b) * x0 + math.sqrt(max(1 - b - sigma**2, 0)) * eps + sigma * noise
    return (x[0].clamp(-1, 1) + 1) / 2


@pytest.mark.sampled(1)
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_studies_are_a_loop_in_plain_torch(tiny_model: TextToImage, tmp_path: Path, eta: float) -> None:
    study = cu.Study(
        name="ddim",
        prompts=PROMPTS,
        sampler=cu.DDIM(steps=8, eta=eta),
        interventions=[cu.SkipSteps(cu.Window(6, 2)), cu.Edit("mid", cu.Window(4, 2))],
    )
    results = study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    for row in range(len(PROMPTS)):
        for run, (absent, cut) in enumerate([((6, 5), ()), ((), (4, 3))]):
            expected = by_hand(tiny_model, row, steps=8, eta=eta, absent=absent, cut=cut)
            np.testing.assert_allclose(results.outcomes.image[run, row], expected, rtol=0, atol=1e-5)
    assert results.verify(quiet=True, deep=True).exit_code == 0
    assert results.attrs["study"]["sampler"] == {
        "name": "ddim",
        "configuration": {"steps": 8, "guidance_scale": 3.0, "eta": eta},
    }


def test_a_seed_draws_nothing_after_the_first_state(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def counted(seeds: Any, step: int, shape: Any) -> Any:
        drawn.append(step)
        return step_noise(seeds, step, shape)

    monkeypatch.setattr("causalunet.execute.walk.lockstep.step_noise", counted)
    study = cu.Study(
        name="ddim",
        prompts=PROMPTS,
        sampler=cu.DDIM(steps=4),
        interventions=[cu.SkipSteps(cu.Window(2, 1))],
    )
    study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert not drawn


def test_verify_sees_a_state_that_does_not_follow(tiny_model: TextToImage, tmp_path: Path) -> None:
    study = cu.Study(
        name="ddim", prompts=PROMPTS, sampler=cu.DDIM(steps=4), interventions=[cu.SkipSteps(cu.Window(2, 1))]
    )
    study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    repository = Repository.open(Location.parse(tmp_path / "s.zarr"))
    session = repository.writable()
    array: Any = zarr.open_group(session.store, mode="a")["baseline/x_t"]
    values = array[...]
    values[1, 2] += 0.01
    array[...] = values
    repository.commit(session, "edited", {})
    found = cu.open_results(tmp_path / "s.zarr").verify(quiet=True, deep=True)
    assert found.exit_code == 1
    assert "sample 1: x_t at step 2 does not follow from" in str(found)


@pytest.mark.thorough
def test_a_store_of_another_sampler_is_refused(tiny_model: TextToImage, tmp_path: Path) -> None:
    def study(sampler: Sampler) -> cu.Study:
        return cu.Study(name="s", prompts=PROMPTS, sampler=sampler, interventions=[cu.SkipSteps(cu.Window(2, 1))])

    study(cu.DDPM(steps=4)).run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    with pytest.raises(cu.CausalUNetError, match=r'sampler\.name is "ddpm" there and "ddim" here'):
        study(cu.DDIM(steps=4)).run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    study(cu.DDIM(steps=4)).run(tmp_path / "t.zarr", model=tiny_model, progress=False)
    with pytest.raises(cu.CausalUNetError, match=r"sampler\.eta is 0\.0 there and 0\.5 here"):
        study(cu.DDIM(steps=4, eta=0.5)).run(tmp_path / "t.zarr", model=tiny_model, progress=False)


@given(eta=ETAS, steps=st.integers(1, 100))
def test_json_gives_it_back(eta: float, steps: int) -> None:
    sampler = DDIM(steps=steps, eta=eta, guidance_scale=1)
    assert Sampler.from_json(json.loads(json.dumps(sampler.to_json()))) == sampler


@pytest.mark.parametrize("eta", [-0.1, 1.5, math.nan, "much", None, True])
def test_what_eta_cannot_be(eta: Any) -> None:
    with pytest.raises(SpecError, match=r"DDIM got eta=.*from 0"):
        DDIM(eta=eta)


def test_numbers_of_numpy_are_numbers() -> None:
    assert DDIM(eta=np.float32(0.5)) == DDIM(eta=0.5)  # type: ignore[arg-type]
