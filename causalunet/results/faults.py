"""Errors of storage engine and operating system, told in the package's own words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import icechunk

from causalunet.errors import CausalUNetError, DamageError, StorageError, WriteConflictError
from causalunet.results.location import Location

__all__ = ["check_there", "faults_told"]

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


_EXHAUSTED = ("can't start new thread", "cannot allocate memory", "memory allocation", "out of memory")
_OF_A_STORE = ("refs", "snapshots", "zarr.json")


@contextmanager
def faults_told(where: object, doing: str, *, writing: bool = False) -> Iterator[None]:
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

    Raises
    ------
    WriteConflictError
        Another process wrote the same part.
    StorageError
        Storage refused: disk full, no permission, no network; or the store was deleted meanwhile.
    DamageError
        Anything else, while reading: the bytes are not what they should be.
    """
    try:
        yield
    except CausalUNetError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError):
            raise
        if writing and not isinstance(error, OSError | icechunk.IcechunkError) and not _is_exhausted(error):
            raise
        raise told(error, where, doing, writing=writing) from error


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


def _is_exhausted(error: BaseException) -> bool:
    return any(words in str(error).lower() for words in _EXHAUSTED)


def told(error: BaseException, where: object, doing: str, *, writing: bool = False) -> CausalUNetError:
    """Make the package's error of one that storage raised."""
    if isinstance(where, Location) and isinstance(error, FileNotFoundError | icechunk.IcechunkError):
        check_there(where)
    if isinstance(error, icechunk.RebaseFailedError | icechunk.ConflictError):
        return WriteConflictError(
            f"Another process changed {where} in the place that this one was {doing}. Its values stay and nothing "
            "committed is lost; run the same command again to go on from there."
        )
    text = " ".join(str(error).split())
    for number, advice in _SYSTEM.items():
        if getattr(error, "errno", None) == number or f"os error {number})" in text:
            return StorageError(
                f"Failed {doing} {where}: {advice}. What was committed can be read; the same command goes on after it."
            )
    if isinstance(error, icechunk.IcechunkError) and any(word in text for word in _NETWORK):
        return StorageError(f"Failed {doing} {where}: the object store refused or could not be reached: {text:.300}")
    if _is_exhausted(error):
        return StorageError(f"Failed {doing} {where}: {_SYSTEM[errno.EAGAIN]}. What was committed can be read.")
    if writing and isinstance(error, OSError):
        return StorageError(f"Failed {doing} {where}: {text:.300}. What was committed can be read.")
    return DamageError(
        f"Failed {doing} {where}: {type(error).__name__}: {text[:300].rstrip('. ')}. The store is damaged there, or "
        "was written by something else; causalunet verify lists all damaged parts."
    )
