"""Training of the embedded model ``shapes``; on two CPU cores about one iteration of batch 32 a second."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from causalunet.models.openai_layout import TextUNet
from causalunet.models.shapes import SHAPES_CONFIG
from causalunet.models.vocabulary import tokenize
from causalunet.scenes import Scene, all_scenes, held_out, render
from causalunet.schedule import cosine_alpha_bar
from causalunet.training.diffusion import HybridLoss

__all__ = ["TrainingConfig", "train_shapes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How ``shapes`` is trained.

    Parameters
    ----------
    iterations : int
        Length of the run. The rate is constant but for the warm-up and the last ``decay`` iterations, so that a
        stopped run may go on with another length.
    batch_size : int
    learning_rate : float
        Of AdamW, after the warm-up.
    warmup, decay : int
        Iterations of the linear rise and of the linear fall to zero.
    prompt_drop : float
        Share of prompts replaced by the empty one, for classifier-free guidance.
    ema : float
        Decay of the exponential moving average of the weights; the average is what ships.
    seed : int
    """

    iterations: int = 6000
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: int = 1200
    prompt_drop: float = 0.1
    ema: float = 0.998
    seed: int = 0

    def rate(self, iteration: int) -> float:
        """Learning rate at an iteration, from 0."""
        rise = (iteration + 1) / self.warmup
        fall = (self.iterations - iteration) / self.decay
        return self.learning_rate * max(0.0, min(1.0, rise, fall))


@dataclass(frozen=True, slots=True)
class _Batch:
    images: Tensor
    tokens: Tensor
    mask: Tensor
    timesteps: Tensor
    noise: Tensor


def _draw_batch(config: TrainingConfig, scenes: list[Scene], iteration: int) -> _Batch:
    """Everything random of one iteration is a function of (seed, iteration): a resumed run is the same run."""
    rng = np.random.default_rng((config.seed, iteration))
    chosen = [scenes[index] for index in rng.integers(len(scenes), size=config.batch_size)]
    images = render(chosen, rng)
    keep = rng.random(config.batch_size) >= config.prompt_drop
    tokens, mask = tokenize([scene.prompt if kept else "" for scene, kept in zip(chosen, keep, strict=True)])
    # One draw per stratum: the same expectation as independent timesteps, less variance.
    strata = (np.arange(config.batch_size) + rng.random(config.batch_size)) / config.batch_size
    timesteps = (strata * 1000).astype(np.int64)
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return _Batch(*(torch.from_numpy(part) for part in (images, tokens, mask, timesteps, noise)))


class _Run:
    """Model, average and optimiser of a training run, with its checkpoint."""

    def __init__(self, config: TrainingConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.model = TextUNet(SHAPES_CONFIG)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
        self.loss = HybridLoss(cosine_alpha_bar())
        self.iteration = 0

    def step(self, batch: _Batch) -> tuple[float, float]:
        """One optimiser step; returns the loss and the noise error."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.iteration)
        noisy = self.loss.diffuse(batch.images, batch.timesteps, batch.noise)
        text = self.model.encode_text(batch.tokens, batch.mask)
        output = self.model(noisy, batch.timesteps, *text)
        loss, mse = self.loss(output, batch.images, noisy, batch.timesteps, batch.noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.iteration += 1
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return loss.item(), mse.mean().item()

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        state: dict[str, Any] = {
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.iteration = state["iteration"]
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])


def train_shapes(config: TrainingConfig, directory: Path, *, checkpoint_every: int = 250) -> Iterator[dict[str, float]]:
    """Train, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    config : TrainingConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the averaged weights ``shapes.safetensors`` (float16).
    checkpoint_every : int
        Iterations between checkpoints.

    Yields
    ------
    dict
        Iteration, loss, squared error of the noise and iterations per second, every 50 iterations.
    """
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = directory / "checkpoint.pt"
    run = _Run(config)
    if checkpoint.exists():
        run.load(checkpoint)
    scenes = [scene for scene in all_scenes() if not held_out(scene)]
    losses: list[tuple[float, float]] = []
    started = time.perf_counter()
    while run.iteration < config.iterations:
        losses.append(run.step(_draw_batch(config, scenes, run.iteration)))
        last = run.iteration == config.iterations
        if run.iteration % 50 == 0 or last:
            loss, mse = np.mean(losses, axis=0).tolist()
            rate = len(losses) / (time.perf_counter() - started)
            record = {"iteration": run.iteration, "loss": loss, "noise_mse": mse, "per_second": rate}
            with (directory / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            yield record
            losses, started = [], time.perf_counter()
        if run.iteration % checkpoint_every == 0 or last:
            run.save(checkpoint)
            weights = {name: value.to(torch.float16).contiguous() for name, value in run.average.items()}
            metadata = {"training": json.dumps(asdict(config) | {"iteration": run.iteration})}
            save_file(weights, directory / "shapes.safetensors", metadata=metadata)
