"""Edits of one U-Net call of their steps: which call that is, what is shared, counted, stored and refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import causalunet as cu
from causalunet.bound import bind
from causalunet.design import Intervention, Sampler
from causalunet.design.study import StudySpec
from causalunet.errors import SpecError
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import make_plan
from causalunet.shortcut import Shortcut
from tests.execute.test_several_calls import (
    CUT,
    NULL,
    PROMPTS,
    SKIPS,
    STEPS,
    Changes,
    PseudoMultistep,
    assert_images,
    heun,
    heun_by_hand,
    model,
    pndm_by_hand,
    study,
)

__all__ = ["model"]

pytestmark = [
    pytest.mark.usefixtures("guests"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def cut(stage: int | None, start: int = 4, length: int = 2) -> Intervention:
    return cu.AblateSkip(top=2, window=cu.Window(start, length, stage=stage))


def of(stage: int, *steps: int) -> Changes:
    return {(step, stage): SKIPS for step in steps}


STAGES: dict[Intervention, Changes] = {
    cut(0): of(0, 4, 3),
    cut(1): of(1, 4, 3),
    cut(0, 4, 1) + cut(1, 3, 1): of(0, 4) | of(1, 3),
    cut(0, 3, 1) + cut(1, 3, 1): of(0, 3) | of(1, 3),
}


@pytest.mark.thorough
def test_images_are_those_of_diffusers_heun_cut_in_one_call(model: TextToImage, tmp_path: Path) -> None:
    """In a study, in one that grows, and applied with the cuts installed; edits fire where they are said to."""
    items = (*STAGES, cut(None, 3, 1), NULL)
    path = tmp_path / "s.zarr"
    first = study(cut(0), cut(1), prompts=PROMPTS[:1])
    first.run(path, model=model, progress=False)
    results = study(*items, prompts=PROMPTS[:1]).run(path, model=model, progress=False)
    shown = [heun_by_hand(model, PROMPTS[0], 0, {}, ())]
    for item, changes in STAGES.items():
        expected = heun_by_hand(model, PROMPTS[0], 0, changes, ())
        assert all(np.abs(expected - other).max() > 1e-3 for other in shown), "the case tests nothing"
        shown.append(expected)
        assert_images(results.outcomes.image.sel(intervention=item.label)[0], expected)
        applied = Shortcut(name="s", intervention=item, sampler=heun(), model=model.name)
        assert_images(applied.apply(PROMPTS[:1], [0], model=model)[0], expected)
    both, alone = list(STAGES)[-1], cut(None, 3, 1)
    assert_images(*(results.outcomes.image.sel(intervention=item.label) for item in (both, alone)))
    np.testing.assert_array_equal(results.audit.fired, results.audit.declared.broadcast_like(results.audit.fired))
    fired = results.audit.fired.sel(place="skip.0", step=[4, 3]).isel(sample=0)
    often = [fired.sel(intervention=item.label).values.tolist() for item in items[:-1]]
    assert often == [[1, 1], [1, 1], [1, 1], [0, 2], [0, 2]]
    assert results.verify(quiet=True, deep=True).exit_code == 0
    stages = results.outcomes.stage.sel(intervention=[item.label for item in items])
    np.testing.assert_array_equal(stages, [0, 1, *[np.nan] * 4], "two stages, all calls, none")


@pytest.mark.thorough
def test_images_are_those_of_pndm_cut_in_one_call(model: TextToImage, tmp_path: Path) -> None:
    """Its first three steps take four calls."""
    items = [cu.AblateSkip(top=2, window=cu.Window(9, 2, stage=stage)) for stage in range(4)]
    made = study(*items, sampler=PseudoMultistep(steps=10), prompts=PROMPTS[:1])
    results = made.run(tmp_path / "s.zarr", model=model, progress=False)
    shown = [pndm_by_hand(model, ())]
    for stage, item in enumerate(items):
        expected = pndm_by_hand(model, (), of(stage, 9, 8))
        assert all(np.abs(expected - other).max() > 1e-4 for other in shown), "the case tests nothing"
        shown.append(expected)
        assert_images(results.outcomes.image.sel(intervention=item.label)[0], expected)
    assert results.verify(quiet=True).exit_code == 0


def test_a_later_stage_shares_the_first_call_of_its_step(model: TextToImage) -> None:
    """Runs part from the baseline within a step: the first call is made once, and each makes its second."""
    spec = StudySpec(name="s", prompts=PROMPTS, interventions=(cut(0), cut(1), CUT, NULL), sampler=heun())
    plan = make_plan(bind(spec, model))
    together = 2 + 2  # steps 6 and 5
    baseline = 2 + 2 + 2 + 1  # from step 4 on
    first = 2 + 2 + 2 + 1  # its own first call at step 4, shared with the run that is cut in both
    later = 1 + 2 + 2 + 1  # the baseline's first call
    both = 1 + 2 + 2 + 1
    null = 2 + 2 + 1  # from step 3 on
    assert plan.calls_per_sample == together + baseline + first + later + both + null
    assert [plan.calls_by_run[run] for run in (-1, 0, 1, 2, 3)] == [11] * 5


def test_a_dead_block_is_dead_in_its_stage(model: TextToImage) -> None:
    """What does not run in one call of two is half of what does not run in both."""
    made = [cu.AblateBlock(bottom=1, window=cu.Window(4, 2, stage=stage)) for stage in (0, 1)]
    made.append(cu.AblateBlock(bottom=1, window=cu.Window(4, 2)))
    plan = make_plan(bind(StudySpec(name="s", prompts=PROMPTS, interventions=made, sampler=heun()), model))
    saved = [plan.flops_by_run[-1] - plan.flops_by_run[run] for run in range(3)]
    assert saved[0] == saved[1] > 0
    assert saved[2] == 2 * saved[0]


@pytest.mark.thorough
def test_held_and_patched_values_are_those_of_first_calls(model: TextToImage, tmp_path: Path) -> None:
    """A value held in the second calls is that of the step before; the baseline's, patched, changes nothing there."""
    held = cu.Edit("mid", cu.Window(4, 2, stage=1), cu.Hold())
    patched = cu.Edit("mid", cu.Window(4, 2, stage=0), cu.Patch())
    results = study(held, patched).run(tmp_path / "s.zarr", model=model, progress=False)
    images = {item.label: results.outcomes.image.sel(intervention=item.label) for item in (held, patched)}
    assert_images(images[patched.label], results.baseline.image)
    assert np.abs(images[held.label] - results.baseline.image).max() > 1e-3
    assert results.verify(quiet=True).exit_code == 0


REFUSED: dict[str, tuple[Intervention, Callable[[], Sampler], str]] = {
    "the last step of Heun": (
        cut(1, 2, 2),
        heun,
        r"edits stage 1 of step 1, .* sampler 'guests\.heun' that step takes 1 U-Net call: it has stage 0 alone",
    ),
    "beyond two calls": (cut(2), heun, r"stage 2 of step 4, .* takes 2 U-Net calls: it has the stages 0 \.\.\. 1"),
    "after a jump to the end": (
        cut(1, 3, 1) + cu.SkipSteps(cu.Window(2, 2)),
        heun,
        r"stage 1 of step 3, .* it has stage 0 alone",
    ),
    "one call a step": (
        cut(1),
        lambda: cu.DDIM(steps=STEPS),
        r"stage 1 of step 4, .* 'ddim' that step takes 1 U-Net call: ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_calls_that_a_step_does_not_take_are_refused_when_planning(model: TextToImage, name: str) -> None:
    item, make, told = REFUSED[name]
    sampler = make()
    with pytest.raises(SpecError, match=told):
        study(item, sampler=sampler).plan(model, calibrate=False)
    with pytest.raises(SpecError, match=told):
        Shortcut(name="s", intervention=item, sampler=sampler, model=model.name).cost(model)


def test_edits_of_one_stage_do_not_meet_those_of_another(model: TextToImage) -> None:
    """Two fills at one place and step are refused unless they are of different calls; so is what kills an edit."""
    window = cu.Window(4, 1)
    zero, half = cu.Edit("mid", window), cu.Edit("mid", window, cu.Scale(0.5))

    def staged(item: Any, stage: int) -> Intervention:
        return replace(item, window=cu.Window(4, 1, stage=stage), label="")

    for one, other in ((zero, half), (zero, staged(half, 1)), (staged(zero, 1), staged(half, 1))):
        with pytest.raises(SpecError, match="mid at step 4 is edited twice"):
            one + other
    study(staged(zero, 0) + staged(half, 1)).plan(model, calibrate=False)
    deep, cutting = cu.Edit("mid", window, cu.Scale(0.5)), cu.AblateBlock(bottom=1, window=window)
    with pytest.raises(cu.errors.CausalUNetError, match="could never fire: mid is dead"):
        study(staged(deep, 1) + cutting).plan(model, calibrate=False)
    study(staged(deep, 1) + staged(cutting, 0)).plan(model, calibrate=False)
    with pytest.raises(SpecError, match="A jump skips all calls of its steps; stage=1 cannot be honoured"):
        cu.SkipSteps(cu.Window(4, 1, stage=1)).edits()
