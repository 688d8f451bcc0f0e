"""Errors of storage engine and operating system, told in the package's own words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from causalunet.errors import CausalUNetError, DamageError, StorageError, WriteConflictError

__all__ = ["faults_told"]

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


@contextmanager
def faults_told(where: object, doing: str) -> Iterator[None]:
    """Turn what storage raises into errors of the package.

    Parameters
    ----------
    where : object
        Whose text names the store.
    doing : str
        Such as "reading" or "writing", for the message.

    Raises
    ------
    WriteConflictError
        Another process wrote the same part.
    StorageError
        Storage refused: disk full, no permission, no network.
    DamageError
        Anything else: the bytes are not what they should be.
    """
    try:
        yield
    except CausalUNetError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError):
            raise
        raise told(error, where, doing) from error


def told(error: BaseException, where: object, doing: str) -> CausalUNetError:
    """Make the package's error of one that storage raised."""
    import icechunk

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
    return DamageError(
        f"Failed {doing} {where}: {type(error).__name__}: {text[:300].rstrip('. ')}. The store is damaged there, or "
        "was written by something else; causalunet verify lists all damaged parts."
    )
