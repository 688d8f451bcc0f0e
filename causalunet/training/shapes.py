"""Training of the embedded model ``shapes``; on two CPU cores about one iteration of batch 32 a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.models.openai_layout import TextUNet
from causalunet.models.shapes import SHAPES_CONFIG
from causalunet.models.vocabulary import tokenize
from causalunet.scenes import all_scenes, held_out, render
from causalunet.schedule import cosine_alpha_bar
from causalunet.training.diffusion import HybridLoss
from causalunet.training.loop import LoopConfig, train

__all__ = ["ShapesTrainingConfig", "train_shapes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapesTrainingConfig(LoopConfig):
    """How ``shapes`` is trained; the defaults are those of the weights that ship.

    Parameters
    ----------
    prompt_drop : float
        Share of prompts replaced by the empty one, for classifier-free guidance.
    focus_from : int
        From this iteration on, half of the timesteps are drawn from the noisiest fifth and its weight in the loss is
        raised: only there does the text decide the position; later the noisy image itself shows it.
    """

    iterations: int = 3000
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: int = 750
    ema: float = 0.998
    prompt_drop: float = 0.1
    focus_from: int = 1250


class _Denoising:
    """Predict the noise and its variance on scenes that are not held out."""

    name = "shapes"

    def __init__(self, config: ShapesTrainingConfig) -> None:
        self.config = config
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network: TextUNet = TextUNet(SHAPES_CONFIG)
        self._even = HybridLoss(cosine_alpha_bar(), max_weight=5.0)
        self._focused = HybridLoss(cosine_alpha_bar(), max_weight=20.0)
        self._scenes = [scene for scene in all_scenes() if not held_out(scene)]

    def loss(self, iteration: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Hybrid loss of a batch, and the plain squared error of the noise."""
        size = self.config.batch_size
        chosen = [self._scenes[index] for index in rng.integers(len(self._scenes), size=size)]
        images = torch.from_numpy(render(chosen, rng))
        kept = rng.random(size) >= self.config.prompt_drop
        tokens, mask = tokenize([scene.prompt if keep else "" for scene, keep in zip(chosen, kept, strict=True)])
        focused = iteration >= self.config.focus_from
        criterion = self._focused if focused else self._even
        timesteps = torch.from_numpy(_draw_timesteps(size, rng, focused=focused))
        noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
        noisy = criterion.diffuse(images, timesteps, noise)
        text = self.network.encode_text(torch.from_numpy(tokens), torch.from_numpy(mask))
        loss, error = criterion(self.network(noisy, timesteps, *text), images, noisy, timesteps, noise)
        return loss, {"noise_mse": error.mean().item()}


def _draw_timesteps(size: int, rng: np.random.Generator, *, focused: bool) -> NDArray[np.int64]:
    """One draw per stratum: the same expectation as independent timesteps, less variance."""
    strata = (np.arange(size) + rng.random(size)) / size
    if focused:
        strata = np.where(strata < 0.5, 2 * strata, 0.8 + 0.4 * (strata - 0.5))
    timesteps: NDArray[np.int64] = (strata * 1000).astype(np.int64)
    return timesteps


def train_shapes(
    config: ShapesTrainingConfig, directory: Path, *, checkpoint_every: int = 250, report_every: int = 50
) -> Iterator[dict[str, float]]:
    """Train, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    config : ShapesTrainingConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the averaged weights ``shapes.safetensors`` (float16).
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Returns
    -------
    iterator of dict
        Iteration, loss, squared error of the noise and iterations per second.
    """
    return train(_Denoising(config), config, directory, checkpoint_every=checkpoint_every, report_every=report_every)
