"""A deep branch that is computed at every third step: DeepCache's own numbers, and hooks by hand in the pipeline."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import causalunet as cu
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.walk.images import KeptImages
from causalunet.execute.walk.lockstep import Block, run_block
from causalunet.noise import initial_noise
from causalunet.plan import BASELINE, Plan, make_plan
from tests.models.pipelines.tiny import PROMPTS, stable_diffusion

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "deepcache.json").read_text())
SEEDS, STEPS, SCALE, EVERY = GOLDEN["seeds"], GOLDEN["steps"], GOLDEN["guidance_scale"], GOLDEN["interval"]
PLACES = {0: "up.4", 1: "up.3", 2: "upsample.0", 3: "up.1"}
"""What DeepCache keeps, by its number of the branch: the layer before the first that it runs at every step."""
MODULES = {
    "up.4": "up_blocks.1.attentions.1",
    "up.3": "up_blocks.1.attentions.0",
    "upsample.0": "up_blocks.0.upsamplers.0",
    "up.1": "up_blocks.0.resnets.1",
}


def settled() -> Any:
    """A pipeline whose weights are sines, so that no version of what draws random numbers plays a part."""
    pipe = stable_diffusion()
    for network in (pipe.unet, pipe.text_encoder):
        for number, parameter in enumerate(network.parameters()):
            if parameter.ndim > 1:
                waves = torch.sin((1 + 0.01 * number) * torch.arange(1, parameter.numel() + 1, dtype=torch.float64))
                width = math.prod(parameter.shape[1:])
                parameter.copy_((waves * math.sqrt(2 / width)).reshape(parameter.shape))
    return pipe


def own_latents(pipe: Any) -> NDArray[np.float32]:
    x = torch.from_numpy(initial_noise(SEEDS, (4, 8, 8)))
    given = {"guidance_scale": SCALE, "num_inference_steps": STEPS, "output_type": "latent"}
    with torch.no_grad():
        return np.asarray(pipe(PROMPTS, latents=x, **given).images)


@contextmanager
def cached(pipe: Any, path: str) -> Iterator[None]:
    """DeepCache by hand: what a module puts out at every third call, put out again at those between."""
    kept: list[Any] = []
    calls = iter(range(STEPS))

    def hook(_module: Any, _given: Any, output: Any) -> Any:
        if next(calls) % EVERY == 0:
            kept[:] = [output]
        return kept[0]

    handle = pipe.unet.get_submodule(path).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def run(place: str) -> tuple[dict[int, NDArray[np.float32]], Plan]:
    """Latents of the run without intervention, and of that with a deep branch that is held."""
    model = cu.from_pipeline(settled())
    held = cu.Edit(place, cu.Window(STEPS, STEPS), cu.Hold(every=EVERY))
    sampler = model.sampler(STEPS, guidance_scale=SCALE)
    study = cu.Study(name="s", prompts=PROMPTS, sampler=sampler, interventions=[held])
    plan, kept = make_plan(study.bind(model), runs=(BASELINE, 0)), KeptImages(lambda x: x.numpy())
    block = Block(0, tuple(PROMPTS), SEEDS)
    run_block(TracedUNet(model.unet, model.anatomy), plan, block, micro_batch=8, observer=kept)
    return kept.images, plan


def close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize("branch", [0, *(pytest.param(n, marks=pytest.mark.thorough) for n in (1, 2, 3))])
def test_a_deep_branch_held_between_is_deepcache(branch: int) -> None:
    place = PLACES[branch]
    found, plan = run(place)
    close(found[0], np.array(GOLDEN["latents"][str(branch)], np.float32))
    pipe = settled()
    close(found[BASELINE], own_latents(pipe))
    with cached(pipe, MODULES[place]):
        close(found[0], own_latents(pipe))
    assert np.abs(found[0] - found[BASELINE]).max() > 1e-2, "it changes nothing, so it tests nothing"
    anatomy, names = plan.anatomy, {one.name for one in plan.anatomy.components}
    alive = {call.step: names - call.action.dead for call in plan.calls if 0 in call.runs}
    held = [step for step in range(STEPS, 0, -1) if (STEPS - step) % EVERY]
    assert all((alive[step] < names) == (step in held) for step in alive)
    if place == "up.4":
        assert all(alive[step] == {"down.0", "up.5"} for step in held)
    spent = sum(anatomy.flops if step not in held else anatomy.live_flops(names - alive[step]) for step in alive)
    assert plan.flops_by_run[0] == 2 * spent
