"""The tree is that of a planner as plain as can be, and laying it out takes work by its stretches, not by its steps."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet import tree
from causalunet.bound import BoundStudy
from causalunet.design import Intervention, StudySpec, Window, Windows
from causalunet.design.samplers import Sampler
from causalunet.design.windows import overlaid
from causalunet.execute.fill import pace
from causalunet.execute.walk.batches import mean_batch_size, samples_per_block
from causalunet.plan import BASELINE, Call, Plan, cost_of_run, make_plan
from causalunet.schedule import Level, Schedule, cosine_alpha_bar
from tests.design.examples import STEPS, distinct_interventions, u_anatomy
from tests.reference_planner import planned

ANATOMY = u_anatomy()


class Uneven(Sampler):
    """Steps of one to four calls, by what the run has passed and by where it goes."""

    name = "tests.uneven"

    def calls(self, at: Level, to: Level, passed: int) -> int:
        return 1 if to.alpha_bar == 1 else 1 + passed % 3 + (to.alpha_bar > 0.5)


def bound(
    interventions: list[Intervention], steps: int = STEPS, kind: type[Sampler] = cu.DDPM, **fields: Any
) -> BoundStudy:
    spec = StudySpec(name="s", prompts=["a"], interventions=interventions, sampler=kind(steps=steps), **fields)
    return BoundStudy(spec, ANATOMY, Schedule.spaced(cosine_alpha_bar(2000), steps), (3, 16, 16))


class Thrice(Sampler):
    """Steps of three calls, the last one too."""

    name = "tests.thrice"

    def calls(self, at: Level, to: Level, passed: int) -> int:
        return 3


def of_stage(item: Intervention, stage: int | None) -> Intervention:
    """The same in one call of each step; what skips steps skips all."""
    if isinstance(item, cu.Composition):
        return cu.Composition(tuple(of_stage(part, stage) for part in item.parts))
    own: Any = item
    if isinstance(item, cu.SkipSteps):
        return item
    return replace(own, window=Windows(tuple(replace(part, stage=stage) for part in own.window.parts)), label="")


def staged(items: list[Intervention], drawn: st.DataObject) -> list[Intervention]:
    """Each in all calls, in one, or in two of them, in two ways."""
    found = []
    for item in items:
        stage = drawn.draw(st.sampled_from([None, 0, 1, 2]))
        found.append(of_stage(item, stage))
        if stage == 2 and not isinstance(item, cu.Composition | cu.SkipSteps | cu.Null):
            found.append(found[-1] + cu.Edit("up.3", Window(STEPS - 1, STEPS - 1, stage=1), cu.Scale(0.5)))
    return found


kinds: st.SearchStrategy[type[Sampler]] = st.sampled_from([cu.DDPM, Uneven])
studies = st.builds(lambda items, kind: bound(items, kind=kind), distinct_interventions(7), kinds) | st.builds(
    lambda items, drawn: bound(staged(items, drawn), kind=Thrice), distinct_interventions(4), st.data()
)


def called(calls: Iterable[Call]) -> Counter[int]:
    """U-Net calls by run."""
    made = Counter(run for call in calls for run in call.replays)
    for call in calls:
        for fork in call.forks:
            made.update(dict.fromkeys(fork.runs, fork.calls))
    return made


def spent(calls: Iterable[Call]) -> Counter[int]:
    """Operations by run, of calls in two rows."""
    made = Counter[int]()
    for call in calls:
        ways = [(call.replays, [call.action])]
        ways += [(fork.runs, [call.at(fork, stage) for stage in range(fork.calls)]) for fork in call.forks]
        for runs, actions in ways:
            for run in runs:
                made[run] += sum(2 * ANATOMY.live_flops(action.dead) for action in actions)
    return made


@given(studies, st.integers(1, 8), st.data())
def test_calls_are_those_of_the_plain_planner(study: BoundStudy, group: int, data: st.DataObject) -> None:
    every = range(BASELINE, len(study.spec.interventions))
    runs = data.draw(st.sets(st.sampled_from(every), min_size=1))
    made = make_plan(study, runs=runs, group=group)
    assert list(made.calls) == planned(made.bound, runs, group=group)
    whole = make_plan(study, group=group)
    assert list(whole.calls) == planned(whole.bound, every, group=group)
    assert whole.part(runs) == made


@given(studies, st.data())
def test_calls_from_stored_states_are_those_of_the_plain_planner(study: BoundStudy, data: st.DataObject) -> None:
    every = range(BASELINE, len(study.spec.interventions))
    runs = data.draw(st.sets(st.sampled_from(every), min_size=1))
    replay = data.draw(st.sets(st.integers(1, STEPS)))
    made = make_plan(study, runs=runs, forked=True, replay=replay)
    expected = planned(made.bound, runs, group=made.group, forked=True, replay=replay)
    assert list(made.calls) == expected
    assert make_plan(study).part(runs, forked=True, replay=replay) == made
    assert made.calls_per_sample == sum(call.unet_calls for call in expected)
    assert made.calls_by_run == called(expected)


@given(studies, st.integers(1, 8))
def test_what_is_counted_is_what_the_calls_are(study: BoundStudy, group: int) -> None:
    made = make_plan(study, group=8)
    calls = made.calls
    assert made.calls_per_sample == sum(call.unet_calls for call in calls)
    assert made.calls_by_run == called(calls)
    assert made.flops == sum(2 * ANATOMY.live_flops(action.dead) for call in calls for action in call.actions)
    assert made.flops_by_run == spent(calls)
    assert made.widest_step == max(Counter(call.step for call in calls).values())
    assert made.calls_if_grouped(group) == make_plan(study, group=group).calls_per_sample if group < 8 else True
    assert made.grouped(group) == make_plan(study, group=group)
    items = made.spec.interventions
    for run in (BASELINE, *range(len(items))):
        alone = cost_of_run(None if run == BASELINE else items[run], made.spec.sampler, ANATOMY, made.schedule)
        assert alone == (made.calls_by_run[run], made.flops_by_run[run])


@given(studies, st.integers(1, 8), st.integers(1, 5), st.integers(1, 3))
def test_the_mean_batch_is_that_of_the_calls(study: BoundStudy, group: int, most: int, seeds: int) -> None:
    study = replace(study, spec=replace(study.spec, seeds=range(seeds)))
    made = make_plan(study, group=group)
    block = samples_per_block(made, 1 << 30, most)
    together = Counter(
        (call.step, call.action, 0 if BASELINE in call.runs else call.runs[0] // group) for call in made.calls
    )
    samples = [block * n for n in together.values()]
    full = sum(math.ceil(n / most) for n in samples)
    assert mean_batch_size(made, 1 << 30, most) == max(1, round(sum(samples) / full))


windows = st.builds(lambda start, length: Window(start, min(start, length)), st.integers(1, 12), st.integers(1, 6))


@given(st.lists(windows | st.builds(lambda a, b: Windows((Window(a + 5, 1), Window(b, b))), *[st.integers(1, 5)] * 2)))
def test_windows_laid_over_each_other(drawn: list[Window | Windows]) -> None:
    found = {}
    for start, stop, held in overlaid(drawn):
        found |= {step: list(held) for step in range(start, stop - 1, -1)}
    expected = {
        step: [index for index, window in enumerate(drawn) if step in list(window)] for step in range(17, 0, -1)
    }
    assert list(found.items()) == [(step, held) for step, held in expected.items() if held]


def sweep(interventions: int, steps: int) -> BoundStudy:
    starts = [10 + (steps - 10) * number // interventions for number in range(interventions)]
    return bound([cu.AblateBlock(1 + n % 4, cu.Window(start, 10)) for n, start in enumerate(starts)], steps)


def entered(work: Any) -> int:
    """Functions of the package that are entered meanwhile."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call" and "causalunet/" in frame.f_code.co_filename

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def totals(made: Plan) -> None:
    """All that is asked of a plan before it runs."""
    assert made.naive_calls > made.unet_calls > 0
    assert str(made)
    assert made.widest_step
    assert made.calls_if_grouped(16)


def test_planning_takes_no_work_for_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalunet.plan.calls_of", lambda _: pytest.fail("calls were made"))
    # so many that their windows overlap in all of them
    small, longer, more = sweep(80, 100), sweep(80, 800), sweep(160, 100)
    of_small, of_longer, of_more = (entered(lambda b=b: totals(make_plan(b))) for b in (small, longer, more))
    assert of_longer <= 1.3 * of_small, "eight times as many steps"
    assert of_more <= 2.2 * of_small, "twice as many interventions"


def test_a_study_is_laid_out_once_more_at_most_to_be_cut_into_parts(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out = []
    real = tree.grow

    def counted(*arguments: Any) -> Any:
        laid_out.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("causalunet.plan.grow", counted)
    study = cu.Study(
        name="s",
        prompts=["a red circle"],
        sampler=cu.DDPM(steps=10, guidance_scale=1.0),
        interventions=cu.sweep(cu.AblateBlock, bottom=(1, 2, 3, 4), start=range(9, 2, -1), length=1),
    )
    study.plan(tiny_model, calibrate=False)
    assert len(laid_out) == 1, "of a study whose parts need not be cut"
    monkeypatch.setattr(pace, "_CORE", 1.0)
    monkeypatch.setattr(pace, "_MORE_CALLS", 100.0)
    assert study.plan(tiny_model, calibrate=False).group == 1
    assert len(laid_out) == 3, "halved seven times"
