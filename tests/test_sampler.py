"""Whole sampling loops against those of GLIDE's code and of diffusers; jumps, guidance, and the laws of one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import causalunet as cu
from causalunet.design.guidance import CFG, NoGuidance
from causalunet.design.samplers import DDIM, DDPM, Estimate, State
from causalunet.execute.call.guided import guided as put_together
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import initial_noise, step_noise
from causalunet.prediction import LEARNED, Prediction
from causalunet.schedule import Level, Schedule, cosine_alpha_bar

SHAPE = (3, 8, 8)
SEEDS = (0, 5)
SCALE = 3.0
ALPHA_BARS = st.floats(1e-6, 0.9999)

Output = Callable[[Tensor, Tensor], Tensor]


def network(x: Tensor, timesteps: Tensor) -> Tensor:
    """A fixed nonlinear function in place of a U-Net: conditional rows first, then unconditional ones."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(6, 3, 3, 3, generator=generator).to(x)
    level = timesteps.to(x)[:, None, None, None] / 1000
    branch = torch.arange(len(x))[:, None, None, None].ge(len(x) // 2).to(x)
    out = torch.nn.functional.conv2d(x, 0.3 * kernel, padding=1) + 0.5 * branch * level
    return torch.tanh(out) + torch.cat([0.7 * level.sqrt() * x, torch.zeros_like(x)], dim=1)


def estimate(x: Tensor, eps: Tensor, alpha_bar: float, *, clip: bool) -> Tensor:
    x0: Tensor = Prediction("eps").image_and_noise(eps, x, Level(0.0, alpha_bar))[0]
    return x0.clamp(-1, 1) if clip else x0


def said(x0: Tensor, fraction: Tensor) -> tuple[Estimate]:
    """What the one call of a step said; noise and level play no part for DDPM."""
    return (Estimate(x0, None, fraction, None, Level(1.0, 0.5)),)


def guided(x: Tensor, timesteps: Tensor) -> Tensor:
    """Noise guided and the variance of the conditional rows, written as in GLIDE's notebook."""
    output = network(torch.cat([x, x]), torch.cat([timesteps, timesteps]))
    cond, uncond = output.split(len(x))
    eps = uncond[:, :3] + SCALE * (cond[:, :3] - uncond[:, :3])
    return torch.cat([eps, cond[:, 3:]], dim=1)


def noises_of(called: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    """x_T, and the noise of each step called."""
    noises = [initial_noise(SEEDS, SHAPE), *(step_noise(SEEDS, step, SHAPE) for step in called)]
    return [torch.from_numpy(noise).to(dtype) for noise in noises]


def walk(schedule: Schedule, called: Sequence[int], dtype: torch.dtype, *, clip: bool = True) -> list[Tensor]:
    """Sample with the package's functions, calling the network at some steps only; x drawn and x0_hat of every call."""
    (x, *noises), passed = noises_of(called, dtype), []
    for step, target, noise in zip(called, [*called[1:], 0], noises, strict=True):
        timesteps = torch.full((2 * len(x),), float(schedule.timestep(step)))
        eps, fraction = put_together(network(torch.cat([x, x]), timesteps), CFG(SCALE), LEARNED)
        assert fraction is not None
        at, to = schedule.level(step), schedule.level(target)
        x0 = estimate(x, eps, at.alpha_bar, clip=clip)
        x = DDPM().step(State(x), said(x0, fraction), at, to, noise).x
        passed += [x, x0]
    return passed


def walk_diffusers(
    output: Output,
    timesteps: Sequence[int],
    noises: Sequence[Tensor],
    monkeypatch: pytest.MonkeyPatch,
    *,
    clip: bool = True,
) -> list[Tensor]:
    """Sample with diffusers' DDPMScheduler; ``noises`` are x_T and what is added after every call."""
    x, *added = noises
    scheduler = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", variance_type="learned_range", clip_sample=clip)
    # It multiplies its betas up in single precision, which alone moves an image by 2e-5.
    torch.testing.assert_close(
        scheduler.alphas_cumprod, torch.from_numpy(cosine_alpha_bar()).float(), rtol=1e-4, atol=0
    )
    scheduler.alphas_cumprod = torch.from_numpy(cosine_alpha_bar())
    scheduler.set_timesteps(timesteps=list(timesteps))
    passed = []
    for timestep, noise in zip(scheduler.timesteps, added, strict=True):
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_args, value=noise, **_kwargs: value)
        done = scheduler.step(output(x, timestep.expand(len(x))), timestep, x)
        x = done.prev_sample
        passed += [x, done.pred_original_sample]
    return passed


@pytest.mark.parametrize("steps", [10, 25, 100])
@pytest.mark.parametrize("clip", [True, False])
def test_loop_is_that_of_glide(steps: int, clip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision, as GLIDE computes; every x, and the image."""
    respace = pytest.importorskip("glide_text2im.respace")
    betas = pytest.importorskip("glide_text2im.gaussian_diffusion").get_named_beta_schedule("squaredcos_cap_v2", 1000)
    diffusion = respace.SpacedDiffusion(respace.space_timesteps(1000, str(steps)), betas=betas)
    called = range(steps, 0, -1)
    initial, *noises = noises_of(called, torch.float32)
    remaining = iter(noises)
    monkeypatch.setattr(torch, "randn_like", lambda _: next(remaining))
    expected = [
        out["sample"]
        for out in diffusion.p_sample_loop_progressive(
            guided, initial.shape, noise=initial, clip_denoised=clip, device="cpu"
        )
    ]
    found = walk(Schedule.spaced(cosine_alpha_bar(), steps), called, torch.float32, clip=clip)[::2]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [10, 25, 100])
@pytest.mark.parametrize("clip", [True, False])
def test_loop_is_that_of_diffusers(steps: int, clip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule, called = Schedule.spaced(cosine_alpha_bar(), steps), range(steps, 0, -1)
    timesteps = [schedule.timestep(step) for step in called]
    noises = noises_of(called, torch.float64)
    expected = walk_diffusers(guided, timesteps, noises, monkeypatch, clip=clip)
    found = walk(schedule, called, torch.float64, clip=clip)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "called",
    [
        [*range(25, 17, -1), *range(12, 0, -1)],
        [25, 24, 20, 11, 10, 3, 1],
        [25, *range(14, 0, -1)],
        list(range(25, 7, -1)),
        [25],
    ],
    ids=["one jump", "many jumps", "from the first step", "stopped early", "one call"],
)
def test_jumps_are_the_loop_of_diffusers_on_fewer_timesteps(called: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule.spaced(cosine_alpha_bar(), 25)
    found, noises = walk(schedule, called, torch.float64), noises_of(called, torch.float64)
    noises[-1] = torch.zeros_like(noises[-1])  # diffusers adds noise after its last call unless the timestep is 0
    expected = walk_diffusers(guided, [schedule.timestep(step) for step in called], noises, monkeypatch)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    assert torch.equal(found[-2], found[-1]), "the image is the last x0_hat"


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("window", "called"),
    [
        (None, [8, 7, 6, 5, 4, 3, 2, 1]),
        (cu.Window(6, 2), [8, 7, 4, 3, 2, 1]),
        (cu.Windows((cu.Window(7, 1), cu.Window(3, 2))), [8, 6, 5, 4, 1]),
        (cu.Window(3, 3), [8, 7, 6, 5, 4]),
    ],
    ids=["baseline", "one window", "two windows", "stopped early"],
)
def test_studies_are_the_loop_of_diffusers_on_fewer_timesteps(
    tiny_model: TextToImage,
    run_study: Callable[..., xr.DataTree],
    monkeypatch: pytest.MonkeyPatch,
    window: cu.Window | cu.Windows | None,
    called: list[int],
) -> None:
    prompts = ("a red circle", "a cyan square on the right")
    intervention = cu.SkipSteps(window=window) if window else cu.Null(window=cu.Window(8, 8))
    results = run_study(intervention, steps=8, prompts=prompts)
    cond, uncond = tiny_model.encode(prompts), tiny_model.encode(["", ""])

    def output(x: Tensor, timesteps: Tensor) -> Tensor:
        with torch.inference_mode():
            of_prompt, of_none = tiny_model.unet(x, timesteps, *cond), tiny_model.unet(x, timesteps, *uncond)
        eps = (1 - SCALE) * of_none[:, :3] + SCALE * of_prompt[:, :3]
        return torch.cat([eps, of_prompt[:, 3:]], dim=1)

    schedule = Schedule.spaced(tiny_model.alpha_bar, 8)
    shape = tiny_model.image_shape
    noises = [torch.from_numpy(step_noise((0, 1), step, shape)) for step in (0, *called)]
    noises[-1] = torch.zeros_like(noises[-1])
    *_, image, _ = walk_diffusers(output, [schedule.timestep(step) for step in called], noises, monkeypatch)
    np.testing.assert_allclose(results.outcomes.image[0], tiny_model.decode(image), rtol=0, atol=1e-5)


@given(alpha_bar=ALPHA_BARS, seed=st.integers(0, 2**31))
def test_the_image_is_the_estimate(alpha_bar: float, seed: int) -> None:
    x, x0, fraction, noise = torch.randn(4, 2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    for sampler in (DDPM(), DDIM(), DDIM(eta=0.5)):
        step = sampler.step(State(x), said(x0, fraction), Level(0.0, alpha_bar), Level(-1.0, 1.0), noise)
        assert torch.equal(step.x, x0)


@given(alpha_bar=ALPHA_BARS, seed=st.integers(0, 2**31))
def test_estimate_undoes_the_forward_process(alpha_bar: float, seed: int) -> None:
    x0, eps = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * eps
    torch.testing.assert_close(estimate(x, eps, alpha_bar, clip=False), x0, rtol=0, atol=1e-9)
    torch.testing.assert_close(estimate(x, eps, alpha_bar, clip=True), x0.clamp(-1, 1), rtol=0, atol=1e-9)


def coefficients(a: float, b: float, fraction: float) -> tuple[float, float, float]:
    """Weights of x, x0 and noise in a step, found by feeding ones and zeros."""
    one, zero, share = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (1.0, 0.0, fraction))
    inputs = [(one, zero, zero), (zero, one, zero), (zero, zero, one)]
    x, x0, noise = (
        DDPM().step(State(x), said(x0, share), Level(1.0, a), Level(0.0, b), noise).x.item() for x, x0, noise in inputs
    )
    return x, x0, noise


@given(a=st.floats(1e-4, 0.99), gap=st.floats(0.01, 0.99))
def test_step_keeps_the_marginal(a: float, gap: float) -> None:
    """With the posterior's own variance, x of the diffused x0 is drawn as the forward process would have."""
    b = a + gap * (1 - a) * 0.999
    x, x0, noise = coefficients(a, b, -1.0)
    assert x * math.sqrt(a) + x0 == pytest.approx(math.sqrt(b), rel=1e-9)
    assert x**2 * (1 - a) + noise**2 == pytest.approx(1 - b, rel=1e-6)


@given(a=st.floats(1e-4, 0.99), gap=st.floats(0.01, 0.99), fraction=st.floats(-1, 1))
def test_variance_lies_between_its_bounds(a: float, gap: float, fraction: float) -> None:
    b = a + gap * (1 - a) * 0.999
    low, high, at = (coefficients(a, b, share)[2] ** 2 for share in (-1.0, 1.0, fraction))
    assert high == pytest.approx(1 - a / b)
    assert low == pytest.approx((1 - a / b) * (1 - b) / (1 - a))
    assert math.log(at) == pytest.approx(((1 + fraction) * math.log(high) + (1 - fraction) * math.log(low)) / 2)


@given(scale=st.floats(0, 10), seed=st.integers(0, 2**31))
def test_guidance(scale: float, seed: int) -> None:
    output = torch.randn(4, 6, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    cond, uncond = output[:2], output[2:]
    eps, fraction = put_together(output, CFG(scale), LEARNED)
    torch.testing.assert_close(eps, (1 - scale) * uncond[:, :3] + scale * cond[:, :3])
    assert fraction is not None
    assert torch.equal(fraction, cond[:, 3:])


def test_without_guidance_there_are_conditional_rows_only() -> None:
    output = torch.randn(3, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    eps, fraction = put_together(output, NoGuidance(), LEARNED)
    assert fraction is not None
    assert torch.equal(torch.cat([eps, fraction], dim=1), output)
