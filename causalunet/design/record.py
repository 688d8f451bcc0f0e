"""What a study keeps beside images and outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

from causalunet.calls import clear_calls, hold
from causalunet.design.limits import (
    LARGEST,
    MOST_PATTERNS,
    MOST_STEPS,
    check_keys,
    check_list,
    check_text,
    integers,
    several,
    shown,
)
from causalunet.errors import SpecError

__all__ = ["Record", "record_from_json"]

_PATTERN = 128
"""Most characters of a component pattern: as many as a component's name can have."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept beside images and outcomes.

    Parameters
    ----------
    activations : iterable of str
        Component patterns, such as ``("mid", "up.*")``, whose full output is stored.
    summary : iterable of str
        Component patterns of which mean, SD, norm and cosine to the baseline are stored.
    steps : iterable of int, optional
        Steps at which; all by default.
    of : {"baseline", "all"}
        Whose activations: the baseline's, or those of every run.
    dtype : {"float16", "float32"}
        Of stored activations.
    """

    activations: tuple[str, ...]
    summary: tuple[str, ...]
    steps: tuple[int, ...] | None
    of: Literal["baseline", "all"]
    dtype: Literal["float16", "float32"]

    def __init__(
        self,
        *,
        activations: str | Iterable[str] = (),
        summary: str | Iterable[str] = (),
        steps: Iterable[int] | None = None,
        of: Literal["baseline", "all"] = "baseline",
        dtype: Literal["float16", "float32"] = "float16",
    ) -> None:
        hold(self, activations=activations, summary=summary, steps=steps, of=of, dtype=dtype)

    def __post_init__(self) -> None:
        for name in ("activations", "summary"):
            patterns = several("Record", name, getattr(self, name), str, MOST_PATTERNS)
            object.__setattr__(self, name, patterns)
            if not all(isinstance(pattern, str) and len(pattern) <= _PATTERN for pattern in patterns):
                raise SpecError(
                    f"Record got {name}={shown(patterns)}; give component patterns such as 'up.*', of up to {_PATTERN} "
                    "characters."
                )
            for pattern in patterns:
                check_text("Record", name, pattern)
        if self.steps is not None:
            steps = sorted(set(integers("Record", "steps", self.steps)), reverse=True)
            if not steps or len(steps) > MOST_STEPS or max(map(abs, steps)) > LARGEST:
                raise SpecError(
                    f"Record got steps={shown(self.steps)}; give one or more integers, or None for all steps."
                )
            object.__setattr__(self, "steps", tuple(steps))
        for name, known in (("of", ("baseline", "all")), ("dtype", ("float16", "float32"))):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise SpecError(f"Record got {name}={shown(value)}; it is one of {', '.join(known)}.")


def record_from_json(value: Any) -> Record:
    """Read a record that JSON holds.

    Raises
    ------
    SpecError
        It is not the object that a study writes.
    """
    check_keys("The record cannot be read: it", value, [entry.name for entry in fields(Record)])
    for name in ("activations", "summary", "steps"):
        if name in value and (name, value[name]) != ("steps", None):
            check_list(f"The record cannot be read: its {name}", value[name], MOST_STEPS)
    return Record(**value)
