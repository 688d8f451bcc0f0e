"""Values of a run's own earlier steps: held between, and extrapolated, against loops with hooks, and their laws."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import causalunet as cu
from causalunet.design import FillContext, Intervention
from causalunet.design.fills import Fill
from causalunet.errors import SpecError
from causalunet.execute.walk.generate import generate
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import BASELINE, make_plan
from causalunet.testing import check_fill
from tests.execute.reference import spaced_schedule
from tests.execute.test_donors import PROMPTS, STEPS, TOLERANCE, Put, Values, by_hand, study_of


def images(model: TextToImage, item: Intervention, sampler: Any = None, **options: Any) -> np.ndarray:
    sampler = sampler or cu.DDPM(steps=STEPS)
    return generate(PROMPTS, model=model, sampler=sampler, intervention=item, **options)


def through(values: list[tuple[float, torch.Tensor]], at: float) -> torch.Tensor:
    """The polynomial through some values, by least squares of NumPy."""
    times = np.array([time for time, _ in values])
    stacked = np.stack([value.double().numpy().ravel() for _, value in values])
    coefficients = np.polyfit((times - at) / 1000, stacked, len(values) - 1)
    return torch.from_numpy(coefficients[-1]).reshape(values[0][1].shape).float()


def extrapolated(place: str, computed: dict[int, tuple[int, ...]]) -> Put:
    """At each step: of which steps the polynomial is."""
    timesteps, _ = spaced_schedule(STEPS)

    def put(step: int, own: Values) -> dict[str, tuple[str, torch.Tensor]]:
        if step not in computed:
            return {}
        points = [(timesteps[one - 1], own[one][place]) for one in computed[step]]
        return {place: ("both", through(points, timesteps[step - 1]))}

    return put


CASES: dict[str, tuple[Intervention, Put]] = {
    "a line": (
        cu.Edit("up.1", cu.Window(5, 2), cu.Extrapolate()),
        extrapolated("up.1", {5: (6, 7), 4: (6, 7)}),
    ),
    "a parabola": (
        cu.Edit("skip.1", cu.Window(5, 2), cu.Extrapolate(order=2)),
        extrapolated("skip.1", {5: (6, 7, 8), 4: (6, 7, 8)}),
    ),
    "as low an order as there are steps": (
        cu.Edit("mid", cu.Window(7, 2), cu.Extrapolate(order=2)),
        extrapolated("mid", {7: (8,), 6: (8,)}),
    ),
    "every third": (
        cu.Edit("up.2", cu.Window(8, 8), cu.Extrapolate(order=1, every=3)),
        extrapolated("up.2", {7: (8,), 6: (8,), 4: (5, 8), 3: (5, 8), 1: (2, 5)}),
    ),
    "every second, a parabola": (
        cu.Edit("up.1", cu.Window(7, 7), cu.Extrapolate(order=2, every=2)),
        extrapolated("up.1", {6: (7, 8), 4: (5, 7, 8), 2: (3, 5, 7)}),
    ),
    "held every third": (
        cu.Edit("up.1", cu.Window(7, 6), cu.Hold(every=3)),
        extrapolated("up.1", {6: (7,), 5: (7,), 3: (4,), 2: (4,)}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_images_are_those_of_a_loop_with_hooks(tiny_model: TextToImage, name: str) -> None:
    item, put = CASES[name]
    found = images(tiny_model, item)
    for seed, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(found[seed], by_hand(tiny_model, prompt, seed, put)[0], rtol=0, atol=TOLERANCE)
        assert np.abs(found[seed] - by_hand(tiny_model, prompt, seed)[0]).max() > 1e-4, "tests nothing"


def test_over_steps_that_are_skipped_the_line_is_of_those_that_are_called(tiny_model: TextToImage) -> None:
    item = cu.Edit("up.1", cu.Window(4, 1), cu.Extrapolate()) + cu.SkipSteps(cu.Window(6, 1))
    found = images(tiny_model, item)
    put = extrapolated("up.1", {4: (5, 7)})
    expected, _ = by_hand(tiny_model, PROMPTS[0], 0, put, absent=(6,))
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=TOLERANCE)


@settings(max_examples=40)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(2, 5))
def test_every_is_cut_relax_cut_where_both_say_the_same(start: int, length: int, every: int) -> None:
    length = min(start, length)
    computed = range(start, start - length, -every)
    whole = [first for first in computed if first - every + 1 > start - length]
    if length < 2:
        with pytest.raises(SpecError, match="there is no other"):
            cu.Edit("mid", cu.Window(start, length), cu.Hold(every=every))
        return
    (edit,) = cu.Edit("mid", cu.Window(start, length), cu.Hold(every=every)).edits()
    assert set(edit.window) == set(range(start, start - length, -1)) - set(computed)
    if whole and len(whole) == len(computed):
        alike = cu.cut_relax_cut(start - 1, cut=every - 1, relax=1, cuts=len(whole))
        assert edit == cu.Edit("mid", alike if len(whole) > 1 else alike.parts[0], cu.Hold())


def test_the_plan_and_the_images_are_those_of_the_windows(tiny_model: TextToImage) -> None:
    one = cu.Edit("up.2", cu.Window(8, 6), cu.Hold(every=3))
    other = cu.Edit("up.2", cu.cut_relax_cut(7, cut=2, relax=1, cuts=2), cu.Hold())
    first, second = (make_plan(study_of(item).bind(tiny_model), runs=(BASELINE, 0)) for item in (one, other))
    assert first.calls == second.calls
    assert first.flops < first.unet_calls * 2 * tiny_model.anatomy.flops, "what is held need not be computed"
    np.testing.assert_array_equal(images(tiny_model, one), images(tiny_model, other))
    both = cu.Study(name="s", prompts=PROMPTS, sampler=cu.DDPM(steps=STEPS), interventions=[one, other])
    with_both = make_plan(both.bind(tiny_model), runs=(BASELINE, 0, 1))
    assert with_both.unet_calls == first.unet_calls, "written twice, they share every call"
    assert (one + cu.AblateSkip(1, cu.Window(1, 1))).digest == (other + cu.AblateSkip(1, cu.Window(1, 1))).digest


@pytest.mark.thorough
@pytest.mark.parametrize("fill", [cu.Hold(every=2), cu.Extrapolate(2, every=2)])
@pytest.mark.parametrize("sampler", [cu.DDIM(steps=STEPS), cu.Heun(steps=STEPS), cu.DPMMultistep(steps=STEPS)])
def test_traced_or_installed_and_by_any_sampler(tiny_model: TextToImage, fill: Fill, sampler: Any) -> None:
    item = cu.Edit("up.1", cu.Window(7, 6), fill)
    traced, plain = (images(tiny_model, item, sampler, traced=traced) for traced in (True, False))
    np.testing.assert_allclose(traced, plain, rtol=0, atol=TOLERANCE)
    one_by_one = images(tiny_model, item, sampler, memory=1)
    np.testing.assert_allclose(one_by_one, traced, rtol=0, atol=1e-4)


@pytest.mark.parametrize("view", [cu.Channels(0, 2), cu.Rows("cond")])
def test_through_views_the_rest_is_as_it_was(tiny_model: TextToImage, view: Any) -> None:
    """All parts extrapolated are the whole extrapolated."""
    window, fill = cu.Window(5, 2), cu.Extrapolate()
    shape = tiny_model.anatomy.by_name["mid"].shape
    rest = cu.Rows("uncond") if view == cu.Rows("cond") else cu.Channels(1, *range(3, shape[0]))
    parts = [cu.Edit(cu.Site("mid") @ one, window, fill) for one in (view, rest)]
    whole = images(tiny_model, cu.Edit("mid", window, fill))
    np.testing.assert_allclose(images(tiny_model, cu.Composition(parts)), whole, rtol=0, atol=TOLERANCE)
    assert np.abs(images(tiny_model, parts[0]) - whole).max() > 1e-4


finite = st.floats(-3, 3)


@settings(max_examples=50)
@given(st.integers(1, 2), st.lists(finite, min_size=3, max_size=3), st.lists(finite, min_size=2, max_size=2))
def test_what_is_a_polynomial_of_that_order_is_continued_exactly(
    order: int, coefficients: list[float], at: list[float]
) -> None:
    def value(time: torch.Tensor) -> torch.Tensor:
        grid = torch.linspace(1, 2, 12, dtype=torch.float64).reshape(1, 2, 2, 3)
        terms = (grid * number * time.reshape(-1, 1, 1, 1) ** n for n, number in enumerate(coefficients[: order + 1]))
        return torch.stack(list(itertools.chain(terms))).sum(0)

    times = tuple(0.1 + 0.25 * n**2 for n in range(order + 1))
    now = torch.tensor(at, dtype=torch.float64)
    donors = tuple(value(torch.tensor([time] * 2, dtype=torch.float64)) for time in times)
    context = FillContext(3, 1000 * now, now, donors, donor_times=times)
    found = cu.Extrapolate(order).put(torch.zeros(2, 2, 2, 3, dtype=torch.float64), context)
    np.testing.assert_allclose(found, value(now), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fill", [cu.Hold(every=3), cu.Extrapolate(), cu.Extrapolate(2, every=4)])
def test_they_are_written_and_read_and_pass_the_kit(fill: Fill) -> None:
    edit = cu.Edit("mid", cu.Window(6, 5), fill)
    assert Intervention.from_json(edit.to_json()) == edit
    assert check_fill(fill)
    assert cu.Hold().to_json() == {"name": "hold", "configuration": {}}, "as it was written before"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: cu.Hold(every=1), "every=1; give an integer of at least 2"),
        (lambda: cu.Extrapolate(order=3), "order=3; it is 1 or 2"),
        (lambda: cu.Extrapolate(every=2.5), r"every=2\.5"),
        (lambda: cu.Edit("mid", cu.Window(3, 1), cu.Hold(every=2)), "there is no other"),
        (lambda: study_of(cu.Edit("mid", cu.Window(STEPS, 2), cu.Extrapolate())), "before step 8, the first"),
    ],
)
def test_what_cannot_be_is_told(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()
