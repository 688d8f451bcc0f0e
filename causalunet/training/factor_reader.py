"""Training of the factor readers; a few minutes on two CPU cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from causalunet.models.factor_reader import SCENES_READER, SHAPES_READER, FactorReader, ReaderConfig
from causalunet.scenes import draw_scenes, render
from causalunet.training.batches import Batch
from causalunet.training.loop import LoopConfig, Resources, train
from causalunet.training.shapes import training_scenes
from causalunet.worlds import painting
from causalunet.worlds.groups import GroupWorld

__all__ = [
    "ReaderTrainingConfig",
    "ScenesReaderTrainingConfig",
    "augment",
    "evaluate_reader",
    "evaluate_scenes_reader",
    "train_reader",
]

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Images in [-1, 1], (image, channel, y, x), and the codes of what they show, (image, factor)."""

_EVALUATION_BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderTrainingConfig(LoopConfig):
    """How the factor reader of `shapes` is trained; the defaults are those of the weights that ship."""

    iterations: int = 2000
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup: int = 50
    decay: int = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesReaderTrainingConfig(LoopConfig):
    """How the factor reader of `scenes` is trained; the defaults are those of the weights that ship."""

    iterations: int = 4532
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup: int = 100
    decay: int = 1133


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


def _shapes(n: int, rng: np.random.Generator) -> Labelled:
    scenes = training_scenes()
    chosen = [scenes[index] for index in rng.integers(len(scenes), size=n)]
    return render(chosen, rng), np.array([scene.codes for scene in chosen])


def _scenes(n: int, rng: np.random.Generator) -> Labelled:
    codes = GroupWorld().draw(n, rng, only_held_out=False)
    return painting.render(codes, rng), codes


@dataclass(frozen=True)
class _DrawImperfect:
    """Draws imperfect scenes that are not held out."""

    size: int
    world: Callable[[int, np.random.Generator], Labelled]

    def __call__(self, iteration: int, rng: np.random.Generator) -> Batch:
        images, codes = self.world(self.size, rng)
        return {"images": torch.from_numpy(augment(images, rng)), "codes": torch.from_numpy(codes)}


class _Reading:
    """Name the factors of imperfect scenes."""

    def __init__(self, reader: ReaderConfig, draw: _DrawImperfect, seed: int) -> None:
        self.name, self.draw = reader.name, draw
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network: FactorReader = FactorReader(reader)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy summed over factors, and the share of images with all factors right."""
        codes, logits = batch["codes"], list(self.network(batch["images"]).values())
        terms = [F.cross_entropy(part, codes[:, i]) for i, part in enumerate(logits)]
        right = torch.stack([part.argmax(dim=1) for part in logits], dim=1) == codes
        return torch.stack(terms).sum(), {"accuracy": right.all(dim=1).double().mean()}


def train_reader(
    config: ReaderTrainingConfig | ScenesReaderTrainingConfig,
    directory: Path,
    *,
    resources: Resources | None = None,
    checkpoint_every: int = 250,
    report_every: int = 50,
) -> Iterator[dict[str, float]]:
    """Train, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    config : ReaderTrainingConfig or ScenesReaderTrainingConfig
        Its class says which reader.
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the weights ``reader.safetensors`` or
        ``scenes-reader.safetensors`` (float16).
    resources : Resources, optional
        By default this process on the CPU.
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Returns
    -------
    iterator of dict
        Iteration, loss, share of training images with all factors right and iterations per second.
    """
    of_scenes = isinstance(config, ScenesReaderTrainingConfig)
    draw = _DrawImperfect(config.batch_size, _scenes if of_scenes else _shapes)
    task = _Reading(SCENES_READER if of_scenes else SHAPES_READER, draw, config.seed)
    return train(
        task, config, directory, resources=resources, checkpoint_every=checkpoint_every, report_every=report_every
    )


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

    def labelled(batch: slice) -> Labelled:
        return render(scenes[batch], rng), np.array([scene.codes for scene in scenes[batch]])

    return _accuracy(reader, labelled, n, rng, augmented=augmented)


def evaluate_scenes_reader(
    reader: FactorReader, n: int = 2000, *, seed: int = 1, augmented: bool = False
) -> dict[str, float]:
    """Accuracy on rendered scenes of `scenes` whose combinations training never saw.

    Parameters
    ----------
    reader, n, seed, augmented
        As for `evaluate_reader`.

    Returns
    -------
    dict of str to float
        As of `evaluate_reader`.
    """
    rng = np.random.default_rng(seed)
    codes = GroupWorld().draw(n, rng, only_held_out=True)
    return _accuracy(
        reader, lambda batch: (painting.render(codes[batch], rng), codes[batch]), n, rng, augmented=augmented
    )


def _accuracy(
    reader: FactorReader,
    labelled: Callable[[slice], Labelled],
    n: int,
    rng: np.random.Generator,
    *,
    augmented: bool,
) -> dict[str, float]:
    right = []
    for start in range(0, n, _EVALUATION_BATCH):
        images, codes = labelled(slice(start, start + _EVALUATION_BATCH))
        read = reader.read(torch.from_numpy(augment(images, rng) if augmented else images))
        right.append(read == codes)
    table = np.concatenate(right)
    by_factor = dict(zip(reader.config.factors, table.mean(axis=0).tolist(), strict=True))
    return by_factor | {"all": float(table.all(axis=1).mean())}
