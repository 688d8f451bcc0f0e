"""Study specs: which samples they mean, what they refuse before anything is loaded, JSON and digest."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalunet.design import (
    DDPM,
    AblateBlock,
    AblateSkip,
    Composition,
    Edit,
    Intervention,
    Null,
    Record,
    Sample,
    SkipSteps,
    StudySpec,
    Window,
    Windows,
    sweep,
)
from causalunet.design.study import listed, listed_seeds
from causalunet.errors import PromptError, SpecError
from causalunet.models.labels import label_reader
from tests.design.examples import STEPS, distinct_interventions

BLOCK = AblateBlock(1, Window(9, 3))

words = st.text(min_size=1, max_size=5).filter(str.strip)
samplers = st.builds(
    DDPM, steps=st.just(STEPS), guidance_scale=st.floats(0, 8, exclude_min=True).filter(lambda g: g != 1)
)
records = st.builds(
    Record,
    activations=st.lists(st.sampled_from(["mid", "up.*", "down.1"]), max_size=2).map(tuple),
    summary=st.lists(st.sampled_from(["mid", "up.*"]), max_size=2).map(tuple),
    steps=st.none() | st.lists(st.integers(1, STEPS), min_size=1).map(tuple),
    of=st.sampled_from(["baseline", "all"]),
    dtype=st.sampled_from(["float16", "float32"]),
)


def spec(**values: Any) -> StudySpec:
    """A study that is in order but for what the test gives."""
    return StudySpec(**{"name": "study", "prompts": ["a circle"], "interventions": [BLOCK], **values})


@st.composite
def specs(draw: st.DrawFn) -> StudySpec:
    prompts = draw(st.lists(words, min_size=1, max_size=3, unique=True))
    seeds = draw(st.none() | st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True))
    return StudySpec(
        name=draw(words),
        model=draw(words),
        prompts=prompts,
        seeds=seeds,
        interventions=draw(distinct_interventions(3)),
        sampler=draw(samplers),
        record=draw(records),
    )


@given(specs())
def test_json_round_trip(study: StudySpec) -> None:
    again = StudySpec.from_json(json.loads(json.dumps(study.to_json())))
    assert again == study
    assert hash(again) == hash(study)
    assert again.digest == study.digest
    assert again.samples == study.samples
    assert again.to_json() == study.to_json()


def test_digest_changes_with_every_part() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"name": "other"},
        {"model": "glide"},
        {"prompts": ["a cross"]},
        {"prompts": ["a circle", "a cross"]},
        {"seeds": [1]},
        {"interventions": [AblateBlock(2, Window(9, 3))]},
        {"interventions": [replace(BLOCK, label="other")]},
        {"sampler": DDPM(steps=50)},
        {"sampler": DDPM(guidance_scale=2.0)},
        {"record": Record(activations="mid")},
        {"record": Record(summary="mid")},
        {"record": Record(steps=(1,))},
        {"record": Record(of="all")},
        {"record": Record(dtype="float32")},
    ]
    assert len({spec(**change).digest for change in changes}) == len(changes)
    assert spec(interventions=(BLOCK,), prompts=("a circle",)).digest == spec().digest == "6e57ebaac1288109"


def test_seeds_by_default_number_the_prompts() -> None:
    samples = spec(prompts=["a circle", "a cross", "a circle"]).samples
    assert samples == (Sample("a circle", 0), Sample("a cross", 1), Sample("a circle", 2))


def test_seeds_given_are_crossed_with_the_prompts() -> None:
    samples = spec(prompts=["a circle", "a cross"], seeds=range(5, 7)).samples
    assert samples == tuple(Sample(prompt, seed) for prompt in ("a circle", "a cross") for seed in (5, 6))


def test_one_prompt_or_intervention_needs_no_list() -> None:
    assert spec(prompts="a circle", interventions=BLOCK) == spec()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompts": []}, "The study has no prompt; give at least one"),
        ({"prompts": [""]}, "Prompt 0 is ''; an empty prompt says nothing to generate"),
        ({"prompts": ["a circle", " \t"]}, r"Prompt 1 is ' \\t'; an empty prompt"),
        ({"prompts": ["a circle", 3]}, "Prompt 1 is 3, which is no text. Give a list of texts"),
        ({"prompts": [["a"]]}, r"Prompt 0 is \['a'\], which is no text"),
        ({"prompts": [None]}, "Prompt 0 is None, which is no text"),
    ],
)
def test_prompts_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        spec(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompts": None}, "The study got prompts=None; give a list"),
        ({"prompts": ["a circle", "a circle"], "seeds": [0]}, "The prompt 'a circle' stands twice"),
        ({"seeds": [0, 1, 0]}, "The seed 0 stands twice; a repeated sample adds no evidence"),
        ({"seeds": []}, "Seeds are one or more integers"),
        ({"seeds": [3, -1]}, "Seeds are one or more integers"),
        ({"seeds": [2**63]}, "Seeds are one or more integers"),
        ({"seeds": [1.5]}, "Seeds are one or more integers"),
        ({"seeds": 5}, "Seeds are one or more integers"),
    ],
)
def test_samples_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec(**values)


def one_step(start: int, **values: Any) -> Intervention:
    return AblateBlock(1, Window(start, 1), **values)


@pytest.mark.parametrize(
    ("interventions", "message"),
    [
        ([], "The study has no intervention; an empty sweep compares nothing"),
        (3, "interventions=3"),
        ([BLOCK, "null"], r"'null' is not an intervention; sweeps are unpacked with \*sweep"),
        (
            [sweep(AblateBlock, bottom=1, start=5, length=1)],
            r"is not an intervention; sweeps are unpacked with \*sweep",
        ),
        ([Null(Window(9, 1)), "null"], "'null' is not an intervention"),
        ([one_step(9, label="x"), one_step(8, label="x")], "Two interventions have one label, 'x'"),
        (
            [one_step(9, label="x"), one_step(9, label="y")],
            r"\['x', 'y'\] are one intervention: they make the same edits",
        ),
        ([BLOCK + one_step(4), one_step(4) + BLOCK], "are one intervention: they make the same edits"),
        ([AblateSkip(1, Window(9, 2)), AblateSkip(1, Windows((Window(9, 1), Window(8, 1))), label="y")], "one interv"),
        ([AblateSkip(2, Window(9, 2)), AblateSkip(1, Window(9, 2)) + AblateSkip(2, Window(9, 2))], "are one interv"),
        ([one_step(10), one_step(11)], r"Window\(start=11, length=1\) starts above step 10, .* run of 10 steps"),
        ([AblateSkip(1, Window(11, 5)) + one_step(2)], r"starts above step 10.*Choose start in 5 \.\.\. 10"),
        ([SkipSteps(Window(10, 2))], "'skip_steps 10-9' skips step 10, the first of the run.*Start at 9 or lower"),
        ([SkipSteps(Window(10, 2)) + one_step(3)], "skips step 10, the first of the run"),
    ],
)
def test_interventions_are_refused(interventions: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec(interventions=interventions, sampler=DDPM(steps=10))


def test_windows_up_to_the_first_step_are_accepted() -> None:
    study = spec(interventions=[SkipSteps(Window(9, 9)), AblateSkip(1, Window(10, 10))], sampler=DDPM(steps=10))
    assert len(study.interventions) == 3


def test_without_guidance_there_is_no_unconditional_branch() -> None:
    item = AblateBlock(1, Window(9, 3), "uncond")
    for interventions in ([item], [item + AblateSkip(1, Window(2, 1))], [Edit("mid", Window(9, 3), branch="uncond")]):
        spec(interventions=interventions)
        with pytest.raises(SpecError, match="guidance_scale=1 has no unconditional rows"):
            spec(interventions=interventions, sampler=DDPM(guidance_scale=1.0))
    spec(interventions=[replace(item, branch="cond", label="")], sampler=DDPM(guidance_scale=1.0))


@given(distinct_interventions(3))
def test_a_null_is_added_once(interventions: list[Intervention]) -> None:
    study = spec(interventions=interventions, sampler=DDPM(steps=STEPS))
    if any(isinstance(item, Null) for item in interventions):
        assert study.interventions == tuple(interventions)
    else:
        longest = max(len(item.steps) for item in interventions)
        earliest = max(step for item in interventions for step in item.steps)
        assert study.interventions == (*interventions, Null(Window(earliest, longest)))
    assert replace(study, interventions=study.interventions) == study


def test_a_null_within_a_composition_is_not_the_null_of_the_study() -> None:
    pair = Composition((Null(Window(9, 1)), one_step(5)))
    assert spec(interventions=[pair]).interventions == (pair, Null(Window(9, 2)))


@pytest.mark.parametrize("record", [Record(activations=["mid"]), Record(summary=["up.*"])])
def test_a_study_that_only_records_needs_no_intervention(record: Record) -> None:
    assert spec(interventions=[], record=record).interventions == (Null(Window(1, 1)),)


def test_record_sorts_its_steps_and_takes_one_pattern() -> None:
    record = Record(activations="up.*", summary=["mid"], steps=np.array([3, 9, 3]))
    assert (record.activations, record.summary, record.steps) == (("up.*",), ("mid",), (9, 3))
    json.dumps(spec(record=record).to_json())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"of": "intervened"}, "Record got of='intervened'; it is one of baseline, all"),
        ({"dtype": "float64"}, "Record got dtype='float64'; it is one of float16, float32"),
        ({"steps": 5}, "Record got steps=5"),
        ({"steps": (5.5,)}, "Record got steps="),
        ({"steps": ()}, "Record got steps="),
        ({"activations": 5}, "Record got activations=5"),
        ({"summary": (5,)}, "Record got summary="),
    ],
)
def test_record_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Record(**values)


SETS = ({"one", "two"}, frozenset({"one", "two"}), {"one": 1}.keys() - {"two"})


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("prompts", lambda given: spec(prompts=given)),
        ("seeds", lambda given: spec(seeds=given)),
        ("interventions", lambda given: spec(interventions=given)),
        ("activations", lambda given: Record(activations=given)),
        ("summary", lambda given: Record(summary=given)),
        ("steps", lambda given: Record(steps=given)),
        ("components", lambda given: Null(Window(9, 1), components=given)),
        ("bottom", lambda given: sweep(AblateBlock, bottom=given, window=Window(9, 1))),
        ("prompts", listed),
        ("seeds", listed_seeds),
        ("classes", lambda given: label_reader(2, given)),
    ],
)
@pytest.mark.parametrize("given", SETS, ids=lambda given: type(given).__name__)
def test_sets_have_no_order_that_another_process_could_keep(what: str, make: Any, given: Any) -> None:
    with pytest.raises(SpecError, match=rf"got {what}=.*, a set\. Sets have no order.*Give a list"):
        make(given)


def test_keys_of_a_dict_have_an_order() -> None:
    assert spec(prompts={"a cross": 1, "a circle": 2}.keys()).prompts == ("a cross", "a circle")


@pytest.mark.parametrize("steps", [(0, 5), (11,)])
def test_record_steps_lie_in_the_run(steps: tuple[int, ...]) -> None:
    spec(record=Record(steps=(1, 10)), sampler=DDPM(steps=10))
    with pytest.raises(SpecError, match=r"Record asks for steps outside 1 \.\.\. 10"):
        spec(record=Record(steps=steps), sampler=DDPM(steps=10))


@pytest.mark.parametrize(
    "values",
    [
        *({"steps": steps} for steps in (0, -1, 2.0, True, "9")),
        *({"guidance_scale": scale} for scale in (-1, float("nan"), float("inf"), "3", None)),
    ],
)
def test_sampler_refuses(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(SpecError, match=rf"DDPM got {name}="):
        DDPM(**values)


@pytest.mark.parametrize("whole", [np.int64, np.uint8])
@pytest.mark.parametrize("real", [np.float32, np.float64, np.float16, np.int32])
def test_numbers_of_numpy_are_numbers(whole: Any, real: Any) -> None:
    sampler = DDPM(steps=whole(10), guidance_scale=real(3))
    assert sampler == DDPM(steps=10, guidance_scale=3)
    ablated = sweep(AblateSkip, top=np.arange(1, 3, dtype=whole), start=np.arange(2, 4, dtype=whole), length=whole(1))
    assert ablated == sweep(AblateSkip, top=(1, 2), start=(2, 3), length=1)
    numbered = spec(interventions=ablated, sampler=sampler, seeds=np.arange(3, dtype=whole))
    plain = spec(interventions=sweep(AblateSkip, top=(1, 2), start=(2, 3), length=1), sampler=sampler, seeds=range(3))
    assert json.dumps(numbered.to_json()) == json.dumps(plain.to_json())


@pytest.mark.parametrize("kind", ["edit", None, Window, BLOCK, StudySpec])
def test_only_kinds_are_swept(kind: Any) -> None:
    with pytest.raises(SpecError, match=r"cannot be swept; give a kind of intervention, such as AblateBlock"):
        sweep(kind, start=3, length=1)


def test_a_run_of_one_step_has_none_to_skip() -> None:
    with pytest.raises(SpecError, match=r"no step to jump from\. A run of one step has none that can be skipped"):
        spec(interventions=[SkipSteps(Window(1, 1))], sampler=DDPM(steps=1))


def test_rows_per_sample() -> None:
    assert [DDPM(guidance_scale=scale).rows_per_sample for scale in (0, 1, 1.0, 3)] == [2, 1, 1, 2]
    assert json.dumps(DDPM(guidance_scale=3).guidance_scale) == "3.0"


@pytest.mark.parametrize("values", [{"sampler": 100}, {"record": ("mid",)}])
def test_parts_are_what_they_should_be(values: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"{next(iter(values))}="):
        spec(**values)


def test_a_spec_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        spec().name = "other"  # type: ignore[misc]
    assert len({spec(), spec(), spec(name="other")}) == 2


def changed(**values: Any) -> dict[str, Any]:
    return {**spec().to_json(), **values}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "A study has the fields interventions, model, name, outcomes, prompts, record, sampler, seeds, starts"),
        (changed(prompt=3), "A study has the fields"),
        ({"name": "study"}, "cannot be read"),
        (changed(sampler={"name": "none", "configuration": {}}), "Sampler 'none' is not known; known: ddim, ddpm"),
        (changed(sampler={"name": "ddpm", "configuration": {"eta": 1}}), "cannot be read.*eta"),
        (changed(record={"step": 1}), "cannot be read.*step"),
        (changed(interventions=[{"name": "none"}]), "known kinds"),
    ],
)
def test_json_of_something_else(value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        StudySpec.from_json(value)
