"""Training of the embedded model ``shapes``; on two CPU cores about one iteration of batch 32 a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causalunet.models.shapes import SHAPES_CONFIG
from causalunet.models.vocabulary import tokenize
from causalunet.scenes import Scene, all_scenes, held_out, render
from causalunet.training.denoising import Denoising, DenoisingConfig, DrawNoisy
from causalunet.training.loop import Resources, train

__all__ = ["ShapesTrainingConfig", "pictures", "train_shapes", "training_scenes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapesTrainingConfig(DenoisingConfig):
    """How ``shapes`` is trained; the defaults are those of the weights that ship."""

    iterations: int = 3000
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: int = 750
    ema: float = 0.998
    focus_from: int = 1250


@cache
def training_scenes() -> tuple[Scene, ...]:
    """Scenes that are not held out, in a fixed order."""
    return tuple(scene for scene in all_scenes() if not held_out(scene))


def pictures(n: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], Sequence[str]]:
    """Draw scenes that are not held out: images in [-1, 1], (image, channel, y, x), and their prompts."""
    scenes = training_scenes()
    chosen = [scenes[index] for index in rng.integers(len(scenes), size=n)]
    return render(chosen, rng), [scene.prompt for scene in chosen]


def train_shapes(
    config: ShapesTrainingConfig,
    directory: Path,
    *,
    resources: Resources | None = None,
    checkpoint_every: int = 250,
    report_every: int = 50,
) -> Iterator[dict[str, float]]:
    """Train, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    config : ShapesTrainingConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the averaged weights ``shapes.safetensors`` (float16).
    resources : Resources, optional
        By default this process on the CPU.
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Returns
    -------
    iterator of dict
        Iteration, loss, squared error of the noise and iterations per second.
    """
    where = resources or Resources()
    task = Denoising("shapes", SHAPES_CONFIG, DrawNoisy(config, pictures, tokenize), where.device)
    return train(task, config, directory, resources=where, checkpoint_every=checkpoint_every, report_every=report_every)
