"""Training of the factor reader; a few minutes on two CPU cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from causalunet.models.factor_reader import FactorReader
from causalunet.scenes import FACTORS, all_scenes, draw_scenes, held_out, render
from causalunet.training.loop import LoopConfig, train

__all__ = ["ReaderTrainingConfig", "augment", "evaluate_reader", "train_reader"]

_EVALUATION_BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderTrainingConfig(LoopConfig):
    """How the factor reader is trained; the defaults are those of the weights that ship."""

    iterations: int = 2000
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup: int = 50
    decay: int = 800


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


class _Reading:
    """Name the factors of imperfect scenes that are not held out."""

    name = "reader"

    def __init__(self, config: ReaderTrainingConfig) -> None:
        self.config = config
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network: FactorReader = FactorReader()
        self._scenes = [scene for scene in all_scenes() if not held_out(scene)]

    def loss(self, iteration: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Cross entropy summed over factors, and the share of images with all factors right."""
        chosen = [self._scenes[index] for index in rng.integers(len(self._scenes), size=self.config.batch_size)]
        images = torch.from_numpy(augment(render(chosen, rng), rng))
        codes = torch.tensor([scene.codes for scene in chosen])
        logits = list(self.network(images).values())
        loss = sum((F.cross_entropy(part, codes[:, i]) for i, part in enumerate(logits)), torch.zeros(()))
        right = torch.stack([part.argmax(dim=1) for part in logits], dim=1) == codes
        return loss, {"accuracy": right.all(dim=1).double().mean().item()}


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

    Returns
    -------
    iterator of dict
        Iteration, loss, share of training images with all factors right and iterations per second.
    """
    return train(_Reading(config), config, directory, checkpoint_every=checkpoint_every, report_every=report_every)


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
