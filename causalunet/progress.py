"""Progress of what takes long: a bar on a terminal, one line that renews itself in a notebook, else a line at times."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

__all__ = ["LINE_EVERY", "Progress", "show_progress", "what_stays"]

LINE_EVERY = 10.0
"""Seconds between two lines where there is neither a terminal nor a notebook."""
_CELL_EVERY = 0.5
_LEAST_WAIT = 0.01


class Progress:
    """What is done of a number of things; this one is silent, those derived from it show it.

    Attributes
    ----------
    what : str
        Name of the things, such as "U-Net calls".
    total : int or None
        How many there are; None if that is not known.
    done : int
    """

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done = what, total, 0
        self._started = self._told = monotonic()

    def advance(self, number: int) -> None:
        """Note that more of them are done."""
        self.done += number

    def say(self, text: str) -> None:
        """Show a sentence, apart from the progress."""

    def close(self) -> None:
        """Show how far it went. Nothing of it depends on the machine's speed, so that documents come out the same."""

    def _due(self, seconds: float) -> bool:
        """Whether it is time to show something again."""
        now = monotonic()
        if now - self._told < seconds:
            return False
        self._told = now
        return True

    @property
    def _count(self) -> str:
        return f"{self.what}: {self.done:,}" + ("" if self.total is None else f" of {self.total:,}")

    @property
    def _line(self) -> str:
        """How far it is, how fast, and how long it may take."""
        rate = self.done / max(monotonic() - self._started, 1e-9)
        left = "" if self.total is None or not rate else f", {_span((self.total - self.done) / rate)} left"
        return f"{self._count}, {rate:,.1f} per second{left}"


class _Lines(Progress):
    """For pipes and log files: few lines, of which none rewrites another."""

    def __init__(self, what: str, total: int | None, stream: TextIO | None) -> None:
        super().__init__(what, total)
        self._stream = stream
        self._telling, self._ended = threading.Lock(), threading.Event()
        self._watch = threading.Thread(target=self._keep_telling, name="causalunet-progress", daemon=True)
        self._watch.start()

    def advance(self, number: int) -> None:
        super().advance(number)
        self._tell()

    def say(self, text: str) -> None:
        _write(self._stream, text)

    def close(self) -> None:
        self._ended.set()
        self._watch.join()
        self.say(self._count)

    def _tell(self) -> None:
        with self._telling:
            if self._due(LINE_EVERY):
                self.say(self._line)

    def _keep_telling(self) -> None:
        """Tell during a call of the U-Net that takes long, too, and while another process is waited for."""
        while not self._ended.wait(max(_LEAST_WAIT, self._told + LINE_EVERY - monotonic())):
            with suppress(OSError, ValueError):  # of a stream that is closed: whoever writes next is told
                self._tell()


class _Cell(Progress):
    """For notebooks: an output that is replaced, of which a stored notebook has the last state only."""

    def __init__(self, what: str, total: int | None, stream: TextIO | None) -> None:
        super().__init__(what, total)
        self._stream = stream
        from IPython.display import display

        self._output: Any = display({"text/plain": self._count}, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def advance(self, number: int) -> None:
        super().advance(number)
        if self._due(_CELL_EVERY):
            self._output.update({"text/plain": self._line}, raw=True)

    def say(self, text: str) -> None:
        _write(self._stream, text)

    def close(self) -> None:
        self._output.update({"text/plain": self._count}, raw=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Things per second."""
        return Text(f"{task.speed:.1f} per second" if task.speed else "- per second")


class _Terminal(Progress):
    """For terminals: a bar that is redrawn in place."""

    def __init__(self, what: str, total: int | None, stream: TextIO) -> None:
        super().__init__(what, total)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        self._bars = Bars(*columns, console=Console(file=stream, force_jupyter=False, force_terminal=True))
        self._task = self._bars.add_task(what, total=total)
        self._bars.start()

    def advance(self, number: int) -> None:
        super().advance(number)
        self._bars.advance(self._task, number)

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._bars.stop()


@contextmanager
def show_progress(what: str, total: int | None, *, shown: bool = True, stderr: bool = False) -> Iterator[Progress]:
    """Show how much of something is done, as fits the place where it is seen.

    Parameters
    ----------
    what : str
        Name of the things that are counted, such as "U-Net calls".
    total : int, optional
        How many there are.
    shown : bool
        Whether to show anything.
    stderr : bool
        Show it on standard error.

    Yields
    ------
    Progress
        Told of what is done by `Progress.advance`; `Progress.say` works afterwards too.
    """
    showing = _chosen(what, total, sys.stderr if stderr else sys.stdout) if shown else Progress(what, total)
    try:
        yield showing
    finally:
        showing.close()


def what_stays(stopped: KeyboardInterrupt) -> str:
    """What a run noted with an interrupt: how many cells are committed, and where."""
    return "; ".join(getattr(stopped, "__notes__", ())) or "What was committed stays"


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:  # Python has none where standard output was closed before it began
        stream.write(f"{text}\n")
        stream.flush()


def _chosen(what: str, total: int | None, stream: TextIO | None) -> Progress:
    # Not rich's own choice: it takes FORCE_COLOR, which notebooks set for themselves and for what they start, for a
    # terminal, and every bar that it draws there stays.
    if _in_notebook():
        return _Cell(what, total, stream)
    if stream is not None and stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        return _Terminal(what, total, stream)
    return _Lines(what, total, stream)


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; a process that one started is none."""
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
