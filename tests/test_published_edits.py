"""Edits of studies under ``studies/systems`` against what the methods' own code, or plain torch, does."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import causalunet as cu
from causalunet.jacobian import Denoiser
from causalunet.models import round_weights
from causalunet.scenes import draw_scenes, render


def script(name: str) -> Any:
    """The module of a study."""
    path = Path(__file__).parents[1] / "studies" / "systems" / name / "study.py"
    spec = importlib.util.spec_from_file_location(f"study_of_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def shapes() -> Any:
    return cu.load_model("shapes")


PROMPT = "a striped red triangle on the left, dark background"
SAMPLER = cu.DDIM(steps=6, guidance_scale=1)
X = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))


def estimate(model: Any, intervention: Any = None) -> Any:
    """Of x_0 at step 3, unclipped."""
    denoiser = Denoiser(model=model, sampler=SAMPLER, step=3, prompt=PROMPT, intervention=intervention)
    with torch.no_grad():
        return denoiser(X).numpy()


@pytest.mark.thorough
@pytest.mark.parametrize(("b", "s"), [((1.2, 1.4), (0.9, 0.2)), ((1.6, 1), (1, 0.0))])
def test_free_u_is_that_of_diffusers(shapes: Any, b: tuple[float, float], s: tuple[float, float]) -> None:
    apply_freeu = pytest.importorskip("diffusers.utils.torch_utils").apply_freeu
    edited = script("freeu").free_u("FreeU", cu.Window(6, 6), b=b, s=s)
    handles = []
    for number in range(8):

        def scaled(module: Any, given: tuple[Tensor, ...], level: int = number // 4) -> Any:
            hidden, skip = given[0].split([64, given[0].shape[1] - 64], dim=1)
            told = {"s1": s[0], "s2": s[1], "b1": b[0], "b2": b[1]}
            return (torch.cat(apply_freeu(level, hidden.clone(), skip, **told), dim=1), *given[1:])

        handles.append(shapes.unet.get_submodule(f"output_blocks.{number}").register_forward_pre_hook(scaled))
    try:
        expected = estimate(shapes)
    finally:
        for handle in handles:
            handle.remove()
    assert abs(expected - estimate(shapes)).max() > 0.01
    np.testing.assert_allclose(estimate(shapes, edited), expected, atol=2e-4)


def test_masks_of_routing_are_those_of_the_official_code() -> None:
    study = script("dtr")
    golden = json.loads((Path(__file__).parent / "golden" / "dtr.json").read_text())
    for told in golden:
        assert study.first_channels(told["tasks"], told["channels"], told["beta"]).tolist() == told["first"]
        if told["count"][0] == told["channels"]:  # nothing is masked
            continue
        edits = study.masked("up.10", told["channels"], np.array(told["first"]), "masks", told["beta"]).edits()
        kept = [told["channels"] - len(edit.view.channels) for edit in edits]
        assert kept == told["count"]


def test_masked_channels_are_zeros_at_their_step(shapes: Any) -> None:
    study = script("dtr")
    edited = study.masked("up.10", 32, study.first_channels(6, 32), "masks")
    first = int(study.first_channels(6, 32)[2])  # step 3 is the third task, counted from the image

    def masked(module: Any, given: Any, output: Tensor) -> Tensor:
        mask = output.new_zeros(32)
        mask[first : first + 25] = 1
        return output * mask[:, None, None]

    handle = shapes.unet.get_submodule("output_blocks.10").register_forward_hook(masked)
    try:
        expected = estimate(shapes)
    finally:
        handle.remove()
    assert abs(expected - estimate(shapes)).max() > 0.01
    np.testing.assert_allclose(estimate(shapes, edited), expected, atol=1e-5)


def test_entropy_of_gaussian_logits_over_its_largest_depends_on_the_factor_alone() -> None:
    """H = ln N - (f s)^2 / 2 for Gaussian logits of standard deviation s; with f^2 ~ ln N its share is one number."""
    study, rng, spread = script("variable_size"), np.random.default_rng(0), 1.2
    shares = {}
    for size in (8, 16, 32):
        n, channels = size**2, 256
        queries, keys = (rng.normal(size=(1, 1, 1, channels, size, size)) for _ in range(2))
        dims = ("sample", "step", "head", "channel", "y", "x")
        tree = xr.DataTree.from_dict(
            {
                f"activations/mid.joint.{name}": xr.Dataset({"baseline": (dims, values)})
                for name, values in {"queries": queries * spread, "keys": keys}.items()
            }
        )
        for times in (1.0, math.sqrt(math.log(n) / math.log(64))):
            found = float(study.entropy(tree, "mid", times)[0])
            expected = 1 - (times * spread) ** 2 / 2 / math.log(n)
            assert found == pytest.approx(expected, abs=0.02)
            shares[size, times == 1.0] = found
    assert study.factor("mid", 32) == 1
    assert study.tokens("up.5", 64) == 256
    assert study.factor("up.5", 64) == pytest.approx(math.sqrt(math.log(256) / math.log(64)))
    assert shares[32, False] == pytest.approx(shares[16, False], abs=0.015)


def test_images_of_other_sizes_are_read_as_their_means_are() -> None:
    study = script("variable_size")
    images = render(draw_scenes(3, seed=4), np.random.default_rng(1)) / 2 + 0.5
    prompts = [scene.prompt for scene in draw_scenes(3, seed=4)]
    np.testing.assert_array_equal(study.agreement(images, prompts), 1)
    larger = images.repeat(2, axis=-1).repeat(2, axis=-2)
    np.testing.assert_array_equal(study.agreement(larger, prompts), 1)
    np.testing.assert_array_less(study.agreement(np.roll(larger, 1, axis=0), prompts), 1)


@pytest.mark.thorough
def test_a_network_of_another_size_has_its_weights_and_scaled_keys_its_logits() -> None:
    """Scaling keys of the image is attention with its logits scaled, those of the text left alone."""
    study = script("variable_size")
    model = study.resized(24)
    assert model.image_shape == (3, 24, 24)
    assert model.fingerprint == cu.load_model("shapes").fingerprint
    sites = cu.sites(model)
    assert sites.loc["mid.joint.keys", "sizes"] == "2 x 32 x 3 x 3"
    blocks = {name.partition(".joint")[0] for name in sites.index if name.endswith(".joint.keys")}
    assert blocks == {block for some in study.LEVELS.values() for block in some}


@pytest.mark.thorough
def test_temporal_features_are_made_of_what_the_projections_are_given(shapes: Any) -> None:
    """Reconstruction errs less at every projection, and the least possible is not far for one input alone."""
    study = script("tfmq")
    inputs = study.projected(shapes, 5)
    assert inputs.shape == (5, 128)
    assert len(torch.unique(inputs, dim=0)) == 5
    nearest, made = round_weights(shapes, 3, modules=study.PROJECTIONS), study.reconstructed(shapes, 3, 5)
    for name, _ in shapes.unet.named_modules():
        if name.endswith("emb_layers.1"):
            plain, one, two = (inputs @ model.unet.get_submodule(name).weight.T for model in (shapes, nearest, made))
            assert ((two - plain) ** 2).sum() < 0.5 * ((one - plain) ** 2).sum()
