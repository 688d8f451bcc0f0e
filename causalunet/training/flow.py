"""Training of ``shapes-flow`` by flow matching, and images drawn with it.

Sources: Lipman et al. 2023, "Flow Matching", section 4.1 (the straight path to the noise); Esser et al. 2024, "Scaling
Rectified Flow Transformers", section 3.1 (times drawn from a logit-normal distribution).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, ndtri
from torch import Tensor

from causalunet.models.devices import device_of
from causalunet.models.flow_transformer import FLOW_CONFIG, FlowTransformer
from causalunet.models.vocabulary import tokenize
from causalunet.noise import initial_noise
from causalunet.training.batches import Batch
from causalunet.training.loop import LoopConfig, Resources, train
from causalunet.training.told_images import draw_told

__all__ = ["FlowTrainingConfig", "draw_flow", "flow_pair", "train_flow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTrainingConfig(LoopConfig):
    """How ``shapes-flow`` is trained; the defaults are those of the weights that ship.

    Parameters
    ----------
    prompt_drop : float
        Share of prompts replaced by the empty one, for classifier-free guidance.
    time_mean, time_spread : float
        Mean and standard deviation of the logit of the times. The mean lies towards the noise, for only there does
        the text decide the position; later the noisy image itself shows it.
    """

    iterations: int = 2692
    batch_size: int = 256
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: int = 673
    ema: float = 0.999
    prompt_drop: float = 0.1
    time_mean: float = 0.5
    time_spread: float = 1.0


def flow_pair(x0: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Point and velocity of the straight path from images to noise.

    Parameters
    ----------
    x0, noise : Tensor, (batch, channel, y, x)
    times : Tensor, (batch,)
        t from 0, the image, to 1, the noise.

    Returns
    -------
    xt : Tensor, (batch, channel, y, x)
        (1 - t) x_0 + t eps.
    velocity : Tensor, (batch, channel, y, x)
        Its derivative by t: eps - x_0.
    """
    return torch.lerp(x0, noise, times[:, None, None, None]), noise - x0


@dataclass(frozen=True)
class _Draw:
    """Images, prompts, times and noise."""

    config: FlowTrainingConfig

    def __call__(self, iteration: int, rng: np.random.Generator) -> Batch:
        config = self.config
        told = draw_told(config.batch_size, rng, prompt_drop=config.prompt_drop)
        # one draw per stratum: the same expectation as independent times, less variance
        strata = (np.arange(config.batch_size) + rng.random(config.batch_size)) / config.batch_size
        times = expit(config.time_mean + config.time_spread * ndtri(np.clip(strata, 1e-7, 1 - 1e-7)))
        noise = rng.standard_normal(tuple(told["images"].shape), dtype=np.float32)
        return {**told, "times": torch.from_numpy(times.astype(np.float32)), "noise": torch.from_numpy(noise)}


class _FlowMatching:
    """Predict the velocity on scenes that are not held out."""

    name = "shapes-flow"

    def __init__(self, config: FlowTrainingConfig) -> None:
        self.draw = _Draw(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network: FlowTransformer = FlowTransformer(FLOW_CONFIG)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the velocity."""
        xt, velocity = flow_pair(batch["images"], batch["noise"], batch["times"])
        text = self.network.encode_text(batch["tokens"], batch["mask"])
        return (self.network(xt, batch["times"], *text) - velocity).square().mean(), {}


def train_flow(
    config: FlowTrainingConfig,
    directory: Path,
    *,
    resources: Resources | None = None,
    checkpoint_every: int = 250,
    report_every: int = 50,
) -> Iterator[dict[str, float]]:
    """Train, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    config : FlowTrainingConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the averaged weights ``shapes-flow.safetensors`` (float16).
    resources : Resources, optional
        By default this process on the CPU.
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Returns
    -------
    iterator of dict
        Iteration, loss (squared error of the velocity) and iterations per second.
    """
    return train(
        _FlowMatching(config),
        config,
        directory,
        resources=resources,
        checkpoint_every=checkpoint_every,
        report_every=report_every,
    )


@torch.inference_mode()
def draw_flow(
    network: FlowTransformer,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 50,
    guidance: float = 3.0,
    advance: Callable[[int], None] = lambda samples: None,
) -> NDArray[np.float32]:
    """Follow the flow from noise to images by Euler's method, with classifier-free guidance.

    Parameters
    ----------
    network : FlowTransformer
    prompts : sequence of str
    seeds : sequence of int
        Of the noise, one per prompt.
    steps : int
        Of equal length in t.
    guidance : float
        Scale; 1 is without guidance.
    advance : callable
        Told the number of samples after every step.

    Returns
    -------
    ndarray of float32, (sample, channel, y, x)
        Images in [0, 1].
    """
    place, config = device_of(network), network.config
    shape = (config.channels, config.image_size, config.image_size)
    x = torch.from_numpy(initial_noise(seeds, shape)).to(place)
    tokens = torch.from_numpy(tokenize([*prompts, *[""] * len(prompts)])[0]).to(place)
    pooled, sequence = network.encode_text(tokens, tokens > 0)
    for t in np.arange(steps, 0, -1) / steps:
        times = torch.full((2 * len(x),), float(t), device=place)
        conditional, unconditional = network(torch.cat([x, x]), times, pooled, sequence).chunk(2)
        x = x - (unconditional + guidance * (conditional - unconditional)) / steps
        advance(len(x))
    images: NDArray[np.float32] = ((x.clamp(-1, 1) + 1) / 2).cpu().numpy()
    return images
