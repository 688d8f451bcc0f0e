"""Transformers of two streams: what a cut of a joint block does to text and image, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

import causalunet as cu
from causalunet.design.views import VIEWS, Axes, View
from causalunet.errors import ModelError
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.call.visits import CallContext
from causalunet.models.pipelines import PipelineModel
from causalunet.programs import Action, program_maker
from causalunet.testing import check_model
from tests.models.pipelines.tiny import GUIDANCE, PROMPTS, ddim, flux, own_images, stable_diffusion, stable_diffusion_3

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own

NOW = cu.Window(1, 1)
WHOLE = cu.Window(2, 2)
TEXT = 276
"""Tokens of the two tokenizers of CLIP, 20, and of T5, 256, in Stable Diffusion 3."""


@pytest.fixture
def words() -> Iterator[View]:
    """A view of the tokens of text, which are the first of a joint block."""
    with VIEWS.scoped():

        @dataclass(frozen=True, slots=True)
        class Words(View):
            name: ClassVar[str] = "words"
            dims: ClassVar[tuple[str, ...]] = ("token",)

            def selected(self, axes: Axes) -> Mapping[str, Any]:
                return {"token": slice(0, TEXT)}

        yield Words()


def told(pipe: Any) -> PipelineModel:
    return cu.from_pipeline(pipe, told_guidance=GUIDANCE if isinstance(pipe, diffusers.FluxPipeline) else None)


def call_of(model: PipelineModel) -> tuple[Tensor, ...]:
    x = torch.randn(2, *model.image_shape, generator=torch.Generator().manual_seed(0))
    return (x, torch.full((2,), 600.5), *model.encode(PROMPTS))


@pytest.mark.parametrize("make", [stable_diffusion_3, flux], ids=lambda make: make.__name__)
def test_dead_blocks_left_out_are_blocks_run_and_replaced_bit_for_bit(make: Callable[[], Any]) -> None:
    model = told(make())
    unet, arguments, context = TracedUNet(model.unet, model.anatomy), call_of(model), CallContext(1, 1000)
    asked = [cu.Edit(place, NOW) for place in model.anatomy.by_name]
    asked += [cu.Edit(place, NOW, cu.Bypass()) for place in model.anatomy.passable]
    with torch.inference_mode():
        plain = unet(Action(), arguments, 2).output
        for edit in asked:
            action = program_maker(model.anatomy, 1)([edit])[0].action
            assert edit.component in action.dead
            found = unet(action, arguments, 2, context=context).output
            assert torch.equal(found, unet(replace(action, dead=frozenset()), arguments, 2, context=context).output)
            assert not torch.equal(found, plain), edit.label


def test_what_feeds_a_joint_block_are_both_streams() -> None:
    anatomy = told(flux()).anatomy
    assert anatomy.dead({"block.1"}) == {"embedding", "text_embedding", "block.0", "block.1"}
    assert anatomy.dead({"block.1"}, {"block.1"}) == {"block.1"}
    assert anatomy.dead({"embedding"}) == {"embedding"}
    assert anatomy.passable == ("block.0", "block.1", "single.0", "single.1")
    shapes = {name: one.shape for name, one in anatomy.by_name.items()}
    assert shapes["block.0"] == shapes["single.0"] == (512 + 16, 32)
    assert shapes["single.1"] == (16, 32)  # no text goes on


@pytest.mark.thorough
@pytest.mark.sampled(1)
@pytest.mark.parametrize("make", [stable_diffusion_3, flux], ids=lambda make: make.__name__)
def test_it_is_what_studies_take_it_for(make: Callable[[], Any]) -> None:
    checked = check_model(told(make()), PROMPTS, places="*")
    assert checked, str(checked)


def test_a_part_of_a_joint_block_is_one_stream(words: View) -> None:
    model = told(stable_diffusion_3())
    arguments = call_of(model)
    action = program_maker(model.anatomy, 1)([cu.Edit("block.0", NOW, view=words)])[0].action
    block = model.unet.unet.transformer_blocks[0]
    with torch.inference_mode():
        found = TracedUNet(model.unet, model.anatomy)(action, arguments, 2).output
        handle = block.register_forward_hook(lambda _m, _g, output: (torch.zeros_like(output[0]), output[1]))
        expected = model.unet(*arguments)
        handle.remove()
        assert torch.equal(found, expected)
        assert not torch.equal(found, model.unet(*arguments))


def test_a_bypass_of_joint_blocks_is_the_layer_skip_of_stable_diffusion_3(tmp_path: Path) -> None:
    pipe = stable_diffusion_3()
    model = told(pipe)
    both = cu.Edit("block.0", WHOLE, cu.Bypass()) + cu.Edit("block.1", WHOLE, cu.Bypass())
    study = cu.Study(
        name="joint",
        model=model.name,
        prompts=PROMPTS,
        seeds=[3],
        sampler=model.sampler(2, 3.0),
        interventions=[cu.Edit("block.2", WHOLE, cu.Bypass()), both],
    )
    results = study.run(tmp_path / "s.zarr", model=model, progress=False)
    forward = pipe.transformer.forward
    for kind, skipped in (("edit", [2]), ("composition", [0, 1])):
        pipe.transformer.forward = lambda *given, skipped=skipped, **named: forward(
            *given, skip_layers=skipped, **named
        )
        own = own_images(pipe, model.image_shape, [3, 3], steps=2, scale=3.0)
        np.testing.assert_allclose(results.outcomes.image.sel(kind=kind)[0], own, rtol=0, atol=1e-5)


def flow(**options: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def without(part: str) -> Any:
    pipe = stable_diffusion_3()
    setattr(pipe, part, None)
    return pipe


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "a scheduler of another kind": (
        lambda: stable_diffusion_3(ddim()),
        {},
        "DDIMScheduler is not one of flow matching, and the network of this pipeline is one. Give the pipeline FlowMat",
    ),
    "a network of another kind": (
        lambda: stable_diffusion(flow()),
        {},
        "FlowMatchEulerDiscreteScheduler is one of flow matching, and the network of this pipeline is not one",
    ),
    "noise in between": (lambda: stable_diffusion_3(flow(stochastic_sampling=True)), {}, "stochastic_sampling=True"),
    "from image to noise": (lambda: stable_diffusion_3(flow(invert_sigmas=True)), {}, "invert_sigmas=True"),
    "a text encoder less": (lambda: without("text_encoder_2"), {}, "has no text_encoder_2; load it with all its"),
    "guidance that is told": (flux, {}, r"\(guidance_embeds\), as FLUX.1 \[dev\] is. Give it, .* told_guidance=3.5"),
    "guidance that is not told": (
        lambda: flux(guidance_embeds=False),
        {"told_guidance": 3.5},
        "is told no guidance scale",
    ),
    "half a token": (
        flux,
        {"told_guidance": 3.5, "image_size": 18},
        "a token of the network stands for 4 x 4 pixels; give multiples of 4",
    ),
    "an image too large": (stable_diffusion_3, {"image_size": 64}, "cannot be called on x_t of shape .* image size"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_studies_cannot_honour_is_refused(name: str) -> None:
    make, options, said = REFUSED[name]
    with pytest.raises(ModelError, match=said):
        cu.from_pipeline(make(), **options)


def test_noise_beyond_the_training_is_told() -> None:
    model = told(stable_diffusion_3(flow(shift=0.5)))
    with pytest.raises(ModelError, match=r"asks at t from 1 to 0\.0002\d+ along the straight path; .* shift of 1 or"):
        model.sampler(5)
