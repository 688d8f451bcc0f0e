"""Running a plan into a results store, with progress shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causalunet.execute.runner import Runner
from causalunet.models.base import DiffusionModel
from causalunet.plan import Plan
from causalunet.progress import show_progress
from causalunet.results.location import Location

__all__ = ["run_plan"]


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
        Show how far it is.

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
    with show_progress("U-Net calls", missing, shown=progress and missing != 0) as shown:
        runner.advance, runner.say = shown.advance, shown.say
        runner.fill()
    runner.warn_of_failures()
    runner.warn_of_noise()
