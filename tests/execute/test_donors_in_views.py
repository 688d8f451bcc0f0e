"""Donors of which a view takes a part, and donors of steps with several calls, against loops with a torch hook."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import HeunDiscreteScheduler
from numpy.typing import NDArray
from torch import Tensor

import causalunet as cu
from causalunet.design.samplers import Sampler
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import initial_noise, step_noise
from causalunet.schedule import Schedule, cosine_alpha_bar
from tests.execute.reference import blocks, draw

pytestmark = [
    pytest.mark.usefixtures("guests"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

STEPS, PLACE = 6, "up.1"
PROMPTS = ("a red circle", "a striped blue cross, dark background")
OTHER = "a green square"
Part = tuple[Any, ...]
"""Index of a value, (branch, channel, y, x)."""
Values = dict[tuple[int, int], Tensor]
"""What the place gave, by step and call of the step."""


@dataclass(frozen=True)
class Case:
    """An edit; the part of the value that is meant, by hand; and whose value it is, of which step."""

    edit: cu.Edit
    part: Part
    source: Mapping[int, int]
    own: bool
    prompt: str | None = None
    seed: int | None = None


HOLD, PATCH = cu.Window(4, 2), cu.Window(5, 3)
BEFORE, SAME = {4: 5, 3: 5}, {5: 5, 4: 4, 3: 3}
BOX, CHANNELS = cu.Pixels((1, 4), (2, 6)), cu.Channels(0, 2, 3)
IN_BOX, IN_CHANNELS = (..., slice(1, 4), slice(2, 6)), (slice(None), [0, 2, 3])
CASES = {
    "held": Case(cu.Edit(PLACE, HOLD, cu.Hold()), (...,), BEFORE, own=True),
    "held, channels": Case(cu.Edit(PLACE, HOLD, cu.Hold(), view=CHANNELS), IN_CHANNELS, BEFORE, own=True),
    "held, pixels": Case(cu.Edit(PLACE, HOLD, cu.Hold(), view=BOX), IN_BOX, BEFORE, own=True),
    "held, pixels of one branch": Case(
        cu.Edit(PLACE, HOLD, cu.Hold(), "uncond", view=BOX), (slice(1, 2), *IN_BOX), BEFORE, own=True
    ),
    "patched": Case(cu.Edit(PLACE, PATCH, cu.Patch(prompt=OTHER)), (...,), SAME, own=False, prompt=OTHER),
    "patched, channels": Case(
        cu.Edit(PLACE, PATCH, cu.Patch(seed=11), view=CHANNELS), IN_CHANNELS, SAME, own=False, seed=11
    ),
    "patched, pixels": Case(
        cu.Edit(PLACE, PATCH, cu.Patch(OTHER, 11), view=BOX), IN_BOX, SAME, own=False, prompt=OTHER, seed=11
    ),
}

Put = Callable[[int, int, Tensor, Values], Tensor]


@contextmanager
def hooked(model: TextToImage, step: int, call: int, gave: Values, put: Put | None) -> Iterator[None]:
    """Replace what the place puts out in one U-Net call, and note what goes on from it."""

    def hook(_module: Any, _given: Any, output: Tensor) -> Tensor:
        gave[step, call] = output.clone() if put is None else put(step, call, output.clone(), gave)
        return gave[step, call].clone()

    handle = blocks(model.unet)[PLACE].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def rows(model: TextToImage, prompt: str, x: Tensor, timestep: float) -> tuple[Tensor, Tensor]:
    """What both branches say, guided, in float64: noise, and the share of the variance."""
    context = [torch.cat(pair) for pair in zip(*map(model.encode, ([prompt], [""])), strict=True)]
    with torch.no_grad():
        told = model.unet(torch.cat([x, x]).float(), torch.tensor([timestep] * 2, dtype=torch.float32), *context)
    (cond, fraction), (uncond, _) = (row.split(3) for row in told.double())
    return uncond + 3.0 * (cond - uncond), fraction


def ddpm(model: TextToImage, prompt: str, seed: int, put: Put | None) -> tuple[NDArray[Any], Values]:
    """One image by ancestral sampling, and what the place gave in every call."""
    schedule, gave = Schedule.spaced(model.alpha_bar, STEPS), Values()
    x = torch.from_numpy(initial_noise([seed], model.image_shape)).double()
    for step in range(STEPS, 0, -1):
        a, b = schedule.alpha_bar(step), schedule.alpha_bar(step - 1)
        with hooked(model, step, 0, gave, put):
            eps, fraction = rows(model, prompt, x, schedule.timestep(step))
        x0 = ((x - math.sqrt(1 - a) * eps) / math.sqrt(a)).clamp(-1, 1)
        noise = torch.from_numpy(step_noise([seed], step, model.image_shape)).double()
        x = draw(x, x0, fraction, noise, a=a, b=b).float().double()
    return np.asarray((x[0].clamp(-1, 1) + 1) / 2), gave


def heun(model: TextToImage, prompt: str, seed: int, put: Put | None) -> tuple[NDArray[Any], Values]:
    """The same with diffusers' scheduler, whose steps take two calls but for the last."""
    schedule, gave = Schedule.spaced(model.alpha_bar, STEPS), Values()
    steps = range(STEPS, 0, -1)
    scheduler = HeunDiscreteScheduler(900, beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(timesteps=[schedule.timestep(step) for step in steps])
    shares = [schedule.alpha_bar(step) for step in steps]
    sigmas = torch.tensor([math.sqrt((1 - share) / share) for share in shares] + [0.0], dtype=torch.float64)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    z = torch.from_numpy(initial_noise([seed], model.image_shape)).double() / math.sqrt(shares[0])
    for number, timestep in enumerate(scheduler.timesteps):
        share = schedule.alpha_bar(1 + schedule.timesteps.index(int(timestep)))
        x = z * math.sqrt(share)
        with hooked(model, steps[number // 2], number % 2, gave, put):
            eps, _ = rows(model, prompt, x, float(timestep))
        x0 = ((x - math.sqrt(1 - share) * eps) / math.sqrt(share)).clamp(-1, 1)
        z = scheduler.step((z - x0) / math.sqrt((1 - share) / share), timestep, z).prev_sample
    return np.asarray((z[0].clamp(-1, 1) + 1) / 2), gave


LOOPS = {"ddpm": ddpm, "heun": heun}


def putting(case: Case, other: Values) -> Put:
    """Put the donor's part in place, in every call of a step: of the donor's step it is the first call's."""

    def put(step: int, _call: int, value: Tensor, own: Values) -> Tensor:
        if step in case.source:
            donor = (own if case.own else other)[case.source[step], 0]
            value[case.part] = donor[case.part]
        return value

    return put


def sampler_named(name: str) -> Sampler:
    if name == "ddpm":
        return cu.DDPM(steps=STEPS)
    return Sampler.from_json({"name": "guests.heun", "configuration": {"steps": STEPS}})


def study(name: str) -> cu.Study:
    items = [replace(case.edit, label=label) for label, case in CASES.items()]
    return cu.Study(name="donors", prompts=PROMPTS, sampler=sampler_named(name), interventions=items)


@pytest.fixture(scope="module")
def model(tiny_model: TextToImage) -> TextToImage:
    """Without the noisiest timesteps, where Heun's method multiplies what it rounds off."""
    return replace(tiny_model, alpha_bar=cosine_alpha_bar()[:900])


@pytest.mark.thorough
@pytest.mark.parametrize("name", LOOPS)
def test_images_are_those_of_a_loop_with_a_hook(name: str, model: TextToImage, tmp_path: Path) -> None:
    results = study(name).run(tmp_path / "s.zarr", model=model, progress=False)
    loop = LOOPS[name]
    for label, case in CASES.items():
        for sample, prompt in enumerate(PROMPTS):
            seed = sample if case.seed is None else case.seed
            _, other = loop(model, case.prompt or prompt, seed, None)
            expected, _ = loop(model, prompt, sample, putting(case, other))
            found = results.outcomes.image.sel(intervention=label)[sample]
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5, err_msg=label)
            uncut = results.baseline.image[sample].values
            assert np.abs(expected - uncut).max() > 1e-4, f"{label} changes nothing, so it tests nothing"
    assert results.verify(quiet=True).exit_code == 0


@pytest.mark.thorough
@pytest.mark.parametrize("name", LOOPS)
def test_groups_and_batches_play_no_part(
    name: str, model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups beyond the first begin from stored baselines, and make again the calls that donors are taken from."""
    whole: xr.DataTree = study(name).run(tmp_path / "whole.zarr", model=model, progress=False)
    monkeypatch.setattr("causalunet.plan.GROUP", 2)
    parts = study(name).run(tmp_path / "parts.zarr", model=model, progress=False, memory=1)
    np.testing.assert_allclose(parts.outcomes.image, whole.outcomes.image, rtol=0, atol=1e-5)
    assert int(parts.audit.unet_calls.sum()) == parts.attrs["unet_calls_planned"]
