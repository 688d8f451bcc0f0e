"""The training loop that every shipped network shares: resumable, reproducible, whole files only."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from causalunet.errors import SpecError
from causalunet.models.checkpoints import file_digest, load_weights, read_weights
from causalunet.models.devices import usable_device
from causalunet.training.batches import Batch, Draw, batches
from causalunet.training.steps import CapturedStep, PlainStep

__all__ = ["LoopConfig", "Resources", "Task", "train"]

_TYPES = {"bfloat16": torch.bfloat16, "float32": None}


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
    begin_with : str, optional
        Weights file to begin with instead of drawn weights, such as what a shorter run made. The optimiser is new.
    autocast : str, optional
        ``bfloat16``: convolutions and matrix products in that type, while weights, their average and the optimiser stay
        float32 (`torch.autocast`). ``float32``, and by default: all of it.

    Raises
    ------
    SpecError
        There is no such type to compute in.
    """

    iterations: int
    batch_size: int
    learning_rate: float
    warmup: int
    decay: int
    ema: float = 0.0
    seed: int = 0
    begin_with: str | None = None
    autocast: str | None = None

    def __post_init__(self) -> None:
        if self.autocast not in (None, *_TYPES):
            raise SpecError(f"autocast is one of {', '.join(_TYPES)}, or left out; got {self.autocast!r}.")

    def rate(self, iteration: int) -> float:
        """Learning rate at an iteration, from 0."""
        rise = (iteration + 1) / self.warmup
        fall = (self.iterations - iteration) / self.decay
        return self.learning_rate * max(0.0, min(1.0, rise, fall))

    def average_decay(self, iteration: int) -> float:
        """Decay of the average after an iteration: shorter memory at the start."""
        return min(self.ema, (1 + iteration) / (10 + iteration))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Where a training runs, and for how long; batches do not depend on it.

    Parameters
    ----------
    device : str
        Such as ``cuda``.
    workers : int
        Processes that draw batches ahead; 0 draws them in between.
    minutes : float, optional
        Wall-clock time, start-up included, instead of a number of iterations: as many are run as fit, and the rate
        falls during the last quarter. Both numbers are kept with the weights, and make the same run again.
    captured : bool
        On a GPU, replay the step as a CUDA graph.

    Raises
    ------
    SpecError
        There are fewer than no workers, or there is no time.
    """

    device: str = "cpu"
    workers: int = 0
    minutes: float | None = None
    captured: bool = True

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise SpecError(f"workers is a number of processes, 0 or more; got {self.workers}.")
        if self.minutes is not None and not self.minutes > 0:
            raise SpecError(f"minutes is a length of time, above 0; got {self.minutes}.")


class Task(Protocol):
    """A network and what it is to learn."""

    @property
    def name(self) -> str:
        """Of the weights file."""
        ...

    @property
    def network(self) -> nn.Module:
        """What is trained; `train` moves it to the device."""
        ...

    @property
    def draw(self) -> Draw:
        """Draws batches."""
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss to be minimised and numbers to report, as scalars on the device of the batch."""
        ...


class _Run:
    """Network, average and optimiser of a training run, with its checkpoint."""

    def __init__(
        self, task: Task, config: LoopConfig, directory: Path, resources: Resources, pretrained: Path | None = None
    ) -> None:
        self.task, self.config = task, config
        self.device = usable_device(resources.device)
        self.checkpoint = directory / "checkpoint.pt"
        self.weights = directory / f"{task.name}.safetensors"
        on_gpu = self.device.type == "cuda"
        captured = on_gpu and resources.captured
        self._began_with: str | None = None
        if config.begin_with is not None:
            first = Path(config.begin_with)
            self._began_with = file_digest(first)  # its place says nothing to whoever reads the weights
            load_weights(task.network, read_weights(first), str(first))
        if pretrained is not None:
            known = task.network.state_dict()
            of_stage = {name: value for name, value in read_weights(pretrained).items() if name in known}
            task.network.load_state_dict({**known, **of_stage})
        task.network.to(self.device)
        self.average = {name: value.detach().clone() for name, value in task.network.state_dict().items()}
        # A captured step is told another rate through a tensor only.
        self.optimizer = torch.optim.AdamW(
            task.network.parameters(),
            lr=torch.zeros((), device=self.device) if on_gpu else 0.0,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            capturable=captured,
            fused=True,
        )
        kind = CapturedStep if captured else PlainStep
        self._take = kind(task.network, self.optimizer, self._loss)
        self._current = list(task.network.state_dict().values())
        self._totals: dict[str, Tensor] = {}
        self.iteration = self._counted = 0

    def _loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The task's loss, in the type asked for; a captured step cannot have casts that are kept between steps."""
        narrow = _TYPES[self.config.autocast or "float32"]
        if narrow is None:
            return self.task.loss(batch)
        with torch.autocast(self.device.type, narrow, cache_enabled=False):
            return self.task.loss(batch)

    def step(self, batch: Batch) -> None:
        """One optimiser step; nothing in it waits for the device."""
        rate = self.config.rate(self.iteration)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        numbers = self._take(batch)
        self.iteration += 1
        decay = self.config.average_decay(self.iteration)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), self._current, 1 - decay)
            for name, value in numbers.items():
                if name not in self._totals:
                    self._totals[name] = torch.zeros((), dtype=torch.float64, device=self.device)
                self._totals[name] += value
        self._counted += 1

    def means(self) -> dict[str, float]:
        """Means of what was reported since the last call."""
        means = {name: total.item() / self._counted for name, total in self._totals.items()}
        self._totals, self._counted = {}, 0
        return means

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
        weights = {name: value.to("cpu", torch.float16).contiguous() for name, value in self.average.items()}
        told = asdict(self.config) | {"iteration": self.iteration, "begin_with": self._began_with}
        # What was not given is left out, as in weights of before there was such a choice.
        metadata = {"training": json.dumps({name: value for name, value in told.items() if value is not None})}
        save_file(weights, partial, metadata=metadata)
        partial.chmod(0o644)
        partial.replace(self.weights)

    def load(self) -> None:
        """Go on from the checkpoint, whatever device it was written on."""
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        self.iteration = state["iteration"]
        self.task.network.load_state_dict(state["model"])
        self.average = state["average"]
        # The moments are those of the run; the options are this device's.
        stored = {**state["optimizer"], "param_groups": self.optimizer.state_dict()["param_groups"]}
        self.optimizer.load_state_dict(stored)


def train(
    task: Task,
    config: LoopConfig,
    directory: Path,
    *,
    resources: Resources | None = None,
    pretrained: Path | None = None,
    checkpoint_every: int = 250,
    report_every: int = 50,
) -> Iterator[dict[str, float]]:
    """Train, going on from the directory's checkpoint if there is one.

    Parameters
    ----------
    task : Task
    config : LoopConfig
    directory : Path
        Receives ``checkpoint.pt``, ``log.jsonl`` and the weights ``<name>.safetensors`` (float16).
    resources : Resources, optional
        By default this process on the CPU.
    pretrained : Path, optional
        Weights of parts that an earlier stage has trained, put over those that the network begins with.
    checkpoint_every, report_every : int
        Iterations between checkpoints and between records.

    Yields
    ------
    dict
        Iteration, means of the reported numbers since the last record, and iterations per second.

    Raises
    ------
    ModelError
        The device is not there, or PyTorch cannot use it.
    CheckpointError
        The weights to begin with are not there, or are another network's.
    """
    resources = resources or Resources()
    begun = time.perf_counter()
    run = _Run(task, config, directory, resources, pretrained)
    directory.mkdir(parents=True, exist_ok=True)
    if run.checkpoint.exists():
        run.load()
    if resources.minutes is not None:  # until the first fit, as if all of it were still to come
        run.config = replace(config, iterations=run.iteration + config.iterations)
    elif run.iteration >= config.iterations:
        return
    ends = itertools.count(run.iteration) if resources.minutes else range(run.iteration, config.iterations)
    drawn = batches(task.draw, config.seed, ends, workers=resources.workers, device=run.device)
    started, counted = time.perf_counter(), run.iteration
    for batch in drawn:
        run.step(batch)
        over = resources.minutes is not None and time.perf_counter() - begun >= 60 * resources.minutes
        last = over or run.iteration >= run.config.iterations
        if run.iteration % checkpoint_every == 0 or last:
            run.save()
        if run.iteration % report_every == 0 or last:
            means = run.means()
            rate = (run.iteration - counted) / (time.perf_counter() - started)
            record = {"iteration": run.iteration, **means, "per_second": rate}
            with (directory / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            yield record
            started, counted = time.perf_counter(), run.iteration
            if resources.minutes is not None:
                run.config = _fitted(run, 60 * resources.minutes - (started - begun), rate)
        if last:
            break


def _fitted(run: _Run, seconds: float, per_second: float) -> LoopConfig:
    """As many iterations as fit, the last quarter falling; once the rate falls, another length would make it jump."""
    config = run.config
    if run.iteration >= config.iterations - config.decay:
        return config
    length = run.iteration + max(1, int(0.97 * seconds * per_second))
    # Where the machine has become slower, the last quarter may have begun: what was run was run at the full rate.
    return replace(config, iterations=length, decay=min(max(1, length // 4), length - run.iteration))
