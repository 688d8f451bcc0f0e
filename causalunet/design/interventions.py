"""What is done to the U-Net: interventions as frozen values, all made of edits (component, window, fill)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

from causalunet.design.fills import Fill, Identity, Jump, Zero
from causalunet.design.windows import Window, Windows, windows_from_json, windows_to_json
from causalunet.errors import SpecError

__all__ = ["AblateBlock", "AblateSkip", "Branch", "Composition", "Edit", "Intervention", "Null", "SkipSteps"]

Branch = Literal["both", "cond", "uncond"]
"""Which half of the guided batch is intervened on."""

_REGISTRY: dict[str, type[Intervention]] = {}
_WRITERS: dict[str, Callable[[Any], Any]] = {"window": windows_to_json, "fill": lambda fill: fill.to_json()}


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
        _REGISTRY[cls.kind] = cls

    def __post_init__(self) -> None:
        window = getattr(self, "window", None)
        if window is not None and not isinstance(window, Window | Windows):
            raise SpecError(f"{type(self).__name__} got window={window!r}; give a Window or Windows.")
        if isinstance(window, Windows) and len(window.parts) == 1:  # one content, one spelling: that of JSON
            object.__setattr__(self, "window", window.parts[0])
        branch = getattr(self, "branch", "both")
        if branch not in ("both", "cond", "uncond"):
            raise SpecError(f"branch {branch!r} is not one of 'both', 'cond', 'uncond'.")
        if not self.label:
            object.__setattr__(self, "label", self._default_label())

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
        return hashlib.sha256(json.dumps(_unlabelled(self.to_json()), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": kind, "configuration": {...}}``, of plain JSON types."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
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
        configuration = value.get("configuration", {}) if isinstance(value, dict) else None
        if not isinstance(configuration, dict) or str(value.get("name")) not in _REGISTRY:
            raise SpecError(f"{value!r} is not an intervention; known kinds: {', '.join(sorted(_REGISTRY))}.")
        cls = _REGISTRY[str(value["name"])]
        readers: dict[str, Callable[[Any], Any]] = {
            "window": windows_from_json,
            "fill": Fill.from_json,
            "parts": lambda parts: tuple(Intervention.from_json(part) for part in parts),
        }
        unknown = sorted(set(configuration) - {entry.name for entry in fields(cls)})
        if unknown:
            raise SpecError(f"{cls.__name__} has no field {', '.join(unknown)}.")
        try:
            return cls(**{name: readers.get(name, _same)(entry) for name, entry in configuration.items()})
        except TypeError as error:
            raise SpecError(f"{cls.__name__} cannot be read from {configuration!r}: {error}.") from error

    def coordinates(self) -> dict[str, str | int]:
        """What results can be selected by; 0 where a field does not apply."""
        window: Window | Windows = self.window  # type: ignore[attr-defined]
        first, *others = window.parts
        return {
            "kind": self.kind,
            "label": self.label,
            "digest": self.digest,
            "top": getattr(self, "top", 0),
            "bottom": getattr(self, "bottom", 0),
            "start": first.start,
            "length": first.length,
            "cuts": len(window.parts),
            "relax": first.stop - others[0].start - 1 if others else 0,
        }

    def __add__(self, other: Intervention) -> Composition:
        """Both interventions in one run."""
        return Composition(tuple(_flat((self, other))))

    def _default_label(self) -> str:
        parts = [self.kind]
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "window":
                parts += [f"{part.start}-{part.stop}" for part in value.parts]
            elif entry.name == "fill":
                parts.append(" ".join(map(str, (value.name, *value.to_json()["configuration"].values()))))
            elif entry.name not in ("label", "branch") or (entry.name == "branch" and value != "both"):
                parts.append(str(value) if entry.name == "component" else f"{entry.name}={value}")
        return " ".join(parts)


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
            raise SpecError(f"Edit got fill={self.fill!r}; give one of the fills, such as Zero().")
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
        _check_count("AblateSkip", "top", self.top)
        super(AblateSkip, self).__post_init__()

    def edits(self) -> tuple[Edit, ...]:
        """One zero edit per skip connection."""
        return tuple(Edit(f"skip.{index}", self.window, Zero(), self.branch) for index in range(self.top))


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
        _check_count("AblateBlock", "bottom", self.bottom)
        super(AblateBlock, self).__post_init__()

    def edits(self) -> tuple[Edit, ...]:
        """One zero edit, at the last of the removed blocks."""
        return (Edit(f"up.{self.bottom - 1}", self.window, Zero(), self.branch),)


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


@dataclass(frozen=True, slots=True)
class Null(Intervention):
    """Take activations out and put them back unchanged: what its run differs by is the noise floor.

    Parameters
    ----------
    window : Window or Windows
    """

    kind: ClassVar[str] = "null"
    window: Window | Windows

    def edits(self) -> tuple[Edit, ...]:
        """Identity on a skip connection and on the bottleneck: both ways of editing are exercised."""
        return tuple(Edit(component, self.window, Identity()) for component in ("mid", "skip.0"))


@dataclass(frozen=True, slots=True)
class Composition(Intervention):
    """Several interventions in one run; written ``a + b``.

    Parameters
    ----------
    parts : tuple of Intervention

    Raises
    ------
    SpecError
        Two parts edit the same component at the same step in different ways, or one edits a step that another skips.
    """

    kind: ClassVar[str] = "composition"
    parts: tuple[Intervention, ...]

    def __post_init__(self) -> None:
        parts = tuple(self.parts) if isinstance(self.parts, list | tuple) else ()
        if len(parts) < 2 or not all(isinstance(part, Intervention) for part in parts):
            raise SpecError(f"A composition needs a tuple of two or more interventions; got {self.parts!r}.")
        object.__setattr__(self, "parts", parts)
        _check_conflicts(self.parts)
        super(Composition, self).__post_init__()

    def edits(self) -> tuple[Edit, ...]:
        """The edits of all parts."""
        return tuple(dict.fromkeys(edit for part in self.parts for edit in part.edits()))

    def coordinates(self) -> dict[str, str | int]:
        """Window coordinates span all parts; the counts are those of the part that has them, else 0."""
        parts = [part.coordinates() for part in self.parts]
        steps = self.steps
        own = {"kind": self.kind, "label": self.label, "digest": self.digest}
        counts = {name: max(int(part[name]) for part in parts) for name in ("top", "bottom", "cuts", "relax")}
        return {**own, **counts, "start": max(steps), "length": len(steps)}

    def __add__(self, other: Intervention) -> Composition:
        """Add one more part."""
        return Composition(tuple(_flat((self, other))))

    def labelled(self, label: str) -> Self:
        """The same composition under another label."""
        return type(self)(self.parts, label=label)

    def _default_label(self) -> str:
        return " + ".join(part.label for part in self.parts)


def _check_count(owner: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(f"{owner} got {name}={value!r}; it must be an integer of at least 1.")


def _flat(parts: tuple[Intervention, ...]) -> Iterator[Intervention]:
    for part in parts:
        yield from part.parts if isinstance(part, Composition) else (part,)


def _check_conflicts(parts: tuple[Intervention, ...]) -> None:
    taken: dict[tuple[str, int, str], Edit] = {}
    edits = [edit for part in parts for edit in part.edits()]
    skipped = {step for edit in edits if edit.component == "unet" for step in edit.window}
    for edit in edits:
        for step in edit.window:
            if edit.component != "unet" and step in skipped:
                raise SpecError(
                    f"Step {step} is skipped, so the edit of {edit.component} there could never fire. "
                    "Give the parts windows that do not overlap."
                )
            for branch in ("cond", "uncond") if edit.branch == "both" else (edit.branch,):
                other = taken.setdefault((edit.component, step, branch), edit)
                if (other.fill, other.branch) != (edit.fill, edit.branch):
                    raise SpecError(
                        f"{edit.component} at step {step} is edited twice, by {other.label!r} and by {edit.label!r}. "
                        "Give the parts windows that do not overlap."
                    )


def _plain(value: Any) -> Any:
    return [part.to_json() for part in value] if isinstance(value, tuple) else value


def _unlabelled(spec: Any) -> Any:
    """Drop the labels of a JSON spec at every depth."""
    if isinstance(spec, dict):
        return {name: _unlabelled(value) for name, value in spec.items() if name != "label"}
    return [_unlabelled(entry) for entry in spec] if isinstance(spec, list) else spec


def _same(value: Any) -> Any:
    return value
