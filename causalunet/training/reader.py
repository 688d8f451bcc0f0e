"""Training of the factor reader; a few minutes on two CPU cores."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from causalunet.models.reader import FactorReader
from causalunet.scenes import FACTORS, Scene, all_scenes, draw_scenes, held_out, render

__all__ = ["ReaderTrainingConfig", "augment", "evaluate_reader", "train_reader"]

_EVALUATION_BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderTrainingConfig:
    """How the factor reader is trained.

    Parameters
    ----------
    iterations : int
        Length of the run. The rate is constant but for the warm-up and the last ``decay`` iterations.
    batch_size : int
    learning_rate : float
        Of AdamW, after the warm-up.
    warmup, decay : int
        Iterations of the linear rise and of the linear fall to zero.
    seed : int
    """

    iterations: int = 2000
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup: int = 50
    decay: int = 800
    seed: int = 0

    def rate(self, iteration: int) -> float:
        """Learning rate at an iteration, from 0."""
        rise = (iteration + 1) / self.warmup
        fall = (self.iterations - iteration) / self.decay
        return self.learning_rate * max(0.0, min(1.0, rise, fall))


def augment(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Make rendered scenes as imperfect as generated ones, so that the reader holds on those.

    In this order: a blur of 0.3 to 0.8 pixels on three in ten images, contrast within 20 %, brightness within 0.1,
    gain and offset of each colour channel within 8 % and 0.05, Gaussian noise of standard deviation 0 to 0.25 (drawn
    per image), clipping.

    Parameters
    ----------
    images : ndarray of float32, (batch, channel, y, x)
        Values in [-1, 1].
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float32, (batch, channel, y, x)
        Values in [-1, 1].
    """
    n = len(images)
    sigma = np.where(rng.random(n) < 0.3, rng.uniform(0.3, 0.8, n), 0.0)
    gain = rng.uniform(0.8, 1.2, (n, 1, 1, 1)) * rng.uniform(0.92, 1.08, (n, 3, 1, 1))
    offset = rng.uniform(-0.1, 0.1, (n, 1, 1, 1)) + rng.uniform(-0.05, 0.05, (n, 3, 1, 1))
    noise = rng.standard_normal(images.shape, dtype=np.float32) * rng.uniform(0, 0.25, (n, 1, 1, 1))
    return np.clip(_blur(images, sigma) * gain + offset + noise, -1, 1).astype(np.float32)


def _blur(images: NDArray[np.float32], sigma: NDArray[np.float64]) -> NDArray[np.floating]:
    """Separable three-tap Gaussian of one width per image, in pixels; zero leaves the image as it is."""
    side = np.exp(-0.5 / np.maximum(sigma, 1e-3) ** 2)[:, None, None, None]
    blurred: NDArray[np.floating] = images
    for axis in (2, 3):
        edges = [(0, 0)] * 4
        edges[axis] = (1, 1)
        before, here, after = (
            np.take(np.pad(blurred, edges, mode="edge"), np.arange(start, start + images.shape[axis]), axis=axis)
            for start in range(3)
        )
        blurred = (here + side * (before + after)) / (1 + 2 * side)
    return blurred


def _draw_batch(config: ReaderTrainingConfig, scenes: list[Scene], iteration: int) -> tuple[Tensor, Tensor]:
    """Images and codes of one iteration, a function of (seed, iteration): a resumed run is the same run."""
    rng = np.random.default_rng((config.seed, iteration))
    chosen = [scenes[index] for index in rng.integers(len(scenes), size=config.batch_size)]
    images = augment(render(chosen, rng), rng)
    return torch.from_numpy(images), torch.tensor([scene.codes for scene in chosen])


class _Run:
    """Reader and optimiser of a training run, with its checkpoint."""

    def __init__(self, config: ReaderTrainingConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.reader = FactorReader()
        self.optimizer = torch.optim.AdamW(self.reader.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
        self.iteration = 0

    def step(self, images: Tensor, codes: Tensor) -> tuple[float, float]:
        """One optimiser step; returns the loss and the share of images with all factors right."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.iteration)
        logits = list(self.reader(images).values())
        loss = sum((F.cross_entropy(part, codes[:, i]) for i, part in enumerate(logits)), torch.zeros(()))
        right = torch.stack([part.argmax(dim=1) for part in logits], dim=1) == codes
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
        self.optimizer.step()
        self.iteration += 1
        return loss.item(), right.all(dim=1).double().mean().item()

    def save(self, directory: Path) -> None:
        """Write the checkpoint and the weights, each whole or not at all."""
        state: dict[str, Any] = {
            "iteration": self.iteration,
            "reader": self.reader.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = directory / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(directory / "checkpoint.pt")
        weights = {name: value.to(torch.float16).contiguous() for name, value in self.reader.state_dict().items()}
        metadata = {"training": json.dumps(asdict(self.config) | {"iteration": self.iteration})}
        partial = directory / "reader.partial"
        save_file(weights, partial, metadata=metadata)
        partial.replace(directory / "reader.safetensors")

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.iteration = state["iteration"]
        self.reader.load_state_dict(state["reader"])
        self.optimizer.load_state_dict(state["optimizer"])


def train_reader(
    config: ReaderTrainingConfig, directory: Path, *, checkpoint_every: int = 250, report_every: int = 50
) -> Iterator[dict[str, float]]:
    """Train, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    config : ReaderTrainingConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the weights ``reader.safetensors`` (float16).
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Yields
    ------
    dict
        Iteration, loss, share of training images with all factors right and iterations per second.
    """
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = directory / "checkpoint.pt"
    run = _Run(config)
    if checkpoint.exists():
        run.load(checkpoint)
    scenes = [scene for scene in all_scenes() if not held_out(scene)]
    steps: list[tuple[float, float]] = []
    started = time.perf_counter()
    while run.iteration < config.iterations:
        steps.append(run.step(*_draw_batch(config, scenes, run.iteration)))
        last = run.iteration == config.iterations
        if run.iteration % checkpoint_every == 0 or last:
            run.save(directory)
        if run.iteration % report_every == 0 or last:
            loss, accuracy = np.mean(steps, axis=0).tolist()
            rate = len(steps) / (time.perf_counter() - started)
            record = {"iteration": run.iteration, "loss": loss, "accuracy": accuracy, "per_second": rate}
            with (directory / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            yield record
            steps, started = [], time.perf_counter()


def evaluate_reader(reader: FactorReader, n: int = 2000, *, seed: int = 1, augmented: bool = False) -> dict[str, float]:
    """Accuracy on rendered scenes whose combinations training never saw.

    Parameters
    ----------
    reader : FactorReader
    n : int
        Number of images.
    seed : int
        Seed of the scenes and of their rendering.
    augmented : bool
        Make the images imperfect with `augment`, as in training; clean otherwise.

    Returns
    -------
    dict of str to float
        Share read right, by factor, and under ``"all"`` the share with every factor right.
    """
    rng = np.random.default_rng(seed)
    scenes = draw_scenes(n, seed=seed, only_held_out=True)
    right = []
    for start in range(0, n, _EVALUATION_BATCH):
        batch = scenes[start : start + _EVALUATION_BATCH]
        images = render(batch, rng)
        read = reader.read(torch.from_numpy(augment(images, rng) if augmented else images))
        right.append(read == np.array([scene.codes for scene in batch]))
    table = np.concatenate(right)
    return dict(zip(FACTORS, table.mean(axis=0).tolist(), strict=True)) | {"all": float(table.all(axis=1).mean())}
