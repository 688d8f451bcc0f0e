"""Running a plan into a results store: blocks of samples in turn, progress shown, finished blocks never run again."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from causalunet.errors import StoreError
from causalunet.execute.batches import micro_batch_size, samples_per_block
from causalunet.execute.lockstep import Block, check_fired, run_block
from causalunet.execute.recorder import Recorder
from causalunet.execute.trace import TracedUNet
from causalunet.metrics import SSIM_DEFINITION
from causalunet.models.base import DiffusionModel
from causalunet.plan import Plan
from causalunet.results.layout import Layout
from causalunet.results.store import StudyWriter, remove_store, store_attributes

__all__ = ["blocks", "call_progress", "open_writer", "run_plan"]


def run_plan(
    plan: Plan, model: DiffusionModel, path: Path, *, memory: int, overwrite: bool = False, progress: bool = True
) -> None:
    """Run what is not in the store yet.

    Parameters
    ----------
    plan : Plan
    model : DiffusionModel
    path : Path
        Results store: made if absent, gone on with if it holds the same study.
    memory : int
        Budget in bytes for the activations of a call, and again for the states of a block.
    overwrite : bool
        Replace a store that holds another study.
    progress : bool
        Show a progress bar on the terminal.

    Raises
    ------
    StoreError
        The path holds something else than this study.
    FiringError
        An intervention did not fire as often as declared.
    """
    micro_batch = micro_batch_size(model.anatomy, memory, plan.spec.sampler.rows_per_sample)
    writer, layout = open_writer(plan, model, path, micro_batch, memory, overwrite)
    pending = [block for block in blocks(plan, layout.block) if not writer.completed()[block.start]]
    unet = TracedUNet(model.unet, model.anatomy)
    started = time.perf_counter()
    calls = len(plan.calls) * sum(len(block.seeds) for block in pending)
    with call_progress(calls, progress) as advance:
        for block in pending:
            recorder = Recorder(model, plan, layout, writer, block)
            fired = run_block(model, unet, plan, block, micro_batch=micro_batch, observer=recorder, advance=advance)
            check_fired(plan, fired, len(block.seeds))
            recorder.write_outcomes()
    if pending:
        writer.finish({"seconds": round(time.perf_counter() - started, 3), "unet_calls_run": calls})


def open_writer(
    plan: Plan, model: DiffusionModel, path: Path, micro_batch: int, memory: int, overwrite: bool
) -> tuple[StudyWriter, Layout]:
    """Make the store of a plan, or go on with the one at the path if it holds the same study."""
    factors = dict(model.factors)
    if path.exists():
        stored = store_attributes(path)
        same = stored["digest"] == plan.spec.digest and stored["model_fingerprint"] == model.fingerprint
        if same:
            return StudyWriter.resume(path), Layout(plan, factors, stored["block"])
        if not overwrite:
            raise StoreError(
                f"{path} holds another study: {_difference(plan, model, stored)}. "
                "Run into another path, or replace it with overwrite=True."
            )
        remove_store(path)
    layout = Layout(plan, factors, samples_per_block(plan, memory, micro_batch))
    return StudyWriter.create(path, layout, _provenance(plan, model)), layout


def _difference(plan: Plan, model: DiffusionModel, stored: dict[str, Any]) -> str:
    """Name the parts of the study that differ from the stored one."""
    asked = plan.spec.to_json()
    parts = [name for name in asked if asked[name] != stored["study"].get(name)]
    if stored["model_fingerprint"] != model.fingerprint:
        parts.append("weights of the model")
    return f"{', '.join(parts)} differ{'s' if len(parts) == 1 else ''}"


def _provenance(plan: Plan, model: DiffusionModel) -> dict[str, Any]:
    return {
        "study": plan.spec.to_json(),
        "digest": plan.spec.digest,
        "model_fingerprint": model.fingerprint,
        "model_flops": model.anatomy.flops,
        "factors": {name: list(values) for name, values in model.factors.items()},
        "ssim": SSIM_DEFINITION,
        "unet_calls_planned": plan.unet_calls,
        "unet_calls_naive": plan.naive_calls,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("causalunet", "torch", "nnsight", "numpy", "xarray", "zarr")},
        },
        "threads": torch.get_num_threads(),
    }


def blocks(plan: Plan, size: int) -> Iterator[Block]:
    """Samples of a plan, in blocks of a size."""
    samples = plan.spec.samples
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        yield Block(start, tuple(sample.prompt for sample in part), tuple(sample.seed for sample in part))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """U-Net calls per second."""
        return Text(f"{task.speed:.1f} calls/s" if task.speed else "- calls/s")


@contextmanager
def call_progress(calls: int | None, shown: bool) -> Iterator[Any]:
    """Progress bar over U-Net calls, whose number may be unknown; gives what is to be told the calls done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("U-Net calls", total=calls)
        yield lambda n: bar.advance(task, n)
