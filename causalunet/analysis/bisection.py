"""Bisection for the frontier between candidates that pass and candidates that fail, asking as few as possible."""

from __future__ import annotations

from collections.abc import Generator

from causalunet.errors import SpecError

__all__ = ["bisection"]


def bisection(candidates: int) -> Generator[int, bool, int]:
    """Ask for single candidates until the frontier is found.

    The easiest candidate is asked first: if it fails, no frontier exists, whatever harder ones do. The others are
    bisected, so that about log2 of them are asked. What is found is a candidate that passes while the next harder one
    fails; it is the `causalunet.analysis.frontier` if whatever is easier than a passing candidate passes too.

    Parameters
    ----------
    candidates : int
        At least 1, ordered from easy to hard.

    Yields
    ------
    int
        Index of the candidate asked for; send whether it passes.

    Returns
    -------
    int
        Index of the candidate found; -1 if the easiest fails.

    Examples
    --------
    >>> asking = bisection(100)
    >>> index, asked = next(asking), 0
    >>> try:
    ...     while True:
    ...         index, asked = asking.send(index <= 37), asked + 1
    ... except StopIteration as found:
    ...     print(found.value, asked + 1)
    37 7
    """
    if candidates < 1:
        raise SpecError("There is no candidate to search among; give at least one.")
    if not (yield 0):
        return -1
    passing, failing = 0, candidates
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if (yield middle):
            passing = middle
        else:
            failing = middle
    return passing
