"""What a user asks for, as one value: model, samples, sampler, interventions, records."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from causalunet.design.interventions import Edit, Intervention, Null
from causalunet.design.windows import Window
from causalunet.errors import PromptError, SpecError

__all__ = ["DDPM", "Record", "Sample", "StudySpec", "listed"]


_SEED_LIMIT = 2**63
"""Stored seeds are signed 64-bit integers."""


def _several(owner: str, name: str, value: Any, kind: type) -> tuple[Any, ...]:
    """Make a tuple of what was given, be it one value of a kind or many."""
    if isinstance(value, kind):
        return (value,)
    if not isinstance(value, Iterable):
        raise SpecError(f"{owner} got {name}={value!r}; give a list.")
    return tuple(value)


def listed(prompts: Iterable[str]) -> tuple[str, ...]:
    """Prompts as a tuple; one alone is a list of one."""
    return _several("The run", "prompts", prompts, str)


def _integers(values: Any) -> tuple[int, ...]:
    """Make plain integers of NumPy's and Python's; what holds anything else gives none."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DDPM:
    """Ancestral sampling with spaced steps, learned variance and classifier-free guidance.

    Parameters
    ----------
    steps : int
        Number of denoising steps T, spread over the training timesteps.
    guidance_scale : float
        Weight of the conditional over the unconditional prediction; 1 means no guidance and one row per call.

    Notes
    -----
    Source: Nichol & Dhariwal 2021; guidance as in Nichol et al. 2022, section 2.3.
    """

    steps: int = 100
    guidance_scale: float = 3.0

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise SpecError(f"DDPM got steps={self.steps!r}; it must be an integer of at least 1.")
        scale = self.guidance_scale
        if not isinstance(scale, int | float) or not (math.isfinite(scale) and scale >= 0):
            raise SpecError(f"DDPM got guidance_scale={scale!r}; it must be a finite number of at least 0.")
        object.__setattr__(self, "guidance_scale", float(scale) + 0.0)  # -0.0 == 0.0, so both have one spelling

    @property
    def rows_per_sample(self) -> int:
        """Rows of a U-Net call per sample: two under guidance."""
        return 1 if self.guidance_scale == 1.0 else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept beside images and outcomes.

    Parameters
    ----------
    activations : tuple of str
        Component patterns, such as ``("mid", "up.*")``, whose full output is stored.
    summary : tuple of str
        Component patterns of which mean, SD, norm and cosine to the baseline are stored.
    steps : tuple of int, optional
        Steps at which; all by default.
    of : {"baseline", "all"}
        Whose activations: the baseline's, or those of every run.
    dtype : {"float16", "float32"}
        Of stored activations.
    """

    activations: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()
    steps: tuple[int, ...] | None = None
    of: Literal["baseline", "all"] = "baseline"
    dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        for name in ("activations", "summary"):
            patterns = _several("Record", name, getattr(self, name), str)
            object.__setattr__(self, name, patterns)
            if not all(isinstance(pattern, str) for pattern in patterns):
                raise SpecError(f"Record got {name}={patterns!r}; give component patterns such as 'up.*'.")
        if self.steps is not None:
            steps = _integers(self.steps)
            if not steps:
                raise SpecError(f"Record got steps={self.steps!r}; give one or more integers, or None for all steps.")
            object.__setattr__(self, "steps", tuple(sorted(set(steps), reverse=True)))
        for name, known in (("of", ("baseline", "all")), ("dtype", ("float16", "float32"))):
            if getattr(self, name) not in known:
                raise SpecError(f"Record got {name}={getattr(self, name)!r}; it is one of {', '.join(known)}.")


@dataclass(frozen=True, slots=True)
class Sample:
    """The unit of analysis.

    Parameters
    ----------
    prompt : str
    seed : int
        Names the noise of every step.
    """

    prompt: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A study as a value. `causalunet.Study` is the same with ``plan()`` and ``run()``.

    Parameters
    ----------
    name : str
    interventions : iterable of Intervention
        With labels and contents that differ. A `Null` is added unless there is one.
    prompts : iterable of str
    seeds : iterable of int, optional
        Every prompt is sampled with every seed. By default each prompt is sampled once, the first with seed 0, the
        second with seed 1, and so on.
    model : str
        Registered model name.
    sampler : DDPM
    record : Record

    Raises
    ------
    SpecError, PromptError
        Something is empty, doubled or outside the run, told before anything is loaded.
    """

    name: str
    interventions: tuple[Intervention, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...] | None = None
    model: str = "shapes"
    sampler: DDPM = DDPM()
    record: Record = Record()

    def __post_init__(self) -> None:
        for name, kind in (("sampler", DDPM), ("record", Record)):
            if not isinstance(getattr(self, name), kind):
                raise SpecError(f"The study got {name}={getattr(self, name)!r}; give a {kind.__name__}(...).")
        object.__setattr__(self, "prompts", _several("The study", "prompts", self.prompts, str))
        items = _several("The study", "interventions", self.interventions, Intervention)
        object.__setattr__(self, "interventions", _with_null(items, self.sampler.steps))
        if self.seeds is not None:
            seeds = _integers(self.seeds)
            if not seeds or min(seeds) < 0 or max(seeds) >= _SEED_LIMIT:
                raise SpecError(f"Seeds are one or more integers of at least 0, below 2**63; got {self.seeds!r}.")
            object.__setattr__(self, "seeds", seeds)
        _check_samples(self.prompts, self.seeds)
        _check_interventions(self.interventions, self.sampler)
        if self.record.steps is not None and not set(self.record.steps) <= set(range(1, self.sampler.steps + 1)):
            raise SpecError(f"Record asks for steps outside 1 ... {self.sampler.steps}: {self.record.steps}.")

    @property
    def samples(self) -> tuple[Sample, ...]:
        """One entry per prompt and seed; the seed varies fastest."""
        if self.seeds is None:
            return tuple(Sample(prompt, seed) for seed, prompt in enumerate(self.prompts))
        return tuple(Sample(prompt, seed) for prompt in self.prompts for seed in self.seeds)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the content of the study."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Write with plain JSON types."""
        return {
            "name": self.name,
            "model": self.model,
            "prompts": list(self.prompts),
            "seeds": _listed(self.seeds),
            "sampler": {"name": "ddpm", "configuration": asdict(self.sampler)},
            "interventions": [intervention.to_json() for intervention in self.interventions],
            "record": {entry.name: _listed(getattr(self.record, entry.name)) for entry in fields(Record)},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        known = {entry.name for entry in fields(StudySpec)}
        if not isinstance(value, dict) or set(value) - known:
            raise SpecError(f"A study has the fields {', '.join(sorted(known))}; got {value!r:.200}.")
        parts = dict(value)
        try:
            sampler = parts.get("sampler", {"name": "ddpm", "configuration": {}})
            if sampler["name"] != "ddpm":
                raise SpecError(f"Sampler {sampler['name']!r} is not known; known: ddpm.")
            parts["sampler"] = DDPM(**sampler["configuration"])
            parts["record"] = Record(**parts.get("record", {}))
            parts["interventions"] = tuple(Intervention.from_json(entry) for entry in parts["interventions"])
            return cls(**parts)
        except (KeyError, TypeError) as error:
            raise SpecError(f"The study cannot be read from {value!r:.200}: {type(error).__name__} {error}.") from error


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _with_null(interventions: tuple[Intervention, ...], steps: int) -> tuple[Intervention, ...]:
    """Add a null intervention over the first steps, where differences grow most, as long as the longest window."""
    for item in interventions:
        if not isinstance(item, Intervention):
            raise SpecError(f"{item!r} is not an intervention; sweeps are unpacked with *sweep(...).")
    if any(isinstance(item, Null) for item in interventions) or not interventions:
        return interventions
    longest = max(len(item.steps) for item in interventions)
    return (*interventions, Null(window=Window(steps, min(longest, steps))))


def _check_samples(prompts: tuple[str, ...], seeds: tuple[int, ...] | None) -> None:
    if not prompts:
        raise PromptError("The study has no prompt; give at least one.")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise PromptError(f"Prompt {index} is {prompt!r}; an empty prompt says nothing to generate. Give it words.")
    if seeds is None:
        return
    for name, values in (("prompt", prompts), ("seed", seeds)):
        doubled = [value for value, n in Counter(values).items() if n > 1]
        if doubled:
            raise SpecError(
                f"The {name} {doubled[0]!r} stands twice; a repeated sample adds no evidence. Give it once."
            )


def _check_interventions(interventions: tuple[Intervention, ...], sampler: DDPM) -> None:
    if not interventions:
        raise SpecError("The study has no intervention; an empty sweep compares nothing. Give at least one.")
    for field_name in ("label", "digest"):
        for value, n in Counter(getattr(item, field_name) for item in interventions).items():
            if n > 1:
                twins = [item.label for item in interventions if getattr(item, field_name) == value]
                raise SpecError(f"Two interventions have one {field_name}, {value!r} ({twins}). Give each its own.")
    for item in interventions:
        for edit in item.edits():
            _check_edit(item.label, edit, sampler)


def _check_edit(label: str, edit: Edit, sampler: DDPM) -> None:
    steps = sampler.steps
    edit.window.check(steps)
    if edit.component == "unet" and steps in set(edit.window):
        raise SpecError(
            f"{label!r} skips step {steps}, the first of the run, so there is no step to jump from. "
            f"Start at {steps - 1} or lower."
        )
    if edit.branch == "uncond" and sampler.rows_per_sample == 1:
        raise SpecError(
            f"{label!r} edits the branch 'uncond', but a run with guidance_scale=1 has no unconditional rows, so the "
            "edit could never fire. Choose another branch or guidance scale."
        )
