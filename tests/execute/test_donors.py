"""Values of other calls, held and patched, against a loop with torch hooks; in parts, batches and stores that grow."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import causalunet as cu
from causalunet import registry
from causalunet.design import Fill, Intervention, OfBaseline, OwnBefore
from causalunet.design.fills import FILLS
from causalunet.errors import ConformanceError, PromptError, SpecError
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.walk.generate import generate
from causalunet.execute.walk.kept import KeptValues
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import initial_noise, step_noise
from causalunet.plan import BASELINE, make_plan
from causalunet.testing import check_fill
from tests.execute.reference import blocks, draw, spaced_schedule

STEPS = 8
PROMPTS = ("a red circle", "a striped blue cross, dark background")
OTHER = "a green square"
TOLERANCE = 1e-5
ROWS = {"both": slice(0, 2), "cond": slice(0, 1), "uncond": slice(1, 2)}

Values = dict[int, dict[str, Tensor]]
"""What every place gave at each step, (branch, channel, y, x)."""
Put = Callable[[int, Values], Mapping[str, tuple[str, Tensor]]]
"""What is put in place at a step, (branch, value) by place, given what the run's own earlier calls gave."""


@contextmanager
def hooked(
    unet: nn.Module, put: Mapping[str, tuple[str, Tensor]], mix: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Replace values of blocks and skip connections, or take the mean with another; see what every one of them gave."""
    seen: dict[str, Tensor] = {}
    widths: dict[int, int] = {}

    def changed(place: str, value: Tensor) -> Tensor:
        if place in put:
            branch, new = put[place]
            value = value.clone()
            value[ROWS[branch]] = new[ROWS[branch]]
        if place in mix:
            value = (value + mix[place]) / 2
        seen[place] = value.clone()
        return value

    def leaving(name: str) -> Any:
        def hook(_module: nn.Module, _given: Any, output: Tensor) -> Tensor:
            if name.startswith("down"):
                widths[int(name[5:])] = output.shape[1]
            return changed(name, output)

        return hook

    def entering(number: int) -> Any:
        def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, at = given[0], given[0].shape[1] - widths[number]
            return (torch.cat([h[:, :at], changed(f"skip.{number}", h[:, at:])], dim=1), *given[1:])

        return hook

    last = len(unet.output_blocks) - 1
    handles = [block.register_forward_hook(leaving(name)) for name, block in blocks(unet).items()]
    handles += [unet.output_blocks[last - n].register_forward_pre_hook(entering(n)) for n in range(last + 1)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def by_hand(
    model: TextToImage,
    prompt: str,
    seed: int,
    put: Put | None = None,
    absent: tuple[int, ...] = (),
    mix: tuple[str, Mapping[int, int]] = ("", {}),
) -> tuple[np.ndarray, Values]:
    """One image, one sample alone, from noise, and all that its calls gave."""
    timesteps, alpha_bar = spaced_schedule(STEPS)
    context = [torch.cat(parts) for parts in zip(model.encode([prompt]), model.encode([""]), strict=True)]
    called = [step for step in range(STEPS, 0, -1) if step not in absent]
    x, gave = torch.from_numpy(initial_noise([seed], model.image_shape)), Values()
    for step, target in zip(called, [*called[1:], 0], strict=True):
        blended = {mix[0]: gave[mix[1][step]][mix[0]]} if step in mix[1] else {}
        with torch.no_grad(), hooked(model.unet, put(step, gave) if put else {}, blended) as seen:
            rows = model.unet(torch.cat([x, x]), torch.tensor([timesteps[step - 1]] * 2), *context)
        gave[step] = dict(seen)
        (cond, fraction), (uncond, _) = (row.double().split(3) for row in rows)
        eps = uncond + 3.0 * (cond - uncond)
        a, b = alpha_bar[step], alpha_bar[target]
        x0 = ((x.double() - math.sqrt(1 - a) * eps) / math.sqrt(a)).clamp(-1, 1)
        noise = torch.from_numpy(step_noise([seed], step, model.image_shape)).double()
        x = draw(x.double(), x0, fraction, noise, a=a, b=b).float()
    return ((x[0].clamp(-1, 1) + 1) / 2).numpy(), gave


@dataclass(frozen=True)
class Case:
    """An intervention, and by hand what it means: ``put(other)``, given what a run without intervention gives."""

    intervention: Intervention
    put: Callable[[Values], Put]
    prompt: str | None = None
    seed: int | None = None
    absent: tuple[int, ...] = ()


def held(place: str, windows: Mapping[int, tuple[int, ...]], branch: str = "both") -> Callable[[Values], Put]:
    """Hold what the step given first gave, at the steps after it."""
    at = {step: before for before, steps in windows.items() for step in steps}
    return lambda _: lambda step, own: {place: (branch, own[at[step]][place])} if step in at else {}


def patched(place: str, steps: tuple[int, ...], branch: str = "both") -> Callable[[Values], Put]:
    return lambda other: lambda step, _: {place: (branch, other[step][place])} if step in steps else {}


def both(one: Callable[[Values], Put], two: Callable[[Values], Put]) -> Callable[[Values], Put]:
    return lambda other: lambda step, own: {**one(other)(step, own), **two(other)(step, own)}


def zeroed(place: str, steps: tuple[int, ...]) -> Callable[[Values], Put]:
    return lambda other: lambda step, _: {place: ("both", 0 * other[8][place])} if step in steps else {}


CASES = {
    "held, a block": Case(cu.Edit("up.1", cu.Window(6, 3), cu.Hold()), held("up.1", {7: (6, 5, 4)})),
    "held again and again": Case(
        cu.Edit("up.2", cu.cut_relax_cut(7, cut=2, relax=1, cuts=2), cu.Hold()),
        held("up.2", {8: (7, 6), 5: (4, 3)}),
    ),
    "held, to the end": Case(cu.Edit("mid", cu.Window(2, 2), cu.Hold()), held("mid", {3: (2, 1)})),
    "held, a skip connection": Case(cu.Edit("skip.1", cu.Window(5, 2), cu.Hold()), held("skip.1", {6: (5, 4)})),
    "held, one branch": Case(cu.Edit("up.2", cu.Window(5, 2), cu.Hold(), "cond"), held("up.2", {6: (5, 4)}, "cond")),
    "held over a gap": Case(
        cu.Edit("up.1", cu.Window(4, 2), cu.Hold()) + cu.SkipSteps(cu.Window(6, 2)),
        held("up.1", {7: (4, 3)}),
        absent=(6, 5),
    ),
    "held of a run that was changed before": Case(
        cu.AblateSkip(1, cu.Window(8, 2)) + cu.Edit("up.1", cu.Window(5, 2), cu.Hold()),
        both(zeroed("skip.0", (8, 7)), held("up.1", {6: (5, 4)})),
    ),
    "held while another edit comes and goes": Case(
        cu.Edit("up.1", cu.Window(6, 3), cu.Hold()) + cu.AblateSkip(1, cu.Window(5, 1)),
        both(held("up.1", {7: (6, 5, 4)}), zeroed("skip.0", (5,))),
    ),
    "patched, another prompt": Case(
        cu.Edit("up.1", cu.Window(6, 3), cu.Patch(prompt=OTHER)), patched("up.1", (6, 5, 4)), prompt=OTHER
    ),
    "patched, another seed": Case(
        cu.Edit("skip.2", cu.Window(8, 2), cu.Patch(seed=11)), patched("skip.2", (8, 7)), seed=11
    ),
    "patched, another prompt and seed, one branch": Case(
        cu.Edit("mid", cu.Window(5, 4), cu.Patch(prompt=OTHER, seed=11), "cond"),
        patched("mid", (5, 4, 3, 2), "cond"),
        prompt=OTHER,
        seed=11,
    ),
    "restored": Case(
        cu.AblateSkip(1, cu.Window(7, 4)) + cu.Edit("up.1", cu.Window(5, 2), cu.Patch()),
        both(zeroed("skip.0", (7, 6, 5, 4)), patched("up.1", (5, 4))),
    ),
}


def expected(model: TextToImage, case: Case) -> np.ndarray:
    images = []
    for seed, prompt in enumerate(PROMPTS):
        other_seed = seed if case.seed is None else case.seed
        _, other = by_hand(model, case.prompt or prompt, other_seed)
        images.append(by_hand(model, prompt, seed, case.put(other), case.absent)[0])
    return np.stack(images)


def study(*names: str, **fields: Any) -> cu.Study:
    items = [replace(CASES[name].intervention, label=name) for name in names or CASES]
    fields = {"prompts": PROMPTS, "sampler": cu.DDPM(steps=STEPS), **fields}
    return cu.Study(name="donors", interventions=items, **fields)


Run = Callable[..., xr.DataTree]


@pytest.fixture
def run(tiny_model: TextToImage, tmp_path: Path) -> Run:
    def run_it(asked: cu.Study, name: str = "s.zarr", **options: Any) -> xr.DataTree:
        return asked.run(tmp_path / name, model=tiny_model, progress=False, **options)

    return run_it


@pytest.fixture(scope="module")
def whole(tiny_model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return study().run(tmp_path_factory.mktemp("donors") / "s.zarr", model=tiny_model, progress=False)


def image(results: xr.DataTree, name: str) -> np.ndarray:
    return np.asarray(results.outcomes.image.sel(intervention=name).values)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CASES)
def test_images_are_those_of_a_loop_with_hooks(tiny_model: TextToImage, whole: xr.DataTree, name: str) -> None:
    np.testing.assert_allclose(image(whole, name), expected(tiny_model, CASES[name]), rtol=0, atol=TOLERANCE)
    changed = np.abs(image(whole, name) - whole.baseline.image.values).max(axis=(1, 2, 3))
    assert (changed > 1e-4).all(), "the case changes nothing, so it tests nothing"


def test_every_edit_fired_and_the_store_is_sound(whole: xr.DataTree) -> None:
    assert (whole.audit.fired.values == whole.audit.declared.values[:, None]).all()
    assert whole.verify(quiet=True, deep=True).exit_code == 0


def same(found: xr.DataTree, whole: xr.DataTree) -> None:
    for name in found.outcomes.intervention.values:
        if name in CASES:
            np.testing.assert_allclose(image(found, name), image(whole, name), rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.thorough
def test_batches_play_no_part(run: Run, whole: xr.DataTree) -> None:
    same(run(study(), memory=1), whole)


@pytest.mark.thorough
def test_parts_play_no_part(run: Run, whole: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalunet.plan.GROUP", 2)
    parts = run(study())
    same(parts, whole)
    assert int(parts.audit.unet_calls.sum()) == parts.attrs["unet_calls_planned"]


@pytest.mark.thorough
def test_a_store_that_grows_is_as_if_it_had_been_so(run: Run, whole: xr.DataTree) -> None:
    run(study("held, a block", "patched, another seed"))
    same(run(study()), whole)


@pytest.mark.thorough
def test_a_search_takes_the_values_from_calls_that_are_made_again(tiny_model: TextToImage, tmp_path: Path) -> None:
    items = cu.sweep(cu.Edit, component="up.1", start=(6, 4), length=2, fill=cu.Hold())
    items += cu.sweep(cu.Edit, component="mid", start=(6, 4), length=2, fill=cu.Patch(seed=3))
    asked = cu.Study(name="s", prompts=PROMPTS, sampler=cu.DDPM(steps=STEPS), interventions=items)
    asked.search(tmp_path / "search.zarr", threshold=0.999, model=tiny_model, progress=False)
    found = cu.open_results(tmp_path / "search.zarr")
    ran = asked.run(tmp_path / "run.zarr", model=tiny_model, progress=False)
    for label in ran.outcomes.intervention.values:
        if found.outcomes.status.sel(intervention=label).values.all():
            one, other = image(found, label), image(ran, label)
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompt", [None, PROMPTS[0]])
def test_what_a_run_itself_would_give_changes_nothing(tiny_model: TextToImage, prompt: str | None) -> None:
    """Patched from its own prompt and seed, or from its baseline: the noise floor."""
    seed = None if prompt is None else 0
    patch = cu.Edit("up.2", cu.Window(6, 4), cu.Patch(prompt=prompt, seed=seed))
    images = [
        generate(PROMPTS[:1], model=tiny_model, sampler=cu.DDPM(steps=STEPS), intervention=item)
        for item in (patch, None)
    ]
    np.testing.assert_allclose(*images, rtol=0, atol=TOLERANCE)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["held again and again", "held, a skip connection", "patched, another prompt"])
def test_a_shortcut_runs_with_hooks_installed(tiny_model: TextToImage, whole: xr.DataTree, name: str) -> None:
    shortcut = cu.Shortcut(name=name, intervention=CASES[name].intervention, sampler=cu.DDPM(steps=STEPS))
    for traced in (True, False):
        found = shortcut.apply(PROMPTS, model=tiny_model, traced=traced)
        np.testing.assert_allclose(found, image(whole, name), rtol=0, atol=1e-5)
    cost = shortcut.cost(tiny_model)
    assert cost["calls_share"] == (12 / 8 if "patched" in name else 1) or name == "patched, another prompt"
    timed = cu.time_shortcut(shortcut, PROMPTS, model=tiny_model, repeats=1)
    assert float(timed.flops_saved.sel(arm="shortcut")) == pytest.approx(1 - cost["flops_share"])


def test_what_is_held_need_not_be_computed(tiny_model: TextToImage) -> None:
    every = cu.cut_relax_cut(7, cut=3, relax=1, cuts=2)
    shortcut = cu.Shortcut(name="cache", intervention=cu.Edit("up.2", every, cu.Hold()), sampler=cu.DDPM(steps=STEPS))
    cut = cu.Shortcut(name="cut", intervention=cu.AblateBlock(3, every), sampler=cu.DDPM(steps=STEPS))
    assert shortcut.cost(tiny_model) == cut.cost(tiny_model)


def test_calls_and_operations_of_other_runs_are_counted(tiny_model: TextToImage) -> None:
    patched_late = cu.Edit("mid", cu.Window(3, 1), cu.Patch(prompt=OTHER))
    asked = cu.Study(
        name="s",
        prompts=PROMPTS,
        sampler=cu.DDPM(steps=STEPS),
        interventions=[patched_late, cu.Edit("mid", cu.Window(2, 1), cu.Patch(prompt=OTHER)), cu.Null(cu.Window(3, 1))],
    )
    plan = make_plan(asked.bind(tiny_model))
    own = STEPS + 3 + 2 + 3
    assert plan.unet_calls == 2 * (own + 7), "from the first step to step 2, once for both"
    assert plan.calls_by_run == {BASELINE: 8, 0: 8, 1: 8, 2: 8}
    live = tiny_model.anatomy.flops - sum(tiny_model.anatomy.by_name[name].flops for name in dead(asked, tiny_model))
    assert plan.flops == 2 * 2 * ((own + 7 - 2) * tiny_model.anatomy.flops + 2 * live)
    forked = plan.part((0,), forked=True)
    assert forked.calls_per_sample == 3 + 6
    held_late = make_plan(replace(asked, interventions=[cu.Edit("mid", cu.Window(3, 1), cu.Hold())]).bind(tiny_model))
    assert held_late.part((0,), forked=True).calls_per_sample == 3 + 1, "step 4 of the baseline, made again"


def dead(asked: cu.Study, model: TextToImage) -> frozenset[str]:
    return model.anatomy.dead({"mid"})


def test_what_is_kept_is_dropped_and_told(tiny_model: TextToImage) -> None:
    asked = cu.Study(
        name="s",
        prompts=PROMPTS,
        sampler=cu.DDPM(steps=STEPS),
        interventions=[cu.Edit("mid", cu.Window(5, 2), cu.Hold()), cu.Edit("mid", cu.Window(3, 2), cu.Hold())],
    )
    plan = make_plan(asked.bind(tiny_model))
    one = 4 * 2 * math.prod(tiny_model.anatomy.by_name["mid"].shape)
    assert plan.kept_bytes == 2 * one, "one is noted at step 4 while the other is taken"
    assert f"kept          {2 * one / 1e6:,.1f} MB" in str(plan)
    assert "kept" not in str(make_plan(replace(asked, interventions=[cu.SkipSteps(cu.Window(3, 1))]).bind(tiny_model)))


def test_no_more_is_kept_than_is_told_and_nothing_to_the_end(
    run: Run, tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_now: list[int] = []
    drop = KeptValues.drop

    def watched(self: KeptValues, step: int) -> None:
        held_now.append(sum(value.nbytes for value in {id(v): v for v in each(self)}.values()))
        drop(self, step)
        if step == 1:
            assert not self._values, "kept to the end"

    def each(kept: KeptValues) -> list[Tensor]:
        return [tensor for branches in kept._values.values() for tensor in branches]

    monkeypatch.setattr(KeptValues, "drop", watched)
    run(study())
    assert max(held_now) <= len(PROMPTS) * make_plan(study().bind(tiny_model)).kept_bytes
    assert max(held_now) > 0


def test_windows_that_follow_each_other_are_one_window(tiny_model: TextToImage) -> None:
    one = cu.Edit("mid", cu.Window(5, 3), cu.Hold())
    cut = cu.Edit("mid", cu.Window(5, 2), cu.Hold()) + cu.Edit("mid", cu.Window(3, 1), cu.Hold())
    whole, parts = (make_plan(study_of(item).bind(tiny_model), runs=(0,)) for item in (one, cut))
    assert parts.calls == whole.calls


@pytest.mark.parametrize("fill", [cu.Hold(), cu.Patch(), cu.Patch(prompt=OTHER), cu.Patch(OTHER, 3), cu.Patch(seed=0)])
def test_they_are_written_and_read(fill: Fill) -> None:
    edit = cu.Edit("mid", cu.Window(3, 1), fill)
    assert Intervention.from_json(edit.to_json()) == edit
    assert None not in edit.to_json()["configuration"]["fill"]["configuration"].values()


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: cu.Patch(prompt=" "), PromptError, "no prompt of a run; give words"),
        (lambda: cu.Patch(prompt=cu.NO_PROMPT), PromptError, "no prompt of a run"),
        (lambda: cu.Patch(seed=-1), SpecError, "no seed of a run"),
        (lambda: study_of(cu.Edit("mid", cu.Window(STEPS, 2), cu.Hold())), SpecError, "before step 8, the first"),
        (lambda: study_of(cu.Edit("mid", cu.Window(3, 1), cu.Patch(prompt="a zebra"))), PromptError, "zebra"),
        (
            lambda: study_of(cu.AblateBlock(2, cu.Window(5, 2)) + cu.Edit("mid", cu.Window(3, 1), cu.Hold())),
            SpecError,
            "mid is to be held from step 4 on, and does not run there",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(
    make: Callable[[], Any], error: type[Exception], said: str, tiny_model: TextToImage
) -> None:
    with pytest.raises(error, match=said):
        make().plan(tiny_model, calibrate=False)


def study_of(item: Intervention) -> cu.Study:
    return cu.Study(name="s", prompts=PROMPTS, sampler=cu.DDPM(steps=STEPS), interventions=[item])


def test_a_guest_blends(tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fill of somebody else's package, found by its name in JSON."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "plugins")
    registry._announced.cache_clear()
    with FILLS.scoped():
        blend = Fill.from_json({"name": "guests.blend", "configuration": {}})
        assert check_fill(blend)
        edit = cu.Edit("up.2", cu.Window(5, 2), blend)
        found = generate(PROMPTS, model=tiny_model, sampler=cu.DDPM(steps=STEPS), intervention=edit)
    for name in [name for name in sys.modules if name.partition(".")[0] == "guests"]:
        del sys.modules[name]
    registry._announced.cache_clear()
    for seed, prompt in enumerate(PROMPTS):
        run = by_hand(tiny_model, prompt, seed, mix=("up.2", {5: 6, 4: 6}))
        np.testing.assert_allclose(found[seed], run[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("fill", [cu.Hold(), cu.Patch(prompt=OTHER)])
def test_they_pass_the_kit(fill: Fill) -> None:
    assert check_fill(fill)


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda self, value, context: context.donors[0], "shares memory with a donor"),
        (lambda self, value, context: context.donors[0].mul_(2).clone(), "wrote into a donor"),
        (lambda self, value, context: value + context.donors[0].mean(0), "other numbers beside other rows"),
        (lambda self, value, context: value.clone(), "says severs = True"),
    ],
)
def test_the_kit_names_what_is_wrong_with_donors(put: Any, said: str) -> None:
    methods = {"name": "own", "__slots__": (), "put": put, "donors": property(lambda self: (OwnBefore(),))}
    with FILLS.scoped():
        fill = dataclass(frozen=True)(type("Own", (Fill,), {**methods, "severs": "severs" in said}))()
        with pytest.raises(ConformanceError, match=said):
            check_fill(fill)


def test_a_fill_is_told_where_it_is(run: Run) -> None:
    told: list[tuple[int, float, float]] = []
    with FILLS.scoped():

        @dataclass(frozen=True, slots=True)
        class Asking(Fill):
            name: ClassVar[str] = "asking"

            @property
            def donors(self) -> tuple[Any, ...]:
                return OwnBefore(), OfBaseline()

            def put(self, value: Tensor, context: Any) -> Tensor:
                assert [donor.shape for donor in context.donors] == [value.shape] * 2
                told.append((context.step, float(context.timestep[0]), float(context.time[-1])))
                return value.clone()

        results = run(study_of(cu.Edit("up.2", cu.Window(4, 2), Asking(), "uncond")))
    timesteps, _ = spaced_schedule(STEPS)
    assert told == [(step, timesteps[step - 1], pytest.approx(timesteps[step - 1] / 1000)) for step in (4, 3)]
    assert float(results.outcomes.ssim.sel(kind="edit").min()) > 0.9999


@pytest.mark.parametrize("caller", [TracedUNet, InstalledUNet])
def test_without_being_told_where_it_is_a_fill_that_asks_is_refused(tiny_model: TextToImage, caller: Any) -> None:
    plan = make_plan(study_of(cu.Edit("mid", cu.Window(3, 1), cu.Hold())).bind(tiny_model), runs=(0,))
    action = next(call.action for call in plan.calls if call.action.fills)
    context = tiny_model.encode(["a red circle"])
    x = torch.zeros(1, *tiny_model.image_shape)
    unet = caller(tiny_model.unet, tiny_model.anatomy)
    try:
        with pytest.raises(SpecError, match=r"'hold' asks where in a run"), torch.inference_mode():
            unet(action, (x, torch.zeros(1), *context), 1)
    finally:
        getattr(unet, "remove", int)()
