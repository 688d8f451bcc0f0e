"""Training of the embedded model ``scenes``, and the candidate worlds and trainings that it was chosen among."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from causalunet.errors import SpecError
from causalunet.models.checkpoints import load_weights, read_weights
from causalunet.models.embedded import small_unet
from causalunet.models.openai_layout import UNetConfig
from causalunet.models.vocabulary import SCENES_VOCABULARY
from causalunet.training.denoising import Denoising, DenoisingConfig, DrawNoisy
from causalunet.training.loop import Resources, train
from causalunet.training.scenes_text import DrawSaid, TextStage, keep_text, taught_for
from causalunet.worlds.groups import GroupWorld
from causalunet.worlds.painting import render

__all__ = ["CANDIDATES", "Candidate", "ScenesTrainingConfig", "candidate", "draw_batch", "train_scenes"]

_LEAST_MINUTES = 0.01


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
    """How ``scenes`` is trained; the defaults are those of the weights that ship, but for those that it began with.

    Parameters
    ----------
    candidate : str
        World and network, one of `CANDIDATES`.
    text_iterations : int
        Of a first stage, which teaches the text transformer alone, see `causalunet.training.scenes_text`; it is kept as
        it is from then on. With 0 there is none, and it learns with the rest.

    Raises
    ------
    SpecError
        There is no such candidate, or the first stage has less than no iteration.
    """

    iterations: int = 4500
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: int = 1400
    ema: float = 0.999
    autocast: str | None = "bfloat16"
    focus_from: int = 0
    prediction: Literal["eps", "v"] = "v"
    log_snr_shift: float = 3.7
    candidate: str = "free"
    text_iterations: int = 1000

    def __post_init__(self) -> None:
        DenoisingConfig.__post_init__(self)
        candidate(self.candidate)
        if self.text_iterations < 0:
            raise SpecError(f"text_iterations is a number of iterations, 0 or more; got {self.text_iterations}.")


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
    """Train text transformer, then the rest, or all at once; go on from the directory's checkpoints if there are some.

    Parameters
    ----------
    config : ScenesTrainingConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the averaged weights ``scenes.safetensors`` (float16), and those
        of the first stage in the folder ``text``.
    resources : Resources, optional
        By default this process on the CPU. A time is that of both stages.
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Yields
    ------
    dict
        Records of the first stage: iteration, loss, share of what prompts say that is told right, and iterations per
        second. Then of the second: squared error of the noise instead.
    """
    began, where, chosen = time.perf_counter(), resources or Resources(), candidate(config.candidate)
    task, pretrained = Denoising("scenes", chosen.unet, draw_batch(config), where.device), None
    often: dict[str, Any] = {"checkpoint_every": checkpoint_every, "report_every": report_every}
    if config.text_iterations:
        if config.begin_with is not None:
            load_weights(task.network, read_weights(Path(config.begin_with)), config.begin_with)
        first = taught_for(config.text_iterations, config.seed)
        stage = TextStage(task.network, DrawSaid(first, chosen.world))
        yield from train(stage, first, directory / "text", resources=replace(where, minutes=None), **often)
        pretrained = directory / "text" / f"{stage.name}.safetensors"
        keep_text(task.network)
    if where.minutes is not None:
        where = replace(where, minutes=max(where.minutes - (time.perf_counter() - began) / 60, _LEAST_MINUTES))
    yield from train(task, config, directory, resources=where, pretrained=pretrained, **often)
