"""What a user asks for, as one value: model, samples, sampler, interventions, records."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import import_module
from typing import Any, Self

from causalunet.calls import clear_calls, hold
from causalunet.design.coordinates import check_coordinates, check_together
from causalunet.design.digests import digest_of
from causalunet.design.donors import OfBaseline, OwnBefore
from causalunet.design.interventions import Composition, Edit, Intervention, check_edits, digest_of_edits
from causalunet.design.kinds import Null
from causalunet.design.limits import (
    LARGEST,
    MOST_INTERVENTIONS,
    MOST_SAMPLES,
    check_keys,
    check_list,
    check_text,
    integers,
    several,
    shown,
)
from causalunet.design.outcomes import MOST_OUTCOMES, Outcome, own_outcomes
from causalunet.design.record import Record, record_from_json
from causalunet.design.samplers import DDPM, Sampler
from causalunet.design.starts import Noise, Start, start_of
from causalunet.design.windows import Window, Windows, count_steps
from causalunet.errors import PromptError, SpecError
from causalunet.prompts import NO_PROMPT, NoPrompt

__all__ = [
    "Sample",
    "StudySpec",
    "check_fits",
    "listed",
    "listed_seeds",
    "listed_starts",
    "one_run",
]


def listed(prompts: Iterable[str]) -> tuple[str, ...]:
    """Prompts as a tuple; one alone is a list of one."""
    return several("The run", "prompts", prompts, str, MOST_SAMPLES)


def listed_seeds(seeds: Iterable[int] | None) -> tuple[int, ...] | None:
    """Seeds as a tuple, if any."""
    return None if seeds is None else several("The run", "seeds", seeds, str, MOST_SAMPLES)


def listed_starts(starts: Start | Iterable[Start] | None) -> tuple[Start, ...] | None:
    """Starts as a tuple, if any; one alone is a list of one."""
    return None if starts is None else several("The run", "starts", starts, Start, MOST_SAMPLES)


def one_run(
    prompts: Iterable[str],
    seeds: Iterable[int] | None,
    sampler: Sampler,
    intervention: Intervention | None,
    *,
    starts: Start | Iterable[Start] | None = None,
) -> StudySpec:
    """Make the study of a single run, with an intervention or without: nothing is compared, so there is no null."""
    given = () if intervention is None else (intervention,)
    study = StudySpec(
        name="run",
        prompts=listed(prompts),
        seeds=listed_seeds(seeds),
        starts=starts,
        sampler=sampler,
        interventions=[*given, Null(Window(1, 1))],
    )
    return study.with_stored(given)


@clear_calls
@dataclass(frozen=True, slots=True)
class Sample:
    """The unit of analysis.

    Parameters
    ----------
    prompt : str
        `causalunet.NO_PROMPT` for a sample without a condition.
    start : Start, or int
        Where its run begins, and which noise it draws; a number is the seed of `causalunet.design.starts.Noise`.
    """

    prompt: str
    start: Start

    def __init__(self, prompt: str, start: Start | int) -> None:
        object.__setattr__(self, "prompt", prompt)
        object.__setattr__(self, "start", start_of(start))

    @property
    def seed(self) -> int:
        """Names the noise of every step."""
        return self.start.seed


_SAMPLER, _RECORD = DDPM(), Record()
"""Of a study that names none."""


@clear_calls
@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A study as a value. `causalunet.Study` is the same with ``plan()`` and ``run()``.

    Parameters
    ----------
    name : str
    interventions : iterable of Intervention
        With labels and contents that differ. A null intervention is added unless there is one. There may be none in a
        study that records.
    prompts : iterable of str
        `causalunet.NO_PROMPT` among them is a sample without a condition.
    seeds : iterable of int, optional
        Every prompt is sampled with every seed. By default each prompt is sampled once, the first with seed 0, the
        second with seed 1, and so on.
    starts : iterable of Start, optional
        Instead of seeds: every prompt is sampled from every start. ``seeds=[3]`` is ``starts=[Noise(3)]``.
    model : str
        Registered model name.
    sampler : Sampler
    record : Record
    outcomes : iterable of str or Outcome
        Measured beside those of every study, by name or themselves.

    Raises
    ------
    SpecError, PromptError
        Something is empty, doubled or outside the run, told before anything is loaded.
    """

    name: str
    interventions: tuple[Intervention, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...] | None
    starts: tuple[Start, ...] | None
    model: str
    sampler: Sampler
    record: Record
    outcomes: tuple[Outcome, ...]

    def __init__(
        self,
        *,
        name: str,
        interventions: Intervention | Iterable[Intervention],
        prompts: str | Iterable[str],
        seeds: Iterable[int] | None = None,
        starts: Start | Iterable[Start] | None = None,
        model: str = "shapes",
        sampler: Sampler = _SAMPLER,
        record: Record = _RECORD,
        outcomes: str | Outcome | Iterable[str | Outcome] = (),
    ) -> None:
        hold(
            self,
            name=name,
            interventions=interventions,
            prompts=prompts,
            seeds=seeds,
            starts=starts,
            model=model,
            sampler=sampler,
            record=record,
            outcomes=outcomes,
        )

    def __post_init__(self) -> None:
        for name, kind, such in (("sampler", Sampler, DDPM), ("record", Record, Record)):
            if not isinstance(getattr(self, name), kind):
                raise SpecError(
                    f"The study got {name}={shown(getattr(self, name))}; give a {kind.__name__.lower()}, such as "
                    f"{such.__name__}(...)."
                )
        for name in ("name", "model"):
            check_text("The study", name, getattr(self, name))
        object.__setattr__(self, "prompts", several("The study", "prompts", self.prompts, str, MOST_SAMPLES))
        items = several("The study", "interventions", self.interventions, Intervention, MOST_INTERVENTIONS)
        object.__setattr__(self, "interventions", _with_null(items, self.sampler, self.record))
        self._check_starts()
        if self.seeds is not None:
            seeds = integers("The study", "seeds", self.seeds)
            if not seeds or min(seeds) < 0 or max(seeds) > LARGEST:
                raise SpecError(f"Seeds are one or more integers of at least 0, below 2**63; got {shown(self.seeds)}.")
            object.__setattr__(self, "seeds", seeds)
        _check_samples(self.prompts, self.seeds if self.starts is None else self.starts)
        _check_open_samples(self.prompts, self.sampler)
        object.__setattr__(self, "outcomes", own_outcomes(self.outcomes))
        if self.record.steps is not None and not set(self.record.steps) <= set(range(1, self.sampler.steps + 1)):
            raise SpecError(f"Record asks for steps outside 1 ... {self.sampler.steps}: {shown(self.record.steps)}.")

    def _check_starts(self) -> None:
        """Check starts, and keep those that are noise of a seed as seeds: one study has one spelling."""
        if self.starts is None:
            return
        starts = several("The study", "starts", self.starts, Start, MOST_SAMPLES)
        if self.seeds is not None:
            raise SpecError("The study got seeds and starts; give one of them: seeds=[3] is starts=[Noise(3)].")
        if not starts or not all(isinstance(start, Start) for start in starts):
            raise SpecError(f"The study got starts={shown(self.starts)}; give one or more starts, such as Noise(3).")
        plain = all(type(start) is Noise for start in starts)
        object.__setattr__(self, "seeds", tuple(start.seed for start in starts) if plain else None)
        object.__setattr__(self, "starts", None if plain else starts)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """One entry per prompt and seed, or start; that varies fastest."""
        if self.starts is not None:
            return tuple(Sample(prompt, start) for prompt in self.prompts for start in self.starts)
        if self.seeds is None:
            return tuple(Sample(prompt, seed) for seed, prompt in enumerate(self.prompts))
        return tuple(Sample(prompt, seed) for prompt in self.prompts for seed in self.seeds)

    @cached_property
    def edits(self) -> tuple[tuple[Edit, ...], ...]:
        """Of every intervention, asked for once: a kind of somebody's own may take long to say them."""
        return tuple(item.edits() for item in self.interventions)

    @property
    def encoded_prompts(self) -> tuple[str, ...]:
        """Every prompt that a model is to read: those of the samples, and of the runs that fills take values from."""
        donors = (
            donor.prompt
            for edits in self.edits
            for edit in edits
            for donor in edit.fill.donors
            if isinstance(donor, OfBaseline) and donor.prompt is not None
        )
        return tuple(dict.fromkeys((*self.prompts, *donors)))

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the content of the study."""
        return digest_of(self.to_json())

    def with_stored(self, interventions: Iterable[Intervention]) -> Self:
        """The same study with interventions that a store holds, in its order.

        Some of them may be one intervention: earlier versions stored ``a + b`` and ``b + a`` as two.

        Raises
        ------
        SpecError
            One does not fit the sampler.
        """
        items = tuple(interventions)
        for item in items:
            check_fits(item, self.sampler)
        made = copy.copy(self)
        vars(made).update(interventions=items, edits=tuple(item.edits() for item in items))
        return made

    def bind(self, model: Any) -> Any:
        """Bring the study and a model together; nothing of the model is run.

        Parameters
        ----------
        model : DiffusionModel

        Returns
        -------
        BoundStudy
            The one value that planning and running depend on.

        Raises
        ------
        SpecError, ModelError
            There are more steps than timesteps, or the noise schedule does not fall.
        """
        # Binding lies above the design, which never imports it; a method that says "bind yourself" asks for it by name.
        return import_module("causalunet.bound").bind(self, model)

    def to_json(self) -> dict[str, Any]:
        """Write with plain JSON types."""
        return {
            "name": self.name,
            "model": self.model,
            "prompts": [None if isinstance(prompt, NoPrompt) else prompt for prompt in self.prompts],
            "seeds": _listed(self.seeds),
            "sampler": self.sampler.to_json(),
            "interventions": [intervention.to_json() for intervention in self.interventions],
            "record": self.record.to_json(),
            **({"starts": [start.to_json() for start in self.starts]} if self.starts else {}),
            # Studies without any are written, and have the digest, that they had before there were outcomes.
            **({"outcomes": [outcome.to_json() for outcome in self.outcomes]} if self.outcomes else {}),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError, PromptError
            Something is missing, unknown, of another type or too large; see ``causalunet.design.limits``.
        """
        return cls._read(value, _interventions_from_json)

    @classmethod
    def from_stored(cls, value: Any) -> Self:
        """Read the study that a store says it holds; of what earlier versions took for two interventions, the first.

        Raises
        ------
        SpecError, PromptError
            As for `from_json`.
        """
        return cls._read(value, lambda items: _without_twins(_interventions_from_json(items)))

    @classmethod
    def _read(cls, value: Any, interventions: Callable[[Any], tuple[Intervention, ...]]) -> Self:
        check_keys("A study", value, [entry.name for entry in fields(StudySpec)])
        lacking = [name for name in ("name", "interventions", "prompts") if name not in value]
        if lacking:
            raise SpecError(f"The study cannot be read: it lacks {', '.join(lacking)}.")
        check_list("The study cannot be read: its prompts", value["prompts"], MOST_SAMPLES)
        if value.get("seeds") is not None:
            check_list("The study cannot be read: its seeds", value["seeds"], MOST_SAMPLES)
        if value.get("starts") is not None:
            check_list("The study cannot be read: its starts", value["starts"], MOST_SAMPLES)
        readers: dict[str, Callable[[Any], Any]] = {
            "prompts": lambda prompts: [NO_PROMPT if prompt is None else prompt for prompt in prompts],
            "interventions": interventions,
            "sampler": Sampler.from_json,
            "starts": lambda starts: None if starts is None else [Start.from_json(start) for start in starts],
            "record": record_from_json,
            "outcomes": _outcomes_from_json,
        }
        return cls(**{name: readers[name](entry) if name in readers else entry for name, entry in value.items()})


def _outcomes_from_json(value: Any) -> list[Outcome]:
    check_list("The study cannot be read: its outcomes", value, MOST_OUTCOMES)
    return [Outcome.from_json(entry) for entry in value]


def _interventions_from_json(value: Any) -> tuple[Intervention, ...]:
    check_list("The study cannot be read: its interventions", value, MOST_INTERVENTIONS)
    items: list[Intervention] = []

    def read() -> Iterator[Intervention]:
        for entry in value:
            items.append(Intervention.from_json(entry))
            yield items[-1]

    check_edits(read())  # stops reading where there are too many
    return tuple(items)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _with_null(interventions: tuple[Intervention, ...], sampler: Sampler, record: Record) -> tuple[Intervention, ...]:
    """Check interventions, and add a null one from the earliest step that they edit, as long as the longest of them.

    What runs before that step is shared with the baseline, so that nothing can differ there. Without interventions,
    for a study that only records, it is the last step.
    """
    if not interventions and not (record.activations or record.summary):
        raise SpecError(
            "The study has no intervention; an empty sweep compares nothing. Give at least one, or record=Record(...) "
            "for the activations of the baseline alone."
        )
    for item in interventions:
        if not isinstance(item, Intervention):
            raise SpecError(f"{shown(item)} is not an intervention; sweeps are unpacked with *sweep(...).")
    check_edits(interventions)
    edited = [check_fits(item, sampler) for item in interventions]
    check_together(interventions)
    if not any(isinstance(item, Null) for item in interventions):
        start = max((window.start for windows in edited for window in windows), default=1)
        interventions = (*interventions, Null(window=Window(start, max(map(count_steps, edited), default=1))))
    _check_distinct(interventions)
    return interventions


def _check_distinct(interventions: tuple[Intervention, ...]) -> None:
    for twins in _same_edits(interventions):
        raise SpecError(
            f"{shown([item.label for item in twins])} are one intervention: they make the same edits at the same "
            "steps, and a repeated run adds no evidence. Leave one out."
        )
    for label, n in Counter(item.label for item in interventions).items():
        if n > 1:
            raise SpecError(f"Two interventions have one label, {shown(label)}. Give each its own.")


def _same_edits(interventions: Iterable[Intervention]) -> Iterator[list[Intervention]]:
    """Interventions that are one: of one digest, or a composition of what another does by itself."""
    by_digest: dict[str, list[Intervention]] = {}
    for item in interventions:
        by_digest.setdefault(item.digest, []).append(item)
    distinct = {digest: items[0] for digest, items in by_digest.items()}
    if any(isinstance(item, Composition) for item in distinct.values()):
        by_edits: dict[str, list[Intervention]] = {}
        for digest, item in distinct.items():
            # The digest of a composition is that of its edits already.
            name = digest if type(item) is Composition else digest_of_edits(item.edits())
            by_edits.setdefault(name, []).append(item)
        for items in by_edits.values():
            single = next((item for item in items if not isinstance(item, Composition)), None)
            twins = [item for item in items if item is single or isinstance(item, Composition)]
            if len(twins) > 1:
                yield twins
    yield from (items for items in by_digest.values() if len(items) > 1)


def _without_twins(interventions: tuple[Intervention, ...]) -> tuple[Intervention, ...]:
    later = {id(item) for twins in _same_edits(interventions) for item in twins[1:]}
    return tuple(item for item in interventions if id(item) not in later)


def _check_samples(prompts: tuple[str, ...], seeds: tuple[Any, ...] | None) -> None:
    if not prompts:
        raise PromptError("The study has no prompt; give at least one.")
    if len(prompts) * len(seeds or (0,)) > MOST_SAMPLES:
        raise SpecError(
            f"The study has {len(prompts):,} prompts with {len(seeds or (0,)):,} seeds each; it can have "
            f"{MOST_SAMPLES:,} samples. Make several of it."
        )
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, NoPrompt):
            continue
        if not isinstance(prompt, str):
            meant = "; for an open sample, without a condition, causalunet.NO_PROMPT" if prompt is None else ""
            raise PromptError(f"Prompt {index} is {shown(prompt)}, which is no text. Give a list of texts{meant}.")
        if not prompt.strip():
            raise PromptError(
                f"Prompt {index} is {shown(prompt)}; an empty prompt says nothing to generate. Give it words, or "
                "causalunet.NO_PROMPT for a sample without a condition."
            )
        check_text("The study", f"prompt {index}", prompt, kind=PromptError)
    if seeds is None:
        return
    for name, values in (("prompt", prompts), ("seed", seeds)):
        doubled = [value for value, n in Counter(values).items() if n > 1]
        if doubled:
            raise SpecError(
                f"The {name} {shown(doubled[0])} stands twice; a repeated sample adds no evidence. Give it once."
            )


def _check_open_samples(prompts: tuple[str, ...], sampler: Sampler) -> None:
    """Refuse guidance of samples that have no condition to be guided to."""
    if sampler.rows_per_sample > 1 and any(isinstance(prompt, NoPrompt) for prompt in prompts):
        raise SpecError(
            f"Samples without a prompt (NO_PROMPT) cannot be guided, as by guidance_scale={sampler.guidance_scale:g}: "
            "both halves of the batch would be equal. Give them sampler=DDPM(guidance_scale=1), and samples under "
            "guidance a study of their own."
        )


def check_fits(item: Intervention, sampler: Sampler) -> set[Window | Windows]:
    """Check that every edit can fire in a run, and the coordinates of a user's kind; give the windows of its edits.

    Raises
    ------
    SpecError
        An edit could never fire, or what the intervention says of itself could not be stored.
    """
    check_coordinates(item)
    edits = item.edits()
    for edit in edits:
        _check_edit(item.label, edit, sampler)
    return {edit.window for edit in edits}


def _check_edit(label: str, edit: Edit, sampler: Sampler) -> None:
    steps = sampler.steps
    edit.window.check(steps)
    if edit.component == "unet" and edit.window.start == steps:
        raise SpecError(
            f"{shown(label)} skips step {steps}, the first of the run, so there is no step to jump from. "
            + (f"Start at {steps - 1} or lower." if steps > 1 else "A run of one step has none that can be skipped.")
        )
    if edit.window.start == steps and any(isinstance(donor, OwnBefore) for donor in edit.fill.donors):
        raise SpecError(
            f"{shown(label)} needs the value of {edit.component} from before step {steps}, the first of the run, where "
            "there is none. " + (f"Start at {steps - 1} or lower." if steps > 1 else "A run of one step has none.")
        )
    if edit.branch == "uncond" and sampler.rows_per_sample == 1:
        raise SpecError(
            f"{shown(label)} edits the branch 'uncond', but a run with guidance_scale=1 has no unconditional rows, so "
            "the edit could never fire. Choose another branch or guidance scale."
        )
