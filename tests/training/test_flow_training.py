"""Flow matching against the closed form of a Gaussian; resumed runs are the same runs, and the loss falls."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import causalunet
from causalunet.errors import CheckpointError
from causalunet.models.flow_transformer import FLOW_CONFIG, FlowTransformer
from causalunet.models.shapes_flow import load_flow
from causalunet.models.text_transformer import TextEmbedding
from causalunet.noise import initial_noise
from causalunet.training.flow import FlowTrainingConfig, _Draw, draw_flow, flow_pair, train_flow

TINY = FlowTrainingConfig(iterations=4, batch_size=2, warmup=2, decay=2)
MEAN, SPREAD = 0.3, 0.5


def run(directory: Path, config: FlowTrainingConfig = TINY, *, stop_after: int | None = None) -> None:
    for _ in itertools.islice(train_flow(config, directory, checkpoint_every=2, report_every=1), stop_after):
        pass


def gaussian_velocity(x: Any, t: Any) -> Any:
    """E[eps - x_0 | x_t] where x_0 has mean MEAN and standard deviation SPREAD, by conditioning of joint Gaussians."""
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    return -MEAN + (t - (1 - t) * SPREAD**2) / variance * (x - (1 - t) * MEAN)


class Exact(nn.Module):
    """Stands in for the transformer: images are independent Gaussian pixels, the prompt adds ``told``."""

    config = SimpleNamespace(channels=3, image_size=4)
    device = torch.device("cpu")

    def __init__(self, told: float = 0.0) -> None:
        super().__init__()
        self.told = told

    def encode_text(self, tokens: Tensor, mask: Tensor) -> TextEmbedding:
        return TextEmbedding(mask.any(dim=1).float(), tokens)

    def forward(self, x: Tensor, times: Tensor, pooled: Tensor, sequence: Tensor) -> Tensor:
        t = times[:, None, None, None]
        return gaussian_velocity(x, t) + self.told * pooled[:, None, None, None]


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_best_velocity_for_gaussian_images_is_the_closed_form(t: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (1000, 3, 8, 8)
    x0 = MEAN + SPREAD * torch.randn(shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    xt, velocity = flow_pair(x0, noise, torch.full((1000,), t, dtype=torch.float64))
    slope, at_zero = np.polyfit(xt.flatten().numpy(), velocity.flatten().numpy(), 1)  # least squares, as training
    assert at_zero == pytest.approx(gaussian_velocity(0.0, t), abs=0.02)
    assert slope + at_zero == pytest.approx(gaussian_velocity(1.0, t), abs=0.02)


def test_the_path_starts_at_the_image_and_ends_at_the_noise() -> None:
    x0, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    first, velocity = flow_pair(x0, noise, torch.zeros(2))
    last, _ = flow_pair(x0, noise, torch.ones(2))
    torch.testing.assert_close(first, x0)
    torch.testing.assert_close(last, noise)
    torch.testing.assert_close(first + velocity, last)


def test_the_exact_flow_carries_noise_to_the_images_distribution() -> None:
    """The flow of a Gaussian is linear: x at t is the mean there and the noise times the spread there."""
    seeds = range(3)
    images = draw_flow(Exact(), ["", "", ""], seeds, steps=800, guidance=1.0)  # type: ignore[arg-type]
    expected = MEAN + SPREAD * initial_noise(seeds, (3, 4, 4))
    np.testing.assert_allclose(images, (np.clip(expected, -1, 1) + 1) / 2, atol=2e-3)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guidance_goes_on_from_what_the_prompt_changes(guidance: float) -> None:
    def at(told: float, scale: float) -> np.ndarray[Any, Any]:
        class Constant(Exact):
            def forward(self, x: Tensor, times: Tensor, pooled: Tensor, sequence: Tensor) -> Tensor:
                return 0.9 * x + self.told * pooled[:, None, None, None]

        return draw_flow(Constant(told), ["a red circle"], [0], steps=1, guidance=scale)  # type: ignore[arg-type]

    expected = (0.1 * initial_noise([0], (3, 4, 4)) - guidance * 0.1 + 1) / 2
    np.testing.assert_allclose(at(0.1, guidance), expected, atol=1e-6)


def test_times_follow_the_logit_normal_distribution() -> None:
    config = FlowTrainingConfig(batch_size=4000, time_mean=0.5, time_spread=1.0)
    times = _Draw(config)(0, np.random.default_rng(0))["times"].double()
    logits = torch.logit(times)
    assert logits.mean().item() == pytest.approx(0.5, abs=0.01)
    assert logits.std().item() == pytest.approx(1.0, abs=0.01)


def test_one_prompt_in_ten_is_dropped() -> None:
    batch = _Draw(FlowTrainingConfig(batch_size=2000))(0, np.random.default_rng(0))
    assert (~batch["mask"].any(dim=1)).double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert batch["images"].abs().max().item() <= 1


def test_a_new_transformer_says_zero_and_every_part_learns() -> None:
    """AdaLN-zero: blocks start as the identity; the text reaches the output once the last layer is no longer zero."""
    torch.manual_seed(0)
    network = FlowTransformer(FLOW_CONFIG)
    assert sum(value.numel() for value in network.parameters()) < 4_000_000  # 8 MB in float16
    x, times = torch.randn(2, 3, 32, 32), torch.tensor([0.2, 0.8])
    tokens = torch.ones(2, FLOW_CONFIG.text.context, dtype=torch.long)
    assert network(x, times, *network.encode_text(tokens, tokens > 0)).abs().max().item() == 0
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.02 * torch.randn_like(value))
    network(x, times, *network.encode_text(tokens, tokens > 0)).square().mean().backward()
    still = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == ["text_encoder.padding_embedding"]  # there is no padding in these prompts


def test_patches_are_put_back_where_they_were_cut() -> None:
    """With zero blocks and one number per patch in and out, the image that comes is constant in every patch."""
    network = FlowTransformer(FLOW_CONFIG)
    torch.nn.init.normal_(network.out.weight)
    x = torch.zeros(1, 3, 32, 32)
    x[0, :, 8:12, 20:24] = 1.0
    tokens = torch.zeros(1, FLOW_CONFIG.text.context, dtype=torch.long)
    with torch.no_grad():
        text = network.encode_text(tokens, tokens > 0)
        changed = (network(x, torch.tensor([0.5]), *text) - network(0 * x, torch.tensor([0.5]), *text))[0] != 0
    assert changed[:, 8:12, 20:24].all()
    changed[:, 8:12, 20:24] = False
    assert not changed.any()


@pytest.mark.thorough
def test_a_resumed_run_is_the_uninterrupted_run_and_its_weights_load(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "parts", stop_after=3)
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["iteration"] == 2
    run(tmp_path / "parts")
    whole, parts = (load_file(tmp_path / name / "shapes-flow.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    network = load_flow(tmp_path / "whole" / "shapes-flow.safetensors")
    images = draw_flow(network, ["a solid red circle at the top, dark background", ""], [0, 1], steps=2)
    assert images.shape == (2, 3, 32, 32)
    assert np.isfinite(images).all()


@pytest.mark.thorough
def test_the_loss_falls(tmp_path: Path) -> None:
    run(tmp_path, FlowTrainingConfig(iterations=24, batch_size=8, warmup=4, decay=4, learning_rate=1e-3))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_the_defaults_are_those_of_the_weights_that_ship() -> None:
    with safe_open(Path(causalunet.__file__).parent / "weights" / "shapes-flow.safetensors", "pt") as file:
        told = json.loads(file.metadata()["training"])
    config = FlowTrainingConfig()
    given = {name: value for name, value in asdict(config).items() if value is not None}
    assert told == {**given, "iteration": config.iterations}


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights file"):
        load_flow(tmp_path / "none.safetensors")
