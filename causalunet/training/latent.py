"""Training of ``shapes-latent``: an autoencoder, then a diffusion model in its latents; and images drawn with it.

Sources: Rombach et al. 2022, section 3; Salimans & Ho 2022, section 4 (prediction of v).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from causalunet.models.checkpoints import load_weights, read_weights
from causalunet.models.devices import usable_device
from causalunet.models.latent_diffusion import (
    LATENT_SHAPE,
    build_autoencoder,
    build_text_encoder,
    build_unet,
    save_pipeline,
)
from causalunet.noise import initial_noise
from causalunet.prediction import PREDICTIONS, Told
from causalunet.schedule import cosine_alpha_bar
from causalunet.training.batches import Batch
from causalunet.training.denoising import NOISIEST, draw_timesteps
from causalunet.training.loop import LoopConfig, Resources, train
from causalunet.training.told_images import draw_told

__all__ = [
    "AutoencoderTrainingConfig",
    "LatentTrainingConfig",
    "draw_latent",
    "finish_pipeline",
    "measure_scaling",
    "train_autoencoder",
    "train_latent",
    "train_pipeline",
]

_FIRST_SHARE = 0.2
_MEASURED = 2048
"""Images whose latents tell the scaling factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderTrainingConfig(LoopConfig):
    """How the autoencoder is trained; the defaults are those of the weights that ship.

    Parameters
    ----------
    kl_weight : float
        Of the KL divergence of a latent number from N(0, 1), in nats, beside the mean absolute error of a pixel.
    edge_weight : float
        Of the mean absolute error of the differences between neighbouring pixels, which keeps textures sharp.
    anchor_weight : float
        Of the mean absolute difference of the first three channels of latents from the image at half its size: what
        colours are is told instead of being found, which takes longer than all the rest.
    """

    iterations: int = 3000
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: int = 100
    decay: int = 1000
    ema: float = 0.995
    kl_weight: float = 1e-6
    edge_weight: float = 0.5
    anchor_weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentTrainingConfig(LoopConfig):
    """How U-Net and text encoder are trained; the defaults are those of the weights that ship.

    Parameters
    ----------
    prompt_drop : float
        Share of prompts replaced by the empty one, for classifier-free guidance.
    focus_from : int
        From this iteration on, half of the timesteps are drawn from the noisiest fifth: only there does the text decide
        the layout; later the noisy latents themselves show it.
    """

    iterations: int = 3300
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: int = 800
    ema: float = 0.998
    prompt_drop: float = 0.1
    focus_from: int = 1000


@dataclass(frozen=True)
class _DrawImages:
    """Images, and the noise of their latents."""

    config: AutoencoderTrainingConfig

    def __call__(self, iteration: int, rng: np.random.Generator) -> Batch:
        size = self.config.batch_size
        return {"images": draw_told(size, rng)["images"], "spread": _latent_noise(size, rng)}


class _Reconstruction:
    """Encode scenes that are not held out, and decode them again."""

    name = "autoencoder"

    def __init__(self, config: AutoencoderTrainingConfig) -> None:
        self.config, self.draw = config, _DrawImages(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network: Any = build_autoencoder()

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Absolute error of pixels, of edges and of anchored channels, and the divergence of the latents."""
        latents = self.network.encode(batch["images"]).latent_dist
        error = self.network.decode(latents.mean + latents.std * batch["spread"]).sample - batch["images"]
        pixels = error.abs().mean()
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        divergence = 0.5 * (latents.mean.square() + latents.var - 1 - latents.logvar).mean()
        anchored = (latents.mean[:, :3] - avg_pool2d(batch["images"], 2)).abs().mean()
        weighted = (edges, self.config.edge_weight), (anchored, self.config.anchor_weight)
        loss = pixels + sum(weight * term for term, weight in weighted) + self.config.kl_weight * divergence
        return loss, {"pixel_error": pixels, "anchored": anchored, "kl": divergence}


def _latent_noise(size: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal((size, *LATENT_SHAPE), dtype=np.float32))


def train_autoencoder(
    config: AutoencoderTrainingConfig,
    directory: Path,
    *,
    resources: Resources | None = None,
    checkpoint_every: int = 250,
    report_every: int = 50,
) -> Iterator[dict[str, float]]:
    """Train the first stage, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    config : AutoencoderTrainingConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the averaged weights ``autoencoder.safetensors`` (float16).
    resources : Resources, optional
        By default this process on the CPU.
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Returns
    -------
    iterator of dict
        Iteration, loss, absolute error of a pixel, divergence of a latent number, and iterations per second.

    Raises
    ------
    ModelError
        The device is not there, or diffusers is not installed.
    """
    return train(
        _Reconstruction(config),
        config,
        directory,
        resources=resources,
        checkpoint_every=checkpoint_every,
        report_every=report_every,
    )


def measure_scaling(autoencoder: nn.Module, images: Tensor) -> float:
    """What latents are multiplied with to have standard deviation one over all channels and places.

    Parameters
    ----------
    autoencoder : AutoencoderKL
    images : Tensor, (batch, channel, y, x)
        Values in [-1, 1].
    """
    with torch.no_grad():
        means = [autoencoder.encode(part).latent_dist.mean for part in images.split(256)]  # type: ignore[operator]
    return 1 / torch.cat(means).std().item()


@dataclass(frozen=True)
class _DrawNoisy:
    """Images, prompts, the noise of their latents, and timesteps and noise of the diffusion."""

    config: LatentTrainingConfig

    def __call__(self, iteration: int, rng: np.random.Generator) -> Batch:
        size, focused = self.config.batch_size, iteration >= self.config.focus_from
        return {
            **draw_told(size, rng, prompt_drop=self.config.prompt_drop),
            "spread": _latent_noise(size, rng),
            "noise": _latent_noise(size, rng),
            "timesteps": torch.from_numpy(draw_timesteps(size, rng, noisiest=NOISIEST if focused else None)),
        }


class _Denoising:
    """Predict v in the latents of scenes that are not held out."""

    name = "denoiser"

    def __init__(self, config: LatentTrainingConfig, autoencoder: Path, device: str) -> None:
        place = usable_device(device)
        self.draw, self.first_stage = _DrawNoisy(config), autoencoder
        self.autoencoder: Any = build_autoencoder()
        load_weights(self.autoencoder, read_weights(autoencoder), str(autoencoder))
        self.autoencoder.to(place).eval().requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder()}).train()
        measured = draw_told(_MEASURED, np.random.default_rng(config.seed))["images"]
        self.scaling = measure_scaling(self.autoencoder, measured.to(place))
        alpha_bar = torch.tensor(cosine_alpha_bar(), device=place)
        self._signal, self._noise = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of v."""
        with torch.no_grad():
            latents = self.autoencoder.encode(batch["images"]).latent_dist
            x0 = self.scaling * (latents.mean + latents.std * batch["spread"])
        timesteps, eps = batch["timesteps"], batch["noise"]
        signal, noise = (table[timesteps][:, None, None, None] for table in (self._signal, self._noise))
        shares: Any = signal, 0.0, noise  # its arithmetic is that of tensors too
        of_x0, _, of_eps = PREDICTIONS["v"](Told(*shares))
        text = self.network["text_encoder"](batch["tokens"]).last_hidden_state
        predicted = self.network["unet"](signal * x0 + noise * eps, timesteps, text).sample
        return (predicted - (of_x0 * x0 + of_eps * eps)).square().mean(), {}


def train_latent(
    config: LatentTrainingConfig,
    directory: Path,
    *,
    autoencoder: Path,
    resources: Resources | None = None,
    checkpoint_every: int = 250,
    report_every: int = 50,
) -> Iterator[dict[str, float]]:
    """Train the second stage, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    config : LatentTrainingConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl``, the averaged weights ``denoiser.safetensors`` (float16), and when
        the training is at its end the folder ``pipeline``, with both configurations in ``training.json``.
    autoencoder : Path
        Weights of the first stage.
    resources : Resources, optional
        By default this process on the CPU.
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Yields
    ------
    dict
        Iteration, loss (squared error of v) and iterations per second.

    Raises
    ------
    CheckpointError
        There is no autoencoder.
    ModelError
        The device is not there, or diffusers is not installed.
    """
    where = resources or Resources()
    task = _Denoising(config, autoencoder, where.device)
    yield from train(
        task, config, directory, resources=where, checkpoint_every=checkpoint_every, report_every=report_every
    )
    finish_pipeline(task, directory)


def train_pipeline(
    first: AutoencoderTrainingConfig,
    second: LatentTrainingConfig,
    directory: Path,
    *,
    resources: Resources | None = None,
) -> Iterator[dict[str, float]]:
    """Train both stages, going on from where an earlier call was stopped.

    Parameters
    ----------
    first : AutoencoderTrainingConfig
    second : LatentTrainingConfig
    directory : Path
        Receives what `train_latent` writes, and what `train_autoencoder` writes in the folder ``autoencoder``.
    resources : Resources, optional
        By default this process on the CPU. Of a time, the first stage has a fifth.

    Yields
    ------
    dict
        Records of the first stage, then of the second.
    """
    where = resources or Resources()
    parts = [
        where if where.minutes is None else replace(where, minutes=share * where.minutes)
        for share in (_FIRST_SHARE, 1 - _FIRST_SHARE)
    ]
    yield from train_autoencoder(first, directory / "autoencoder", resources=parts[0])
    weights = directory / "autoencoder" / "autoencoder.safetensors"
    yield from train_latent(second, directory, autoencoder=weights, resources=parts[1])


def finish_pipeline(task: _Denoising, directory: Path) -> None:
    """Write ``pipeline`` from the averaged weights that training wrote, and how both stages were trained."""
    path, folder = directory / f"{task.name}.safetensors", directory / "pipeline"
    load_weights(task.network, read_weights(path), str(path))
    save_pipeline(
        folder,
        autoencoder=task.autoencoder,
        unet=task.network["unet"],
        text_encoder=task.network["text_encoder"],
        scaling_factor=task.scaling,
    )
    stages = {"autoencoder": task.first_stage, task.name: path}
    told = {stage: _configuration(weights) for stage, weights in stages.items()}
    (folder / "training.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _configuration(weights: Path) -> Any:
    with safe_open(weights, "pt") as file:
        return json.loads(file.metadata()["training"])


def draw_latent(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 50,
    guidance: float = 3.0,
    advance: Callable[[int], None] = lambda samples: None,
) -> NDArray[np.float32]:
    """Denoise latents with the pipeline's own scheduler and decode them.

    Parameters
    ----------
    pipeline : diffusers.StableDiffusionPipeline
    prompts : sequence of str
    seeds : sequence of int
        Of the noise, one per prompt.
    steps : int
        Of the scheduler.
    guidance : float
        Scale; 1 is without guidance.
    advance : callable
        Told the number of samples after every step.

    Returns
    -------
    ndarray of float32, (sample, channel, y, x)
        Images in [0, 1].
    """

    def told(owner: Any, step: int, timestep: int, values: dict[str, Any]) -> dict[str, Any]:
        advance(len(prompts))
        return {}

    config = pipeline.unet.config
    noise = initial_noise(seeds, (config.in_channels, config.sample_size, config.sample_size))
    images: NDArray[np.float32] = pipeline(
        list(prompts),
        latents=torch.from_numpy(noise),
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="np",
        callback_on_step_end=told,
    ).images
    return np.moveaxis(images, -1, 1)
