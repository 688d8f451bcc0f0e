"""The schedules against those of diffusers and of GLIDE's code, and what a schedule of steps must be."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logit

from causalunet.errors import SpecError
from causalunet.schedule import Schedule, cosine_alpha_bar, linear_alpha_bar, shifted_alpha_bar, spaced_timesteps

SCHEDULES = {"cosine": cosine_alpha_bar(), "linear": linear_alpha_bar()}


def betas(alpha_bar: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])


@pytest.mark.parametrize("timesteps", [1000, 100])
def test_cosine_is_that_of_diffusers(timesteps: int) -> None:
    expected = DDPMScheduler(timesteps, beta_schedule="squaredcos_cap_v2").betas.numpy()
    np.testing.assert_allclose(betas(cosine_alpha_bar(timesteps)), expected, rtol=0, atol=1e-6)


def test_linear_is_that_of_diffusers() -> None:
    expected = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    np.testing.assert_allclose(betas(linear_alpha_bar()), expected.betas.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(linear_alpha_bar(), expected.alphas_cumprod.numpy(), rtol=1e-4)


@pytest.mark.parametrize(("name", "official"), [("cosine", "squaredcos_cap_v2"), ("linear", "linear")])
@pytest.mark.parametrize("timesteps", [1000, 250])
def test_schedules_are_those_of_glide(name: str, official: str, timesteps: int) -> None:
    diffusion = pytest.importorskip("glide_text2im.gaussian_diffusion")
    made = {"cosine": cosine_alpha_bar, "linear": linear_alpha_bar}[name](timesteps)
    expected = np.cumprod(1 - diffusion.get_named_beta_schedule(official, timesteps))
    np.testing.assert_allclose(made, expected, rtol=1e-10)


@pytest.mark.parametrize("alpha_bar", SCHEDULES.values(), ids=SCHEDULES)
def test_signal_only_falls(alpha_bar: NDArray[np.float64]) -> None:
    assert alpha_bar.dtype == np.float64
    assert (np.diff(alpha_bar) < 0).all()
    assert 0 < alpha_bar[-1] < 1e-4
    assert 0.999 < alpha_bar[0] < 1


def test_cosine_is_the_equation_where_beta_is_not_capped() -> None:
    t = np.arange(1, 999) / 1000
    share = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine_alpha_bar()[:998], share, rtol=1e-9)
    assert betas(cosine_alpha_bar())[-1] == pytest.approx(0.999)


@given(shift=st.floats(-8, 8), other=st.floats(-8, 8), name=st.sampled_from(list(SCHEDULES)))
def test_a_shift_adds_to_log_snr(shift: float, other: float, name: str) -> None:
    share = SCHEDULES[name]
    shifted = shifted_alpha_bar(share, shift)
    np.testing.assert_allclose(logit(shifted), logit(share) + shift, rtol=0, atol=1e-8)
    np.testing.assert_allclose(shifted_alpha_bar(shifted, other), shifted_alpha_bar(share, shift + other), rtol=1e-8)
    assert (np.diff(shifted) < 0).all()
    np.testing.assert_array_equal(shifted_alpha_bar(np.array([1.0, 0.0]), shift), [1, 0])


def test_a_shifted_cosine_is_the_equation_of_simple_diffusion() -> None:
    """Hoogeboom et al. 2023: 2 log(64 / d) is added to log SNR, here of the cosine of Nichol & Dhariwal 2021."""
    t = (np.arange(1, 999) / 1000 + 0.008) / 1.008
    offset = np.cos(0.008 / 1.008 * np.pi / 2) ** 2  # alpha_bar is 1 at t = 0
    cosine = logit(np.cos(t * np.pi / 2) ** 2 / offset)
    expected = expit(cosine + 2 * np.log(64 / 32))
    np.testing.assert_allclose(shifted_alpha_bar(cosine_alpha_bar(), 2 * np.log(2))[:998], expected, rtol=1e-9)
    np.testing.assert_array_equal(shifted_alpha_bar(cosine_alpha_bar(), 0), cosine_alpha_bar())


@pytest.mark.parametrize("shift", [np.inf, -np.inf, np.nan])
def test_a_shift_is_a_finite_number(shift: float) -> None:
    with pytest.raises(SpecError, match="log SNR can be shifted by a finite number; got"):
        shifted_alpha_bar(cosine_alpha_bar(), shift)


def test_spacing_is_that_of_glide() -> None:
    respace = pytest.importorskip("glide_text2im.respace")
    for timesteps, counts in ((1000, range(1, 1001)), (37, range(1, 38))):
        for steps in counts:
            expected = sorted(respace.space_timesteps(timesteps, [steps]))
            assert spaced_timesteps(timesteps, steps).tolist() == expected, steps


@pytest.mark.parametrize("steps", [2, 10, 25, 27, 50, 100, 250, 1000])
def test_spacing_is_that_of_diffusers(steps: int) -> None:
    scheduler = DDPMScheduler(1000, timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    assert spaced_timesteps(1000, steps).tolist() == scheduler.timesteps.tolist()[::-1]


@given(data=st.data(), timesteps=st.integers(2, 1000))
def test_spacing_laws(data: st.DataObject, timesteps: int) -> None:
    steps = data.draw(st.integers(2, timesteps))
    chosen = spaced_timesteps(timesteps, steps)
    gaps = np.diff(chosen)
    assert (len(chosen), chosen[0], chosen[-1]) == (steps, 0, timesteps - 1)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_one_step_is_at_timestep_0() -> None:
    assert spaced_timesteps(1000, 1).tolist() == [0]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_more_steps_than_timesteps(steps: int) -> None:
    with pytest.raises(SpecError, match=f"{steps} sampling steps asked; the model has 1 to 1000 timesteps"):
        spaced_timesteps(1000, steps)


@pytest.mark.parametrize("steps", [1, 2, 25, 100])
def test_schedule_reads_the_training_schedule(steps: int) -> None:
    alpha_bar = cosine_alpha_bar()
    schedule = Schedule.spaced(alpha_bar, steps)
    assert schedule.steps == steps
    assert schedule.alpha_bar(0) == 1.0
    assert [schedule.timestep(step) for step in range(1, steps + 1)] == spaced_timesteps(1000, steps).tolist()
    for step in range(1, steps + 1):
        assert schedule.alpha_bar(step) == alpha_bar[schedule.timestep(step)]
        share = schedule.alpha_bar(step)
        assert schedule.log_snr(step) == pytest.approx(np.log(share) - np.log1p(-share))
    ratios = [schedule.log_snr(step) for step in range(1, steps + 1)]
    assert ratios == sorted(ratios, reverse=True)
