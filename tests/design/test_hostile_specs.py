"""Specs from strangers: whatever they say, they are read or refused soon, in words, with little memory."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import causalunet as cu
from causalunet.design import (
    AblateBlock,
    Composition,
    Edit,
    Fill,
    Intervention,
    Null,
    Record,
    Scale,
    SkipSteps,
    StudySpec,
    Window,
    Windows,
)
from causalunet.design.limits import (
    COMPONENT_NAME,
    LARGEST,
    MOST_BLOCKS,
    MOST_DEPTH,
    MOST_EDITS,
    MOST_LABEL,
    MOST_PARTS,
    MOST_PATTERNS,
    MOST_STEPS,
    MOST_TEXT,
    check_plain,
    shown,
)
from causalunet.design.windows import count_steps, windows_from_json, windows_to_json
from causalunet.errors import CausalUNetError, ComponentError, PromptError, SpecError
from causalunet.shortcut import Shortcut
from tests.design.examples import distinct_interventions, interventions, u_anatomy, windows
from tests.design.test_study import specs
from tests.mutations import ODD_NUMBERS, ODD_TEXTS, at, mutated, places, replaced, values

LONGEST_MESSAGE = 1_500


def spec() -> dict[str, Any]:
    """A study that has everything, as JSON."""
    cut = AblateBlock(1, cu.cut_relax_cut(20, cut=2, relax=3), view=cu.Channels(0)) + SkipSteps(Window(5, 2))
    items = [cut, Edit("mid", Window(9, 3), Scale(2.0), "cond"), cu.AblateSkip(2, Window(7, 1)), Null(Window(6, 1))]
    study = StudySpec(
        name="study",
        prompts=["a circle", "a cross"],
        seeds=[3, 4],
        interventions=items,
        sampler=cu.DDPM(steps=24),
        record=Record(activations="mid", summary=("up.*",), steps=(5, 2), of="all"),
    )
    return json.loads(json.dumps(study.to_json()))


def plan() -> dict[str, Any]:
    """A shortcut, as JSON."""
    short = Shortcut(
        name="short", intervention=AblateBlock(1, Window(9, 3)), evidence={"threshold": 0.8, "digests": {"a": ["b"]}}
    )
    return json.loads(json.dumps(short.to_json()))


READERS: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "study": (cu.Study.from_json, spec),
    "spec": (StudySpec.from_json, spec),
    "shortcut": (Shortcut.from_json, plan),
    "intervention": (Intervention.from_json, lambda: spec()["interventions"][0]),
    "fill": (Fill.from_json, lambda: Scale(2.0).to_json()),
    "view": (cu.design.View.from_json, (cu.Channels(0, 2) @ cu.Pixels((0, 2), (1, 3))).to_json),
    "window": (windows_from_json, lambda: [[20, 2], [15, 2]]),
}

readers = pytest.mark.parametrize("reader", READERS)


def refused(read: Callable[[Any], Any], value: Any) -> str:
    """Reading raises one of our errors, of at most a few lines."""
    with pytest.raises(CausalUNetError) as error:
        read(value)
    assert len(str(error.value)) <= LONGEST_MESSAGE
    return str(error.value)


@readers
def test_what_is_valid_is_read(reader: str) -> None:
    read, make = READERS[reader]
    assert read(make()) == read(json.loads(json.dumps(make())))


@given(specs())
def test_reading_and_writing_a_study_changes_nothing(study: StudySpec) -> None:
    text = json.dumps(study.to_json())
    read = cu.Study.from_json(json.loads(text))
    assert json.dumps(read.to_json()) == text
    assert read.digest == study.digest
    assert [item.coordinates() for item in read.interventions] == [item.coordinates() for item in study.interventions]


@readers
def test_unknown_fields_are_refused_at_every_level(reader: str) -> None:
    read, make = READERS[reader]
    objects = [place for place in [(), *places(make())] if isinstance(at(make(), place), dict)]
    for place in objects:
        if "evidence" in place:
            continue  # kept as it is
        value = make()
        at(value, place)["colour"] = 1
        assert "colour" in refused(read, value)


OTHER_TYPES: dict[type, list[Any]] = {
    str: [None, 1, True, ["a"], {"a": "b"}, [], {}],
    int: [None, "1", True, 1.5, [1], {}],
    float: [None, "1", True, [1.0], {}, float("nan"), float("inf"), 10**400],
    list: ["abc", 1, True, {}, {"a": 1}, 1.5],
    dict: [None, "abc", 1, True, [], [["name", "x"]]],
}
"""Values of another type than what stands there; of floats also those that no float can hold."""


@pytest.mark.sampled(3)
@readers
def test_other_types_are_refused_wherever_they_stand(reader: str) -> None:
    read, make = READERS[reader]
    for place in places(make()):
        if "evidence" in place[:-1]:
            continue
        for other in OTHER_TYPES[type(at(make(), place))]:
            refused(read, replaced(make(), place, other))


def test_truth_values_are_no_numbers() -> None:
    for wrong in (
        lambda: Scale(True),
        lambda: cu.DDPM(guidance_scale=True),
        lambda: Record(steps=[True]),
        lambda: StudySpec.from_json({**spec(), "seeds": [True]}),
    ):
        with pytest.raises(SpecError):
            wrong()


@pytest.mark.sampled(3)
@readers
def test_messages_stay_short(reader: str) -> None:
    """Even if the wrong value has ten million characters, or is as deep as Python allows, or is a huge number."""
    read, make = READERS[reader]
    long, deep = "a" * 10**7, []
    for _ in range(50_000):
        deep = [deep]
    for place in places(make()):
        if isinstance(place[-1], str) and "evidence" not in place:
            renamed = make()
            owner = at(renamed, place[:-1])
            owner[long] = owner.pop(place[-1])
            refused(read, renamed)
        for wrong in (long, deep, 10**5000):
            refused(read, replaced(make(), place, wrong))


def test_any_value_is_shown_in_short() -> None:
    for value in (
        *ODD_NUMBERS,
        *ODD_TEXTS,
        "a" * 10**6,
        10**9999,
        [[[[[[1]]]]]],
        {str(i): i for i in range(99)},
        object(),
    ):
        assert 0 < len(shown(value)) <= 200
        assert 0 < len(shown([value] * 1000)) <= 200


def test_names_of_components_are_names_of_files() -> None:
    like = u_anatomy().components[0]
    for name in ("", ".", "..", "a/b", "../up.1", "up.1\n", "up 1", "ü", "a" * 129, "a\0", 3, None, "\ud800"):
        with pytest.raises(ComponentError, match="up to 128"):
            Edit(name, Window(5, 1))  # type: ignore[arg-type]
        with pytest.raises(ComponentError, match="up to 128"):
            replace(like, name=name)  # type: ignore[arg-type]


@given(st.text("Aa0_.-", min_size=1, max_size=128))
def test_every_usable_name_is_taken(name: str) -> None:
    if name not in (".", ".."):
        assert Edit(name, Window(5, 1)).component == name
        assert Path("/folder", name).resolve().parent == Path("/folder").resolve()
    assert bool(COMPONENT_NAME.fullmatch(name)) == (name not in (".", ".."))


def changed(**fields: Any) -> dict[str, Any]:
    return {**spec(), **fields}


def item(kind: str, **configuration: Any) -> dict[str, Any]:
    return {"name": kind, "configuration": configuration}


def nested(depth: int) -> dict[str, Any]:
    """Compositions within each other, on steps of their own."""
    inner = item("null", window=[[1, 1]])
    for level in range(depth):
        inner = item("composition", parts=[inner, item("skip_steps", window=[[level + 2, 1]])])
    return inner


LIMITS: dict[str, tuple[Callable[[int], Any], Callable[[Any], Any], int]] = {
    "start of a window": (lambda n: [[n, 1]], windows_from_json, MOST_STEPS),
    "windows": (lambda n: [[MOST_STEPS - 2 * i, 1] for i in range(n)], windows_from_json, MOST_PARTS),
    "steps of a run": (
        lambda n: changed(sampler={"name": "ddpm", "configuration": {"steps": n}}),
        cu.Study.from_json,
        MOST_STEPS,
    ),
    "blocks": (lambda n: item("ablate_block", bottom=n, window=[[5, 1]]), Intervention.from_json, MOST_BLOCKS),
    "skips": (lambda n: item("ablate_skip", top=n, window=[[5, 1]]), Intervention.from_json, MOST_BLOCKS),
    "parts": (
        lambda n: item("composition", parts=[item("edit", component=f"c{i}", window=[[5, 1]]) for i in range(n)]),
        Intervention.from_json,
        MOST_PARTS,
    ),
    "depth": (nested, Intervention.from_json, MOST_DEPTH),
    "prompt": (lambda n: changed(prompts=["a" * n]), cu.Study.from_json, MOST_TEXT),
    "name": (lambda n: changed(name="a" * n), cu.Study.from_json, MOST_TEXT),
    "label": (lambda n: item("null", window=[[5, 1]], label="a" * n), Intervention.from_json, MOST_LABEL),
    "seed": (lambda n: changed(seeds=[n]), cu.Study.from_json, LARGEST),
    "patterns": (lambda n: changed(record={"summary": ["up.*"] * n}), cu.Study.from_json, MOST_PATTERNS),
    "pattern": (lambda n: changed(record={"summary": ["a" * n]}), cu.Study.from_json, 128),
    "component": (lambda n: item("edit", component="a" * n, window=[[5, 1]]), Intervention.from_json, 128),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_holds_exactly(name: str) -> None:
    make, read, most = LIMITS[name]
    read(make(most))
    refused(read, make(most + 1))


@pytest.mark.thorough
def test_edits_of_a_study_are_counted_before_they_are_made() -> None:
    skips = [
        item("ablate_skip", top=1000, window=[[20 - i % 20, 1]], label=str(i)) for i in range(MOST_EDITS // 1000 + 1)
    ]
    assert f"can have {MOST_EDITS:,}" in refused(cu.Study.from_json, changed(interventions=skips))
    inner = [item("ablate_skip", top=1000, window=[[step, 1]]) for step in range(20, 9, -1)]
    both = item("composition", parts=[item("composition", parts=inner), item("composition", parts=inner)])
    for _ in range(2):
        both = item("composition", parts=[both, item("null", window=[[1, 1]])])
    assert f"can have {MOST_EDITS:,}" in refused(Intervention.from_json, both)


def test_samples_are_counted_before_they_are_made() -> None:
    many = changed(prompts=[f"p{i}" for i in range(10_000)], seeds=list(range(10_000)))
    assert "can have 1,000,000 samples" in refused(cu.Study.from_json, many)
    with pytest.raises(SpecError, match="more than 1,000,000 prompts"):
        StudySpec(name="x", prompts=(str(i) for i in iter(int, 1)), interventions=[Null(Window(5, 1))])
    with pytest.raises(SpecError, match="more than 1,000,000 seeds"):
        StudySpec(name="x", prompts="a", seeds=range(10**12), interventions=[Null(Window(5, 1))])


def endless(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def deep_composition(depth: int) -> Any:
    value = item("null", window=[[1, 1]])
    for _ in range(depth):
        value = item("composition", parts=[value])
    return value


RUN = {"name": "ddpm", "configuration": {"steps": MOST_STEPS}}

COSTLY: dict[str, Callable[[], Any]] = {
    "a window of 10**18 steps": lambda: changed(interventions=[item("null", window=[[10**18, 10**18]])]),
    "10**12 steps": lambda: changed(sampler={"name": "ddpm", "configuration": {"steps": 10**12}}),
    "numbers of 5000 digits": lambda: changed(seeds=[10**4999], interventions=[item("null", window=[[10**4999, 1]])]),
    "a million parts": lambda: changed(
        interventions=[item("composition", parts=[item("null", window=[[3, 1]])] * 10**6)]
    ),
    "a million windows": lambda: changed(interventions=[item("null", window=[[3, 1]] * 10**6)]),
    "9000 long windows": lambda: changed(
        sampler=RUN, interventions=[item("skip_steps", window=[[9_999 - i, 900]]) for i in range(9_000)]
    ),
    "9000 blocks": lambda: changed(
        sampler=RUN, interventions=[item("ablate_block", bottom=1 + i, window=[[9_999, 9_000]]) for i in range(900)]
    ),
    "as many edits as can be": lambda: changed(
        sampler=RUN, interventions=[item("ablate_skip", top=100, window=[[9_999 - i, 9_000]]) for i in range(990)]
    ),
    "many edits of many windows": lambda: changed(
        sampler=RUN, interventions=[item("ablate_skip", top=90, window=[[9_999 - 2 * i, 1] for i in range(999)])]
    ),
    "as many edits as can be, compared": lambda: changed(
        sampler=RUN,
        interventions=[
            item(
                "composition",
                parts=[
                    item("ablate_skip", top=240, window=[[9_999 - i, 4_000]]),
                    item("skip_steps", window=[[5_000 - i, 3_000]]),
                ],
            )
            for i in range(200)
        ],
    ),
    "many windows, compared": lambda: changed(
        sampler=RUN,
        interventions=[
            item(
                "composition",
                parts=[
                    item("ablate_skip", top=20, window=[[9_999 - 2 * i, 1] for i in range(990)]),
                    item("skip_steps", window=[[9_998 - 2 * i, 1] for i in range(990)]),
                ],
            )
        ],
    ),
    "deep compositions": lambda: changed(interventions=[deep_composition(20_000)]),
    "deep lists": lambda: changed(prompts=endless(100_000)),
    "deep windows": lambda: changed(interventions=[item("null", window=endless(100_000))]),
    "deep names": lambda: changed(name=endless(100_000)),
    "patterns that match slowly": lambda: changed(record={"summary": ["*a" * 64] * 1_000}),
    "a long text": lambda: changed(prompts=["a" * 10**6]),
    "many prompts": lambda: changed(prompts=[f"p{i}" for i in range(100_000)], seeds=None),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", COSTLY)
def test_reading_comes_to_an_end(name: str) -> None:
    """About a megabyte of JSON each, which takes some seconds at most; what grows with a square takes hours."""
    value = COSTLY[name]()
    with contextlib.suppress(CausalUNetError):
        cu.Study.from_json(value)


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTLY)
def test_reading_takes_little_memory(name: str) -> None:
    value = COSTLY[name]()
    tracemalloc.start()
    with contextlib.suppress(CausalUNetError):
        cu.Study.from_json(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"\n{name}: {peak / 1e6:.1f} MB")
    assert peak < 100_000_000


@pytest.mark.parametrize(
    "pattern", ["*a" * 64, "*a" * 63 + "*b", "?*" * 64, "[a-z]" * 25, "[" * 128, "[!" * 64, "[z-a]" * 25]
)
def test_patterns_that_could_match_in_many_ways_come_to_an_end(pattern: str) -> None:
    for name in ("a" * 128, "b" * 128, "ab" * 64):
        fnmatch.fnmatchcase(name, pattern)
        with contextlib.suppress(ComponentError):
            u_anatomy().select([pattern])


@given(st.lists(windows(), min_size=1, max_size=4))
def test_steps_are_counted_without_listing_them(chosen: list[Window | Windows]) -> None:
    assert count_steps(chosen) == len({step for window in chosen for step in window})


def edited_twice(parts: tuple[Intervention, ...]) -> bool:
    """Step by step: whether two edits of one place and branch differ, or one is skipped."""
    taken: dict[Any, Any] = {}
    edits = [edit for part in parts for edit in part.edits()]
    skipped = {step for edit in edits if edit.component == "unet" for step in edit.window}
    for edit in edits:
        for step in edit.window:
            if edit.component != "unet" and step in skipped:
                return True
            for branch in ("cond", "uncond") if edit.branch == "both" else (edit.branch,):
                kept = taken.setdefault((edit.component, step, branch), (edit.fill, edit.branch))
                if kept != (edit.fill, edit.branch):
                    return True
    return False


@settings(max_examples=100)
@given(st.lists(interventions(depth=0), min_size=2, max_size=4).map(tuple))
def test_conflicts_are_those_found_step_by_step(parts: tuple[Intervention, ...]) -> None:
    if edited_twice(parts):
        with pytest.raises(SpecError, match=r"is edited twice|is skipped"):
            Composition(parts)
    else:
        assert Composition(parts).steps == {step for part in parts for step in part.steps}
        window = Composition(parts).coordinates()
        assert (window["start"], window["length"]) == (max(Composition(parts).steps), len(Composition(parts).steps))


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a folder": (lambda path: path.mkdir(), "no shortcut at"),
    "a long one": (lambda path: path.write_bytes(b" " * (1 << 21)), "at most 1048576 bytes"),
    "deep": (lambda path: path.write_bytes(b"[" * 500_000), "cannot be read as JSON"),
    "a huge number": (lambda path: path.write_bytes(b'{"version": ' + b"9" * 500_000 + b"}"), "cannot be read as JSON"),
    "bytes": (lambda path: path.write_bytes(b"\xff\xfe\xfa"), "cannot be read as JSON"),
    "deep evidence": (
        lambda path: path.write_text(json.dumps({**plan(), "evidence": {"a": json.loads("[" * 400 + "]" * 400)}})),
        "nested deeper",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_shortcut(name: str, tmp_path: Path) -> None:
    make, message = FILES[name]
    path = tmp_path / "short.json"
    make(path)
    assert message in refused(Shortcut.open, path)


@pytest.mark.parametrize("name", ["a" * 5_000, "a\0b", "none.json"])
def test_paths_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot be read|no shortcut at|is no path"):
        Shortcut.open(tmp_path / name)


@given(values())
def test_evidence_is_plain(value: Any) -> None:
    told = tried(lambda value: check_plain("The evidence", value), {"a": value})
    if not isinstance(told, SpecError):
        json.dumps(value)


def tried(read: Callable[[Any], Any], value: Any) -> Any:
    """What was read, or one of our errors, of at most a few lines."""
    try:
        return read(value)
    except CausalUNetError as error:
        told = error
    assert isinstance(told, SpecError | PromptError)
    assert len(str(told)) <= LONGEST_MESSAGE
    return told


def fuzz(reader: str, value: Any) -> None:
    """Reading gives a value or one of our errors, and what is read can be written and read again."""
    read, _ = READERS[reader]
    made = tried(read, value)
    if isinstance(made, CausalUNetError):
        return
    written = windows_to_json(made) if reader == "window" else made.to_json()
    assert read(json.loads(json.dumps(written))) == made
    hash(made)


valid = st.one_of(
    specs().map(lambda study: ("study", study.to_json())),
    interventions().map(lambda one: ("intervention", one.to_json())),
    distinct_interventions(1).map(lambda some: ("shortcut", {**plan(), "intervention": some[0].to_json()})),
    windows().map(lambda window: ("window", windows_to_json(window))),
    st.just(("study", spec())),
)

hostile = st.one_of(
    st.tuples(st.sampled_from(list(READERS)), values()),
    valid.flatmap(lambda pair: st.tuples(st.just(pair[0]), mutated(json.loads(json.dumps(pair[1]))))),
)

many = settings(max_examples=5_000, suppress_health_check=list(HealthCheck))


@pytest.mark.thorough
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(hostile)
def test_strange_specs_raise_only_our_own_errors(case: tuple[str, Any]) -> None:
    fuzz(*case)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@many
@given(hostile)
def test_many_strange_specs_raise_only_our_own_errors(case: tuple[str, Any]) -> None:
    fuzz(*case)
