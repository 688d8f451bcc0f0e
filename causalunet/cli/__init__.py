"""The command ``causalunet``: run studies, go on with them, look at, check and pass on what is stored.

Nothing is imported here that takes long, so that Ctrl-C is answered from the beginning on.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from causalunet.cli.exits import Exit

__all__ = ["command", "main"]


def command() -> NoReturn:
    """Be the process of a command: run it and end with its exit status, whatever the interpreter does at its end.

    Threads are waited for, hooks of `atexit` run and streams are flushed, as at every end. Then the process ends, and
    the interpreter is not torn down: the storage engine has threads of its own, and one that comes back to Python in
    that moment would abort the process (https://docs.python.org/3/c-api/init.html#cautions-regarding-runtime-finalization).
    """
    status = [int(Exit.ERROR)]
    atexit.register(_leave, status, os.getpid())  # the first to be registered, and so the last to be called
    status[0] = main()
    sys.exit(status[0])


def _leave(status: list[int], process: int) -> None:
    if os.getpid() != process:  # a child that a study's script forked has an exit status of its own
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(status[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        Exit status, see `Exit`. Errors are told in one line; `SystemExit` is not raised, not even by ``--help``.
    """
    if arguments is not None:
        from causalunet.cli.commands import give

        return give(arguments)
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with _interrupted_at_once():
        from causalunet.cli.commands import give
    return give(sys.argv[1:])


def _open_what_is_closed() -> None:
    """Let standard streams that were closed lead nowhere.

    Otherwise the next file that is opened, maybe one of a store, gets their number, and what libraries print is written
    into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # a file gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open to the end


@contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """End the process on Ctrl-C while modules are read: some catch whatever is raised then, and nothing is done yet."""

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(2, b"causalunet: interrupted before anything was done.\n")
        os._exit(Exit.INTERRUPTED)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
