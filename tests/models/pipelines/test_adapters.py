"""Low-rank adapters of peft in a pipeline: all that they do is in the fingerprint, and blocks are cut with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.execute import generate
from tests.models.pipelines.test_pipelines import by_hand
from tests.models.pipelines.tiny import PROMPTS, own_images, stable_diffusion

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of peft and diffusers

SCALE, STEPS, SEED = 5.0, 2, 3


def adapted(scale: float = 1.0, *names: str, of: str = "unet") -> Any:
    """Stable Diffusion with adapters in attention and convolutions, whose second factor is not zero."""
    pipe = stable_diffusion()
    targets = ["to_q", "to_v", "conv1"] if of == "unet" else ["q_proj", "v_proj"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in names or ("style",):
            config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=targets, init_lora_weights=False)
            getattr(pipe, of).add_adapter(config, adapter_name=name)
    pipe.unet.requires_grad_(False)
    if of == "unet":
        pipe.unet.set_adapters(list(names or ("style",)), [scale] * max(1, len(names)))
    return pipe


def then(change: Callable[[Any], Any], *names: str) -> Any:
    pipe = adapted(1.0, *names)
    change(pipe.unet)
    return pipe


WAYS: dict[str, Callable[[], Any]] = {
    "none": stable_diffusion,
    "one": adapted,
    "half as much": lambda: adapted(0.5),
    "switched off": lambda: then(lambda unet: unet.disable_adapters()),
    "two": lambda: adapted(1.0, "style", "light"),
    "the first of two": lambda: then(lambda unet: unet.set_adapter("style"), "style", "light"),
    "the second of two": lambda: then(lambda unet: unet.set_adapter("light"), "style", "light"),
    "merged": lambda: then(lambda unet: unet.fuse_lora()),
    "in the text encoder": lambda: adapted(of="text_encoder"),
}


def test_all_that_adapters_do_is_in_the_fingerprint() -> None:
    found = {name: cu.from_pipeline(make()).fingerprint for name, make in WAYS.items()}
    assert len(set(found.values())) == len(WAYS), found
    assert cu.from_pipeline(adapted()).fingerprint == found["one"]


def test_the_baseline_is_the_pipelines_own_image_merged_or_not() -> None:
    images = {}
    for name in ("none", "one", "merged"):
        pipe = WAYS[name]()
        model = cu.from_pipeline(pipe)
        own = own_images(pipe, model.image_shape, [SEED, SEED], steps=STEPS, scale=SCALE)
        images[name] = generate(PROMPTS, [SEED], model=model, sampler=model.sampler(STEPS, SCALE))
        np.testing.assert_allclose(images[name], own, rtol=0, atol=1e-5)
    np.testing.assert_allclose(images["merged"], images["one"], rtol=0, atol=1e-4)
    assert np.abs(images["one"] - images["none"]).max() > 1e-2, "else the adapters do nothing"


@pytest.mark.parametrize("name", ["one", "merged"])
def test_a_cut_takes_the_block_with_its_adapters(name: str) -> None:
    pipe = WAYS[name]()
    model = cu.from_pipeline(pipe)
    item = cu.Edit("up.4", cu.Window(STEPS, STEPS), cu.Zero())
    found = generate(PROMPTS, [SEED], model=model, sampler=model.sampler(STEPS, SCALE), intervention=item)
    with by_hand(model, "up.4"):
        own = own_images(pipe, model.image_shape, [SEED, SEED], steps=STEPS, scale=SCALE)
    np.testing.assert_allclose(found, own, rtol=0, atol=1e-5)
    plain = generate(PROMPTS, [SEED], model=model, sampler=model.sampler(STEPS, SCALE))
    assert np.abs(found - plain).max() > 1e-3
