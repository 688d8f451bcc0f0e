"""Running a plan into a results store, with progress shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from causalunet.errors import CausalUNetError
from causalunet.execute.fill.store_filler import StoreFiller
from causalunet.execute.measure.outcomes import measure_outcomes
from causalunet.plan import Plan
from causalunet.progress import show_progress
from causalunet.results.engine.location import Location

__all__ = ["run_plan", "told_what_is_safe"]


@contextmanager
def told_what_is_safe(runner: StoreFiller) -> Iterator[None]:
    """Note with a `KeyboardInterrupt` how much is committed; tracebacks show it, and the command line."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        with suppress(CausalUNetError):
            stopped.add_note(runner.safe())
        raise


def run_plan(
    plan: Plan,
    path: str | Path | Location,
    *,
    memory: int | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    source: dict[str, Any] | None = None,
    progress: bool = True,
    shares: int = 1,
    shard: tuple[int, int] | None = None,
    fill: Callable[[StoreFiller], None] = StoreFiller.fill,
) -> None:
    """Run what is not in the store yet.

    Parameters
    ----------
    plan : Plan
    path, memory, overwrite, retry_failed, source
        As for `StoreFiller`.
    progress : bool
        Show how far it is.
    shares, shard
        As for `StoreFiller`.
    fill : callable
        What fills the store; by default this process.

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
    KeyboardInterrupt
        With a note that says how much is committed.
    """
    runner = StoreFiller(
        plan,
        path,
        memory=memory,
        overwrite=overwrite,
        retry_failed=retry_failed,
        source=source,
        shares=shares,
        shard=shard,
    )
    missing = runner.unet_calls_missing()
    with show_progress("U-Net calls", missing, shown=progress and missing != 0) as shown:
        runner.advance, runner.say = shown.advance, shown.say
        with told_what_is_safe(runner):
            fill(runner)
    measure_outcomes(runner.writer, plan.spec.outcomes, plan.bound.model)
    runner.warn_of_failures()
    runner.warn_of_noise()
