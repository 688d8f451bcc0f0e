"""When an intervention acts: windows of denoising steps."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from causalunet.calls import clear_calls, hold
from causalunet.design.limits import (
    MOST_CALLS,
    MOST_PARTS,
    MOST_STEPS,
    check_list,
    is_integer,
    plain_number,
    several,
    shown,
)
from causalunet.errors import SpecError

__all__ = ["Window", "Windows", "count_steps", "cut_relax_cut", "joined", "overlaid"]


@clear_calls
@dataclass(frozen=True, slots=True, repr=False)
class Window:
    """The steps ``start, start - 1, ..., start - length + 1``.

    Parameters
    ----------
    start : int
        First step, counted down from T; at least 1.
    length : int
        Number of steps; at least 1 and at most ``start``.
    stage : int, optional
        Which U-Net call of each step, counted from 0, under samplers whose steps take several; by default all calls.

    Raises
    ------
    SpecError
        The window is empty or runs below step 1, or the stage is no such number.

    Examples
    --------
    >>> list(Window(50, 5))
    [50, 49, 48, 47, 46]
    >>> Window(50, 5, stage=1)
    Window(start=50, length=5, stage=1)
    """

    start: int
    length: int
    stage: int | None = None

    def __post_init__(self) -> None:
        for name in ("start", "length"):
            value = plain_number(getattr(self, name))
            object.__setattr__(self, name, value)
            if not is_integer(value) or value < 1:
                raise SpecError(f"Window {name} {shown(value)} is not valid; it must be an integer of at least 1.")
        if self.start > MOST_STEPS:
            raise SpecError(
                f"Window start {shown(self.start)} is not valid; no run has more than {MOST_STEPS:,} steps."
            )
        if self.length > self.start:
            raise SpecError(
                f"Window(start={self.start}, length={shown(self.length)}) would run down to step "
                f"{shown(self.start - self.length + 1)}; the last step is 1, so length can be at most {self.start}."
            )
        if self.stage is None:  # of nearly all, and a study has a hundred thousand
            return
        stage = plain_number(self.stage)
        object.__setattr__(self, "stage", stage)
        if not is_integer(stage) or not 0 <= stage < MOST_CALLS:
            raise SpecError(
                f"Window stage {shown(stage)} is not valid; it counts the U-Net calls of a step from 0, up to "
                f"{MOST_CALLS - 1}. Leave it out for all of them."
            )

    def __repr__(self) -> str:
        stage = "" if self.stage is None else f", stage={self.stage}"
        return f"Window(start={self.start}, length={self.length}{stage})"

    def __iter__(self) -> Iterator[int]:
        """Steps of the window, in the order of the run."""
        return iter(range(self.start, self.start - self.length, -1))

    @property
    def stop(self) -> int:
        """Last step of the window."""
        return self.start - self.length + 1

    @property
    def parts(self) -> tuple[Window, ...]:
        """The window itself, as a sequence of one."""
        return (self,)

    def check(self, steps: int) -> None:
        """Raise `SpecError` if the window leaves ``[1, steps]``."""
        if self.start > steps:
            raise SpecError(
                f"Window(start={self.start}, length={self.length}) starts above step {steps}, the first step of a "
                f"run of {steps} steps. Choose start in {self.length} ... {steps}."
            )


@clear_calls
@dataclass(frozen=True, slots=True)
class Windows:
    """Several windows, in the order of the run and apart from each other.

    Parameters
    ----------
    parts : iterable of Window
        Where one begins right after another they are joined, so that the same steps are written in one way. All of one
        stage, or of none.

    Raises
    ------
    SpecError
        There is no window, two of them overlap or are out of order, or their stages differ.
    """

    parts: tuple[Window, ...]

    def __init__(self, parts: Iterable[Window]) -> None:
        hold(self, parts=parts)

    def __post_init__(self) -> None:
        parts = several("Windows()", "windows", self.parts, Window, MOST_PARTS)
        if not parts or not all(isinstance(part, Window) for part in parts):
            raise SpecError(f"Windows() needs a list of at least one Window; got {shown(self.parts)}.")
        for earlier, later in itertools.pairwise(parts):
            if later.start >= earlier.stop:
                raise SpecError(
                    f"{later} does not come after {earlier} in the run: give windows apart, in falling order."
                )
        if len(stages := {part.stage for part in parts}) > 1:
            raise SpecError(
                f"Windows() got the stages {', '.join(map(str, sorted(stages, key=str)))}; all windows of one edit "
                "have the same. Add two interventions, a + b, each with its own."
            )
        stage, whole = parts[0].stage, joined(parts)
        parts = whole if stage is None else tuple(replace(part, stage=stage) for part in whole)
        object.__setattr__(self, "parts", parts)

    def __iter__(self) -> Iterator[int]:
        """Steps of all windows, in the order of the run."""
        return (step for part in self.parts for step in part)

    @property
    def start(self) -> int:
        """First step of the first window."""
        return self.parts[0].start

    @property
    def length(self) -> int:
        """Length of the first window."""
        return self.parts[0].length

    @property
    def stage(self) -> int | None:
        """Which U-Net call of each step; None for all of them."""
        return self.parts[0].stage

    def check(self, steps: int) -> None:
        """Raise `SpecError` if a window leaves ``[1, steps]``."""
        for part in self.parts:
            part.check(steps)


def cut_relax_cut(start: int, *, cut: int, relax: int, cuts: int = 2, stage: int | None = None) -> Windows:
    """Cut for some steps, let the model recover, cut again (the paper's figures 10 and 11).

    Parameters
    ----------
    start : int
        First step of the first cut.
    cut : int
        Length of every cut, in steps.
    relax : int
        Steps between two cuts; 0 joins them into one window.
    cuts : int
        Number of cuts.
    stage : int, optional
        Which U-Net call of each step, see `Window`.

    Returns
    -------
    Windows

    Raises
    ------
    SpecError
        A number is not valid, or fewer steps are left than the cuts need.

    Examples
    --------
    >>> cut_relax_cut(60, cut=5, relax=10, cuts=2).parts
    (Window(start=60, length=5), Window(start=45, length=5))
    """
    start, cut, relax, cuts = map(plain_number, (start, cut, relax, cuts))
    for name, value, least in (("start", start, 1), ("cut", cut, 1), ("relax", relax, 0), ("cuts", cuts, 1)):
        if not is_integer(value) or value < least:
            raise SpecError(f"cut_relax_cut got {name}={shown(value)}; it must be an integer of at least {least}.")
    needed = cuts * cut + (cuts - 1) * relax
    if needed > start:
        raise SpecError(
            f"cut_relax_cut(start={start}, cut={cut}, relax={relax}, cuts={cuts}) needs {needed} steps, "
            f"and only {start} are left at step {start}."
        )
    if relax == 0:
        return Windows((Window(start, cut * cuts, stage),))
    return Windows(tuple(Window(start - index * (cut + relax), cut, stage) for index in range(cuts)))


def windows_to_json(window: Window | Windows) -> list[list[int]]:
    """Write a window as ``[[start, length], ...]``, or ``[[start, length, stage], ...]`` where it has a stage."""
    return [list(written_window(part, window.stage)) for part in window.parts]


def windows_from_json(value: Any) -> Window | Windows:
    """Read what `windows_to_json` wrote; one entry gives a `Window`."""
    if not isinstance(value, list) or not all(isinstance(entry, list) and len(entry) in (2, 3) for entry in value):
        raise SpecError(f"A window is written as [[start, length], ...]; got {shown(value)}.")
    check_list("Windows of an intervention", value, MOST_PARTS)
    parts = tuple(Window(*entry) for entry in value)
    return parts[0] if len(parts) == 1 else Windows(parts)


def written_window(part: Window, stage: int | None) -> tuple[int, ...]:
    """Start and length of a window, and a stage if there is one: windows without are written as they ever were."""
    return (part.start, part.length) if stage is None else (part.start, part.length, stage)


def joined(windows: Iterable[Window | Windows]) -> tuple[Window, ...]:
    """The steps that lie in any of some windows, as the fewest windows without a stage, in the order of the run."""
    spans: list[tuple[int, int]] = []
    for start, stop in sorted(((part.start, part.stop) for window in windows for part in window.parts), reverse=True):
        if spans and start >= spans[-1][1] - 1:
            spans[-1] = (spans[-1][0], min(spans[-1][1], stop))
        else:
            spans.append((start, stop))
    return tuple(Window(start, start - stop + 1) for start, stop in spans)


def overlaid(windows: Sequence[Window | Windows]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Cut the steps that lie in any of some windows wherever one begins or ends, without listing them.

    Yields
    ------
    tuple
        Of first step, last step, and the indices, ascending, of the windows that these steps lie in; in the order of
        the run.
    """
    begins, ends = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for index, window in enumerate(windows):
        for part in window.parts:
            begins[part.start].append(index)
            ends[part.stop - 1].append(index)
    present: set[int] = set()
    for start, after in itertools.pairwise(sorted(begins.keys() | ends.keys(), reverse=True)):
        present.difference_update(ends.get(start, ()))
        present.update(begins.get(start, ()))
        if present:
            yield start, after + 1, tuple(sorted(present))


def count_steps(windows: Iterable[Window | Windows]) -> int:
    """Count the steps that lie in any of some windows, without listing them."""
    return sum(part.length for part in joined(windows))
