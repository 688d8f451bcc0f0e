"""Values of other runs of a study: means, other samples, other steps, against a loop with hooks, and their laws."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import causalunet as cu
from causalunet.design import Intervention, OfAnother, OfBaseline, OfMean, OwnBefore, Sample, donor_runs
from causalunet.design.fills import Fill
from causalunet.errors import SpecError, StoreError
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.fill import part_runner
from causalunet.execute.walk.decoding import Decoding
from causalunet.execute.walk.generate import generate
from causalunet.execute.walk.images import KeptImages
from causalunet.execute.walk.lockstep import Block, run_block
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import BASELINE, Plan, make_plan
from causalunet.testing import check_fill
from tests.execute.test_donors import OTHER, PROMPTS, STEPS, Put, Values, by_hand

MANY = (*PROMPTS, "a green square", "a yellow triangle at the top", "a checkered circle")
WINDOW = cu.Window(6, 2)
ALIKE = {"rtol": 0, "atol": 1e-5}


def study(*items: Intervention, prompts: Sequence[str] = PROMPTS, **fields: Any) -> cu.Study:
    return cu.Study(name="s", prompts=prompts, sampler=cu.DDPM(steps=STEPS), interventions=items, **fields)


def images(
    model: TextToImage, asked: cu.Study, *, at_once: int = 64, advance: Callable[[int], None] | None = None
) -> tuple[dict[int, np.ndarray], Plan]:
    """Images of every run of a study in one block, so many samples in a call."""
    plan, samples = make_plan(asked.bind(model)), asked.samples
    block = Block(0, tuple(one.prompt for one in samples), tuple(one.start for one in samples))
    kept = KeptImages(Decoding(model, 1 << 30))
    run_block(TracedUNet(model.unet, model.anatomy), plan, block, micro_batch=at_once, observer=kept, advance=advance)
    return kept.images, plan


def put_at(place: str, steps: Sequence[int], at: Callable[[int], Mapping[str, torch.Tensor]]) -> Put:
    return lambda step, _: {place: ("both", at(step)[place])} if step in steps else {}


def mean_of(runs: Sequence[Values], place: str) -> Callable[[int], Mapping[str, torch.Tensor]]:
    return lambda step: {place: torch.stack([run[step][place].double() for run in runs]).mean(0).float()}


def noise_seed(seed: int, number: int) -> int:
    digest = hashlib.sha256(f"{seed} {number}".encode()).hexdigest()
    return int(digest[:16], 16) // 2


@pytest.mark.parametrize("prompts", [None, "same"])
def test_a_mean_is_that_of_runs_made_by_hand(tiny_model: TextToImage, prompts: Any) -> None:
    fill = cu.Mean(n=3, seed=5, prompts=prompts)
    asked = study(cu.Edit("up.1", WINDOW, fill))
    found, _ = images(tiny_model, asked)
    shared = donor_runs(fill, asked)[asked.samples[0]] if prompts is None else ()
    for number, sample in enumerate(asked.samples):
        words = [one.prompt for one in shared] if shared else [sample.prompt] * 3
        runs = [by_hand(tiny_model, prompt, noise_seed(5, k))[1] for k, prompt in enumerate(words)]
        image, _ = by_hand(tiny_model, sample.prompt, sample.seed, put_at("up.1", (6, 5), mean_of(runs, "up.1")))
        np.testing.assert_allclose(found[0][number], image, **ALIKE)
        assert np.abs(found[0][number] - found[BASELINE][number]).max() > 1e-4, "tests nothing"
    if prompts is None:
        assert {one.prompt for one in shared} == set(PROMPTS)


def test_a_resampled_value_is_that_of_the_donors_run(tiny_model: TextToImage) -> None:
    fill = cu.Resample(seed=1)
    asked = study(cu.Edit("skip.1", WINDOW, fill), prompts=MANY[:3])
    found, _ = images(tiny_model, asked)
    for number, (sample, (of,)) in enumerate(donor_runs(fill, asked).items()):
        assert of in asked.samples
        assert of != sample
        _, other = by_hand(tiny_model, of.prompt, of.seed)
        image, _ = by_hand(tiny_model, sample.prompt, sample.seed, put_at("skip.1", (6, 5), other.__getitem__))
        np.testing.assert_allclose(found[0][number], image, **ALIKE)


@pytest.mark.parametrize(
    ("fill", "prompt", "seed", "step"),
    [
        (cu.Patch(prompt=OTHER, step=8), OTHER, None, 8),
        (cu.Patch(sample=1, step=6), PROMPTS[1], 1, 6),
        (cu.Patch(step=7), None, None, 7),
        (cu.Patch(sample=1), PROMPTS[1], 1, None),
    ],
)
def test_a_patch_is_of_the_step_and_the_sample(
    tiny_model: TextToImage, fill: cu.Patch, prompt: str | None, seed: int | None, step: int | None
) -> None:
    asked = study(cu.Edit("up.1", WINDOW, fill))
    found, _ = images(tiny_model, asked)
    sample = asked.samples[0]
    _, other = by_hand(tiny_model, prompt or sample.prompt, sample.seed if seed is None else seed)
    image, _ = by_hand(
        tiny_model, sample.prompt, sample.seed, put_at("up.1", (6, 5), lambda at: other[at if step is None else step])
    )
    np.testing.assert_allclose(found[0][0], image, **ALIKE)


def test_patched_from_itself_nothing_changes(tiny_model: TextToImage) -> None:
    found, _ = images(tiny_model, study(cu.Edit("up.2", WINDOW, cu.Patch(sample=0)), prompts=PROMPTS[:1]))
    np.testing.assert_allclose(found[0], found[BASELINE], **ALIKE)


def test_patched_everywhere_it_is_the_other_run(tiny_model: TextToImage) -> None:
    """All that the output depends on, at every step: the last block, or all that enters the decoder."""
    always, patch = cu.Window(STEPS, STEPS), cu.Patch(prompt=OTHER)
    last = cu.Edit("up.3", always, patch)
    told = [one.name for one in tiny_model.anatomy.inner if one.name.startswith("up.") and ".time" in one.name]
    sources = [*tiny_model.anatomy.skips, "mid", "text", *told]
    by_parts = cu.Composition([cu.Edit(place, always, patch) for place in sources])
    found, _ = images(tiny_model, study(last, by_parts))
    other = generate([OTHER] * 2, model=tiny_model, sampler=cu.DDPM(steps=STEPS))
    np.testing.assert_allclose(found[0], other, **ALIKE)
    np.testing.assert_allclose(found[1], other, **ALIKE)
    assert np.abs(found[BASELINE] - other).max() > 0.1


@pytest.mark.thorough
@pytest.mark.parametrize("fill", [cu.Mean(n=2), cu.Mean(n=2, prompts="same"), cu.Resample()])
def test_batches_play_no_part(tiny_model: TextToImage, fill: Fill) -> None:
    """Rows of a sample are bit by bit what they are beside others that are edited otherwise."""
    items = [cu.Edit("up.1", WINDOW, fill), cu.Edit("up.1", WINDOW, fill, "cond")]
    asked = study(*items, prompts=MANY)
    whole, _ = images(tiny_model, asked)
    for at_once in (1, 2, 5):
        found, _ = images(tiny_model, asked, at_once=at_once)
        for run in (0, 1, BASELINE):
            np.testing.assert_allclose(found[run], whole[run], **ALIKE)


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.thorough), 2, 5])
def test_what_others_get_leaves_a_sample_as_it_is(tiny_model: TextToImage, at_once: int) -> None:
    """Two studies that differ in the last sample alone: the first ones are bit-equal under guidance."""
    item = cu.Edit("up.1", WINDOW, cu.Patch(seed=3))
    one, other = (
        images(tiny_model, study(item, prompts=(*PROMPTS, prompt)), at_once=at_once)[0] for prompt in MANY[2:4]
    )
    for run in (0, BASELINE):
        np.testing.assert_array_equal(one[run][:2], other[run][:2])
        assert (one[run][2] != other[run][2]).any()


def test_calls_of_other_runs_are_counted_once(tiny_model: TextToImage) -> None:
    made: list[int] = []
    items = [
        cu.Edit("up.1", WINDOW, cu.Mean(n=3)),
        cu.Edit("mid", cu.Window(4, 1), cu.Mean(n=3)),
        cu.Edit("up.1", WINDOW, cu.Resample()),
        cu.Edit("up.2", cu.Window(7, 1), cu.Resample()),
        cu.Edit("up.2", WINDOW, cu.Patch()),
        cu.Edit("up.2", WINDOW, cu.Patch(step=8)),
        cu.Edit("up.2", WINDOW, cu.Patch(prompt=OTHER)),
        cu.Edit("up.2", WINDOW, cu.Patch(prompt=OTHER, step=7)),
    ]
    handle = tiny_model.unet.register_forward_pre_hook(lambda _, given: made.append(len(given[0])))
    try:
        found, plan = images(tiny_model, study(*items, prompts=MANY[:3]), at_once=2)
    finally:
        handle.remove()
    assert sum(made) == 2 * plan.unet_calls
    own = STEPS + sum((6, 4, 6, 7, 6, 6, 6, 6)) + 7  # of the null intervention too, which begins with the first of them
    others = 3 * (STEPS - 4 + 1) + (STEPS - 5 + 1) + (STEPS - 5 + 1)  # three of the mean, a sample's, another prompt's
    assert plan.calls_per_sample == own + others
    assert len(found) == len(items) + 2


def test_what_is_kept_of_a_mean_is_of_one_size(tiny_model: TextToImage) -> None:
    few, many = (make_plan(study(cu.Edit("up.1", WINDOW, cu.Mean(n=n))).bind(tiny_model)).kept_bytes for n in (2, 40))
    assert few == many > 0


@pytest.mark.parametrize("site", ["mid", "skip.0", "up.1.joint.heads", cu.Site("up.1") @ cu.Channels(0, 1)])
def test_at_every_kind_of_place_it_is_the_patch_of_its_run(tiny_model: TextToImage, site: Any) -> None:
    if site == "up.1.joint.heads":
        site = next(one.name for one in tiny_model.anatomy.inner if one.name.endswith("joint.heads"))
    fill = cu.Resample()
    asked = study(cu.Edit(site, WINDOW, fill))
    found, _ = images(tiny_model, asked)
    for number, (sample, (of,)) in enumerate(donor_runs(fill, asked).items()):
        patch = cu.Edit(site, WINDOW, cu.Patch(prompt=of.prompt, seed=of.seed))
        image = generate(
            [sample.prompt], [sample.seed], model=tiny_model, sampler=cu.DDPM(steps=STEPS), intervention=patch
        )
        np.testing.assert_allclose(found[0][number], image[0], **ALIKE)
        assert (found[0][number] != found[BASELINE][number]).any()


@pytest.mark.thorough
def test_gone_on_with_the_numbers_are_the_same(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = study(cu.Edit("up.1", WINDOW, cu.Mean(n=2)), cu.Edit("up.1", WINDOW, cu.Resample()), prompts=MANY[:3])
    whole, _ = images(tiny_model, asked)
    blocks: list[int] = []

    def cut_off(*given: Any, **named: Any) -> Any:
        blocks.append(1)
        if len(blocks) == 2:
            raise KeyboardInterrupt
        return run_block(*given, **named)

    monkeypatch.setattr(part_runner, "run_block", cut_off)
    with pytest.raises(KeyboardInterrupt):
        asked.run(tmp_path / "s.zarr", model=tiny_model, progress=False, memory=1)
    results = asked.run(tmp_path / "s.zarr", model=tiny_model, progress=False, memory=1)
    assert len(blocks) > 3, "it was not cut off between samples"
    for run, label in enumerate(results.outcomes.intervention.values[:2]):
        np.testing.assert_allclose(results.outcomes.image.sel(intervention=label).values, whole[run], **ALIKE)


def test_a_store_whose_samples_would_get_others_does_not_grow(tiny_model: TextToImage, tmp_path: Path) -> None:
    path, item = tmp_path / "s.zarr", cu.Edit("up.1", cu.Window(3, 1), cu.Resample())
    fields = {"sampler": cu.DDPM(steps=3), "name": "s"}
    first = cu.Study(prompts=MANY[:2], interventions=[item], **fields)
    first.run(path, model=tiny_model, progress=False)
    with pytest.raises(StoreError, match="'resample' takes values of runs that depend on all samples"):
        cu.Study(prompts=MANY[:3], interventions=[item], **fields).run(path, model=tiny_model, progress=False)
    same = cu.Mean(n=1, prompts="same")
    more = replace(first, interventions=(item, cu.Edit("up.1", cu.Window(3, 1), same)))
    assert more.run(path, model=tiny_model, progress=False).outcomes.status.values.all(), "by interventions it does"


samples = st.lists(
    st.builds(Sample, st.text("abc ", min_size=1), st.integers(0, 9)), min_size=2, max_size=12, unique=True
)


@settings(max_examples=30)
@given(samples, st.integers(0, 5), st.randoms())
def test_others_are_a_permutation_without_fixed_points_whatever_the_order(
    drawn: list[Sample], seed: int, random: Any
) -> None:
    class Asked:
        samples = tuple(drawn)

    class Shuffled:
        samples = tuple(random.sample(drawn, len(drawn)))

    found = donor_runs(cu.Resample(seed), Asked())  # type: ignore[arg-type]
    others = [of for (of,) in found.values()]
    assert all(of != sample for sample, (of,) in found.items())
    assert set(others) == set(drawn)
    assert donor_runs(cu.Resample(seed), Shuffled()) == found  # type: ignore[arg-type]
    mean = cu.Mean(n=3, seed=seed)
    assert donor_runs(mean, Shuffled()) == donor_runs(mean, Asked())  # type: ignore[arg-type]


def test_seeds_choose_others(tiny_model: TextToImage) -> None:
    asked = study(cu.Null(WINDOW), prompts=[f"number {n}" for n in range(20)])
    assert donor_runs(cu.Resample(0), asked) != donor_runs(cu.Resample(1), asked)
    assert donor_runs(cu.Mean(seed=0), asked) != donor_runs(cu.Mean(seed=1), asked)
    assert donor_runs(cu.Zero(), asked)[asked.samples[0]] == ()


@pytest.mark.parametrize(
    "fill",
    [
        cu.Mean(),
        cu.Mean(n=2, seed=3, prompts="same"),
        cu.Resample(4),
        cu.Patch(sample=2, step=9),
        cu.Patch(prompt=OTHER, step=9),
    ],
)
def test_they_are_written_and_read_and_pass_the_kit(fill: Fill) -> None:
    edit = cu.Edit("mid", WINDOW, fill)
    assert Intervention.from_json(edit.to_json()) == edit
    assert check_fill(fill)


def test_labels_name_what_numbers_mean() -> None:
    labels = {cu.Edit("mid", WINDOW, fill).label for fill in (cu.Patch(seed=3), cu.Patch(step=7), cu.Patch(sample=3))}
    assert labels == {"edit mid 6-5 patch 3", "edit mid 6-5 patch step 7", "edit mid 6-5 patch sample 3"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: cu.Mean(n=0), "n=0; give an integer of at least 1"),
        (lambda: cu.Mean(prompts="all"), "it is 'same'"),
        (lambda: cu.Mean(seed=-1), "seed=-1"),
        (lambda: cu.Resample(seed=0.5), "seed=0.5"),
        (lambda: cu.Patch(seed=1, sample=1), "Leave one out"),
        (lambda: cu.Patch(step=0), "step=0"),
        (lambda: OwnBefore(-1), "back=-1"),
        (lambda: OfAnother(2**63), "below 2"),
        (lambda: OfMean(prompts=3), "prompts=3"),
        (lambda: OfBaseline(sample=True), "sample=True"),
        (lambda: study(cu.Edit("mid", WINDOW, cu.Resample()), prompts=MANY[:1]), "the study has one"),
        (lambda: study(cu.Edit("mid", WINDOW, cu.Patch(sample=2))), "takes values of sample 2; the study has 2"),
        (lambda: study(cu.Edit("mid", WINDOW, cu.Patch(step=5))), "at step 6 what another run has at step 5"),
        (lambda: study(cu.Edit("mid", WINDOW, cu.Patch(step=9))), "runs begin at step 8"),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(
    make: Callable[[], Any], said: str, tiny_model: TextToImage
) -> None:
    with pytest.raises(SpecError, match=said):
        make().plan(tiny_model, calibrate=False)
