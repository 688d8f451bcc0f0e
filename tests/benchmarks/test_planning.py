"""Planning 1,000 interventions x 1,000 steps x 100 samples, and what doubling either costs: ``make bench``."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

import causalunet as cu
from causalunet.execute.fill.pace import paced
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Plan, make_plan
from causalunet.results.meaning.layout import Layout

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

SECONDS = 10.0
"""Of processor time for the whole, on one core."""


def study(interventions: int, steps: int) -> cu.Study:
    """Windows of ten steps that begin all along the run, at four depths."""
    starts = [10 + (steps - 10) * number // interventions for number in range(interventions)]
    return cu.Study(
        name="many",
        prompts=["a red circle"],
        seeds=range(100),
        sampler=cu.DDPM(steps=steps),
        interventions=[
            cu.AblateBlock(1 + number % 4, cu.Window(start, 10), label=f"{number}")
            for number, start in enumerate(starts)
            if number < 4 or start != starts[number - 4]
        ],
    )


def processor_time(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def test_a_thousand_interventions_of_a_thousand_steps(
    tiny_model: TextToImage, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    study(2, 20).plan(tiny_model, calibrate=False)  # the model is looked at once
    large = study(1000, 1000)
    plans: list[Plan] = []

    def whole() -> None:
        plans.append(large.plan(tiny_model, calibrate=False))
        str(plans[0])

    laid_out = processor_time(whole)
    made = processor_time(lambda: plans[0].calls)
    known = processor_time(lambda: Layout(plans[0], {}, 1).known())
    lines = [
        f"plan {laid_out:.2f} s, {plans[0].calls_per_sample:,} calls {made:.2f} s, what a store knows {known:.2f} s"
    ]
    assert laid_out + made + known < SECONDS
    seconds = {
        size: min(processor_time(lambda s=size: paced(make_plan(study(*s).bind(tiny_model)))) for _ in range(3))
        for size in ((250, 250), (500, 250), (250, 500), (500, 500), (1000, 500), (500, 1000))
    }
    for size, larger in (
        ((250, 250), (500, 250)),
        ((250, 250), (250, 500)),
        ((500, 500), (1000, 500)),
        ((500, 500), (500, 1000)),
    ):
        lines.append(f"{size} to {larger} interventions and steps: {seconds[larger] / seconds[size]:.2f} times as long")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
