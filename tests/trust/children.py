"""Processes that run the small study, and a log of what they began and what they were told is committed."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.trust import small

Cell = tuple[int, int]
"""Intervention and sample; -1 for the baseline."""


class Log:
    """Lines of JSON that outlive the process that writes them: each is one write to the system, in the order of all.

    Parameters
    ----------
    path : Path
        Shared by all processes that work on a store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(self, event: str, cells: list[Cell] | None = None, **more: Any) -> None:
        """Add a line."""
        line = {"pid": os.getpid(), "at": time.time(), "event": event, "cells": cells or [], **more}
        os.write(self._open, (json.dumps(line) + "\n").encode())

    def close(self) -> None:
        """Let the file go."""
        os.close(self._open)


def read_log(path: Path) -> list[dict[str, Any]]:
    """All events so far."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{**line, "cells": [tuple(cell) for cell in line["cells"]]} for line in lines]


@cache
def context() -> Any:
    """Children are forked from a server that has never used storage: forking its threads would not be safe."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["tests.trust.warm"])
    return made


@dataclass
class Child:
    """A process that runs the study.

    Attributes
    ----------
    process : Process
    started : float
    """

    process: BaseProcess
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, store: Path | str, log: Path, *, together: int = 1) -> Child:
        """Start one; it begins with its first cell when so many have opened the store."""
        process = context().Process(target=run_logged, args=(str(store), str(log), dict(os.environ), together))
        process.start()
        return cls(process)

    @property
    def number(self) -> int:
        """Of the process."""
        return int(self.process.pid or 0)

    def kill_after(self, seconds: float) -> bool:
        """Kill it some time after its start; False if it has ended by itself before."""
        self.process.join(max(0.0, self.started + seconds - time.monotonic()))
        self.process.kill()
        return self.ended() != 0

    def ended(self) -> int:
        """Wait for its end.

        Raises
        ------
        AssertionError
            It failed, and was not killed.
        """
        self.process.join()
        code = self.process.exitcode
        assert code in (0, -9), f"a run ended with exit code {code}; its error is on stderr"
        return int(code)


def warm_up() -> None:
    """Wait until the server that children are forked from has imported everything."""
    first = context().Process(target=small.model)
    first.start()
    first.join()


def run_logged(store: str, log: str, environment: dict[str, str], together: int) -> None:
    """Run the study, as a child."""
    import torch

    os.environ.update(environment)  # the server that this is forked from may be older than a change
    torch.set_num_threads(1)
    small.in_small_groups()
    say = Log(Path(log)).say
    say("start")

    def ready() -> None:
        say("ready")
        while sum(line["event"] == "ready" for line in read_log(Path(log))) < together:
            time.sleep(0.01)

    _watch(say, ready)
    with warnings.catch_warnings(record=True, action="always") as warned:
        small.run(store)
    for warning in warned:
        say("warning", kind=warning.category.__name__, text=str(warning.message))
    say("end")


def _watch(say: Callable[..., None], ready: Callable[[], None]) -> None:
    """Log each part before it runs, and each commit before and after."""
    from causalunet.execute.fill.parts import Part
    from causalunet.execute.fill.store_filler import StoreFiller
    from causalunet.results.engine.writer import StudyWriter

    run, commit, begin = StoreFiller._run, StudyWriter.commit, StoreFiller.__init__
    current: list[Cell] = []

    def begun(runner: StoreFiller, *arguments: Any, **options: Any) -> None:
        begin(runner, *arguments, **options)
        ready()

    def running(runner: StoreFiller, part: Part) -> None:
        cells = [(run, sample) for run in part.runs for sample in range(part.samples.start, part.samples.stop)]
        say("begin", cells)
        run(runner, part)
        current.extend(cells)

    def committing(writer: StudyWriter, message: str, added: Any) -> None:
        cells = list(current)
        current.clear()  # all that was run since the last commit, whether this one is taken or refused
        say("commit", cells)
        commit(writer, message, added)
        say("committed", cells)

    StoreFiller.__init__, StoreFiller._run, StudyWriter.commit = begun, running, committing  # type: ignore[method-assign]


def stop(children: list[Child]) -> None:
    """End what a failed test left running."""
    for child in children:
        with suppress(AssertionError):
            child.process.kill()
            child.ended()
