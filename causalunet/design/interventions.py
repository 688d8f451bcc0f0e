"""What is done to the U-Net: interventions as frozen values, all made of edits (component, window, fill)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from causalunet.calls import clear_calls, hold
from causalunet.design.conflicts import check_conflicts, edits_to_json
from causalunet.design.digests import digest_of, unlabelled, written
from causalunet.design.facts import facts_html, facts_of_edits
from causalunet.design.fills import FILLS, Fill, Jump, Zero, fill_words, says_what
from causalunet.design.limits import (
    COMPONENT_NAME,
    MOST_DEPTH,
    MOST_EDITS,
    MOST_LABEL,
    MOST_PARTS,
    check_keys,
    check_list,
    check_text,
    plain_number,
    several,
    shown,
)
from causalunet.design.site import Site, checked_view
from causalunet.design.views import Branch, Rows, View, Whole, check_branch
from causalunet.design.windows import Window, Windows, joined, windows_from_json, windows_to_json
from causalunet.errors import ComponentError, SpecError
from causalunet.registry import Registry

if TYPE_CHECKING:
    from causalunet.design.anatomy import Anatomy

__all__ = ["KINDS", "Composition", "Edit", "Intervention", "check_edits", "digest_of_edits"]

KINDS: Registry[type[Intervention]] = Registry("kind of intervention", "causalunet.interventions")
"""Every kind of intervention, by name."""
_FIELDS: dict[Any, tuple[str, ...]] = {}
"""Names of the fields of each kind: a study makes a hundred thousand edits."""
_WRITERS: dict[str, Callable[[Any], Any]] = {
    "window": windows_to_json,
    "fill": lambda fill: fill.to_json(),
    "components": list,
    "view": lambda view: view.to_json(),
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
        check_branch(getattr(self, "branch", "both"))
        _split_rows(self)
        if self.label == "":
            object.__setattr__(self, "label", self._default_label())
        check_text(type(self).__name__, "label", self.label, MOST_LABEL)

    def edits(self) -> tuple[Edit, ...]:
        """The intervention in the one grammar that plans and the executor read."""
        raise SpecError(f"{type(self).__name__} does not say what it edits; define edits().")

    def placed(self, anatomy: Anatomy) -> Intervention:
        """The same with the names of a model's places, where it asks for places without naming them.

        Studies hold what is placed, so that results can be read without the model. A kind that asks for the bottleneck,
        say, keeps the names in a field ``components``, which is left out of JSON while it is empty.

        Parameters
        ----------
        anatomy : Anatomy
            Of the model.

        Raises
        ------
        ComponentError
            The model has no such places.
        """
        return self

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
        if type(values.get("view")) is Whole:  # as it was written before there were views
            del values["view"]
        if values.get("components") == ():
            del values["components"]
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

    def coordinates(self) -> dict[str, Any]:
        """What results can be selected by; 0 where a field does not apply.

        A kind may say otherwise what its counts and steps are, and more: texts, numbers and truth values by name.
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
            # Where it has no meaning there is none, in tables NaN: 0 is the first call.
            **({} if own is None or own.stage is None else {"stage": float(own.stage)}),
        }

    def __add__(self, other: Intervention) -> Composition:
        """Both interventions in one run."""
        return Composition(tuple(_flat((self, other))))

    def _repr_html_(self) -> str:
        """What is edited, for notebooks."""
        return facts_html(f"Intervention {shown(self.label)}", facts_of_edits(self))

    def count_edits(self) -> int:
        """Count the edits, each once per window, and twice per composition that it is in."""
        return sum(len(edit.window.parts) for edit in self.edits())

    def _default_label(self) -> str:
        parts = [self.kind]
        for name in _fields(type(self)):
            value = getattr(self, name)
            if name == "window":
                parts += [f"{part.start}-{part.stop}" for part in value.parts]
                if value.stage is not None:
                    parts.append(f"stage={value.stage}")
            elif name == "fill":
                parts.append(fill_words(value.to_json()))
            elif name == "view":
                parts += [value.words] if value != Whole() else []
            elif name not in ("label", "branch", "components") or (name == "branch" and value != "both"):
                parts.append(str(value) if name == "component" else f"{name}={value}")
        return " ".join(parts)


@clear_calls
@dataclass(frozen=True, slots=True)
class Edit(Intervention):
    """Replace what one component puts out, or a part of it, during a window, by a fill.

    Parameters
    ----------
    component : str or Site
        ``down.i`` (from the top), ``mid``, ``up.i`` (from the bottom) or ``skip.i`` (from the top; the edge into the
        decoder only). ``unet`` stands for the whole call and takes `Jump` only. A `Site` is a component and the part of
        it that is meant: ``Edit(Site("up.3") @ Channels(0, 1) @ Rows("cond"), window)`` is
        ``Edit("up.3", window, branch="cond", view=Channels(0, 1))``.
    window : Window or Windows
    fill : Fill
        Made of the part alone.
    branch : {"both", "cond", "uncond"}
    view : View, optional
        Which part; the whole by default.
    """

    kind: ClassVar[str] = "edit"
    component: str
    window: Window | Windows
    fill: Fill
    branch: Branch
    view: View

    def __init__(
        self,
        component: str | Site,
        window: Window | Windows,
        fill: Fill | None = None,
        branch: Branch = "both",
        view: View | None = None,
        *,
        label: str = "",
    ) -> None:
        fill, view = Zero() if fill is None else fill, Whole() if view is None else view
        site = component if isinstance(component, Site) else None
        if site is not None:
            view = site.view @ checked_view("Edit", view)
        hold(
            self,
            component=component if site is None else site.component,
            window=window,
            fill=fill,
            branch=branch,
            view=view,
            label=label,
        )

    def __post_init__(self) -> None:
        if not isinstance(self.fill, Fill):
            raise SpecError(f"Edit got fill={shown(self.fill)}; give one of the fills, such as Zero().")
        FILLS.check_named(self.fill, "name", self.fill.name)
        if not says_what(self.fill):
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
        if isinstance(self.fill, Jump) and (self.branch != "both" or type(self.view) is not Whole):
            part = f"view={self.view}" if self.branch == "both" else f"branch={self.branch!r}"
            raise SpecError(f"A jump skips the whole call; {part} cannot be honoured.")
        if isinstance(self.fill, Jump) and self.window.stage is not None:
            raise SpecError(
                f"A jump skips all calls of its steps; stage={self.window.stage} cannot be honoured. Leave it out."
            )
        self.fill.over(self.window)  # tells where nothing would be put in place

    @property
    def site(self) -> Site:
        """Component and view, rows of the branch included."""
        return Site(self.component, self.view @ Rows(self.branch))

    def edits(self) -> tuple[Edit, ...]:
        """The edit itself; of a fill that is put in place at some steps of the window, an edit of these."""
        window, fill = self.fill.over(self.window)
        if window is self.window and fill is self.fill:
            return (self,)
        return (Edit(self.component, window, fill, self.branch, self.view),)


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
        return digest_of_edits(self.edits(), self.kind)

    def placed(self, anatomy: Anatomy) -> Composition:
        """All parts, placed."""
        parts = tuple(part.placed(anatomy) for part in self.parts)
        same = all(one is other for one, other in zip(parts, self.parts, strict=True))
        return self if same else Composition(parts, label=self.label)

    def edits(self) -> tuple[Edit, ...]:
        """The edits of all parts."""
        return tuple(dict.fromkeys(edit for part in self.parts for edit in part.edits()))

    def coordinates(self) -> dict[str, Any]:
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


def digest_of_edits(edits: Iterable[Edit], kind: str = Composition.kind) -> str:
    """Sixteen hexadecimal digits that name a set of edits: those of a composition of them."""
    return digest_of({"name": kind, "edits": edits_to_json(edits)})


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
        "view": View.from_json,
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
    if kind not in _FIELDS:
        _FIELDS[kind] = tuple(entry.name for entry in fields(kind))
    return _FIELDS[kind]


def _split_rows(item: Intervention) -> None:
    """Let the rows of a view be the branch: what is one in content has one spelling."""
    if not hasattr(item, "view"):
        return
    if type(item.view) is Whole:  # of most, and there are a hundred thousand at most
        return
    site, branch = Site("any", checked_view(type(item).__name__, item.view)), getattr(item, "branch", None)
    if branch is None:
        object.__setattr__(item, "view", site.view)
        return
    if site.branch != "both":
        if branch not in ("both", site.branch):
            raise SpecError(f"{type(item).__name__} got branch={branch!r} and a view of the rows of {site.branch!r}.")
        object.__setattr__(item, "branch", site.branch)
    object.__setattr__(item, "view", site.within)


def _depth(item: Intervention) -> int:
    """How deep compositions stand in each other; no deeper than is allowed, and once more."""
    return 1 + max(map(_depth, item.parts)) if isinstance(item, Composition) else 0


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
