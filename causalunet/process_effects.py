"""What this package changes for the whole process it runs in, and how to keep it from doing so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from causalunet.errors import SpecError

__all__ = ["EFFECTS", "LEAVE_ALONE", "Effect", "backtrace_kept", "left_alone"]

LEAVE_ALONE = "CAUSALUNET_LEAVE_ALONE"
"""Environment variable: names of effects that are not wanted, separated by commas, or ``all``."""

_ALL = "all"
_BY_DASK = {"MALLOC_TRIM_THRESHOLD_": "65536"}
"""What a nanny of dask sets for its workers, and in its own process, when nobody has asked for anything."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that holds for the whole process once it is done.

    Attributes
    ----------
    name : str
    what : str
    own : tuple of (str, str)
        Environment variables by which the changed library is set itself: the name of each, and what its value must
        contain. Whoever has set one has decided.
    """

    name: str
    what: str
    own: tuple[tuple[str, str], ...]


EFFECTS = {
    effect.name: effect
    for effect in (
        Effect(
            "malloc",
            "glibc keeps freed memory for the next tensor",
            (("MALLOC_MMAP_THRESHOLD_", ""), ("MALLOC_TRIM_THRESHOLD_", ""), ("GLIBC_TUNABLES", "glibc.malloc.")),
        ),
        Effect("icechunk-logs", "icechunk writes no log lines to stdout", (("ICECHUNK_LOG", ""),)),
        Effect(
            "nnsight-backtrace",
            "nnsight leaves glibc's backtrace() as it is",
            (("NNSIGHT_DISABLE_CPP_BACKTRACE", ""),),
        ),
    )
}
"""All of them, by name."""


def left_alone(name: str) -> bool:
    """Whether an effect is not wanted in this process.

    Raises
    ------
    SpecError
        The environment variable names something that is no effect.
    """
    asked = {part.strip() for part in os.environ.get(LEAVE_ALONE, "").split(",")} - {""}
    if unknown := asked - {*EFFECTS, _ALL}:
        raise SpecError(
            f"{LEAVE_ALONE} names {', '.join(sorted(unknown))!r}, which this package does not change. "
            f"There are {', '.join(EFFECTS)}, and {_ALL}."
        )
    decided = any(
        text in os.environ[variable]
        for variable, text in EFFECTS[name].own
        if os.environ.get(variable) not in (None, _BY_DASK.get(variable))
    )
    return decided or bool(asked & {name, _ALL})


@contextmanager
def backtrace_kept() -> Iterator[None]:
    """Import nnsight in here: it then leaves glibc's ``backtrace()`` as it is, unless that is not wanted.

    nnsight reads its environment variable once, when it is first imported, so the environment is as it was afterwards.
    """
    if left_alone("nnsight-backtrace"):
        yield
        return
    os.environ["NNSIGHT_DISABLE_CPP_BACKTRACE"] = "0"
    try:
        yield
    finally:
        del os.environ["NNSIGHT_DISABLE_CPP_BACKTRACE"]
