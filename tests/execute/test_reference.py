"""Whole intervened runs against a second implementation, which shares no schedule, sampler, plan or trace with ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import causalunet as cu
from causalunet.design import Intervention
from causalunet.models.text_to_image import TextToImage
from tests.execute.reference import Change, Trajectory, sample

STEPS = 8
BLOCKS = 4
PROMPTS = ("a red circle", "a striped blue cross, dark background")
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    """An intervention of the package, and by hand what it means."""

    intervention: Intervention
    changes: Mapping[int, Sequence[Change]] = field(default_factory=dict)
    absent: Sequence[int] = ()


def at(steps: Sequence[int], *changes: Change) -> dict[int, Sequence[Change]]:
    return dict.fromkeys(steps, changes)


def skips(top: int, branch: str = "both") -> list[Change]:
    return [Change("skip", number, branch=branch) for number in range(top)]


def block(bottom: int, branch: str = "both") -> list[Change]:
    return [Change("up", bottom - 1, branch=branch)]


CASES = {
    "no change": Case(cu.Null(window=cu.Window(8, 2))),
    "one skip, from the first step": Case(cu.AblateSkip(top=1, window=cu.Window(8, 3)), at((8, 7, 6), *skips(1))),
    "three skips, to the last step": Case(cu.AblateSkip(top=3, window=cu.Window(4, 4)), at((4, 3, 2, 1), *skips(3))),
    "every skip": Case(cu.AblateSkip(top=BLOCKS, window=cu.Window(5, 2)), at((5, 4), *skips(BLOCKS))),
    "one block": Case(cu.AblateBlock(bottom=1, window=cu.Window(8, 4)), at((8, 7, 6, 5), *block(1))),
    "three blocks, cut-relax-cut": Case(
        cu.AblateBlock(bottom=3, window=cu.cut_relax_cut(7, cut=2, relax=2, cuts=2)),
        at((7, 6, 3, 2), *block(3)),
    ),
    "every block": Case(cu.AblateBlock(bottom=BLOCKS, window=cu.Window(3, 2)), at((3, 2), *block(BLOCKS))),
    "one step skipped": Case(cu.SkipSteps(window=cu.Window(7, 1)), absent=(7,)),
    "two windows skipped": Case(
        cu.SkipSteps(window=cu.Windows((cu.Window(7, 2), cu.Window(3, 2)))), absent=(7, 6, 3, 2)
    ),
    "stopped early": Case(cu.SkipSteps(window=cu.Window(3, 3)), absent=(3, 2, 1)),
    "cut-relax-cut, a skip elsewhere, stopped early": Case(
        cu.AblateBlock(bottom=2, window=cu.cut_relax_cut(6, cut=1, relax=1, cuts=2))
        + cu.SkipSteps(window=cu.Window(2, 2))
        + cu.AblateSkip(top=2, window=cu.Window(8, 2)),
        {**at((6, 4), *block(2)), **at((8, 7), *skips(2))},
        absent=(2, 1),
    ),
    "skip and block at one step": Case(
        cu.AblateBlock(bottom=2, window=cu.Window(6, 2)) + cu.AblateSkip(top=1, window=cu.Window(6, 2)),
        at((6, 5), *block(2), *skips(1)),
    ),
    "encoder cut off by skips and block": Case(
        cu.AblateBlock(bottom=2, window=cu.Window(6, 2)) + cu.AblateSkip(top=2, window=cu.Window(6, 2)),
        at((6, 5), *block(2), *skips(2)),
    ),
    "encoder block whose input is then useless": Case(
        cu.Edit("down.1", cu.Window(6, 2)) + cu.AblateSkip(top=1, window=cu.Window(6, 2)),
        at((6, 5), Change("down", 1), *skips(1)),
    ),
    "skip, conditional rows": Case(
        cu.AblateSkip(top=2, window=cu.Window(7, 3), branch="cond"), at((7, 6, 5), *skips(2, "cond"))
    ),
    "block, conditional rows": Case(
        cu.AblateBlock(bottom=3, window=cu.Window(7, 3), branch="cond"), at((7, 6, 5), *block(3, "cond"))
    ),
    "block, unconditional rows": Case(
        cu.AblateBlock(bottom=3, window=cu.Window(7, 3), branch="uncond"), at((7, 6, 5), *block(3, "uncond"))
    ),
    "bottleneck scaled in each branch by its own factor": Case(
        cu.Edit("mid", cu.Window(4, 1), cu.Scale(-1.0), "cond")
        + cu.Edit("mid", cu.Window(4, 1), cu.Scale(2), "uncond"),
        {4: [Change("mid", factor=-1.0, branch="cond"), Change("mid", factor=2.0, branch="uncond")]},
    ),
    "some channels of a block": Case(
        cu.Edit(cu.Site("up.1") @ cu.Channels(range(2, 6)), cu.Window(7, 3)),
        at((7, 6, 5), Change("up", 1, part=(slice(2, 6),))),
    ),
    "a box of pixels of two skips, unconditional rows": Case(
        cu.AblateSkip(2, cu.Window(6, 2), "uncond", cu.Pixels((0, 3), (2, 8))),
        at((6, 5), *(Change("skip", n, branch="uncond", part=(slice(None), slice(0, 3), slice(2, 8))) for n in (0, 1))),
    ),
    "two parts of the bottleneck, each by its own factor": Case(
        cu.Edit("mid", cu.Window(4, 1), cu.Scale(-1.0), view=cu.Channels(range(4)))
        + cu.Edit("mid", cu.Window(4, 1), view=cu.Channels(range(4, 16, 2))),
        {4: [Change("mid", factor=-1.0, part=(slice(0, 4),)), Change("mid", part=(slice(4, 16, 2),))]},
    ),
    "an encoder block": Case(cu.Edit("down.2", cu.Window(6, 1)), {6: [Change("down", 2)]}),
    "a decoder block scaled": Case(cu.Edit("up.2", cu.Window(6, 1), cu.Scale(1.5)), {6: [Change("up", 2, 1.5)]}),
}
UNGUIDED = ["no change", "three skips, to the last step", "three blocks, cut-relax-cut", "stopped early"]


def by_hand(model: TextToImage, case: Case, scale: float) -> list[Trajectory]:
    return [
        sample(model, prompt, seed, steps=STEPS, scale=scale, changes=case.changes, absent=case.absent)
        for seed, prompt in enumerate(PROMPTS)
    ]


@pytest.fixture(scope="module")
def outcomes(run_study: Callable[..., xr.DataTree]) -> dict[tuple[str, float], np.ndarray]:
    """Image of every case, (sample, channel, y, x), all cases run as one study."""
    images = {}
    for scale, names in ((3.0, list(CASES)), (1.0, UNGUIDED)):
        items = [CASES[name].intervention for name in names]
        results = run_study(*items, steps=STEPS, guidance_scale=scale, prompts=PROMPTS)
        images |= {(name, scale): image for name, image in zip(names, results.outcomes.image.values, strict=True)}
    return images


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "scale"), [*((name, 3.0) for name in CASES), *((name, 1.0) for name in UNGUIDED)])
def test_images(
    tiny_model: TextToImage, outcomes: dict[tuple[str, float], np.ndarray], name: str, scale: float
) -> None:
    expected = np.stack([trajectory.image for trajectory in by_hand(tiny_model, CASES[name], scale)])
    np.testing.assert_allclose(outcomes[name, scale], expected, rtol=0, atol=TOLERANCE)
    changed = np.abs(expected - outcomes["no change", scale]).max(axis=(1, 2, 3))
    assert name == "no change" or (changed > 1e-3).all(), "the case changes nothing, so it tests nothing"


def test_baseline_trajectory(tiny_model: TextToImage, run_study: Callable[..., xr.DataTree]) -> None:
    results = run_study(cu.Null(window=cu.Window(STEPS, 1)), steps=STEPS, prompts=PROMPTS, seeds=(3,))
    baseline = results.baseline.load()
    expected = [sample(tiny_model, prompt, 3, steps=STEPS, scale=3.0) for prompt in PROMPTS]
    for step in range(STEPS, 0, -1):
        x = np.stack([trajectory.x[step] for trajectory in expected])
        x0 = np.stack([trajectory.x0[step] for trajectory in expected])
        # Near the first step x0_hat is the difference of x and eps, many times enlarged.
        enlarged = 1e-6 / np.sqrt(float(baseline.alpha_bar.sel(step=step)))
        np.testing.assert_allclose(baseline.x_t.sel(step=step), x, rtol=0, atol=2 * TOLERANCE)
        np.testing.assert_allclose(baseline.x0_hat.sel(step=step), x0, rtol=0, atol=TOLERANCE + enlarged)
    np.testing.assert_allclose(baseline.image, np.stack([t.image for t in expected]), rtol=0, atol=TOLERANCE)


@st.composite
def programs(draw: st.DrawFn, steps: int = 5) -> Case:
    """Any mixture of skipped steps, skip connections and decoder blocks, none inside what another makes dead."""
    parts: list[Intervention] = []
    changes: dict[int, list[Change]] = {}
    absent = []
    for step in range(steps, 0, -1):
        what = draw(st.sampled_from(["nothing", "edits"] if step == steps else ["nothing", "edits", "jump"]))
        if what == "jump":
            absent.append(step)
            parts.append(cu.SkipSteps(window=cu.Window(step, 1)))
        elif what == "edits":
            bottom = draw(st.integers(0, BLOCKS))
            top = draw(st.integers(0, BLOCKS - bottom))
            parts += [cu.AblateBlock(bottom=bottom, window=cu.Window(step, 1))] if bottom else []
            parts += [cu.AblateSkip(top=top, window=cu.Window(step, 1))] if top else []
            changes[step] = [*(block(bottom) if bottom else ()), *skips(top)]
    assume(parts)
    return Case(parts[0] if len(parts) == 1 else cu.Composition(tuple(parts)), changes, absent)


@pytest.mark.thorough
@settings(max_examples=6)
@given(case=programs())
def test_any_program(tiny_model: TextToImage, run_study: Callable[..., xr.DataTree], case: Case) -> None:
    image = run_study(case.intervention, steps=5, prompts=PROMPTS[:1], seeds=(5,)).outcomes.image.values[0, 0]
    expected = sample(tiny_model, PROMPTS[0], 5, steps=5, scale=3.0, changes=case.changes, absent=case.absent).image
    np.testing.assert_allclose(image, expected, rtol=0, atol=TOLERANCE)


def test_cases_cover_every_way_to_intervene() -> None:
    edits = list(chain.from_iterable(case.intervention.edits() for case in CASES.values()))
    assert {edit.branch for edit in edits} == {"both", "cond", "uncond"}
    assert {edit.fill.name for edit in edits} == {"zero", "identity", "scale", "jump"}
    assert {edit.component.split(".")[0] for edit in edits} == {"down", "mid", "up", "skip", "unet"}
