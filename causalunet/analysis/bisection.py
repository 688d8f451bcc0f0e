"""Bisection for the frontier between candidates that pass and candidates that fail, asking as few as possible."""

from __future__ import annotations

from collections.abc import Generator

from causalunet.errors import SpecError

__all__ = ["bisection"]


def bisection(candidates: int, *, stride: int | None = None) -> Generator[int, bool, int]:
    """Ask for single candidates until the frontier is found.

    Parameters
    ----------
    candidates : int
        At least 1, ordered from easy to hard.
    stride : int, optional
        First ask every so-manieth candidate from the easy end up to the first that fails, then bisect between the last
        two. Finds the `causalunet.analysis.frontier` also where passing is not monotone, unless all failures lie
        between two neighbours that pass. By default bisect right away: about log2 of the candidates are asked, which
        is right if whatever is easier than a passing candidate passes too.

    Yields
    ------
    int
        Index of the candidate asked for; send whether it passes.

    Returns
    -------
    int
        Index of the hardest candidate that passes, with every easier one asked; -1 if the easiest fails.

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
    if stride is not None and stride < 1:
        raise SpecError(f"stride={stride!r} is not valid; it must be at least 1.")
    passing, failing = -1, candidates
    for index in () if stride is None else sorted({*range(stride - 1, candidates, stride), candidates - 1}):
        if not (yield index):
            failing = index
            break
        passing = index
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if (yield middle):
            passing = middle
        else:
            failing = middle
    return passing
