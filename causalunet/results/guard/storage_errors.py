"""Errors of storage engine and operating system, told in the package's own words."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import icechunk

from causalunet.errors import CausalUNetError, DamageError, StorageError, StoreError, WriteConflictError
from causalunet.results.engine.forked import check_process
from causalunet.results.engine.location import Location

__all__ = ["FAULTS", "check_there", "faults_told", "is_newer", "newer_format"]

FAULTS = (icechunk.IcechunkError, icechunk.ConflictError, icechunk.RebaseFailedError)
"""What the storage engine raises; in version 1 conflicts are no kind of the first."""
_SYSTEM = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "a file would grow beyond what the system allows; raise the limit",
    errno.EROFS: "the disk is mounted read-only; mount it for writing",
    errno.EACCES: "permission was denied; give this user the right to write there",
    errno.EPERM: "permission was denied; give this user the right to write there",
    errno.EEXIST: "a part of the path is a file; give another path",
    errno.ENOTDIR: "a part of the path is a file; give another path",
    errno.ENAMETOOLONG: "the name is too long for the disk; give a shorter one",
    errno.EIO: "the disk reports an input/output error; check its health",
    errno.ENOMEM: "memory ran out; free some, or raise the limit (ulimit -v)",
    errno.EAGAIN: "memory or threads ran out; free some, or raise the limits (ulimit -v, ulimit -u)",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
}
_NETWORK = (
    "dispatch failure",
    "timeout",
    "connect",
    "credentials",
    "access denied",
    "AccessDenied",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "NoSuchBucket",
    "ServiceUnavailable",
    "SignatureDoesNotMatch",
    "SlowDown",
)


_EXHAUSTED = (
    "allocation error",
    "can't spawn",
    "can't start new thread",
    "cannot allocate memory",
    "memory allocation",
    "not enough memory",
    "null pointer when creating",
    "out of memory",
)
"""What the storage engine and the codecs say of memory that they did not get, in lower case."""
_OF_A_STORE = ("refs", "snapshots", "zarr.json")
_NEWER = re.compile(r"uses Icechunk (v\d+ format|format version \d+)")
"""What the engine says of a format that it does not know."""


@contextmanager
def faults_told(where: object, doing: str, *, writing: bool = False, fresh: bool = False) -> Iterator[None]:
    """Turn what storage raises into errors of the package.

    Only what touches bytes belongs inside: what a user's model or intervention raises is not the store's.

    Parameters
    ----------
    where : object
        Whose text names the store.
    doing : str
        Such as "reading" or "writing", for the message.
    writing : bool
        Only errors of the system and of the storage engine are the store's; others stay as they are.
    fresh : bool
        The store is being made: it cannot be damaged, or gone. Implies ``writing``.

    Raises
    ------
    WriteConflictError
        Another process wrote the same part.
    StorageError
        Storage refused: disk full, no permission, no network; or the store was deleted meanwhile, or the process
        forked.
    StoreError
        It is in a format that the installed storage engine does not know.
    DamageError
        Anything else, while reading: the bytes are not what they should be.
    """
    check_process(where)
    try:
        yield
    except CausalUNetError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError):
            raise
        foreign = not isinstance(error, (OSError, *FAULTS)) and not _is_exhausted(error)
        if (writing or fresh) and foreign:
            raise
        raise told(error, where, doing, writing=writing, fresh=fresh) from error


def check_there(where: Location) -> None:
    """Check that a store that was open has not been deleted.

    Raises
    ------
    StorageError
        It has.
    """
    folder = where.folder
    if folder is not None and not any((folder / name).exists() for name in _OF_A_STORE):
        raise StorageError(
            f"The store {where} is gone: it was deleted, moved or unmounted while it was in use. Put it back to go on "
            "from its last commit, or run the same command again to begin anew."
        )


def is_newer(error: icechunk.IcechunkError) -> bool:
    """Whether the engine does not know the format of a store."""
    return _NEWER.search(" ".join(str(error).split())) is not None


def newer_format(where: object) -> StoreError:
    """Make the error of a store in a format that the installed engine does not know."""
    python = ".".join(map(str, sys.version_info[:2]))
    way = "install a newer one (pip install --upgrade icechunk)"
    if sys.version_info < (3, 12):
        way = f"use Python 3.12 or later, since Python {python} gets no newer one"
    return StoreError(
        f"{where} is not damaged, but written in a newer format of icechunk, and version {version('icechunk')}, which "
        f"is installed here, does not read it. To open it, {way}. Or export it where it opens (causalunet export): "
        "every version opens an export."
    )


def _is_exhausted(error: BaseException) -> bool:
    return any(words in str(error).lower() for words in _EXHAUSTED)


def told(
    error: BaseException, where: object, doing: str, *, writing: bool = False, fresh: bool = False
) -> CausalUNetError:
    """Make the package's error of one that storage raised."""
    text = " ".join(str(error).split())
    if _is_exhausted(error):
        return StorageError(f"Failed {doing} {where}: {_SYSTEM[errno.EAGAIN]}. What was committed can be read.")
    if not fresh and isinstance(where, Location) and isinstance(error, FileNotFoundError | icechunk.IcechunkError):
        check_there(where)
    if isinstance(error, icechunk.IcechunkError) and is_newer(error):
        return newer_format(where)
    if isinstance(error, icechunk.RebaseFailedError | icechunk.ConflictError):
        return WriteConflictError(
            f"Another process changed {where} in the place that this one was {doing}. Its values stay and nothing "
            "committed is lost; run the same command again to go on from there."
        )
    refused = _refused(error, f"{doing} {where}", text, writing=writing or fresh)
    if fresh and refused is None:
        return StorageError(f"Failed {doing} {where}: {type(error).__name__}: {text:.300}. Nothing was made there.")
    return refused or DamageError(
        f"Failed {doing} {where}: {type(error).__name__}: {text[:300].rstrip('. ')}. The store is damaged there, or "
        "was written by something else; causalunet verify lists all damaged parts."
    )


def _refused(error: BaseException, doing: str, text: str, *, writing: bool) -> StorageError | None:
    """Make the error of storage that did not do what it was asked to, if that is what happened."""
    for number, advice in _SYSTEM.items():
        if getattr(error, "errno", None) == number or f"os error {number})" in text:
            return StorageError(
                f"Failed {doing}: {advice}. What was committed can be read; the same command goes on after it."
            )
    if isinstance(error, icechunk.IcechunkError) and any(word in text for word in _NETWORK):
        return StorageError(f"Failed {doing}: the object store refused or could not be reached: {text:.300}")
    if writing and isinstance(error, OSError):
        return StorageError(f"Failed {doing}: {text:.300}. What was committed can be read.")
    return None
