"""Places inside a U-Net that are no component's output: queries, maps and heads of attention, neurons, the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from causalunet.calls import clear_calls
from causalunet.design.limits import COMPONENT_NAME, shown
from causalunet.dims import ROW, TOKEN
from causalunet.errors import ComponentError

if TYPE_CHECKING:
    from causalunet.design.interventions import Edit

__all__ = ["WEIGHTS", "Attention", "InnerPlace", "check_of_weights", "unnumbered"]

WEIGHTS = "weights"
"""In names of places: what follows is the path of a module below its component."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class InnerPlace:
    """A value inside a component, or beside them all, that can be edited, kept and recorded (a hook point).

    Parameters
    ----------
    name : str
        Such as ``up.3.self.heads``; that of its component comes first.
    component : str
        In which it is computed: where that does not run, it is not there. Empty for what all components are given.
    module : str
        Dotted path of a module in the U-Net; empty for the U-Net itself.
    dims : tuple of str
        Names of its dimensions without rows.
    shape : tuple of int
        Sizes of these.
    layout : str
        How they lie in the module's tensor, in the notation of einops: ``row (y x) (head channel)``. Of weights, which
        have no rows, there is none.
    argument : int or str, optional
        Position or keyword of the module's argument that it is; by default it is what the module puts out.
    output : int, optional
        Of a module that puts out a tuple, the place of the tensor.
    part : tuple of (str, int, int), optional
        Of a tensor that holds several values side by side: what ``layout`` calls the dimension that tells them apart,
        which of them this is, and how many there are.
    added : str
        Of one part of several: path, below the module, of a parameter with a vector for each part, which the module
        adds to its argument. The value is the sum.
    weight : str
        Of weights: what the module calls them.
    attention : Attention, optional
        Of logits and maps of attention: what they are computed from. No module need hold them; ``module`` and
        ``argument`` are then those of the heads, into which an edit of them goes.
    """

    name: str
    component: str
    module: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    layout: str
    argument: int | str | None = None
    output: int | None = None
    part: tuple[str, int, int] | None = None
    added: str = ""
    weight: str = ""
    attention: Attention | None = None

    @property
    def of_text(self) -> bool:
        """Whether its tokens, or the first of them, are those of a text, so that words name them."""
        *_, group, what = ("", *(part for part in self.name.split(".") if not part.isdigit()))
        asked = {"cross": ("keys", "values", "logits", "maps"), "joint": ("logits", "maps")}
        return TOKEN in self.dims and (what.startswith("text") or what in asked.get(group, ()))

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not COMPONENT_NAME.fullmatch(self.name):
            raise ComponentError(
                f"A place is called {shown(self.name)}; results are stored under such names, so they are up to 128 "
                "letters, digits and any of . _ -, such as 'up.3.self.heads'."
            )
        if self.weight:
            return
        there = [dim for dim in self.layout.replace("(", " ").replace(")", " ").split() if dim != "1"]
        asked = [ROW, *self.dims, *([self.part[0]] if self.part else [])]
        if sorted(there) != sorted(asked) or len({*asked}) < len(asked) or len(self.dims) != len(self.shape):
            raise ComponentError(
                f"The place {self.name} has the dimensions {', '.join(self.dims)}, the shape {self.shape} and the "
                f"layout {self.layout!r}; the layout has to name row and each of them once, and what part names."
            )


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What logits and maps of attention are computed from: ``softmax(scale * queries keys^T + mask)``.

    Parameters
    ----------
    what : {"logits", "maps"}
        Before the softmax, scaled and masked as the model does it, or after.
    name : str
        Of the attention, such as ``up.3.cross``.
    owner : str
        Dotted path of its module.
    queries : InnerPlace
    keys, values : tuple of InnerPlace
        One after the other: those of the text before those of the image, whatever order the module has them in, so that
        a token of the text has one number in all models. A softmax is the same in any order.
    heads : InnerPlace
        What the maps times the values are.
    scale : float
    norms : tuple of str
        Paths, below the owner, of what normalises the queries and each of the keys; empty of those that go as they are.
    mask : InnerPlace, optional
        The argument of the module that is added to the logits, (row, token).
    memory : str
        Path, below the owner, of keys and values that are weights, (2, head, token, channel), before all others.
    """

    what: Literal["logits", "maps"]
    name: str
    owner: str
    queries: InnerPlace
    keys: tuple[InnerPlace, ...]
    values: tuple[InnerPlace, ...]
    heads: InnerPlace
    scale: float
    norms: tuple[str, ...] = ()
    mask: InnerPlace | None = None
    memory: str = ""

    @property
    def sources(self) -> tuple[InnerPlace, ...]:
        """Places whose values have to be known."""
        return (self.queries, *self.keys, *self.values, *([self.mask] if self.mask is not None else []))


def check_of_weights(edit: Edit) -> None:
    """Check that an edit is one that weights can have: of all rows alike, and of nothing but the weights.

    Parameters
    ----------
    edit : Edit

    Raises
    ------
    ComponentError
        It names a branch, or its fill takes values of other calls.
    """
    if edit.branch != "both":
        raise ComponentError(
            f"Weights are the same in all rows of a call, so {edit.component} has no branch {edit.branch!r}; "
            "leave it out."
        )
    if edit.fill.donors:
        raise ComponentError(
            f"The fill {edit.fill.name!r} takes a value of {edit.component} in other calls, where weights are "
            "what they are here. Give one that changes the value, such as Scale, AddNoise, Quantize or FromTable."
        )


def unnumbered(name: str) -> str:
    """The kind of an inner place: a star for its component, and no numbers, ``*.self.heads``; ``*.weights``."""
    first, *others = (part for part in name.split(".") if not part.isdigit())
    if WEIGHTS in others:
        others = others[: others.index(WEIGHTS) + 1]
    return ".".join(["*", *others]) if others else first
