"""Laws of whole runs: nothing depends on order, batch, block or company, and a jump is a shorter schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import causalunet as cu
from causalunet.design import Intervention, StudySpec
from causalunet.design.samplers import Estimate
from causalunet.execute import Block, generate, run_block
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.walk import lockstep
from causalunet.execute.walk.batches import micro_batch_size, samples_per_block
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import step_noise
from causalunet.plan import BASELINE, Call, Plan, make_plan
from causalunet.schedule import Schedule
from tests.execute.reference import blocks

STEPS = 6
PROMPTS = ("a red circle", "a striped blue cross", "a yellow square on the left")
PAIR = PROMPTS[:2]
BLOCK = cu.AblateBlock(bottom=2, window=cu.Window(5, 2))
SKIP = cu.AblateSkip(top=2, window=cu.Window(4, 2))
JUMP = cu.SkipSteps(window=cu.Window(3, 2))
NULL = cu.Null(window=cu.Window(6, 3))
EVERYTHING = (BLOCK, SKIP, JUMP, NULL)
Images = dict[tuple[str, str, int], np.ndarray]


class Collector:
    """Observer that keeps what the lockstep tells."""

    def __init__(self) -> None:
        self.images: dict[int, Tensor] = {}
        self.steps: list[int] = []
        self.rows = 0

    def wants(self, call: Call) -> tuple[str, ...]:
        return ()

    def activations(self, call: Call, rows: slice, values: dict[str, Tensor]) -> None:
        raise AssertionError("none were wanted")

    def fired(self, call: Call, rows: slice, places: Mapping[str, int]) -> None:
        assert set(places) == {fill.site.component for fill in call.action.fills}

    def predicted(self, call: Call, stage: int, estimate: Estimate) -> None:
        self.steps.append(call.step)

    def finished(self, run: int, x0: Tensor) -> None:
        assert run not in self.images
        self.images[run] = x0

    def advance(self, rows: int) -> None:
        self.rows += rows


def plan_of(model: TextToImage, *interventions: Intervention, schedule: Schedule | None = None) -> Plan:
    sampler = cu.DDPM(steps=schedule.steps if schedule else STEPS)
    bound = StudySpec(name="test", interventions=interventions, prompts=PROMPTS, sampler=sampler).bind(model)
    return make_plan(replace(bound, schedule=schedule or bound.schedule))


def collect(model: TextToImage, plan: Plan, micro_batch: int) -> Collector:
    collector, block = Collector(), Block(0, PROMPTS, tuple(range(len(PROMPTS))))
    unet = TracedUNet(model.unet, model.anatomy)
    run_block(unet, plan, block, micro_batch=micro_batch, observer=collector, advance=collector.advance)
    return collector


def test_states_are_held_as_long_as_they_are_needed(tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, step_of = plan_of(tiny_model, *EVERYTHING), lockstep.take_step
    held: dict[int, set[int]] = {}

    def watched(walk: Any, step: int, groups: Any, states: Any) -> None:
        held[step] = set(states)
        step_of(walk, step, groups, states)

    monkeypatch.setattr(lockstep, "take_step", watched)
    collect(tiny_model, plan, 4)
    for step, numbers in held.items():
        assert numbers <= {call.state for call in plan.calls if call.step <= step}, "what no later call starts from"
    assert max(map(len, held.values())) > 2


def labelled(results: xr.DataTree) -> Images:
    """Images by (intervention, prompt, seed)."""
    image = results.outcomes.image
    return {
        (str(label), str(prompt), int(seed)): image.values[i, j]
        for i, label in enumerate(image.intervention.values)
        for j, (prompt, seed) in enumerate(zip(image.prompt.values, image.seed.values, strict=True))
    }


def assert_same(found: Images, expected: Images) -> None:
    assert found.keys() == expected.keys()
    for key, image in expected.items():
        np.testing.assert_allclose(found[key], image, rtol=0, atol=1e-5, err_msg=str(key))


@pytest.fixture(scope="module")
def together(run_study: Callable[..., xr.DataTree]) -> xr.DataTree:
    """Two prompts with two seeds each, all interventions, in the largest batches."""
    return run_study(*EVERYTHING, steps=STEPS, prompts=PAIR, seeds=(0, 1))


@pytest.mark.thorough
def test_order_of_samples_and_interventions_plays_no_part(
    run_study: Callable[..., xr.DataTree], together: xr.DataTree
) -> None:
    turned = run_study(*EVERYTHING[::-1], steps=STEPS, prompts=PAIR[::-1], seeds=(1, 0))
    assert_same(labelled(turned), labelled(together))


def test_samples_and_interventions_do_not_see_each_other(
    run_study: Callable[..., xr.DataTree], together: xr.DataTree
) -> None:
    alone = run_study(SKIP, NULL, steps=STEPS, prompts=PROMPTS[1], seeds=(1,))
    expected = labelled(together)
    assert_same(labelled(alone), {key: expected[key] for key in labelled(alone)})


@pytest.mark.thorough
def test_memory_budget_plays_no_part(
    tiny_model: TextToImage, run_study: Callable[..., xr.DataTree], together: xr.DataTree
) -> None:
    plan = plan_of(tiny_model, *EVERYTHING)
    assert micro_batch_size(plan.anatomy, 1, 2) == samples_per_block(plan, 1, 1) == 1
    alone = run_study(*EVERYTHING, steps=STEPS, prompts=PAIR, seeds=(0, 1), memory=1)
    assert_same(labelled(alone), labelled(together))
    for name in ("image", "x_t"):
        np.testing.assert_allclose(alone.baseline[name], together.baseline[name], rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def whole(tiny_model: TextToImage) -> Collector:
    return collect(tiny_model, plan_of(tiny_model, *EVERYTHING), 64)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("micro_batch", [2, 5])
def test_micro_batches_may_cut_through_samples(tiny_model: TextToImage, whole: Collector, micro_batch: int) -> None:
    plan = plan_of(tiny_model, *EVERYTHING)
    cut = collect(tiny_model, plan, micro_batch)
    assert whole.images.keys() == cut.images.keys() == {BASELINE, 0, 1, 2, 3}
    for run, image in whole.images.items():
        torch.testing.assert_close(cut.images[run], image, rtol=0, atol=2e-5)
    assert whole.rows == cut.rows == plan.unet_calls


def test_every_call_of_the_plan_happens_once_and_no_other(tiny_model: TextToImage) -> None:
    plan = plan_of(tiny_model, *EVERYTHING)
    ran: list[int] = []
    handle = blocks(tiny_model.unet)["down.0"].register_forward_hook(lambda _m, _i, out: ran.append(len(out)))
    try:
        collector = collect(tiny_model, plan, 64)
    finally:
        handle.remove()
    assert sum(ran) == plan.unet_calls * plan.spec.sampler.rows_per_sample
    assert collector.steps == [call.step for calls in plan.by_step.values() for of in calls.values() for call in of]


@pytest.mark.parametrize(
    ("window", "called"),
    [
        (cu.Window(4, 3), [6, 5, 1]),
        (cu.Windows((cu.Window(5, 2), cu.Window(2, 1))), [6, 3, 1]),
        (cu.Window(2, 2), [6, 5, 4, 3]),
        (cu.Window(5, 5), [6]),
    ],
    ids=str,
)
def test_skipping_steps_is_a_run_on_the_schedule_without_them(
    tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch, window: cu.Window | cu.Windows, called: list[int]
) -> None:
    """Bit for bit, with the same rows in each call; the noise stays that of the original steps."""
    jumped = collect(tiny_model, plan_of(tiny_model, cu.SkipSteps(window=window), NULL), len(PROMPTS))
    full = Schedule.spaced(tiny_model.alpha_bar, STEPS)
    thinned = Schedule(
        tuple(full.timestep(step) for step in reversed(called)),
        (1.0, *(full.alpha_bar(step) for step in reversed(called))),
    )
    monkeypatch.setattr(lockstep, "step_noise", lambda seeds, step, shape: step_noise(seeds, called[-step], shape))
    plan = plan_of(tiny_model, cu.Null(window=cu.Window(1, 1)), schedule=thinned)
    expected = collect(tiny_model, plan, len(PROMPTS))
    assert torch.equal(jumped.images[0], expected.images[BASELINE])
    assert not torch.equal(jumped.images[0], jumped.images[BASELINE])


def test_stopping_early_gives_the_last_estimate(run_study: Callable[..., xr.DataTree], tiny_model: TextToImage) -> None:
    results = run_study(cu.SkipSteps(window=cu.Window(2, 2)), steps=STEPS, prompts=PROMPTS)
    estimate = tiny_model.decode(torch.from_numpy(results.baseline.x0_hat.sel(step=3).values))
    np.testing.assert_allclose(results.outcomes.image[0], estimate, rtol=0, atol=1e-6)
    assert int(results.outcomes.unet_calls[0]) == STEPS - 2


def test_null_runs_give_the_baseline(together: xr.DataTree) -> None:
    assert float(together.outcomes.mse.sel(kind="null").max()) < 1e-10
    assert float(together.outcomes.ssim.sel(kind="null").min()) > 1 - 1e-5


def test_null_is_the_baseline_bit_for_bit_in_the_same_batch(tiny_model: TextToImage) -> None:
    collector = collect(tiny_model, plan_of(tiny_model, NULL), len(PROMPTS))
    assert torch.equal(collector.images[0], collector.images[BASELINE])


@pytest.mark.parametrize("scale", [3.0, 1.0])
def test_one_prompt_never_changes_another(tiny_model: TextToImage, scale: float) -> None:
    sampler = cu.DDPM(steps=4, guidance_scale=scale)
    first = generate(PROMPTS[:2], (7,), model=tiny_model, sampler=sampler)
    other = generate((PROMPTS[0], PROMPTS[2]), (7,), model=tiny_model, sampler=sampler)
    assert np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


def test_generated_images_are_the_baseline_of_a_study(tiny_model: TextToImage, together: xr.DataTree) -> None:
    images = generate(PAIR, (0, 1), model=tiny_model, sampler=cu.DDPM(steps=STEPS))
    np.testing.assert_allclose(images, together.baseline.image, rtol=0, atol=1e-5)
