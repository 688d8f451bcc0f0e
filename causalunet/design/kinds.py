"""Interventions with a name of their own: skip connections and blocks left out, steps left out, and nothing done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from causalunet.calls import clear_calls, hold
from causalunet.design.fills import Identity, Jump, Zero
from causalunet.design.interventions import Edit, Intervention
from causalunet.design.limits import COMPONENT_NAME, MOST_BLOCKS, is_integer, plain_number, several, shown
from causalunet.design.views import Branch, View, Whole
from causalunet.design.windows import Window, Windows
from causalunet.errors import ComponentError, SpecError

if TYPE_CHECKING:
    from causalunet.design.anatomy import Anatomy

__all__ = ["AblateBlock", "AblateSkip", "Null", "SkipSteps"]

U_PROBES = ("mid", "skip.0")
"""Places of null interventions that name none, on a U."""


@clear_calls
@dataclass(frozen=True, slots=True)
class AblateSkip(Intervention):
    """Zero the first skip connections, counted from the top of the U, on their edge into the decoder.

    Parameters
    ----------
    top : int
        Number of skip connections removed.
    window : Window or Windows
        When.
    branch : {"both", "cond", "uncond"}
        Which half of the guided batch.
    view : View
        Which part of each; the whole by default.
    components : tuple of str
        Their names, where a model calls them otherwise than ``skip.i``; known as soon as a study is planned on it.

    Notes
    -----
    The encoder's own next block still sees its input unchanged. Source: Prasad et al. 2023, equation 5, figure 2c.
    """

    kind: ClassVar[str] = "ablate_skip"
    top: int
    window: Window | Windows
    branch: Branch = "both"
    view: View = field(default_factory=Whole)
    components: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_count(self, "top")
        _check_components(self, self.top)
        super(AblateSkip, self).__post_init__()

    def edits(self) -> tuple[Edit, ...]:
        """One zero edit per skip connection."""
        places = self.components or _skips(self.top)
        return tuple(Edit(place, self.window, Zero(), self.branch, self.view) for place in places)

    def placed(self, anatomy: Anatomy) -> AblateSkip:
        """On the first skip connections of the model."""
        there = tuple(anatomy.skips)
        if not self.components and self.top > len(there):
            raise _lacking(self, anatomy, "skip connections", self.top, len(there))
        if self.components or there[: self.top] == _skips(self.top):
            return self
        return replace(self, components=there[: self.top])

    def count_edits(self) -> int:
        """Count the edits without making them."""
        return self.top * len(self.window.parts)


@clear_calls
@dataclass(frozen=True, slots=True)
class AblateBlock(Intervention):
    """Zero the output of a decoder block, counted from the bottom, so that all below it is dead and does not run.

    Parameters
    ----------
    bottom : int
        Number of decoder blocks removed: blocks 0 ... bottom - 1, the bottleneck and the ``bottom`` deepest encoder
        blocks do not run.
    window : Window or Windows
        When.
    branch : {"both", "cond", "uncond"}
        Which half of the guided batch; only with "both" is anything dead.
    view : View
        Which part of the output; only of the whole is anything dead.
    components : tuple of str
        Name of the last of the removed blocks, where a model calls it otherwise than ``up.i``; known as soon as a study
        is planned on it.

    Notes
    -----
    Source: Prasad et al. 2023, figure 2b.
    """

    kind: ClassVar[str] = "ablate_block"
    bottom: int
    window: Window | Windows
    branch: Branch = "both"
    view: View = field(default_factory=Whole)
    components: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_count(self, "bottom")
        _check_components(self, 1)
        super(AblateBlock, self).__post_init__()

    def edits(self) -> tuple[Edit, ...]:
        """One zero edit, at the last of the removed blocks."""
        places = self.components or (f"up.{self.bottom - 1}",)
        return tuple(Edit(place, self.window, Zero(), self.branch, self.view) for place in places)

    def placed(self, anatomy: Anatomy) -> AblateBlock:
        """On the deepest decoder blocks of the model."""
        there = anatomy.decoder
        if not self.components and self.bottom > len(there):
            raise _lacking(self, anatomy, "decoder blocks", self.bottom, len(there))
        if self.components or there[self.bottom - 1].name == f"up.{self.bottom - 1}":
            return self
        return replace(self, components=(there[self.bottom - 1].name,))


@clear_calls
@dataclass(frozen=True, slots=True)
class SkipSteps(Intervention):
    """Leave out the U-Net calls of a window: the step before jumps over it.

    Parameters
    ----------
    window : Window or Windows
        Steps whose call does not happen; the run's first step cannot be among them.

    Notes
    -----
    Source: Prasad et al. 2023, equation 4. ``SkipSteps(Window(17, 17))`` stops early: the estimate of x_0 of step 18
    is the image.
    """

    kind: ClassVar[str] = "skip_steps"
    window: Window | Windows

    def edits(self) -> tuple[Edit, ...]:
        """One jump."""
        return (Edit("unet", self.window, Jump()),)


@clear_calls
@dataclass(frozen=True, slots=True)
class Null(Intervention):
    """Take activations out and put them back unchanged: what its run differs by is the noise floor.

    Parameters
    ----------
    window : Window or Windows
    components : iterable of str, optional
        Where. By default one place of every way of editing, so that all are exercised: the bottleneck and ``skip.0``;
        of a model that lacks one of these, what it has (`Anatomy.probes`), as soon as a study is planned on it.
    """

    kind: ClassVar[str] = "null"
    window: Window | Windows
    components: tuple[str, ...]

    def __init__(self, window: Window | Windows, components: str | Iterable[str] = (), *, label: str = "") -> None:
        hold(self, window=window, components=components, label=label)

    def __post_init__(self) -> None:
        places = several("Null", "components", self.components, str, MOST_BLOCKS)
        if "unet" in places or not all(isinstance(name, str) and COMPONENT_NAME.fullmatch(name) for name in places):
            raise ComponentError(
                f"Null got components={shown(self.components)}; give names of components or skip connections, such as "
                "'mid' or 'skip.0'."
            )
        object.__setattr__(self, "components", tuple(dict.fromkeys(places)))
        super(Null, self).__post_init__()

    def edits(self) -> tuple[Edit, ...]:
        """Identity on every place."""
        return tuple(Edit(component, self.window, Identity()) for component in self.components or U_PROBES)

    def placed(self, anatomy: Anatomy) -> Null:
        """On the `Anatomy.probes` of the model, if it names no places."""
        return self if self.components or anatomy.probes == U_PROBES else replace(self, components=anatomy.probes)


def _skips(top: int) -> tuple[str, ...]:
    return tuple(f"skip.{index}" for index in range(top))


def _lacking(item: Intervention, anatomy: Anatomy, what: str, asked: int, there: int) -> ComponentError:
    return ComponentError(
        f"{item.label!r} asks for {asked} {what}, and the model has {there or 'none'}. It has {anatomy.listing}."
    )


def _check_components(item: AblateSkip | AblateBlock, number: int) -> None:
    """Let names be those of JSON, a list, as of a plan, a tuple."""
    names = several(type(item).__name__, "components", item.components, str, MOST_BLOCKS)
    if names and (len(names) != number or not all(isinstance(name, str) for name in names)):
        raise ComponentError(
            f"{type(item).__name__} got components={shown(item.components)}; give none, which asks the model, or names "
            f"of {number}."
        )
    object.__setattr__(item, "components", names)


def _check_count(item: Intervention, name: str) -> None:
    owner, value = type(item).__name__, plain_number(getattr(item, name))
    if not is_integer(value) or value < 1:
        raise SpecError(f"{owner} got {name}={shown(value)}; it must be an integer of at least 1.")
    if value > MOST_BLOCKS:
        raise SpecError(f"{owner} got {name}={shown(value)}; no U-Net has more than {MOST_BLOCKS:,} of them.")
