"""What is done to the U-Net: interventions as frozen values, all made of edits (component, window, fill)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

from causalunet.calls import clear_calls, hold
from causalunet.design.conflicts import check_conflicts, edits_to_json
from causalunet.design.digests import digest_of, unlabelled, written
from causalunet.design.fills import FILLS, Fill, Identity, Jump, Zero, fill_words
from causalunet.design.limits import (
    COMPONENT_NAME,
    MOST_BLOCKS,
    MOST_DEPTH,
    MOST_EDITS,
    MOST_LABEL,
    MOST_PARTS,
    check_keys,
    check_list,
    check_text,
    is_integer,
    plain_number,
    several,
    shown,
)
from causalunet.design.windows import Window, Windows, joined, windows_from_json, windows_to_json
from causalunet.errors import ComponentError, SpecError
from causalunet.registry import Registry

__all__ = ["KINDS", "AblateBlock", "AblateSkip", "Branch", "Composition", "Edit", "Intervention", "Null", "SkipSteps"]

U_PROBES = ("mid", "skip.0")
"""Places of null interventions that name none, on a U."""

Branch = Literal["both", "cond", "uncond"]
"""Which half of the guided batch is intervened on."""

KINDS: Registry[type[Intervention]] = Registry("kind of intervention", "causalunet.interventions")
"""Every kind of intervention, by name."""
_WRITERS: dict[str, Callable[[Any], Any]] = {
    "window": windows_to_json,
    "fill": lambda fill: fill.to_json(),
    "components": list,
}


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """Base of every intervention: a value that says what happens when, compared by content.

    Attributes
    ----------
    kind : str
        Its name in JSON and in stored results.
    label : str, optional
        Name in tables and figures; made from the fields unless given. Not part of the digest.
    """

    kind: ClassVar[str] = ""
    label: str = field(default="", kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(Intervention, cls).__init_subclass__(**kwargs)
        if cls.kind != Intervention.kind:  # a base of several kinds needs none
            KINDS.register(cls.kind, cls)

    def __post_init__(self) -> None:
        KINDS.check_named(self, "kind", self.kind)
        for name in _fields(type(self)):
            object.__setattr__(self, name, plain_number(getattr(self, name)))
        window = getattr(self, "window", None)
        if window is not None and not isinstance(window, Window | Windows):
            raise SpecError(f"{type(self).__name__} got window={shown(window)}; give a Window or Windows.")
        if isinstance(window, Windows) and len(window.parts) == 1:  # one content, one spelling: that of JSON
            object.__setattr__(self, "window", window.parts[0])
        branch = getattr(self, "branch", "both")
        if not isinstance(branch, str) or branch not in ("both", "cond", "uncond"):
            raise SpecError(f"branch {shown(branch)} is not one of 'both', 'cond', 'uncond'.")
        if self.label == "":
            object.__setattr__(self, "label", self._default_label())
        check_text(type(self).__name__, "label", self.label, MOST_LABEL)

    def edits(self) -> tuple[Edit, ...]:
        """The intervention in the one grammar that plans and the executor read."""
        raise SpecError(f"{type(self).__name__} does not say what it edits; define edits().")

    @property
    def steps(self) -> frozenset[int]:
        """Every step on which something is edited."""
        return frozenset(step for edit in self.edits() for step in edit.window)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the content, whatever the label."""
        return digest_of(unlabelled(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": kind, "configuration": {...}}``, of plain JSON types."""
        values = {name: getattr(self, name) for name in _fields(type(self))}
        return {
            "name": self.kind,
            "configuration": {name: _WRITERS.get(name, _plain)(value) for name, value in values.items()},
        }

    @staticmethod
    def from_json(value: Any) -> Intervention:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError
            The name is not registered or the configuration does not fit.
        """
        return _read(value, 1)

    def coordinates(self) -> dict[str, str | int]:
        """What results can be selected by; 0 where a field does not apply.

        A kind may say otherwise what its counts and steps are; the names stay these, or no store could hold them.
        """
        own: Window | Windows | None = getattr(self, "window", None)
        parts = joined((edit.window for edit in self.edits()) if own is None else (own,))
        first, *others = parts
        return {
            "kind": self.kind,
            "label": self.label,
            "digest": self.digest,
            "top": getattr(self, "top", 0),
            "bottom": getattr(self, "bottom", 0),
            "start": first.start,
            "length": first.length,
            "cuts": len(parts),
            "relax": first.stop - others[0].start - 1 if others else 0,
        }

    def __add__(self, other: Intervention) -> Composition:
        """Both interventions in one run."""
        return Composition(tuple(_flat((self, other))))

    def count_edits(self) -> int:
        """Count the edits, each once per window, and twice per composition that it is in."""
        return sum(len(edit.window.parts) for edit in self.edits())

    def _default_label(self) -> str:
        parts = [self.kind]
        for name in _fields(type(self)):
            value = getattr(self, name)
            if name == "window":
                parts += [f"{part.start}-{part.stop}" for part in value.parts]
            elif name == "fill":
                parts.append(fill_words(value.to_json()))
            elif name not in ("label", "branch", "components") or (name == "branch" and value != "both"):
                parts.append(str(value) if name == "component" else f"{name}={value}")
        return " ".join(parts)


@clear_calls
@dataclass(frozen=True, slots=True)
class Edit(Intervention):
    """Replace what one component puts out, during a window, by a fill.

    Parameters
    ----------
    component : str
        ``down.i`` (from the top), ``mid``, ``up.i`` (from the bottom) or ``skip.i`` (from the top; the edge into the
        decoder only). ``unet`` stands for the whole call and takes `Jump` only.
    window : Window or Windows
    fill : Fill
    branch : {"both", "cond", "uncond"}
    """

    kind: ClassVar[str] = "edit"
    component: str
    window: Window | Windows
    fill: Fill = field(default_factory=Zero)
    branch: Branch = "both"

    def __post_init__(self) -> None:
        if not isinstance(self.fill, Fill):
            raise SpecError(f"Edit got fill={shown(self.fill)}; give one of the fills, such as Zero().")
        FILLS.check_named(self.fill, "name", self.fill.name)
        if type(self.fill).apply is Fill.apply and not isinstance(self.fill, Jump):
            raise SpecError(
                f"The fill {self.fill.name!r} does not say what it puts in place: give its class apply(self, value)."
            )
        if not isinstance(self.component, str) or not COMPONENT_NAME.fullmatch(self.component):
            raise ComponentError(
                f"Edit got component={shown(self.component)}; names of components are up to 128 letters, digits and "
                "any of . _ -, such as 'up.3'."
            )
        super(Edit, self).__post_init__()
        if (self.component == "unet") != isinstance(self.fill, Jump):
            raise SpecError(
                f"Edit({self.component!r}, fill={self.fill}): the component 'unet' and the fill Jump() belong together."
            )
        if isinstance(self.fill, Jump) and self.branch != "both":
            raise SpecError(f"A jump skips the whole call; branch={self.branch!r} cannot be honoured.")

    def edits(self) -> tuple[Edit, ...]:
        """The edit itself."""
        return (self,)


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

    Notes
    -----
    The encoder's own next block still sees its input unchanged. Source: Prasad et al. 2023, equation 5, figure 2c.
    """

    kind: ClassVar[str] = "ablate_skip"
    top: int
    window: Window | Windows
    branch: Branch = "both"

    def __post_init__(self) -> None:
        _check_count(self, "top")
        super(AblateSkip, self).__post_init__()

    def edits(self) -> tuple[Edit, ...]:
        """One zero edit per skip connection."""
        return tuple(Edit(f"skip.{index}", self.window, Zero(), self.branch) for index in range(self.top))

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

    Notes
    -----
    Source: Prasad et al. 2023, figure 2b.
    """

    kind: ClassVar[str] = "ablate_block"
    bottom: int
    window: Window | Windows
    branch: Branch = "both"

    def __post_init__(self) -> None:
        _check_count(self, "bottom")
        super(AblateBlock, self).__post_init__()

    def edits(self) -> tuple[Edit, ...]:
        """One zero edit, at the last of the removed blocks."""
        return (Edit(f"up.{self.bottom - 1}", self.window, Zero(), self.branch),)


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

    def to_json(self) -> dict[str, Any]:
        """Write as other interventions; without places where it names none."""
        written = super(Null, self).to_json()
        if not self.components:
            del written["configuration"]["components"]
        return written


@clear_calls
@dataclass(frozen=True, slots=True)
class Composition(Intervention):
    """Several interventions in one run; written ``a + b``.

    Sums are values: ``a + b == b + a``, and all compositions of the same edits have one digest, however they are cut
    into parts.

    Parameters
    ----------
    parts : iterable of Intervention
        Two or more; kept in the order of the run, the part that begins first before others.

    Raises
    ------
    SpecError
        Two parts edit the same component at the same step in different ways, or one edits a step that another skips.
    """

    kind: ClassVar[str] = "composition"
    parts: tuple[Intervention, ...]

    def __init__(self, parts: Iterable[Intervention], *, label: str = "") -> None:
        hold(self, parts=parts, label=label)

    def __post_init__(self) -> None:
        parts = several("A composition", "parts", self.parts, Intervention, MOST_PARTS)
        if len(parts) < 2 or not all(isinstance(part, Intervention) for part in parts):
            raise SpecError(f"A composition needs a list of two or more interventions; got {shown(self.parts)}.")
        object.__setattr__(self, "parts", parts)
        check_edits((self,))
        if (depth := _depth(self)) > MOST_DEPTH:
            raise SpecError(f"Compositions are {depth} deep here; they can be {MOST_DEPTH}. Sums a + b + c are flat.")
        check_conflicts([edit for part in parts for edit in part.edits()])
        object.__setattr__(self, "parts", tuple(sorted(parts, key=_in_the_run)))
        super(Composition, self).__post_init__()

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the set of edits."""
        return digest_of({"name": self.kind, "edits": edits_to_json(self.edits())})

    def edits(self) -> tuple[Edit, ...]:
        """The edits of all parts."""
        return tuple(dict.fromkeys(edit for part in self.parts for edit in part.edits()))

    def coordinates(self) -> dict[str, str | int]:
        """Window coordinates span all parts; the counts are those of the part that has them, else 0."""
        parts = [part.coordinates() for part in self.parts]
        windows = joined(edit.window for edit in self.edits())
        own = {"kind": self.kind, "label": self.label, "digest": self.digest}
        counts = {name: max(int(part[name]) for part in parts) for name in ("top", "bottom", "cuts", "relax")}
        return {**own, **counts, "start": windows[0].start, "length": sum(window.length for window in windows)}

    def count_edits(self) -> int:
        """Count the edits of all parts, twice: they are compared with each other."""
        return 2 * sum(part.count_edits() for part in self.parts)

    def __add__(self, other: Intervention) -> Composition:
        """Add one more part."""
        return Composition(tuple(_flat((self, other))))

    def labelled(self, label: str) -> Self:
        """The same composition under another label."""
        return type(self)(self.parts, label=label)

    def _default_label(self) -> str:
        return " + ".join(part.label for part in self.parts)


def check_edits(interventions: Iterable[Intervention]) -> None:
    """Raise `SpecError` if interventions have more edits together than a study can have."""
    edits = 0
    for item in interventions:
        edits += item.count_edits()
        if edits > MOST_EDITS:
            raise SpecError(
                f"The interventions up to {shown(item.label or item.kind)} make {edits:,} edits, each counted once per "
                f"window and twice per composition that it is in; a study can have {MOST_EDITS:,}. Make several of it."
            )


def _read(value: Any, depth: int) -> Intervention:
    """Read an intervention that stands so deep in compositions."""
    name = value.get("name") if isinstance(value, dict) else None
    cls = KINDS.get(name)
    configuration = value.get("configuration", {}) if cls is not None else None
    if cls is None or not isinstance(configuration, dict):
        raise SpecError(f"{shown(value)} is not an intervention; known kinds: {', '.join(KINDS)}.")
    check_keys("An intervention", value, ("name", "configuration"))
    if unknown := [entry for entry in configuration if entry not in _fields(cls)]:
        raise SpecError(f"{cls.__name__} has no field {unknown[0]!s:.60}; it has {', '.join(_fields(cls))}.")
    readers: dict[str, Callable[[Any], Any]] = {
        "window": windows_from_json,
        "fill": Fill.from_json,
        "parts": lambda parts: _read_parts(parts, depth),
    }
    try:
        return cls(**{entry: readers.get(entry, _same)(given) for entry, given in configuration.items()})
    except TypeError as error:
        raise SpecError(f"{cls.__name__} cannot be read from {shown(configuration)}: {error!s:.200}.") from error


def _read_parts(value: Any, depth: int) -> tuple[Intervention, ...]:
    check_list("Composition cannot be read: its parts", value, MOST_PARTS)
    if depth > MOST_DEPTH:
        raise SpecError(
            f"Compositions can be {MOST_DEPTH} deep; {shown(value)} stands deeper. Sums a + b + c are flat."
        )
    return tuple(_read(part, depth + 1) for part in value)


def _fields(kind: type[Intervention]) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(kind))


def _depth(item: Intervention) -> int:
    """How deep compositions stand in each other; no deeper than is allowed, and once more."""
    return 1 + max(map(_depth, item.parts)) if isinstance(item, Composition) else 0


def _check_count(item: Intervention, name: str) -> None:
    owner, value = type(item).__name__, plain_number(getattr(item, name))
    if not is_integer(value) or value < 1:
        raise SpecError(f"{owner} got {name}={shown(value)}; it must be an integer of at least 1.")
    if value > MOST_BLOCKS:
        raise SpecError(f"{owner} got {name}={shown(value)}; no U-Net has more than {MOST_BLOCKS:,} of them.")


def _flat(parts: tuple[Intervention, ...]) -> Iterator[Intervention]:
    for part in parts:
        yield from part.parts if isinstance(part, Composition) else (part,)


def _plain(value: Any) -> Any:
    return [part.to_json() for part in value] if isinstance(value, tuple) else value


def _in_the_run(part: Intervention) -> Any:
    """Sort key by first steps; parts of the same steps in an order that only their content gives."""
    spans = sorted({(-window.start, window.stop) for edit in part.edits() for window in edit.window.parts})
    return spans, part.kind, written(unlabelled(part.to_json())), part.label


def _same(value: Any) -> Any:
    return value
