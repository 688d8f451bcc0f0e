"""Whether a start gives what a run can begin with, and the same every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from causalunet.design.limits import shown
from causalunet.design.starts import STARTS, Start, first_states
from causalunet.errors import SpecError
from causalunet.testing.report import Checks, Conformance
from causalunet.testing.values import registered, round_trip

__all__ = ["check_start"]

_SHAPES = ((3, 8, 8), (1, 4, 6))


def check_start(start: Start) -> Conformance:
    """Check that a start does what studies rely on.

    It is known by its name, comes back from JSON, and gives finite numbers of the shape that it is asked for, the same
    every time, without drawing from anybody's random numbers.

    Parameters
    ----------
    start : Start
        With values of its fields that are not the defaults.

    Returns
    -------
    Conformance

    Raises
    ------
    ConformanceError
        A check failed; each failure is a line of the message.
    SpecError
        It is no start.

    Examples
    --------
    >>> from causalunet.design.starts import Noise
    >>> from causalunet.testing import check_start
    >>> check_start(Noise(3))
    <Conformance of "the start 'noise'": passes 4 checks>
    """
    if not isinstance(start, Start):
        raise SpecError(f"{shown(start)} is no start. Give an instance of a subclass of causalunet.design.Start.")
    checks = Checks(f"the start {shown(start.name)}")
    checks.run("registered", "its name", lambda: registered(start, STARTS, "name"))
    checks.run("JSON", "a round trip", lambda: round_trip(start, Start.from_json), ["registered"])
    checks.run("state", f"{len(_SHAPES)} shapes", lambda: _state(start))
    checks.run("repeatable", f"{len(_SHAPES)} shapes", lambda: _repeatable(start), ["state"])
    return checks.done()


def _state(start: Start) -> Iterator[str]:
    """Finite numbers of the right shape and type."""
    for shape in _SHAPES:
        try:
            first_states([start], shape)
        except SpecError as error:
            yield str(error)
            return


def _repeatable(start: Start) -> Iterator[str]:
    """The same twice, and no random numbers of its own."""
    before = str(np.random.get_state())  # noqa: NPY002 - it is the user's that must not be touched
    for shape in _SHAPES:
        if not np.array_equal(start.state(shape), start.state(shape)):
            yield "state() gave something else the second time. Let it follow from the fields of the start alone."
            return
    if str(np.random.get_state()) != before:  # noqa: NPY002
        yield "it drew or seeded NumPy's random numbers. Make a generator of the seed: np.random.Generator(...)."
