"""Plans: every run's way through the tree is its own program, what is equal is shared, and the cost adds up."""

from __future__ import annotations

import re
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.bound import BoundStudy
from causalunet.design import (
    DDPM,
    AblateBlock,
    AblateSkip,
    Edit,
    Intervention,
    Null,
    Record,
    Scale,
    SkipSteps,
    StudySpec,
    Window,
    Zero,
    sweep,
)
from causalunet.errors import CausalUNetError, ComponentError, PromptError, SpecError
from causalunet.plan import BASELINE, Plan, make_plan
from causalunet.schedule import Schedule, cosine_alpha_bar
from tests.design.examples import BLOCKS, STEPS, dead_by_search, distinct_interventions, u_anatomy

ANATOMY = u_anatomy()
IMAGE_SHAPE = (3, 16, 16)

Step = tuple[int, frozenset[Any], frozenset[str], int]
"""Step, fills (component, fill, branch), dead components, target."""


def spec(*interventions: Intervention, steps: int = STEPS, **values: Any) -> StudySpec:
    values = {"name": "study", "prompts": ["a circle"], "sampler": DDPM(steps=steps), **values}
    return StudySpec(interventions=interventions, **values)


def plan(*interventions: Intervention, steps: int = STEPS, **values: Any) -> Plan:
    study = spec(*interventions, steps=steps, **values)
    return make_plan(BoundStudy(study, ANATOMY, Schedule.spaced(cosine_alpha_bar(), steps), IMAGE_SHAPE))


@cache
def dead(severed: frozenset[str]) -> frozenset[str]:
    return frozenset(dead_by_search(ANATOMY, severed))


def program(intervention: Intervention | None, steps: int = STEPS) -> list[Step]:
    """What a run does on its own, read off the edits step by step."""
    edits = intervention.edits() if intervention else ()
    at = {step: [edit for edit in edits if step in list(edit.window)] for step in range(steps, 0, -1)}
    called = [step for step, present in at.items() if not any(edit.component == "unet" for edit in present)]
    rows = []
    for step, target in pairwise([*called, 0]):
        severed = {edit.component for edit in at[step] if edit.fill == Zero() and edit.branch == "both"}
        placed = frozenset((edit.site, edit.fill) for edit in at[step])
        rows.append((step, placed, dead(frozenset(severed)), target))
    return rows


def programs(made: Plan) -> dict[int, list[Step]]:
    numbered = dict(enumerate(made.spec.interventions))
    return {run: program(numbered.get(run), made.schedule.steps) for run in (BASELINE, *numbered)}


def way(made: Plan, run: int) -> list[Step]:
    """What a run does when it follows the forks of the tree from the initial noise."""
    state, target, rows = 0, made.schedule.steps, []
    while target:
        (call,) = [call for call in made.calls if call.state == state and run in call.runs]
        (fork,) = [fork for fork in call.forks if run in fork.runs]
        assert call.step == target
        fills = frozenset((placed.site, placed.fill) for placed in call.action.fills)
        rows.append((call.step, fills, call.action.dead, fork.target))
        state, target = fork.state, fork.target
    return rows


@st.composite
def overlapping(draw: st.DrawFn) -> Intervention:
    """Skips and blocks cut at the same steps, as many as leave every edit a place to fire."""
    blocks = draw(st.integers(1, BLOCKS - 1))
    skips, start = draw(st.integers(1, BLOCKS - blocks)), draw(st.integers(2, STEPS))
    first, second = (Window(start, draw(st.integers(1, start))) for _ in range(2))
    return AblateBlock(blocks, first) + AblateSkip(skips, second)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    drawn = [*draw(distinct_interventions(5)), *draw(st.lists(overlapping(), max_size=2))]
    distinct = {item.digest: item for item in drawn}
    return plan(*{item.label: item for item in distinct.values()}.values())


@given(plans())
def test_every_run_follows_its_own_program(made: Plan) -> None:
    for run, rows in programs(made).items():
        assert way(made, run) == rows


@given(plans())
def test_what_is_equal_is_shared_and_nothing_else(made: Plan) -> None:
    """Two runs share a call exactly if they did the same before it and do the same in it."""
    distinct = set()
    for rows in programs(made).values():
        for index, (step, placed, dead, _) in enumerate(rows):
            distinct.add((tuple(rows[:index]), step, placed, dead))
    assert len(made.calls) == len(distinct)
    assert made.unet_calls == len(distinct) * made.samples


@given(plans())
def test_states_have_one_producer_and_one_step_that_consumes(made: Plan) -> None:
    forks = [fork for call in made.calls for fork in call.forks]
    assert len({fork.state for fork in forks}) == len(forks)
    assert 0 not in {fork.state for fork in forks}
    due = {0: (made.schedule.steps, set(programs(made))), **{f.state: (f.target, set(f.runs)) for f in forks}}
    for state, (step, runs) in due.items():
        consumers = [call for call in made.calls if call.state == state]
        assert {call.step for call in consumers} == ({step} if step else set())
        assert not step or sorted(run for call in consumers for run in call.runs) == sorted(runs)
    arrived = sorted(run for fork in forks if fork.target == 0 for run in fork.runs)
    assert arrived == sorted(programs(made))


@given(plans())
def test_the_baseline_comes_first_at_every_step(made: Plan) -> None:
    steps = [call.step for call in made.calls]
    assert steps == sorted(steps, reverse=True)
    assert list(made.by_step) == list(range(made.schedule.steps, 0, -1))
    for step, groups in made.by_step.items():
        first = next(iter(groups.values()))[0]
        assert first == next(call for call in made.calls if call.step == step)
        assert BASELINE in first.runs
        assert not first.action.fills
        assert sum(map(len, groups.values())) == steps.count(step)
        assert all(call.action == action for action, calls in groups.items() for call in calls)


@given(plans())
def test_cost_of_each_run_on_its_own(made: Plan) -> None:
    rows = made.spec.sampler.rows_per_sample
    for run, steps in programs(made).items():
        assert made.calls_by_run[run] == len(steps)
        saved = sum(ANATOMY.by_name[name].flops for _, _, names, _ in steps for name in names)
        assert made.flops_by_run[run] == rows * (ANATOMY.flops * len(steps) - saved)
    assert made.naive_calls == made.samples * sum(map(len, programs(made).values()))


def test_flops_of_dead_blocks_are_not_spent() -> None:
    """Powers of two per block: down.3 8, mid 16, up.0 32; a whole call 1024; two rows, two samples, three steps."""
    made = plan(AblateBlock(1, Window(2, 1)), Null(Window(1, 1)), steps=3, seeds=(0, 1))
    assert made.unet_calls == 2 * (3 + 2 + 1)
    assert made.flops == 2 * 2 * (6 * 1024 - (8 + 16 + 32))
    assert made.flops_by_run == {BASELINE: 6144, 0: 6144 - 2 * 56, 1: 6144}
    alone = plan(AblateBlock(1, Window(2, 1), "cond"), Null(Window(1, 1)), steps=3, sampler=DDPM(steps=3))
    assert alone.flops == 2 * 6 * 1024
    unguided = plan(Null(Window(1, 1)), sampler=DDPM(steps=3, guidance_scale=1), steps=3)
    assert unguided.flops == (3 + 1) * 1024


def test_sweeping_every_start_halves_the_calls() -> None:
    """100 steps, 96 starts of 5 steps: a run from start s needs s calls of its own, the null as many as the first."""
    made = plan(*sweep(AblateBlock, bottom=2, start=range(100, 4, -1), length=5), steps=100)
    shared, naive = 100 + sum(range(5, 101)) + 100, 98 * 100
    assert (made.unet_calls, made.naive_calls) == (shared, naive) == (5240, 9800)
    skips = plan(*sweep(SkipSteps, start=range(99, 0, -1), length=1), steps=100)
    shared, naive = 100 + sum(range(99)) + 99, 100 + 99 * 99 + 100
    assert (skips.unet_calls, skips.naive_calls) == (shared, naive)
    assert naive / shared == pytest.approx(1.97, abs=0.02)


def test_windows_of_one_start_share_their_beginning() -> None:
    made = plan(*sweep(AblateBlock, bottom=2, start=10, length=(3, 5)), Null(Window(1, 1)), steps=12)
    together = [call.step for call in made.calls if {0, 1} <= set(call.runs) and BASELINE not in call.runs]
    assert together == [10, 9, 8]
    assert made.unet_calls == 12 + 3 + 7 + 7 + 1
    other = plan(*sweep(AblateBlock, bottom=(2, 3), start=10, length=5), Null(Window(1, 1)), steps=12)
    assert not [call for call in other.calls if {0, 1} <= set(call.runs) and BASELINE not in call.runs]


def test_a_jump_shares_the_call_but_not_the_draw() -> None:
    made = plan(SkipSteps(Window(2, 1)), SkipSteps(Window(2, 2)), Null(Window(1, 1)), steps=3)
    (call,) = [call for call in made.calls if call.step == 3]
    assert {fork.target: fork.runs for fork in call.forks} == {2: (BASELINE, 2), 1: (0,), 0: (1,)}
    assert made.calls_by_run == {BASELINE: 3, 0: 2, 1: 1, 2: 3}


def test_the_same_edit_in_other_words_is_the_same_call() -> None:
    skips = AblateSkip(2, Window(9, 2))
    edits = Edit("skip.1", Window(9, 2)) + Edit("skip.0", Window(9, 2)) + SkipSteps(Window(5, 1))
    assert plan(skips, edits).unet_calls == plan(skips).unet_calls + 4  # from step 4 on


@pytest.mark.parametrize("run", [BASELINE, 0, 1])
def test_one_run_alone_has_the_calls_that_it_has_among_others(run: int) -> None:
    interventions = (AblateBlock(bottom=2, window=Window(3, 1)), SkipSteps(Window(2, 1)))
    everything = plan(*interventions, steps=4)
    alone = make_plan(everything.bound, runs=(run,))
    passed = [(call.step, call.action) for call in everything.calls if run in call.runs]
    assert [(call.step, call.action) for call in alone.calls] == passed
    assert {call.runs for call in alone.calls} == {(run,)}


@given(
    st.lists(
        st.sampled_from(
            sweep(AblateBlock, bottom=(1, 2), start=(5, 3), length=2) + sweep(SkipSteps, start=(5, 3), length=2)
        ),
        min_size=1,
        unique=True,
    )
)
def test_forked_runs_start_where_they_first_differ_from_the_baseline(chosen: list[Intervention]) -> None:
    everything = plan(*chosen, steps=6)
    runs = range(len(chosen))
    forked = make_plan(everything.bound, runs=runs, forked=True)
    for run in runs:
        whole = [(call.step, call.action) for call in everything.calls if run in call.runs]
        own = [(call.step, call.action, call.state) for call in forked.calls if run in call.runs]
        first = max(chosen[run].steps) + (chosen[run].kind == "skip_steps")  # the call before a gap jumps
        assert own[0][2] == -first
        assert [entry[:2] for entry in own] == [entry for entry in whole if entry[0] <= first]
    assert len(forked.calls) <= len(everything.calls)


def test_printed_plan_tells_the_numbers() -> None:
    swept = sweep(AblateBlock, bottom=(1, 2), start=(50, 40), length=5)
    made = plan(*swept, SkipSteps(Window(9, 1)), steps=100, prompts=["a", "b"], seeds=range(150), model="mine")
    text = str(made)
    stored = sum(made.stored_bytes.values()) / 1e6
    spent = ANATOMY.flops * 2 * made.unet_calls
    for part in (
        "Study 'study' on mine: 300 samples x 6 interventions (4 ablate_block, 1 skip_steps, 1 null)",
        "100 steps, guidance 3",
        f"{made.unet_calls:,} shared, {made.naive_calls:,} if each run started from noise",
        f"({made.naive_calls / made.unet_calls:.2f} times fewer)",
        f"{made.flops:.3g}",
        f"{(spent - made.flops) / spent:.1%} saved by not running dead blocks",
        f"{stored:,.1f} MB",
    ):
        assert part in text, part
    assert "," in f"{made.unet_calls:,}"
    assert "\n  time" not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.4, "about 1 s"), (89, "about 89 s"), (90, "about 1.5 min"), (5400, "about 1.5 h")]
)
def test_calibrated_plan_tells_the_time(seconds: float, text: str) -> None:
    made = plan(Null(Window(1, 1)), steps=3)
    assert made.seconds is None
    calibrated = made.calibrated(seconds / made.flops)
    assert calibrated.seconds == pytest.approx(seconds)
    assert text in str(calibrated)
    assert calibrated.calls == made.calls


def test_a_plan_alone_on_a_line_is_one_line_and_in_a_notebook_a_table() -> None:
    swept = sweep(AblateBlock, bottom=(1, 2), start=range(50, 5, -1), length=5)
    made = plan(*swept, name=f"<b>bold & \x1b[2J{'x' * 5000}", steps=50, prompts=["a"], seeds=range(1500)).calibrated(
        1e-9
    )
    assert len(repr(made)) < 250
    assert f"1,500 samples x 91 interventions, {made.unet_calls:,} U-Net calls" in repr(made)
    assert "\n" not in repr(made)
    assert "\x1b" not in repr(made)
    page = BeautifulSoup(made._repr_html_(), "html.parser")
    cells = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.find_all("tr")]
    title, *lines = str(made).splitlines()
    assert page.caption.get_text() == title
    assert page.find("b") is None
    assert [line.split() for line in lines] == [" ".join(row).split() for row in cells]
    assert [row[0] for row in cells] == ["sampler", "U-Net calls", "rows per call", "FLOPs", "stored", "time"]
    assert "\x1b" not in made._repr_html_()


class UntouchedModel(SimpleNamespace):
    """A model that can be asked what it is, and must not be run."""

    def __init__(self) -> None:
        super().__init__(
            name="untouched",
            fingerprint="0",
            anatomy=ANATOMY,
            image_shape=IMAGE_SHAPE,
            alpha_bar=cosine_alpha_bar(),
            clip=True,
            factors={},
        )

    @property
    def unet(self) -> None:
        pytest.fail("The model was run.")

    def encode(self, prompts: object) -> None:
        pytest.fail("The model was run.")

    def check_prompts(self, prompts: tuple[str, ...]) -> None:
        if "a zebra" in prompts:
            raise PromptError("zebra")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"prompts": ["a circle", "a zebra"]}, PromptError, "zebra"),
        (
            {"interventions": [AblateSkip(5, Window(3, 1))]},
            ComponentError,
            "asks for 5 skip connections",
        ),
        (
            {"interventions": [AblateBlock(5, Window(3, 1))]},
            ComponentError,
            "asks for 5 decoder blocks",
        ),
        ({"interventions": [Edit("up.9", Window(3, 1), Scale(2.0))]}, ComponentError, r"asks for up\.9"),
        ({"interventions": [AblateBlock(2, Window(3, 1)) + Null(Window(3, 1))]}, SpecError, "could never fire"),
        ({"record": Record(activations=("up.7",))}, ComponentError, r"No component matches 'up\.7'"),
        ({"record": Record(summary=("skip.*",))}, ComponentError, r"No component matches 'skip\.\*'"),
        ({"sampler": DDPM(steps=1001)}, SpecError, "1001 sampling steps asked; the model has 1 to 1000"),
    ],
)
def test_errors_come_before_the_model_runs(
    tmp_path: Path, values: dict[str, Any], error: type[CausalUNetError], message: str
) -> None:
    sound = {"name": "study", "prompts": ["a circle"], "interventions": [AblateBlock(1, Window(3, 1))]}
    study = cu.Study(**{**sound, **values})
    with pytest.raises(error, match=message):
        study.plan(UntouchedModel())
    with pytest.raises(error, match=message):
        study.run(tmp_path / "results.zarr", model=UntouchedModel())
    assert not list(tmp_path.iterdir())


def test_a_sound_study_is_planned_after_one_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else runs the model before a plan is shown."""
    asked: list[str] = []
    monkeypatch.setattr(UntouchedModel, "unet", torch.nn.Identity())  # it is asked where it is, and cannot run
    monkeypatch.setattr("causalunet.execute.planning.rehearse", lambda _model, spec: asked.append(spec.name))
    study = cu.Study(name="study", prompts=["a circle"], interventions=[AblateBlock(1, Window(3, 1))])
    made = study.plan(UntouchedModel(), calibrate=False)
    assert asked == ["study"]
    assert re.search(r"U-Net calls +106 shared, 300", str(made))


def test_planning_takes_work_in_proportion_to_the_calls() -> None:
    """Counted, not timed: lines that are run, each time round a loop, per call of the plan."""

    def lines(runs: int) -> float:
        study = spec(*(Edit("mid", Window(100, 50), Scale(2.0 + run)) for run in range(runs)), steps=100)
        count = 0

        def note(_frame: Any, event: str, _argument: Any) -> Any:
            nonlocal count
            count += event == "line"
            return note

        before = sys.gettrace()
        sys.settrace(note)
        try:
            made = make_plan(BoundStudy(study, ANATOMY, Schedule.spaced(cosine_alpha_bar(), 100), IMAGE_SHAPE))
        finally:
            sys.settrace(before)
        return count / len(made.calls)

    assert lines(80) < 1.5 * lines(10)
