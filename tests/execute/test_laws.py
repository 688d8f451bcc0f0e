"""Laws of one traced call: what changes nothing, what equals what bit for bit, what must not run, what must fire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import causalunet as cu
from causalunet.design import Edit, Fill, Intervention
from causalunet.design.anatomy import Anatomy
from causalunet.errors import FiringError
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.call.visits import CallResult
from causalunet.execute.walk.lockstep import run_block
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Action, Call, Fork, PlacedFill, Plan
from tests.execute.reference import Change, blocks, changed, watched

BLOCKS = 4
COMPONENTS = [*(f"down.{n}" for n in range(BLOCKS)), "mid", *(f"up.{n}" for n in range(BLOCKS))]
PLACES = [*COMPONENTS, *(f"skip.{n}" for n in range(BLOCKS))]
NOW = cu.Window(1, 1)
COND = 2

few = settings(max_examples=10)
"""Each example is a call or two of a U-Net."""


class Bench:
    """A traced U-Net with one batch of guided rows: two conditional, then two unconditional."""

    def __init__(self, model: TextToImage) -> None:
        self.anatomy: Anatomy = model.anatomy
        self.unet = model.unet
        self.traced = TracedUNet(model.unet, model.anatomy)
        prompts, empty = model.encode(["a red circle", "a striped cross"]), model.encode([""])
        context = (torch.cat([one, none.expand_as(one)]) for one, none in zip(prompts, empty, strict=True))
        x = torch.randn(2 * COND, *model.image_shape, generator=torch.Generator().manual_seed(1))
        self.arguments: tuple[Tensor, ...] = (x, torch.tensor([700.0, 40.0, 700.0, 40.0]), *context)
        self.baseline = self.call(Action())

    def call(self, action: Action, record: tuple[str, ...] = ()) -> CallResult:
        with torch.inference_mode():
            return self.traced(action, self.arguments, COND, record)

    def output(self, action: Action) -> Tensor:
        return self.call(action).output

    def action(self, *items: Intervention, dead: bool = True) -> Action:
        """What a plan would make of some interventions at one step; ``dead=False`` runs everything all the same."""
        edits = [edit for item in items for edit in item.edits()]
        severed = {edit.component for edit in edits if edit.fill.severs and edit.branch == "both"}
        fills = frozenset(PlacedFill(edit.site, edit.fill) for edit in edits)
        return Action(fills, self.anatomy.dead(severed) if dead else frozenset())


@pytest.fixture(scope="module")
def bench(tiny_model: TextToImage) -> Bench:
    assert list(tiny_model.anatomy.by_name) == COMPONENTS
    assert list(tiny_model.anatomy.skips) == PLACES[len(COMPONENTS) :]
    return Bench(tiny_model)


def everywhere(places: Collection[str], fill: Fill, branch: Any = "both") -> list[Edit]:
    return [Edit(place, NOW, fill, branch) for place in sorted(places)]


def test_a_call_without_action_is_the_module_itself(bench: Bench) -> None:
    with torch.inference_mode():
        assert torch.equal(bench.baseline.output, bench.unet(*bench.arguments))
    assert bench.baseline.activations == {}
    assert bench.baseline.fired == Counter()


def test_null_is_the_baseline_bit_for_bit(bench: Bench) -> None:
    null = bench.call(bench.action(cu.Null(window=NOW)))
    assert torch.equal(null.output, bench.baseline.output)
    assert null.fired == Counter({"mid": 1, "skip.0": 1})


@few
@given(places=st.sets(st.sampled_from(PLACES), min_size=1), branch=st.sampled_from(["both", "cond", "uncond"]))
def test_putting_values_back_anywhere_changes_nothing(bench: Bench, places: set[str], branch: str) -> None:
    for fill in (cu.Identity(), cu.Scale(1.0)):
        call = bench.call(bench.action(*everywhere(places, fill, branch)))
        assert torch.equal(call.output, bench.baseline.output)
        assert call.fired == Counter(dict.fromkeys(places, 1))


@few
@given(places=st.sets(st.sampled_from(PLACES), min_size=1, max_size=4))
def test_scaling_by_0_is_zero_ablation(bench: Bench, places: set[str]) -> None:
    scaled = bench.output(bench.action(*everywhere(places, cu.Scale(0.0))))
    assert torch.equal(scaled, bench.output(bench.action(*everywhere(places, cu.Zero()), dead=False)))
    assert not torch.equal(scaled, bench.baseline.output)


@few
@given(changes=st.dictionaries(st.sampled_from(PLACES), st.sampled_from([0.0, 0.5, -2.0]), min_size=1, max_size=4))
def test_edits_are_those_of_torch_hooks(bench: Bench, changes: dict[str, float]) -> None:
    by_hand = [Change(place.split(".")[0], int(place.partition(".")[2] or 0), f) for place, f in changes.items()]
    with torch.inference_mode(), changed(bench.unet, by_hand, {"both": slice(None)}):
        expected = bench.unet(*bench.arguments)
    edits = [Edit(place, NOW, cu.Scale(factor)) for place, factor in changes.items()]
    assert torch.equal(bench.output(bench.action(*edits)), expected)


@pytest.mark.parametrize("bottom", range(1, BLOCKS + 1))
def test_skipping_dead_blocks_is_running_and_zeroing_them(bench: Bench, bottom: int) -> None:
    item = cu.AblateBlock(bottom=bottom, window=NOW)
    assert len(bench.action(item).dead) == 2 * bottom + 1
    skipped, run = bench.call(bench.action(item)), bench.call(bench.action(item, dead=False))
    assert torch.equal(skipped.output, run.output)
    assert skipped.fired == run.fired == Counter({f"up.{bottom - 1}": 1})
    assert not torch.equal(run.output, bench.baseline.output)


@few
@given(bottom=st.integers(0, BLOCKS), top=st.integers(0, BLOCKS), encoder=st.none() | st.integers(0, BLOCKS - 1))
def test_whatever_is_dead_may_be_skipped(bench: Bench, bottom: int, top: int, encoder: int | None) -> None:
    """Skip connections, a decoder block and an encoder block together, wherever all three can fire."""
    top = min(top, BLOCKS - bottom)
    items: list[Intervention] = [cu.AblateBlock(bottom=bottom, window=NOW)] if bottom else []
    items += [cu.AblateSkip(top=top, window=NOW)] if top else []
    if encoder is not None and f"down.{encoder}" not in bench.action(*items).dead:
        items.append(Edit(f"down.{encoder}", NOW))
    assert torch.equal(bench.output(bench.action(*items)), bench.output(bench.action(*items, dead=False)))


@contextmanager
def counted(bench: Bench) -> Iterator[Counter[str]]:
    """Count how often the first layer of every block is called."""
    calls: Counter[str] = Counter()
    handles = [
        block[0].register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, block in blocks(bench.unet).items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("bottom", range(BLOCKS + 1))
def test_dead_blocks_do_not_run_and_living_ones_run_once(bench: Bench, bottom: int) -> None:
    cut = {f"up.{n}" for n in range(bottom)} | {f"down.{n}" for n in range(BLOCKS - bottom, BLOCKS)}
    expected = set(COMPONENTS) - (cut | {"mid"} if bottom else set())
    action = bench.action(cu.AblateBlock(bottom=bottom, window=NOW)) if bottom else Action()
    with counted(bench) as calls:
        bench.call(action)
    assert calls == Counter(dict.fromkeys(expected, 1))


def test_one_branch_leaves_nothing_dead(bench: Bench) -> None:
    with counted(bench) as calls:
        bench.call(bench.action(cu.AblateBlock(bottom=2, window=NOW, branch="cond")))
    assert calls == Counter(dict.fromkeys(COMPONENTS, 1))


@few
@given(
    places=st.sets(st.sampled_from(PLACES), min_size=1, max_size=3),
    fill=st.sampled_from([cu.Zero(), cu.Scale(-2.0)]),
    branch=st.sampled_from(["cond", "uncond"]),
)
def test_the_other_branch_is_untouched_bit_for_bit(bench: Bench, places: set[str], fill: Fill, branch: str) -> None:
    output, baseline = bench.output(bench.action(*everywhere(places, fill, branch))), bench.baseline.output
    edited, sentinel = (slice(COND), slice(COND, None)) if branch == "cond" else (slice(COND, None), slice(COND))
    assert torch.equal(output[sentinel], baseline[sentinel])
    assert ((output - baseline)[edited].flatten(1) != 0).any(dim=1).all()


def test_both_branches_one_by_one_are_both_together(bench: Bench) -> None:
    apart = bench.action(*everywhere(["mid"], cu.Scale(2.0), "cond"), *everywhere(["mid"], cu.Scale(2.0), "uncond"))
    assert torch.equal(bench.output(apart), bench.output(bench.action(*everywhere(["mid"], cu.Scale(2.0)))))


@pytest.mark.parametrize("bottom", [0, 2, BLOCKS])
def test_recorded_activations_are_those_of_torch_hooks(bench: Bench, bottom: int) -> None:
    action = bench.action(cu.AblateBlock(bottom=bottom, window=NOW)) if bottom else Action()
    change = [Change("up", bottom - 1)] if bottom else []
    with torch.inference_mode(), changed(bench.unet, change, {"both": slice(None)}), watched(bench.unet) as expected:
        bench.unet(*bench.arguments)
    recorded = bench.call(action, tuple(COMPONENTS)).activations
    assert list(recorded) == [name for name in COMPONENTS if name not in action.dead]
    for name, value in recorded.items():
        assert torch.equal(value, expected[name])


def test_recording_changes_nothing(bench: Bench) -> None:
    action = bench.action(cu.AblateSkip(top=2, window=NOW))
    assert torch.equal(bench.call(action, tuple(COMPONENTS)).output, bench.output(action))


def test_recorded_activations_are_not_changed_by_later_calls(bench: Bench) -> None:
    recorded = bench.call(Action(), ("up.3", "mid")).activations
    copies = {name: value.clone() for name, value in recorded.items()}
    bench.call(bench.action(cu.AblateSkip(top=3, window=NOW)), ("up.3", "mid"))
    assert all(torch.equal(recorded[name], copies[name]) for name in copies)


@pytest.mark.parametrize("lost", [{"mid"}, {"up.3"}, {"mid", "up.3"}], ids=lambda lost: "+".join(sorted(lost)))
def test_an_edit_that_does_not_fire_stops_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, lost: set[str]
) -> None:
    visit = TracedUNet._visit

    def forgetful(self: TracedUNet, place: Any, *arguments: Any) -> None:
        if place.component.name not in lost:
            visit(self, place, *arguments)

    monkeypatch.setattr(TracedUNet, "_visit", forgetful)
    with pytest.raises(FiringError, match=r"declared .*'mid': 1.* but fired"):
        bench.call(bench.action(cu.Null(window=NOW)))


def test_an_edit_that_does_not_fire_stops_the_study(
    run_study: Callable[..., xr.DataTree], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "causalunet.execute.fill.part_runner.run_block", lambda *_args, **_kwargs: Counter({("mid", 2): 1})
    )
    with pytest.raises(FiringError, match=r"'mid', 2\): \(1, 2\).*'skip.0', 2\): \(0, 2\)"):
        run_study(cu.Null(window=cu.Window(2, 1)), steps=2)


def called_all_the_same(plan: Plan) -> Plan:
    """The plan with one more call within the steps that run 0 skips."""
    (jump,) = (
        call for call in plan.calls if any(0 in fork.runs and fork.target < call.step - 1 for fork in call.forks)
    )
    state = 1 + max(fork.state for call in plan.calls for fork in call.forks)
    more = replace(jump, forks=(*jump.forks, Fork(jump.step - 1, state, ())))
    extra = Call(jump.step - 1, Action(), state, (), replays=(0,))
    calls = [more if call is jump else call for call in plan.calls]
    made = replace(plan)
    vars(made)["calls"] = tuple(sorted([*calls, extra], key=lambda call: -call.step))  # in place of those of the tree
    return made


def test_a_skipped_step_at_which_the_unet_ran_stops_the_study(
    run_study: Callable[..., xr.DataTree], monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(unet: Any, plan: Plan, *arguments: Any, **options: Any) -> Any:
        return run_block(unet, called_all_the_same(plan), *arguments, **options)

    monkeypatch.setattr("causalunet.execute.fill.part_runner.run_block", careless)
    with pytest.raises(FiringError, match=r"skip_steps.*'unet', 3\): \(0, 1\)"):
        run_study(cu.SkipSteps(cu.Window(3, 2)), steps=4)


def test_skipped_steps_are_those_at_which_the_unet_did_not_run(run_study: Callable[..., xr.DataTree]) -> None:
    skipped = cu.SkipSteps(cu.Window(3, 1)), cu.SkipSteps(cu.Window(2, 2)), cu.Null(cu.Window(3, 1))
    fired = run_study(*skipped, steps=4).audit.fired.sel(place="unet", sample=0)
    assert fired.values.tolist() == [[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
