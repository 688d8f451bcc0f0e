"""Training of the embedded model ``scenes``, and the candidate worlds and trainings that it was chosen among."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import SpecError
from causalunet.models.embedded import small_unet
from causalunet.models.openai_layout import UNetConfig
from causalunet.models.vocabulary import SCENES_VOCABULARY
from causalunet.training.denoising import Denoising, DenoisingConfig, DrawNoisy
from causalunet.training.loop import Resources, train
from causalunet.worlds.groups import GroupWorld
from causalunet.worlds.painting import render

__all__ = ["CANDIDATES", "Candidate", "ScenesTrainingConfig", "candidate", "draw_batch", "train_scenes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A world, and the network that learns it.

    Parameters
    ----------
    world : GroupWorld
    attention : tuple of int
        Sizes in pixels at which attention follows the residual block.
    """

    world: GroupWorld
    attention: tuple[int, ...] = (8, 4)

    @property
    def unet(self) -> UNetConfig:
        """The network's sizes."""
        return small_unet(SCENES_VOCABULARY, attention=self.attention)


CANDIDATES: Mapping[str, Candidate] = MappingProxyType(
    {
        "free": Candidate(world=GroupWorld()),
        "aligned": Candidate(world=GroupWorld(layout="aligned")),
        "mirrored": Candidate(world=GroupWorld(layout="mirrored")),
        "pairs": Candidate(world=GroupWorld(counts=False)),
        "told": Candidate(world=GroupWorld(drop=0.0)),
        "open": Candidate(world=GroupWorld(drop=0.5)),
        "bottom": Candidate(world=GroupWorld(), attention=(4,)),
    }
)
"""By name: places of the groups independent, the same, or opposite; no counts; prompts that say all, or half; attention
at the bottom of the U alone."""


def candidate(name: str) -> Candidate:
    """Find a candidate.

    Raises
    ------
    SpecError
        None has the name.
    """
    if name not in CANDIDATES:
        raise SpecError(f"No candidate is called {name!r}; there are {', '.join(CANDIDATES)}.")
    return CANDIDATES[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesTrainingConfig(DenoisingConfig):
    """How ``scenes`` is trained; the defaults are those of the weights that ship.

    Parameters
    ----------
    candidate : str
        World and network, one of `CANDIDATES`.

    Raises
    ------
    SpecError
        There is no such candidate.
    """

    iterations: int = 1706
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: int = 426
    ema: float = 0.999
    focus_from: int = 2500
    candidate: str = "free"

    def __post_init__(self) -> None:
        DenoisingConfig.__post_init__(self)
        candidate(self.candidate)


@dataclass(frozen=True)
class _Pictures:
    """Images of scenes that are not held out, and prompts that say some of them."""

    world: GroupWorld

    def __call__(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], Sequence[str]]:
        codes = self.world.draw(n, rng, only_held_out=False)
        return render(codes, rng), [said.prompt for said in self.world.describe(codes, rng)]


def draw_batch(config: ScenesTrainingConfig) -> DrawNoisy:
    """What draws the batches of a run: scenes of the candidate's world that are not held out."""
    return DrawNoisy(config, _Pictures(candidate(config.candidate).world), SCENES_VOCABULARY)


def train_scenes(
    config: ScenesTrainingConfig,
    directory: Path,
    *,
    resources: Resources | None = None,
    checkpoint_every: int = 250,
    report_every: int = 50,
) -> Iterator[dict[str, float]]:
    """Train, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    config : ScenesTrainingConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the averaged weights ``scenes.safetensors`` (float16).
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
    task = Denoising("scenes", candidate(config.candidate).unet, draw_batch(config), where.device)
    return train(task, config, directory, resources=where, checkpoint_every=checkpoint_every, report_every=report_every)
