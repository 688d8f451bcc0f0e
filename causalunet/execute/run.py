"""Running a plan into a results store, with progress shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from causalunet.execute.runner import Runner
from causalunet.models.base import DiffusionModel
from causalunet.plan import Plan
from causalunet.results.location import Location

__all__ = ["call_progress", "run_plan"]


def run_plan(
    plan: Plan,
    model: DiffusionModel,
    path: str | Path | Location,
    *,
    memory: int,
    overwrite: bool = False,
    retry_failed: bool = False,
    source: dict[str, Any] | None = None,
    progress: bool = True,
) -> None:
    """Run what is not in the store yet.

    Parameters
    ----------
    plan : Plan
    model : DiffusionModel
    path, memory, overwrite, retry_failed, source
        As for `Runner`.
    progress : bool
        Show a progress bar on the terminal.

    Raises
    ------
    StoreError
        The path holds something else than this study.
    StorageError, WriteConflictError
        The store could not be written; what was committed stays.
    FiringError
        An intervention did not fire as often as declared.
    MemoryExhaustedError
        Not even one sample fits into memory.
    """
    runner = Runner(plan, model, path, memory=memory, overwrite=overwrite, retry_failed=retry_failed, source=source)
    missing = runner.unet_calls_missing()
    with call_progress(missing, progress and missing != 0) as (advance, say):
        runner.advance, runner.say = advance, say
        runner.fill()
    runner.warn_of_failures()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """U-Net calls per second."""
        return Text(f"{task.speed:.1f} calls/s" if task.speed else "- calls/s")


@contextmanager
def call_progress(calls: int | None, shown: bool) -> Iterator[Any]:
    """Progress bar over U-Net calls, whose number may be unknown.

    Gives what is to be told the calls done, and what is to be told in words.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    # Without ipywidgets rich warns in a notebook and shows nothing; as plain text the bar comes once, at the end.
    console = Console(force_jupyter=None if find_spec("ipywidgets") else False)
    with Progress(*columns, console=console, disable=not shown) as bar:
        task = bar.add_task("U-Net calls", total=calls)
        yield lambda n: bar.advance(task, n), bar.console.print if shown else None
