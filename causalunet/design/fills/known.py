"""Values too large for a study to hold: it holds their digests, and finds them while the process has them."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from causalunet.design.limits import shown
from causalunet.errors import SpecError

__all__ = ["Known"]


class _Digested(Protocol):
    digest: str


Value = TypeVar("Value", bound=_Digested)


class Known(Generic[Value]):
    """What a kind of fill was given in this process, by digest.

    Parameters
    ----------
    owner : str
        The fill, for messages.
    absent : str
        What is told of one that is not here, with ``{digest}``.
    """

    def __init__(self, owner: str, absent: str) -> None:
        self._owner, self._absent = owner, absent
        self._found: WeakValueDictionary[str, Value] = WeakValueDictionary()

    def keep(self, value: Value) -> Value:
        """The value, or the equal one that is here already."""
        return self._found.setdefault(value.digest, value)

    def find(self, digest: Any) -> Value | None:
        """The value of a digest, if it is here.

        Raises
        ------
        SpecError
            It is no digest.
        """
        if not isinstance(digest, str) or not digest.isalnum() or len(digest) != 16:
            raise SpecError(f"{self._owner} got digest={shown(digest)}; it has 16 hexadecimal digits.")
        return self._found.get(digest)

    def need(self, value: Value | None, digest: str) -> Value:
        """The value that a fill holds, or that of its digest.

        Raises
        ------
        SpecError
            It is not here.
        """
        found = self._found.get(digest) if value is None else value
        if found is None:
            raise SpecError(self._absent.format(digest=digest))
        return found
