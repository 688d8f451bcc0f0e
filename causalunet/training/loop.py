"""The training loop that every shipped network shares: resumable, reproducible, whole files only."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = ["LoopConfig", "Task", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Length and rate of a training run.

    The rate is constant but for the warm-up and the last ``decay`` iterations, so that a stopped run may go on with
    another length.

    Parameters
    ----------
    iterations : int
        Length of the run.
    batch_size : int
    learning_rate : float
        Of AdamW, after the warm-up.
    warmup, decay : int
        Iterations of the linear rise and of the linear fall to zero.
    ema : float
        Decay of the exponential moving average of the weights, which is what ships; 0 ships the last weights.
    seed : int
    """

    iterations: int
    batch_size: int
    learning_rate: float
    warmup: int
    decay: int
    ema: float = 0.0
    seed: int = 0

    def rate(self, iteration: int) -> float:
        """Learning rate at an iteration, from 0."""
        rise = (iteration + 1) / self.warmup
        fall = (self.iterations - iteration) / self.decay
        return self.learning_rate * max(0.0, min(1.0, rise, fall))

    def average_decay(self, iteration: int) -> float:
        """Decay of the average after an iteration: shorter memory at the start."""
        return min(self.ema, (1 + iteration) / (10 + iteration))


class Task(Protocol):
    """A network and what it is to learn."""

    @property
    def name(self) -> str:
        """Of the weights file."""
        ...

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def loss(self, iteration: int, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        """Draw a batch, all of it from ``rng``; return the loss to be minimised and numbers to report."""
        ...


class _Run:
    """Network, average and optimiser of a training run, with its checkpoint."""

    def __init__(self, task: Task, config: LoopConfig, directory: Path) -> None:
        self.task, self.config = task, config
        self.checkpoint = directory / "checkpoint.pt"
        self.weights = directory / f"{task.name}.safetensors"
        self.average = {name: value.detach().clone() for name, value in task.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(task.network.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
        self.iteration = 0

    def step(self) -> dict[str, float]:
        """One optimiser step; everything random in it is a function of (seed, iteration)."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.iteration)
        loss, numbers = self.task.loss(self.iteration, np.random.default_rng((self.config.seed, self.iteration)))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.task.network.parameters(), 1.0)
        self.optimizer.step()
        self.iteration += 1
        decay = self.config.average_decay(self.iteration)
        with torch.no_grad():
            for name, value in self.task.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return {"loss": loss.item(), **numbers}

    def save(self) -> None:
        """Write checkpoint and weights, each whole or not at all."""
        state: dict[str, Any] = {
            "iteration": self.iteration,
            "model": self.task.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
        weights = {name: value.to(torch.float16).contiguous() for name, value in self.average.items()}
        metadata = {"training": json.dumps(asdict(self.config) | {"iteration": self.iteration})}
        save_file(weights, partial, metadata=metadata)
        partial.chmod(0o644)
        partial.replace(self.weights)

    def load(self) -> None:
        """Go on from the checkpoint."""
        state = torch.load(self.checkpoint, weights_only=True)
        self.iteration = state["iteration"]
        self.task.network.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])


def train(
    task: Task, config: LoopConfig, directory: Path, *, checkpoint_every: int = 250, report_every: int = 50
) -> Iterator[dict[str, float]]:
    """Train, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    task : Task
    config : LoopConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the weights ``<name>.safetensors`` (float16).
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Yields
    ------
    dict
        Iteration, means of the reported numbers since the last record, and iterations per second.
    """
    directory.mkdir(parents=True, exist_ok=True)
    run = _Run(task, config, directory)
    if run.checkpoint.exists():
        run.load()
    numbers: list[dict[str, float]] = []
    started = time.perf_counter()
    while run.iteration < config.iterations:
        numbers.append(run.step())
        last = run.iteration == config.iterations
        if run.iteration % checkpoint_every == 0 or last:
            run.save()
        if run.iteration % report_every == 0 or last:
            means = {name: float(np.mean([entry[name] for entry in numbers])) for name in numbers[0]}
            rate = len(numbers) / (time.perf_counter() - started)
            record = {"iteration": run.iteration, **means, "per_second": rate}
            with (directory / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            yield record
            numbers, started = [], time.perf_counter()
