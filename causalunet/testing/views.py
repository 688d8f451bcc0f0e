"""Whether a view is the lens that edits take it for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from causalunet.design.limits import shown
from causalunet.design.site import checked_view
from causalunet.design.views import VIEWS, Axes, View
from causalunet.errors import SpecError
from causalunet.testing.report import Checks, Conformance
from causalunet.testing.values import registered, round_trip

__all__ = ["check_view"]

_IMAGE = ("row", "channel", "y", "x")
_SHAPES = ((4, 8, 6, 6), (2, 16, 12, 10))


def check_view(view: View, *, dims: Sequence[str] = _IMAGE, shapes: Sequence[Sequence[int]] = _SHAPES) -> Conformance:
    """Check that a view does what edits of a part rely on.

    It is known by its name and comes back from JSON; what it shows fits the value; it leaves the value alone, and gives
    a part of as many dimensions, with all its rows apart. Put back, the part changes nothing; put in, a part is shown
    again; of two put in one after the other the second counts. What changes is what the mask says, so that two views
    whose masks have nothing in common can be edited at once, in either order; and if it says that it covers the value,
    nothing of that is left.

    Parameters
    ----------
    view : View
    dims : sequence of str
        Names of the dimensions of values to try it on; ``row`` is the first.
    shapes : sequence of sequences of int
        Of those values, with two rows or more, the first half conditional.

    Returns
    -------
    Conformance

    Raises
    ------
    ConformanceError
        A check failed; each failure is a line of the message.
    SpecError
        It is no view, or a shape has not these dimensions.

    Examples
    --------
    >>> import causalunet as cu
    >>> from causalunet.testing import check_view
    >>> check_view(cu.Channels(0, 1))
    <Conformance of "the view 'channels'": passes 10 checks>
    """
    if not isinstance(view, View):
        raise SpecError(f"{shown(view)} is no view. Give an instance of a subclass of causalunet.design.View.")
    if any(len(shape) != len(dims) or shape[0] < 2 for shape in shapes) or not shapes:
        raise SpecError(f"check_view(shapes=) takes sizes of {', '.join(dims)}, of two rows or more.")
    checks = Checks(f"the view {shown(view.name)}")
    tried = [Axes(tuple(dims), tuple(shape), shape[0] // 2) for shape in shapes]
    lens, some = _Lens(view, tried), f"{len(tried)} values"
    checks.run("registered", "its name", lambda: registered(view, VIEWS, "name"))
    checks.run("JSON", "a round trip", lambda: round_trip(view, View.from_json), ["registered"])
    with torch.random.fork_rng([]), torch.inference_mode():
        if not checks.run("fits", some, lens.fits):
            return checks.done()
        for name, check in (
            ("part", lens.part),
            ("value untouched", lens.untouched),
            ("put back", lens.put_back),
            ("put in", lens.put_in),
            ("put twice", lens.put_twice),
            ("mask", lens.mask),
            ("covers", lens.covers),
        ):
            checks.run(name, some, check, [] if name == "part" else ["part"])
    return checks.done()


class _Lens:
    """A view, and values to look at through it.

    Parameters
    ----------
    view : View
    tried : sequence of Axes
        Of the values.
    """

    def __init__(self, view: View, tried: Sequence[Axes]) -> None:
        self._view, self._tried = view, tried

    def _values(self, number: int = 0) -> Iterator[tuple[Tensor, Axes]]:
        for axes in self._tried:
            yield torch.randn(axes.shape, generator=torch.Generator().manual_seed(number)), axes

    def _each(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Axes]]:
        """A value, the parts of two others, and the axes."""
        for (value, axes), (one, _), (other, _) in zip(self._values(), self._values(1), self._values(2), strict=True):
            yield value, self._view.get(one, axes), self._view.get(other, axes), axes

    def fits(self) -> None:
        """It says what it shows, and that is there."""
        checked_view("check_view", self._view)
        for axes in self._tried:
            self._view.check(axes, f"a value {_told(axes)}")

    def part(self) -> Iterator[str]:
        """As many dimensions, and rows that are not mixed."""
        for value, axes in self._values():
            part = self._view.get(value, axes)
            if not isinstance(part, Tensor) or part.ndim != value.ndim:
                found = f"{part.ndim} dimensions" if isinstance(part, Tensor) else f"a {type(part).__name__}"
                yield (
                    f"get() gave {found} for {_told(axes)}; fills take a tensor of the same dimensions in the same "
                    "order, of other sizes. Keep each, of size 1 if need be: .unsqueeze(-1)."
                )
                return
            other = value.clone()
            other[-1] += 1
            moved = self._view.get(other, axes) != part
            rows = [row for row in range(len(part)) if bool(moved[row].any())]
            if rows not in ([], [len(part) - 1]):
                yield f"other numbers in the last row of {_told(axes)} change rows {rows} of the part. Keep rows apart."
                return

    def untouched(self) -> Iterator[str]:
        """Nobody writes into what others hold."""
        for value, part, _, axes in self._each():
            kept, given = value.clone(), part.clone()
            found = self._view.put(value, part, axes)
            if not torch.equal(value, kept) or not torch.equal(part, given):
                yield "put() wrote into what it was given. Begin with value = value.clone()."
                return
            if found.shape != value.shape or found.dtype != value.dtype:
                yield f"put() gave {tuple(found.shape)} {found.dtype} for {_told(axes)} {value.dtype}; keep both."
                return

    def put_back(self) -> Iterator[str]:
        """put(get) is the value."""
        for value, axes in self._values():
            if not torch.equal(self._view.put(value, self._view.get(value, axes), axes), value):
                yield f"the part of {_told(axes)}, put back, changes it. A null intervention would do something."
                return

    def put_in(self) -> Iterator[str]:
        """get(put) is the part."""
        for value, part, _, axes in self._each():
            if not torch.equal(self._view.get(self._view.put(value, part, axes), axes), part):
                yield f"a part that is put into {_told(axes)} is not the one that is shown then."
                return

    def put_twice(self) -> Iterator[str]:
        """put(put) is put."""
        for value, part, other, axes in self._each():
            once = self._view.put(value, other, axes)
            if not torch.equal(self._view.put(self._view.put(value, part, axes), other, axes), once):
                yield f"of two parts put into {_told(axes)} something of the first is left."
                return

    def mask(self) -> Iterator[str]:
        """What can change is shown, and what is shown can change."""
        for value, part, other, axes in self._each():
            changed = self._view.put(value, part, axes) != value
            changed |= self._view.put(value, other, axes) != value
            said = np.broadcast_to(self._view.mask(axes), axes.shape)
            outside = int((changed.numpy() & ~said).sum())
            if outside:
                yield (
                    f"put() changes {outside:,} numbers of {_told(axes)} that mask() does not show. Edits beside it "
                    "would be overwritten: show all that can change."
                )
                return
            if not changed.numpy().any():
                yield f"no part that is put into {_told(axes)} changes it."
                return

    def covers(self) -> Iterator[str]:
        """Nothing is left of what is covered."""
        for value, part, _, axes in self._each():
            if not self._view.covers(axes):
                continue
            for other in (value * 3 + 1, torch.zeros_like(value)):
                if not torch.equal(self._view.put(other, part, axes), self._view.put(value, part, axes)):
                    yield (
                        f"it says that it covers {_told(axes)}, and something is left of that when a part is put in. "
                        "What feeds only that place would not be run: let covers() be False."
                    )
                    return


def _told(axes: Axes) -> str:
    return f"({', '.join(f'{size} {dim}' for dim, size in zip(axes.dims, axes.shape, strict=True))})"
