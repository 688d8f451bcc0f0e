"""Training of an embedded model: predict the noise and its variance on images of a world, told by prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.limits import is_number
from causalunet.errors import SpecError
from causalunet.models.openai_layout import TextUNet, UNetConfig
from causalunet.models.vocabulary import Vocabulary
from causalunet.schedule import cosine_alpha_bar, shifted_alpha_bar
from causalunet.training.batches import Batch
from causalunet.training.diffusion import HybridLoss, noise_weight
from causalunet.training.loop import LoopConfig

__all__ = ["NOISIEST", "Denoising", "DenoisingConfig", "DrawNoisy", "Pictures", "draw_timesteps", "dropped"]

NOISIEST = 0.2
"""Share of the squared-cosine schedule's timesteps in which a text decides the layout."""

Pictures = Callable[[int, np.random.Generator], tuple[NDArray[np.float32], Sequence[str]]]
"""Draws images in [-1, 1], (image, channel, y, x), and their prompts; can be pickled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisingConfig(LoopConfig):
    """How a denoiser is trained.

    Parameters
    ----------
    prompt_drop : float
        Share of prompts replaced by the empty one, for classifier-free guidance.
    focus_from : int
        From this iteration on, half of the timesteps are drawn from the noisiest fifth and its weight in the loss is
        raised: only there does the text decide the layout; later the noisy image itself shows it.
    layout_until : int
        Until this iteration that fifth is of the squared-cosine schedule: timesteps that have as much noise, of which a
        shift leaves few. `scenes` did not learn the order of words from so few.
    prediction : {"eps", "v"}
        The noise; or v of Salimans & Ho 2022, each timestep with the same weight: at the noisiest it is the image
        itself, while of the noise it takes all precision of a network to tell an image apart.
    log_snr_shift : float
        Of the squared-cosine schedule, see `causalunet.schedule.shifted_alpha_bar`.

    Raises
    ------
    SpecError
        There is no such prediction, or the shift is no finite number.
    """

    prompt_drop: float = 0.1
    focus_from: int
    layout_until: int = 0
    prediction: Literal["eps", "v"] = "eps"
    log_snr_shift: float = 0.0

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)
        if self.prediction not in ("eps", "v"):
            raise SpecError(f"prediction is eps, that of the noise, or v; got {self.prediction!r}.")
        if not is_number(self.log_snr_shift):
            raise SpecError(f"log_snr_shift is a finite number; got {self.log_snr_shift!r}.")

    @property
    def alpha_bar(self) -> NDArray[np.float64]:
        """Share of signal variance at every timestep, (timestep,)."""
        return shifted_alpha_bar(cosine_alpha_bar(), self.log_snr_shift)

    def noisiest(self, iteration: int) -> float | None:
        """Share of the timesteps, the noisiest, of which half are drawn at an iteration; None draws all alike."""
        if iteration < self.focus_from:
            return None
        if iteration >= self.layout_until:
            return NOISIEST
        unshifted = cosine_alpha_bar()
        asked = unshifted[round((1 - NOISIEST) * len(unshifted))]
        return max(1, int((self.alpha_bar <= asked).sum())) / len(unshifted)


@dataclass(frozen=True)
class DrawNoisy:
    """Draws batches for a denoiser.

    Parameters
    ----------
    config : DenoisingConfig
    pictures : callable
        The world.
    vocabulary : Vocabulary
    """

    config: DenoisingConfig
    pictures: Pictures
    vocabulary: Vocabulary

    def __call__(self, iteration: int, rng: np.random.Generator) -> Batch:
        """Draw images, prompts, timesteps and noise."""
        size, noisiest = self.config.batch_size, self.config.noisiest(iteration)
        images, prompts = self.pictures(size, rng)
        tokens, mask = self.vocabulary(dropped(prompts, self.config.prompt_drop, rng))
        timesteps = draw_timesteps(size, rng, noisiest=noisiest)
        noise = rng.standard_normal(images.shape, dtype=np.float32)
        if self.config.prediction == "v":
            weight = np.ones(size, dtype=np.float32)
        else:
            max_weight = 5.0 if noisiest is None else 20.0
            weight = noise_weight(self.config.alpha_bar, max_weight)[timesteps].astype(np.float32)
        arrays = {
            "images": images,
            "tokens": tokens,
            "mask": mask,
            "timesteps": timesteps,
            "noise": noise,
            "weight": weight,
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def dropped(prompts: Sequence[str], share: float, rng: np.random.Generator) -> list[str]:
    """Prompts, a share of them replaced by the empty one, for classifier-free guidance."""
    kept = rng.random(len(prompts)) >= share
    return [prompt if keep else "" for prompt, keep in zip(prompts, kept, strict=True)]


class Denoising:
    """Predict the noise, or v, and the variance.

    Parameters
    ----------
    name : str
        Of the weights file.
    unet : UNetConfig
    draw : DrawNoisy
    device : str
        Where it will run.
    """

    def __init__(self, name: str, unet: UNetConfig, draw: DrawNoisy, device: str = "cpu") -> None:
        self.name, self.draw = name, draw
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.config.seed)
            self.network: TextUNet = TextUNet(unet)
        self._criterion = HybridLoss(draw.config.alpha_bar, device=device)
        self._of: Literal["eps", "v"] = draw.config.prediction

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Hybrid loss of a batch, and the plain squared error of the noise, or of v."""
        images, timesteps, noise = batch["images"], batch["timesteps"], batch["noise"]
        noisy = self._criterion.diffuse(images, timesteps, noise)
        text = self.network.encode_text(batch["tokens"], batch["mask"])
        output = self.network(noisy, timesteps, *text)
        loss, error = self._criterion(output, images, noisy, timesteps, noise, batch["weight"], of=self._of)
        return loss, {"v_mse" if self._of == "v" else "noise_mse": error.mean()}


def draw_timesteps(size: int, rng: np.random.Generator, *, noisiest: float | None = None) -> NDArray[np.int64]:
    """One draw per stratum: the same expectation as independent timesteps, less variance.

    Parameters
    ----------
    size : int
        Number of timesteps, each in 0 to 999.
    rng : numpy.random.Generator
    noisiest : float, optional
        Draw half of them from this share of all, the noisiest.
    """
    strata = (np.arange(size) + rng.random(size)) / size
    if noisiest is not None:
        strata = np.where(strata < 0.5, 2 * strata, (1 - noisiest) + 2 * noisiest * (strata - 0.5))
    timesteps: NDArray[np.int64] = (strata * 1000).astype(np.int64)
    return timesteps
