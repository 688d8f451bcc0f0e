"""Cuts installed in the modules: the same numbers as traced, and modules that are as they were afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import causalunet as cu
from causalunet.errors import PromptError, SpecError
from causalunet.execute import TracedUNet
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.walk.generate import generate
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Action, make_plan
from tests.execute.reference import Change, sample

STEPS = 6
PROMPTS = ("a red circle", "a striped blue cross, dark background")

windows = st.integers(1, STEPS - 1).flatmap(lambda start: st.builds(cu.Window, st.just(start), st.integers(1, start)))
interventions = st.one_of(
    st.builds(cu.AblateBlock, bottom=st.integers(1, 4), window=windows, branch=st.sampled_from(("both", "cond"))),
    st.builds(cu.AblateSkip, top=st.integers(1, 4), window=windows, branch=st.sampled_from(("both", "uncond"))),
    st.builds(cu.SkipSteps, window=windows),
    st.builds(lambda window: cu.Edit("mid", window, cu.Scale(0.5)), windows),
    st.builds(cu.Null, window=windows),
)


def images(model: TextToImage, intervention: Any = None, *, traced: bool, scale: float = 3.0) -> np.ndarray:
    sampler = cu.DDPM(steps=STEPS, guidance_scale=scale)
    return generate(PROMPTS, model=model, sampler=sampler, intervention=intervention, traced=traced)


@pytest.mark.thorough
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(intervention=interventions)
def test_installed_and_traced_images_are_equal_bit_for_bit(
    intervention: cu.design.Intervention, tiny_model: TextToImage
) -> None:
    traced, installed = (images(tiny_model, intervention, traced=traced) for traced in (True, False))
    np.testing.assert_array_equal(installed, traced)


def test_installed_images_are_those_of_a_plain_loop(tiny_model: TextToImage) -> None:
    cut = cu.AblateBlock(bottom=2, window=cu.Window(4, 2)) + cu.SkipSteps(cu.Window(1, 1))
    got = images(tiny_model, cut, traced=False)
    changes = {step: [Change("up", 1)] for step in (4, 3)}
    for row, prompt in enumerate(PROMPTS):
        plain = sample(tiny_model, prompt, row, steps=STEPS, scale=3.0, changes=changes, absent=(1,))
        np.testing.assert_allclose(got[row], plain.image, atol=1e-5)


def test_without_an_intervention_it_is_the_baseline(tiny_model: TextToImage, run_study: Any) -> None:
    results = run_study(cu.SkipSteps(cu.Window(2, 1)), steps=STEPS, prompts=PROMPTS)
    np.testing.assert_allclose(images(tiny_model, traced=False), results.baseline.image, atol=1e-5)
    np.testing.assert_array_equal(images(tiny_model, traced=False), images(tiny_model, traced=True))


@pytest.fixture
def call(tiny_model: TextToImage) -> tuple[torch.Tensor, ...]:
    context = tuple(part.expand(4, *part.shape[1:]) for part in tiny_model.encode(["a red circle"]))
    x = torch.randn(4, *tiny_model.image_shape, generator=torch.Generator().manual_seed(0))
    return (x, torch.full((4,), 500.0), *context)


def action_of(model: TextToImage, intervention: cu.design.Intervention) -> Action:
    study = cu.Study(name="s", prompts=PROMPTS, interventions=(intervention,), sampler=cu.DDPM(steps=STEPS))
    plan = make_plan(study.bind(model), runs=(0,))
    return next(call.action for call in plan.calls if call.action.fills)


def own_forwards(model: TextToImage) -> list[Any]:
    return [vars(module).get("forward") for module in model.unet.modules()]


@torch.inference_mode()
def test_modules_are_as_they_were_afterwards(tiny_model: TextToImage, call: tuple[torch.Tensor, ...]) -> None:
    cut = action_of(tiny_model, cu.AblateBlock(bottom=2, window=cu.Window(3, 1)))
    skip = action_of(tiny_model, cu.AblateSkip(top=2, window=cu.Window(3, 1)))
    before, forwards = tiny_model.unet(*call), own_forwards(tiny_model)
    with InstalledUNet(tiny_model.unet, tiny_model.anatomy) as unet:
        changed = []
        for action in (cut, skip, Action(), cut):
            result = unet(action, call, 2)
            assert result.fired == {fill.site.component: 1 for fill in action.fills}
            changed.append(result.output)
            if action.fills:
                with pytest.raises(SpecError, match="called past its InstalledUNet"):
                    tiny_model.unet(*call)
    assert not torch.equal(changed[0], before)
    assert not torch.equal(changed[1], before)
    assert torch.equal(changed[2], before)
    assert torch.equal(changed[0], changed[3])
    assert torch.equal(tiny_model.unet(*call), before)
    assert own_forwards(tiny_model) == forwards
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny_model.unet.modules())


@torch.inference_mode()
def test_modules_are_as_they_were_after_an_error(tiny_model: TextToImage, call: tuple[torch.Tensor, ...]) -> None:
    cut = action_of(tiny_model, cu.AblateBlock(bottom=2, window=cu.Window(3, 1)))
    forwards = own_forwards(tiny_model)
    with pytest.raises(RuntimeError), InstalledUNet(tiny_model.unet, tiny_model.anatomy) as unet:
        unet(cut, (call[0][:, :2], *call[1:]), 2)
    assert own_forwards(tiny_model) == forwards


def test_a_traced_study_after_installed_cuts_is_as_before(tiny_model: TextToImage) -> None:
    cut = cu.AblateBlock(bottom=2, window=cu.Window(4, 2))
    before = images(tiny_model, cut, traced=True)
    images(tiny_model, cut, traced=False)
    np.testing.assert_array_equal(images(tiny_model, cut, traced=True), before)


@torch.inference_mode()
def test_dead_blocks_do_not_run(tiny_model: TextToImage, call: tuple[torch.Tensor, ...]) -> None:
    cut = action_of(tiny_model, cu.AblateBlock(bottom=2, window=cu.Window(3, 1)))
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in tiny_model.unet.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    try:
        with InstalledUNet(tiny_model.unet, tiny_model.anatomy) as unet:
            unet(cut, call, 2)
    finally:
        for handle in handles:
            handle.remove()
    dead = tuple(tiny_model.anatomy.by_name[name].module + "." for name in cut.dead)
    assert ran
    assert not [name for name in ran if name.startswith(dead)]


def test_recording_needs_a_traced_unet(tiny_model: TextToImage, call: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(SpecError, match="records nothing; mid asked"):
        InstalledUNet(tiny_model.unet, tiny_model.anatomy)(Action(), call, 2, ("mid",))
    assert TracedUNet(tiny_model.unet, tiny_model.anatomy)(Action(), call, 2, ("mid",)).activations["mid"] is not None


def test_generate_tells_what_cannot_be_before_it_runs(tiny_model: TextToImage) -> None:
    with pytest.raises(PromptError, match="does not know: dragon"):
        generate(("a dragon",), model=tiny_model)
    with pytest.raises(SpecError, match="starts above step 6"):
        images(tiny_model, cu.AblateBlock(bottom=1, window=cu.Window(9, 1)), traced=False)
