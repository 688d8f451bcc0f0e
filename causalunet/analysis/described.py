"""What is said of an outcome: by itself, by the variable that holds it, or by the class of its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from causalunet.design.limits import is_number, plain_number, shown
from causalunet.design.outcomes import OUTCOMES, Outcome
from causalunet.errors import PluginError, SpecError

__all__ = ["TELLING", "Described", "Threshold", "described", "registered_outcome", "thresholds_of", "variable_name"]

Threshold = float | Mapping[str, float] | Literal["own"] | None
"""Of figures: a number for the first outcome drawn, numbers by variable, "own" for what each outcome says, or none."""

TELLING = ("long_name", "short_name", "units", "better")
"""Attributes of an outcome's variable that also are those of its mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """How an outcome is named, bounded and drawn.

    Attributes
    ----------
    name : str
        Its variable in ``results.outcomes``.
    title : str
        In figures and tables.
    units : str
        "1" for a pure number.
    better : str, optional
        "higher" or "lower", as far as it is known.
    threshold : float, optional
        Its own.
    axis : tuple of float, optional
        What figures show of its range; None for as much as the values take.
    digits : int
        Decimals in tables.
    """

    name: str
    title: str
    units: str
    better: str | None
    threshold: float | None
    axis: tuple[float, float] | None
    digits: int

    @property
    def label(self) -> str:
        """Title with the unit, if it has one."""
        return self.title + (f" ({self.units})" if self.units != "1" else "")

    @property
    def sign(self) -> int:
        """-1 where smaller values mean more alike, 1 elsewhere."""
        return -1 if self.better == "lower" else 1

    def short(self, value: float, digits: int = 2) -> str:
        """A value in words, such as ``SSIM 0.91`` or ``PSNR 23.1 dB``."""
        unit = f" {self.units}" if self.units != "1" else ""
        return f"{self.title} {value:.{digits}f}{unit}"

    def bound(self, threshold: float) -> str:
        """What alike values are, in words: ``≥ 0.8``, or of distances ``≤ 0.1``."""
        return f"{'≤' if self.sign < 0 else '≥'} {threshold:g}"


def variable_name(variable: str | Outcome) -> str:
    """Name of an outcome's variable, where the outcome itself may be given.

    Raises
    ------
    SpecError
        It is neither a name nor an outcome.
    """
    if not isinstance(variable, str | Outcome):
        raise SpecError(f"{shown(variable)} is not an outcome; give its name, such as 'ssim', or the outcome itself.")
    return variable.variable if isinstance(variable, Outcome) else variable


def registered_outcome(name: str) -> type[Outcome] | None:
    """The class that is registered under the name of a variable, if one is and can be imported."""
    try:
        return OUTCOMES.get(name)
    except PluginError:  # what is stored is read without it
        return None


def described(variable: str | Outcome, attrs: Mapping[str, Any] | None = None) -> Described:
    """Gather what is known of an outcome.

    Parameters
    ----------
    variable : str or Outcome
    attrs : mapping, optional
        Of its variable, as it is stored or computed from one. What they say counts first.
    """
    attrs, name = attrs or {}, variable_name(variable)
    known: Outcome | type[Outcome] = (
        variable if isinstance(variable, Outcome) else (registered_outcome(name) or Outcome)
    )
    return Described(
        name=name,
        title=str(attrs.get("short_name") or known.title or name.replace("_", " ")),
        units=str(attrs.get("units", known.units)),
        better=attrs.get("better", known.better),
        threshold=known.threshold,
        axis=known.axis,
        digits=known.digits,
    )


def thresholds_of(threshold: Threshold, outcomes: Sequence[Described]) -> list[float | None]:
    """Thresholds of the outcomes of a figure, each its own.

    Raises
    ------
    SpecError
        A threshold is not a number, or of an outcome that is not drawn.
    """
    if threshold is None:
        return [None] * len(outcomes)
    if isinstance(threshold, str):
        if threshold != "own":
            raise SpecError(f"threshold={shown(threshold)} is neither a number nor 'own'; None draws no threshold.")
        return [one.threshold for one in outcomes]
    given = threshold if isinstance(threshold, Mapping) else {outcomes[0].name: plain_number(threshold)}
    names = [one.name for one in outcomes]
    unknown = [name for name in given if name not in names]
    wrong = [value for value in given.values() if not is_number(plain_number(value))]
    if unknown or wrong:
        told = f"{shown(wrong[0])}, which is no finite number" if wrong else f"one of {shown(unknown[0])}"
        raise SpecError(f"A threshold was given as {told}; the figure has {', '.join(names)}.")
    return [given.get(name) for name in names]
