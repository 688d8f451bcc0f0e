"""A process that was forked after its parent had opened a store cannot read one: the storage engine's threads are gone.

They are not started again in the child, which would wait for them for ever.
"""

from __future__ import annotations

import os

from causalunet.errors import StorageError
from causalunet.results.engine.location import Location

__all__ = ["begin_in_this_process", "check_process"]

_BEGAN: list[int] = []
"""Number of the process in which the storage engine was first used, inherited by those that are forked from it."""


def begin_in_this_process() -> None:
    """Note that the storage engine is used from now on."""
    if not _BEGAN:
        _BEGAN.append(os.getpid())


def check_process(where: object) -> None:
    """Check that the storage engine's threads are there; exports are read without it.

    Raises
    ------
    StorageError
        This process was forked from one that had opened a store.
    """
    if not _BEGAN or _BEGAN[0] == os.getpid() or not isinstance(where, Location):
        return
    if where.export:
        return
    raise StorageError(
        f"{where} cannot be used here: this process was forked from one that had opened a store before, and the "
        "storage engine does not outlive that. Start workers with multiprocessing.get_context('spawn') and open the "
        "store in each of them, or open stores only after the fork, or export the store (results.export(path)): "
        "exports can be read anywhere. Nothing is lost."
    )
