"""Steps of several U-Net calls: a guest's Heun, and pseudo-linear multistep with times between timesteps."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import HeunDiscreteScheduler
from numpy.typing import NDArray
from torch import Tensor

import causalunet as cu
from causalunet.bound import bind
from causalunet.design import Intervention
from causalunet.design.samplers import SAMPLERS, Estimate, Query, Sampler, State
from causalunet.design.study import StudySpec
from causalunet.errors import ConformanceError, SpecError
from causalunet.execute import generate
from causalunet.execute.call.trace import TracedUNet
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import initial_noise
from causalunet.plan import make_plan
from causalunet.schedule import Level, Schedule, TrainingSchedule, cosine_alpha_bar
from causalunet.testing import check_sampler
from tests.execute.reference import Change, changed

pytestmark = [
    pytest.mark.usefixtures("guests"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

STEPS = 6
PROMPTS = ("a red circle", "a striped blue cross, dark background")
CUT = cu.AblateSkip(top=2, window=cu.Window(4, 2))
JUMP = cu.SkipSteps(window=cu.Window(5, 2))
STOP = cu.SkipSteps(window=cu.Window(2, 2))
NULL = cu.Null(window=cu.Window(3, 1))
EVERYTHING = (CUT, JUMP, STOP, NULL)


def heun(**fields: Any) -> Sampler:
    return Sampler.from_json({"name": "guests.heun", "configuration": {"steps": STEPS, **fields}})


def study(*interventions: Intervention, sampler: Sampler | None = None, **fields: Any) -> cu.Study:
    return cu.Study(
        name="s",
        interventions=interventions,
        sampler=sampler or heun(),
        **{"prompts": PROMPTS, **fields},
    )


Changes = Mapping[tuple[int, int], Sequence[Change]]
"""What is changed in a call of a step: by the step and the call's number, from 0."""


@dataclass
class Guided:
    """The noise that a U-Net predicts, clipped as its estimate is, by hand."""

    model: TextToImage
    prompt: str
    scale: float = 3.0

    def __call__(
        self, x: Tensor, timestep: float, share: float, changes: Sequence[Change] = ()
    ) -> tuple[Tensor, Tensor]:
        """Noise and estimate of x_0."""
        context = [torch.cat(pair) for pair in zip(*map(self.model.encode, ([self.prompt], [""])), strict=True)]
        times = torch.tensor([timestep] * 2, dtype=torch.float32)
        with torch.no_grad(), changed(self.model.unet, changes):
            cond, uncond = self.model.unet(torch.cat([x, x]).float(), times, *context).double()[:, :3].split(1)
        eps = uncond + self.scale * (cond - uncond)
        x0 = ((x - math.sqrt(1 - share) * eps) / math.sqrt(share)).clamp(-1, 1)
        return eps, x0


def heun_by_hand(
    model: TextToImage, prompt: str, seed: int, changes: Changes, absent: Collection[int]
) -> NDArray[np.float64]:
    """One image with diffusers' scheduler, on the steps that are called."""
    schedule = Schedule.spaced(model.alpha_bar, STEPS)
    called = [step for step in range(STEPS, 0, -1) if step not in absent]
    scheduler = HeunDiscreteScheduler(900, beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(timesteps=[schedule.timestep(step) for step in called])
    shares = [schedule.alpha_bar(step) for step in called]
    sigmas = torch.tensor([math.sqrt((1 - share) / share) for share in shares] + [0.0], dtype=torch.float64)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    unet = Guided(model, prompt)
    x = torch.from_numpy(initial_noise([seed], model.image_shape)).double()
    z = x / math.sqrt(shares[0])
    # The first call of a step is at it, the second at the next: what is changed is so by the step that is taken.
    calls = [(called[n // 2], n % 2) for n in range(2 * len(called) - 1)]
    for call, timestep in zip(calls, scheduler.timesteps, strict=True):
        share = schedule.alpha_bar(1 + schedule.timesteps.index(int(timestep)))
        _, x0 = unet(z * math.sqrt(share), float(timestep), share, changes.get(call, ()))
        z = scheduler.step((z - x0) / math.sqrt((1 - share) / share), timestep, z).prev_sample
    return np.asarray((z[0].clamp(-1, 1) + 1) / 2)


SKIPS = [Change("skip", number) for number in range(2)]
BOTH: Changes = {(step, stage): SKIPS for step in (4, 3) for stage in (0, 1)}
BY_HAND: dict[Intervention, tuple[Changes, Collection[int]]] = {
    NULL: ({}, ()),
    CUT: (BOTH, ()),
    JUMP: ({}, (5, 4)),
    STOP: ({}, (2, 1)),
}


@pytest.fixture(scope="session")
def model(tiny_model: TextToImage) -> TextToImage:
    """Without the noisiest timesteps: there Heun's method multiplies what it rounds off by sigma, up to 20,000."""
    return replace(tiny_model, alpha_bar=cosine_alpha_bar()[:900])


@pytest.fixture
def whole(model: TextToImage, tmp_path: Path) -> xr.DataTree:
    return study(*EVERYTHING).run(tmp_path / "whole.zarr", model=model, progress=False)


def assert_images(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_images_are_those_of_diffusers(model: TextToImage, whole: xr.DataTree) -> None:
    """An edit is made in both calls of its steps; a jump is Heun's method on the steps that are left."""
    uncut = heun_by_hand(model, PROMPTS[0], 0, {}, ())
    for item in EVERYTHING:
        for sample, prompt in enumerate(PROMPTS[: 1 if item is STOP else 2]):
            expected = heun_by_hand(model, prompt, sample, *BY_HAND[item])
            assert_images(whole.outcomes.image.sel(intervention=item.label)[sample], expected)
            assert item is NULL or sample or np.abs(expected - uncut).max() > 1e-3, "the case tests nothing"


def test_edits_are_counted_for_the_runs_of_a_fork_alone(model: TextToImage, tmp_path: Path) -> None:
    """Runs that are cut alike share the first call of a step and part in it: the second is of each by itself."""
    window = cu.Window(4, 2)
    cut, jumping = cu.AblateSkip(top=2, window=window), cu.SkipSteps(window=cu.Window(2, 1))
    results = study(cut, cut + jumping).run(tmp_path / "s.zarr", model=model, progress=False)
    np.testing.assert_array_equal(results.audit.fired, results.audit.declared.broadcast_like(results.audit.fired))
    assert results.audit.fired.sel(kind="composition", place="skip.0", step=3).values.tolist() == [[2] * len(PROMPTS)]
    for row, absent in ((cut, ()), (cut + jumping, (2,))):
        expected = heun_by_hand(model, PROMPTS[0], 0, BOTH, absent)
        assert_images(results.outcomes.image.sel(intervention=row.label)[0], expected)


def test_what_is_stored_of_calls(model: TextToImage, whole: xr.DataTree) -> None:
    """Of a step the first call; beside it how many there were, and how often each edit fired."""
    np.testing.assert_array_equal(whole.baseline.calls, [2, 2, 2, 2, 2, 1])
    calls = dict(
        zip(whole.outcomes.intervention.values.tolist(), whole.outcomes.unet_calls.values.tolist(), strict=True)
    )
    assert calls == {CUT.label: 11, JUMP.label: 7, STOP.label: 7, NULL.label: 11}
    fired = whole.audit.fired.sel(intervention=CUT.label, place="skip.0")
    np.testing.assert_array_equal(fired.sel(step=[4, 3]), 2)
    assert int(fired.sum()) == 2 * 2 * len(PROMPTS)
    np.testing.assert_array_equal(whole.audit.fired.sel(intervention=JUMP.label, place="unet", step=[5, 4]), 1)
    np.testing.assert_array_equal(whole.audit.fired, whole.audit.declared.broadcast_like(whole.audit.fired))
    at = whole.baseline.sel(step=3)
    share = float(at.alpha_bar)
    x0 = (at.x_t - math.sqrt(1 - share) * at.eps) / math.sqrt(share)
    np.testing.assert_allclose(at.x0_hat, x0.clip(-1, 1), rtol=0, atol=1e-5)
    found = whole.verify(quiet=True, deep=True)
    assert found.exit_code == 0, found.verdict


def test_calls_are_planned_as_they_are_made(
    model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared as far as runs look at the same: the second call of a step looks where the step goes."""
    plan = make_plan(bind(StudySpec(name="s", prompts=PROMPTS, interventions=EVERYTHING, sampler=heun()), model))
    together = 2 + 2  # steps 6 and 5
    jump = 1 + 2 + 2 + 1  # the second call of step 6, and steps 3 to 1
    cut = 2 + 2 + 2 + 1  # from step 4 on
    others = 2 + 2 + 2 + 1  # baseline from step 4 on; to stop at step 3 takes no second call there
    null = 2 + 2 + 1  # from step 3 on
    assert plan.calls_per_sample == together + jump + cut + others + null
    assert [plan.calls_by_run[run] for run in (-1, 0, 1, 2, 3)] == [11, 11, 7, 7, 11]
    assert plan.flops_by_run[-1] == 11 * 2 * model.anatomy.flops
    rows: list[int] = []

    def counted(unet: TracedUNet, action: Any, arguments: Any, *rest: Any, **named: Any) -> Any:
        rows.append(len(arguments[0]))
        return call(unet, action, arguments, *rest, **named)

    call = TracedUNet.__call__
    monkeypatch.setattr(TracedUNet, "__call__", counted)
    results = study(*EVERYTHING).run(tmp_path / "s.zarr", model=model, progress=False)
    assert sum(rows) == 2 * plan.unet_calls
    np.testing.assert_array_equal(results.audit.unet_calls, plan.calls_per_sample)


def test_runs_do_not_depend_on_company_batch_or_order(model: TextToImage, whole: xr.DataTree) -> None:
    for item in (CUT, JUMP):
        alone = generate(PROMPTS[1:], [1], model=model, sampler=heun(), intervention=item, traced=False, memory=1)
        assert_images(alone[0], whole.outcomes.image.sel(intervention=item.label)[1])


@pytest.mark.thorough
def test_a_study_grows_and_records_from_stored_baselines(
    model: TextToImage, whole: xr.DataTree, tmp_path: Path
) -> None:
    """Runs that begin where they leave the baseline, and calls made again to look at them, are those of a whole run."""
    path = tmp_path / "grown.zarr"
    first = cu.Record(summary=("up.1",), of="all")
    study(STOP, NULL, record=first).run(path, model=model, progress=False)
    study(*EVERYTHING, record=first).run(path, model=model, progress=False)
    recorded = study(*EVERYTHING, record=replace(first, summary=("up.1", "mid")))
    grown = recorded.run(path, model=model, progress=False)
    at_once = recorded.run(tmp_path / "at_once.zarr", model=model, progress=False)
    for found in (grown, at_once):
        for item in EVERYTHING:
            assert_images(*(one.outcomes.image.sel(intervention=item.label) for one in (found, whole)))
    for item in EVERYTHING:
        means = [one.activation_summary["mean"].sel(intervention=item.label) for one in (grown, at_once)]
        means = [mean.sel(component=["up.1", "mid"]) for mean in means]
        np.testing.assert_allclose(*means, rtol=0, atol=1e-5)
    assert grown.verify(quiet=True, deep=True).exit_code == 0


def test_without_the_sampler_calls_are_not_checkable(whole: xr.DataTree, tmp_path: Path) -> None:
    with SAMPLERS.scoped(**{"guests.heun": None}):
        sys.modules["guests.heun"] = None  # type: ignore[assignment]
        found = cu.open_results(tmp_path / "whole.zarr").verify(quiet=True)
    assert found.exit_code == 4
    assert "the sampler 'guests.heun'" in found.verdict


def test_the_kit_passes_guests() -> None:
    assert check_sampler(heun(guidance_scale=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoMultistep(Sampler):
    """F-PNDM (Liu et al. 2022): three steps of pseudo Runge-Kutta, and then a line through four noises."""

    name: ClassVar[str] = "f_pndm"
    history: ClassVar[int] = 3

    def calls(self, at: Level, to: Level, passed: int) -> int:
        return 4 if passed < 3 and to.alpha_bar < 1 else 1

    def further(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, training: TrainingSchedule
    ) -> Query:
        level = to if len(estimates) == 3 else training.level((at.timestep + to.timestep) / 2)
        return Query(transfer(state.x, estimates[-1].eps, at.alpha_bar, level.alpha_bar), level)

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        eps = [one.eps for one in (*estimates, *state.past)]
        if len(estimates) == 4:
            weights = [1 / 6, 1 / 3, 1 / 3, 1 / 6]
        elif len(eps) == 4:
            weights = [55 / 24, -59 / 24, 37 / 24, -9 / 24]
        else:
            weights = [1.0]
        return transfer(state.x, sum(w * e for w, e in zip(weights, eps, strict=False)), at.alpha_bar, to.alpha_bar)


def transfer(x: Any, eps: Any, a: float, b: float) -> Any:
    """A step of DDIM."""
    return math.sqrt(b / a) * x + (math.sqrt(1 - b) - math.sqrt(b * (1 - a) / a)) * eps


def pndm_by_hand(model: TextToImage, absent: Collection[int], changes: Changes | None = None) -> NDArray[np.float64]:
    """The same from the paper's equations 9 to 13; between timesteps log SNR is on a line."""
    log_snr = np.log(model.alpha_bar / (1 - model.alpha_bar))

    def share(timestep: float) -> float:
        return float(1 / (1 + np.exp(-np.interp(timestep, np.arange(900), log_snr)))) if timestep >= 0 else 1.0

    unet = Guided(model, PROMPTS[0])

    def noise(x: Tensor, timestep: float, *call: int) -> Tensor:
        return unet(x, timestep, share(timestep), (changes or {}).get((call[0], call[1]), ()))[0]

    def phi(x: Tensor, e: Tensor, t: float, s: float) -> Tensor:
        a, b = share(t), share(s)
        x0 = (x - (1 - a) ** 0.5 * e) / a**0.5
        return b**0.5 * x0 + (1 - b) ** 0.5 * e

    every = zip(np.linspace(899, 0, 10).round().astype(int).tolist(), range(10, 0, -1), strict=True)
    taken = [(timestep, step) for timestep, step in every if step not in absent]
    x = torch.from_numpy(initial_noise([0], model.image_shape)).double()
    old: list[Tensor] = []
    for (t, step), (s, _) in itertools.pairwise([*taken, (-1, 0)]):
        old.append(noise(x, t, step, 0))
        if len(old) < 4:
            half = (t + s) / 2
            second = noise(phi(x, old[-1], t, half), half, step, 1)
            third = noise(phi(x, second, t, half), half, step, 2)
            fourth = noise(phi(x, third, t, s), s, step, 3)
            e = (old[-1] + 2 * second + 2 * third + fourth) / 6
        else:
            e = (55 * old[-1] - 59 * old[-2] + 37 * old[-3] - 9 * old[-4]) / 24
        x = phi(x, e, t, s)
    return np.asarray((x[0].clamp(-1, 1) + 1) / 2)


@pytest.mark.thorough
@pytest.mark.parametrize("absent", [(), (8,), (4, 3)])
def test_memory_and_times_between_timesteps(model: TextToImage, tmp_path: Path, absent: tuple[int, ...]) -> None:
    """Steps of four calls at half-integer timesteps, and a memory that counts the steps that were called."""
    SAMPLERS.register("f_pndm", PseudoMultistep)
    item: Intervention = cu.SkipSteps(cu.Window(absent[0], len(absent))) if absent else cu.Null(cu.Window(2, 1))
    made = study(item, sampler=PseudoMultistep(steps=10), prompts=PROMPTS[:1])
    other = study(cu.AblateBlock(bottom=1, window=cu.Window(3, 2)), sampler=made.sampler, prompts=PROMPTS[:1])
    other.run(tmp_path / "grown.zarr", model=model, progress=False)
    grown = replace(other, interventions=(*other.interventions, *made.interventions[:1]), name="s")
    results = grown.run(tmp_path / "grown.zarr", model=model, progress=False)
    assert_images(results.outcomes.image.sel(intervention=item.label)[0], pndm_by_hand(model, absent))
    assert int(results.outcomes.unet_calls.sel(intervention=item.label)) == 10 + 9 - len(absent)
    np.testing.assert_array_equal(results.baseline.calls, [4, 4, 4, *[1] * 7])
    assert results.verify(quiet=True, deep=True).exit_code == 0


def faulty(base: Callable[[], Sampler] = heun, **members: Any) -> Any:
    kind: Any = type("Own", (type(base()),), {"name": "own", **members})
    return dataclass(frozen=True, kw_only=True)(kind)(steps=9)


HALF = Level(3.5, 0.5)
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no call": ({"calls": lambda *given: 0}, "calls", r"says that a step takes 0 U-Net calls; .* in 1 \.\.\. 255"),
    "no query": ({"further": lambda self, state, *rest: state.x}, "calls", r"further\(\) gave a Tensor for a step"),
    "another type": (
        {"further": lambda self, state, *rest: Query(state.x.double(), HALF)},
        "calls",
        r"further\(\) gave x of .*float64",
    ),
    "a level that no model was trained at": (
        {"further": lambda self, state, *rest: Query(state.x, Level(-1.0, 1.0))},
        "calls",
        "gave a level at timestep -1 with alpha_bar 1",
    ),
    "written in place": (
        {"further": lambda self, state, *rest: Query(state.x.mul_(0.5), HALF)},
        "untouched",
        "wrote into its state or estimates",
    ),
    "over rows": (
        {"further": lambda self, state, *rest: Query(state.x + state.x.mean(), HALF)},
        "rows apart",
        "beside other samples than alone",
    ),
    "random": (
        {"further": lambda self, state, *rest: Query(torch.randn_like(state.x), HALF)},
        "repeatable",
        "something else the second time",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_further_calls_is_told(name: str) -> None:
    members, check, message = WRONG[name]
    with pytest.raises(ConformanceError, match=rf"(?s){check}: .*{message}"):
        check_sampler(faulty(**members))


def test_a_count_that_is_none_is_told_when_planning(model: TextToImage) -> None:
    sampler = faulty(calls=lambda *given: 2.5)
    with pytest.raises(SpecError, match=r"The sampler 'own' says that a step takes 2\.5 U-Net calls"):
        study(cu.SkipSteps(cu.Window(2, 1)), sampler=sampler).plan(model, calibrate=False)
