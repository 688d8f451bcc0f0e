"""Shortcuts: values that round-trip through JSON, give the images of their study, and are timed arm by arm."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.design.starts import Noise, Start
from causalunet.errors import CausalUNetError, ModelError, SpecError
from causalunet.execute import generate
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.measure import timing
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Plan
from causalunet.shortcut import Shortcut, time_interventions, time_shortcut
from tests.design.examples import distinct_interventions

STEPS = 6
PROMPTS = ("a red circle", "a striped blue cross, dark background")
CUT = cu.AblateBlock(bottom=2, window=cu.cut_relax_cut(5, cut=1, relax=1))
STOP = cu.SkipSteps(cu.Window(2, 2))


def shortcut(intervention: cu.design.Intervention | None = None, **fields: Any) -> Shortcut:
    return Shortcut(
        **{
            "name": "short",
            "intervention": intervention or CUT + STOP,
            "sampler": cu.DDPM(steps=STEPS),
            "model": "tiny",
            **fields,
        }
    )


@given(distinct_interventions(), st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.booleans())))
def test_round_trip_through_json(interventions: Any, evidence: dict[str, Any]) -> None:
    for item in interventions:
        steps = max(100, *item.steps)
        short = shortcut(
            item,
            sampler=cu.DDPM(steps=steps, guidance_scale=2.5),
            fingerprint="ab",
            identity={"clip": True},
            evidence=evidence,
        )
        assert Shortcut.from_json(json.loads(json.dumps(short.to_json()))) == short


def test_saved_file(tmp_path: Path) -> None:
    short = shortcut(evidence={"study": "abc", "threshold": 0.8})
    assert Shortcut.open(short.save(tmp_path / "folder" / "short.json")) == short


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "is not a shortcut"),
        (b'{"name": "x", "name": "y"}', "the field 'name' stands twice"),
        (b'{"format": "causalunet-shortcut", "version": 9}', "has version 9; this causalunet reads 1"),
        (b'{"format": "causalunet-shortcut", "version": 1, "name": "x"}', "it lacks intervention, sampler"),
        (b" " * (1 << 21), "at most 1048576"),
    ],
)
def test_files_that_are_no_shortcut(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "short.json"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=message):
        Shortcut.open(path)


def test_fields_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="There is no shortcut at"):
        Shortcut.open(tmp_path / "none.json")
    with pytest.raises(SpecError, match="starts above step 3"):
        shortcut(sampler=cu.DDPM(steps=3))
    with pytest.raises(SpecError, match="intervention='cut'; give a Intervention"):
        shortcut(intervention="cut")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="The identity of a shortcut got part=5"):
        shortcut(identity={5: "x"})
    with pytest.raises(SpecError, match="no field 'colour'"):
        Shortcut.from_json({**shortcut().to_json(), "colour": "red"})
    with pytest.raises(SpecError, match="Sampler 'nobodys' is not known"):
        Shortcut.from_json({**shortcut().to_json(), "sampler": {"name": "nobodys", "configuration": {}}})


@pytest.mark.parametrize(
    ("intervention", "guidance", "message"),
    [
        (cu.SkipSteps(cu.Window(6, 1)), 3.0, "skips step 6, the first of the run"),
        (cu.SkipSteps(cu.Window(6, 2)) + cu.AblateBlock(1, cu.Window(2, 1)), 3.0, "skips step 6, the first of the run"),
        (cu.AblateSkip(1, cu.Window(6, 1), "uncond"), 1.0, "has no unconditional rows"),
        (CUT + cu.Edit("mid", cu.Window(6, 1), branch="uncond"), 1.0, "has no unconditional rows"),
        (cu.AblateSkip(1, cu.Window(7, 1)), 3.0, "starts above step 6"),
    ],
)
def test_what_could_never_run(intervention: Any, guidance: float, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        shortcut(intervention, sampler=cu.DDPM(steps=STEPS, guidance_scale=guidance))


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    ),
    st.sampled_from(["name", "intervention", "sampler", "model", "fingerprint", "identity", "evidence", "version"]),
)
def test_strange_fields_raise_only_our_own_errors(value: Any, field: str) -> None:
    with contextlib.suppress(CausalUNetError):
        Shortcut.from_json({**shortcut().to_json(), field: value})


@pytest.mark.sampled(1)
@pytest.mark.parametrize("traced", [False, True])
def test_images_are_those_of_a_study(traced: bool, tiny_model: TextToImage, run_study: Any) -> None:
    results = run_study(CUT + STOP, steps=STEPS, prompts=PROMPTS)
    got = shortcut(fingerprint=tiny_model.fingerprint).apply(PROMPTS, model=tiny_model, traced=traced)
    np.testing.assert_allclose(got, results.outcomes.image.sel(kind="composition")[0], atol=1e-5)


def test_other_weights_are_refused(tiny_model: TextToImage) -> None:
    found_elsewhere = shortcut(fingerprint="0123456789abcdef")
    with pytest.raises(ModelError, match=r'found on another model .*: model_fingerprint is "0123456789abcdef" there'):
        found_elsewhere.apply(PROMPTS, model=tiny_model)
    assert replace(found_elsewhere, fingerprint="").apply(PROMPTS, model=tiny_model).shape == (2, 3, 16, 16)


def test_cost_counts_calls_and_live_blocks(tiny_model: TextToImage) -> None:
    cost, anatomy = shortcut().cost(tiny_model), tiny_model.anatomy
    live = anatomy.live_flops(anatomy.dead({"up.1"}))
    assert cost["unet_calls"] == 4
    assert cost["flops"] == 2 * (2 * anatomy.flops + 2 * live)  # two rows; steps 6 and 4 whole, 5 and 3 cut
    assert cost["calls_share"] == 4 / 6
    assert cost["flops_share"] == (2 * anatomy.flops + 2 * live) / (6 * anatomy.flops)


class Clock:
    """Time that passes with U-Net calls: a call of a live block costs one second."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace time by FLOPs spent, so that what is measured is known."""
    made, real = Clock(), timing.draw

    def counted(plan: Plan, **named: Any) -> Any:
        made.now += plan.flops / 1e9
        return real(plan, **named)

    monkeypatch.setattr(timing, "draw", counted)
    monkeypatch.setattr(timing, "time", made)
    return made


def test_timed_arms_and_their_parts(clock: Clock, tiny_model: TextToImage) -> None:
    timed = time_shortcut(shortcut(), PROMPTS, model=tiny_model, repeats=3)
    assert timed["arm"].values.tolist() == ["uncut", "cuts", "steps", "shortcut"]
    assert timed["unet_calls"].values.tolist() == [6, 6, 4, 4]
    np.testing.assert_allclose(timed["saved"], timed["flops_saved"], atol=1e-6)
    np.testing.assert_allclose(timed["saved"].sel(arm="steps"), 1 / 3)
    total = timed["saved_by_steps"] + timed["saved_by_cuts"]
    np.testing.assert_allclose(total, timed["saved"].sel(arm="shortcut"))
    kernels = timed["kernels_saved"]
    assert 0 < kernels.sel(arm="cuts") < kernels.sel(arm="shortcut") < 1
    np.testing.assert_allclose(kernels.sel(arm="steps"), 1 / 3)
    assert timed.attrs["samples"] == 2
    assert timed.attrs["device"] == "cpu"
    assert "text encoded once per prompt" in timed.attrs["baseline"]


def test_arms_of_a_shortcut_without_skipped_steps(clock: Clock, tiny_model: TextToImage) -> None:
    timed = time_shortcut(shortcut(CUT), PROMPTS, model=tiny_model, repeats=1)
    assert timed["arm"].values.tolist() == ["uncut", "cuts", "shortcut"]
    assert float(timed["saved_by_steps"]) == 0


@pytest.mark.parametrize(("samples", "memory", "largest"), [(3, 1 << 30, 3), (60, 1 << 30, 50), (3, 1, 1)])
def test_the_largest_call_is_the_one_that_was_made(
    tiny_model: TextToImage, samples: int, memory: int, largest: int
) -> None:
    timed = time_interventions(
        {"stop": cu.SkipSteps(cu.Window(1, 1))},
        PROMPTS[:1],
        range(samples),
        model=tiny_model,
        sampler=cu.DDPM(steps=2, guidance_scale=1),
        repeats=1,
        memory=memory,
    )
    assert (timed.attrs["samples"], timed.attrs["samples_per_call"]) == (samples, largest)


def test_the_largest_call_is_what_memory_left_of_it(tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = InstalledUNet.__call__

    def short(unet: InstalledUNet, action: Any, arguments: Any, cond_rows: int, *more: Any, **options: Any) -> Any:
        if cond_rows > 2:
            raise RuntimeError("out of memory")
        return real(unet, action, arguments, cond_rows, *more, **options)

    monkeypatch.setattr(InstalledUNet, "__call__", short)
    timed = time_interventions(
        {"stop": cu.SkipSteps(cu.Window(1, 1))}, PROMPTS * 4, model=tiny_model, sampler=cu.DDPM(steps=2), repeats=1
    )
    assert timed.attrs["samples_per_call"] == 2


def test_any_interventions_timed(clock: Clock, tiny_model: TextToImage) -> None:
    timed = time_interventions(
        {"stop": STOP, "cut": CUT}, PROMPTS, model=tiny_model, sampler=cu.DDPM(steps=STEPS), repeats=2, traced=True
    )
    assert timed["arm"].values.tolist() == ["uncut", "stop", "cut"]
    assert timed.attrs["calls"] == "traced by nnsight"
    assert (timed["seconds"] > 0).all()
    with pytest.raises(SpecError, match="repeats=0 asked"):
        time_interventions({"stop": STOP}, PROMPTS, model=tiny_model, sampler=cu.DDPM(steps=STEPS), repeats=0)


@pytest.mark.usefixtures("guests")
def test_starts_are_those_of_a_study(tiny_model: TextToImage, tmp_path: Path) -> None:
    """Of a shortcut, of one run, and of what is timed; seeds and starts together are refused."""
    starts = [Start.from_json({"name": "guests.mirrored", "configuration": {"seed": 3}}), Noise(4)]
    sampler = cu.DDIM(steps=3, guidance_scale=1)
    study = cu.Study(name="s", prompts=PROMPTS[:1], starts=starts, sampler=sampler, interventions=[STOP])
    results = study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    cut = shortcut(STOP, sampler=sampler)
    for found, expected in (
        (cut.apply(PROMPTS[:1], starts=starts, model=tiny_model), results.outcomes.image[0]),
        (generate(PROMPTS[:1], starts=starts, model=tiny_model, sampler=sampler), results.baseline.image),
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    seeded = cut.apply(PROMPTS[:1], [3, 4], model=tiny_model)
    np.testing.assert_allclose(seeded[1], results.outcomes.image[0, 1], rtol=0, atol=1e-5)
    assert np.abs(seeded[0] - results.outcomes.image.values[0, 0]).max() > 0.01
    timed = time_shortcut(cut, PROMPTS[:1], starts=starts, model=tiny_model, repeats=1)
    assert timed.attrs["samples"] == 2
    of_three = time_interventions(
        {"stop": STOP}, PROMPTS[:1], starts=starts, model=tiny_model, sampler=sampler, repeats=1
    )
    assert of_three.attrs["samples"] == 2
    with pytest.raises(SpecError, match="seeds and starts"):
        cut.apply(PROMPTS[:1], [3], starts=starts, model=tiny_model)
