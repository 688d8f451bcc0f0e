"""Anatomies that are no U of OpenAI's: blocks of several modules, ports that are said, own names, mere stacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

import causalunet as cu
from causalunet.design import Component, Intervention, Port
from causalunet.errors import CausalUNetError, ComponentError, ConformanceError, DamageError, ModelError
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.trace import TracedUNet
from causalunet.plan import Action, PlacedFill
from causalunet.results.guard.declared import read_declaration
from causalunet.results.meaning.layout import Layout
from causalunet.testing import check_model
from tests.models.arms import PATHS, WIDTH, arms

PLUGINS = Path(__file__).parents[1] / "plugins"
WINDOW = cu.Window(3, 2)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A guest's model: a stack of transformer blocks."""
    monkeypatch.syspath_prepend(PLUGINS)
    from guests.stack import StackModel

    yield StackModel()
    for name in [name for name in sys.modules if name.partition(".")[0] == "guests"]:
        del sys.modules[name]


def study(*interventions: Intervention, **fields: Any) -> cu.Study:
    return cu.Study(
        name="anatomies",
        prompts=["one", "two"],
        sampler=cu.DDPM(steps=4, guidance_scale=1),
        interventions=interventions,
        **fields,
    )


def hooked(
    unet: Any, arguments: tuple[Tensor, ...], path: str, change: Callable[[Tensor], Tensor], given: Any
) -> Tensor:
    """A call with a hook on one module: on its output, or on the argument that is named."""

    def before(_module: Any, arguments: Any, named: dict[str, Any]) -> Any:
        if given in named:
            return arguments, {**named, given: change(named[given])}
        return (*arguments[:given], change(arguments[given]), *arguments[given + 1 :]), named

    module = unet.get_submodule(path)
    if given is None:
        handle = module.register_forward_hook(lambda _m, _i, output: change(output))
    else:
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    with torch.no_grad():
        output: Tensor = unet(*arguments)
    handle.remove()
    return output


def first_zero(value: Tensor, channels: slice = slice(None)) -> Tensor:
    value = value.clone()
    value[:, channels] = 0
    return value


CUTS: dict[str, tuple[Intervention, str, Any, slice]] = {
    "the deepest decoder block": (cu.AblateBlock(1, WINDOW), PATHS["dec.0"][-1], None, slice(None)),
    "two decoder blocks": (cu.AblateBlock(2, WINDOW), PATHS["dec.1"][-1], None, slice(None)),
    "channels of one": (cu.AblateBlock(2, WINDOW, view=cu.Channels(1, 2)), PATHS["dec.1"][-1], None, slice(1, 3)),
    "the first skip, by keyword": (cu.AblateSkip(1, WINDOW), PATHS["dec.1"][0], "skip", slice(None)),
    "part of the first skip": (
        cu.AblateSkip(1, WINDOW, view=cu.Channels(0)), PATHS["dec.1"][0], "skip", slice(0, 1),
    ),
    "the second skip, concatenated": (cu.Edit("hop.b", WINDOW), PATHS["dec.0"][0], 0, slice(WIDTH, None)),
    "an encoder block": (cu.Edit("enc.1", WINDOW, cu.Zero()), PATHS["enc.1"][-1], None, slice(None)),
}  # fmt: skip


@pytest.mark.parametrize("caller", [TracedUNet, InstalledUNet])
@pytest.mark.parametrize("name", CUTS)
def test_blocks_of_two_modules_and_ports_that_are_said(name: str, caller: Any) -> None:
    model = arms()
    intervention, path, given, channels = CUTS[name]
    edits = intervention.placed(model.anatomy).edits()
    dead = model.anatomy.dead(model.anatomy.severed(edits))
    arguments = (
        torch.randn(3, *model.image_shape, generator=torch.Generator().manual_seed(0)),
        torch.full((3,), 400.0),
    )
    expected = hooked(model.unet, arguments, path, lambda value: first_zero(value, channels), given)
    call = caller(model.unet, model.anatomy)
    with torch.no_grad():
        plain = model.unet(*arguments)
        found = call(Action(frozenset(PlacedFill(edit.site, edit.fill) for edit in edits), dead), arguments, 3)
        if caller is InstalledUNet:
            call.remove()
        assert torch.equal(model.unet(*arguments), plain), "modules are as they were"
    torch.testing.assert_close(found.output, expected, rtol=0, atol=1e-6)
    assert float((expected - plain).abs().max()) > 1e-3


def test_all_modules_of_what_is_dead_do_not_run() -> None:
    model = arms()
    ran: list[str] = []
    for paths in PATHS.values():
        for path in paths:
            module = model.unet.get_submodule(path)
            module.forward = _noted(module.forward, path, ran)  # type: ignore[method-assign]
    action = Action(frozenset([PlacedFill(cu.Site("dec.0"), cu.Zero())]), model.anatomy.dead({"dec.0"}))
    assert action.dead == {"dec.0", "enc.1"}
    arguments = (torch.randn(2, *model.image_shape), torch.full((2,), 400.0))
    call = InstalledUNet(model.unet, model.anatomy)
    call(action, arguments, 2)
    ran.clear()
    call(action, arguments, 2)
    call.remove()
    assert ran == [*PATHS["enc.0"], *PATHS["dec.1"], *PATHS["last"]]


def _noted(forward: Callable[..., Any], path: str, ran: list[str]) -> Callable[..., Any]:
    def noting(*given: Any, **named: Any) -> Any:
        ran.append(path)
        return forward(*given, **named)

    return noting


@pytest.mark.thorough
def test_a_whole_study_asks_the_anatomy(tmp_path: Path) -> None:
    model: Any = arms()
    asked = study(
        cu.AblateBlock(1, WINDOW), cu.AblateSkip(1, WINDOW), cu.AblateBlock(2, WINDOW) + cu.SkipSteps(cu.Window(1, 1))
    )
    results = asked.run(tmp_path / "s.zarr", model=model, progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    declared = results["audit"].to_dataset().declared.sum("step")
    named = {
        str(label): {str(place) for place in declared.place.values if int(declared.sel(place=place)[row])}
        for row, label in enumerate(declared.kind.values)
    }
    assert named["ablate_block"] == {"dec.0"}
    assert named["ablate_skip"] == {"hop.a"}
    assert named["null"] == {"dec.0", "last", "hop.a"}, "one of two modules, one of one, and a skip"
    assert named["composition"] == {"dec.1", "unet"}
    assert float(results.outcomes.ssim.sel(kind="null").min()) == 1
    stored = cu.Study.from_json(results.attrs["study"])
    commits = len(results.history())
    for again in (asked, stored):
        assert len(again.run(tmp_path / "s.zarr", model=model, progress=False).history()) == commits
    cu.report.plot_plan(results, {"kind": "ablate_block"})
    model.anatomy.plot(["dec.0"])


@pytest.mark.thorough
def test_a_mere_stack_is_planned_and_run(stack: Any, tmp_path: Path) -> None:
    view = cu.Channels(range(4))
    asked = study(cu.Edit(cu.Site("block.1") @ view, WINDOW), cu.Edit("block.2", cu.Window(4, 4), cu.Zero()))
    results = asked.run(tmp_path / "s.zarr", model=stack, progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    assert float(results.outcomes.ssim.sel(kind="null").min()) == 1
    for path, row, change in (
        ("blocks.1", 0, lambda tokens: torch.cat([torch.zeros_like(tokens[..., :4]), tokens[..., 4:]], dim=-1)),
        ("blocks.2", 1, torch.zeros_like),
    ):
        handle = stack.unet.get_submodule(path).register_forward_hook(
            lambda _m, _i, output, change=change: change(output)
        )
        first = study(cu.SkipSteps(cu.Window(1, 1))).run(tmp_path / f"{row}.zarr", model=stack, progress=False)
        handle.remove()
        if row:  # cut at all steps
            np.testing.assert_allclose(results.outcomes.image[row], first.baseline.image, rtol=0, atol=1e-5)
        assert np.abs(results.outcomes.image[row].values - results.baseline.image.values).max() > 1e-4
    assert stack.anatomy.dead({"block.2"}) == {"block.0", "block.1", "block.2"}
    stack.anatomy.plot(["block.1"])
    cu.report.plot_plan(results, {"kind": "edit", "start": 4})


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (cu.AblateBlock(1, WINDOW), "1 decoder blocks, and the model has none. It has block.0 ... block.2 and no skip"),
        (cu.AblateSkip(2, WINDOW), "asks for 2 skip connections, and the model has none. It has block.0"),
        (cu.Edit("mid", WINDOW), "asks for mid, which this U-Net does not have"),
        (cu.Edit("block.0", WINDOW, view=cu.Pixels((0, 2))), "asks for y of block.0, which has 16 in token, 8 in"),
        (cu.Edit("block.0", WINDOW, view=cu.Channels(8)), "asks for channel 8 of block.0, which has channel 0 ... 7"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_there_is_told(stack: Any, item: Intervention, said: str) -> None:
    with pytest.raises(ComponentError) as caught:
        study(item).plan(stack, calibrate=False)
    assert said in str(caught.value)


def put_out(stack: Any, results: xr.DataTree, step: int, path: str, change: Any = None) -> NDArray[np.float32]:
    """What a block puts out in a call by hand at a stored state, the block before it changed."""
    states = results.baseline.x_t.sel(step=step)
    found: list[Tensor] = []
    handles = [stack.unet.get_submodule(path).register_forward_hook(lambda _m, _i, output: found.append(output))]
    if change is not None:
        handles.append(stack.unet.blocks[0].register_forward_hook(lambda _m, _i, output: change(output)))
    timesteps = torch.full((len(states),), float(states.timestep))
    with torch.no_grad():
        stack.unet(torch.from_numpy(states.values.copy()), timesteps)
    for handle in handles:
        handle.remove()
    return found[0].numpy()


@pytest.mark.thorough
def test_activations_of_tokens_are_stored_as_such(stack: Any, tmp_path: Path) -> None:
    cut = cu.Edit("block.0", cu.Window(4, 1), cu.Zero())
    record = cu.Record(activations=("block.1",), summary="*", of="all", dtype="float32")
    results = study(cut, record=record).run(tmp_path / "s.zarr", model=stack, progress=False)
    stored = results["activations/block.1"].to_dataset()
    assert dict(stored.baseline.sizes) == {"sample": 2, "step": 4, "token": 16, "channel": 8}
    assert stored.intervened.dims == ("intervention", "sample", "step", "token", "channel")
    for step in (4, 2):
        expected = put_out(stack, results, step, "blocks.1")
        np.testing.assert_allclose(stored.baseline.sel(step=step), expected, atol=1e-5)
    changed = put_out(stack, results, 4, "blocks.1", torch.zeros_like)
    np.testing.assert_allclose(stored.intervened.sel(kind="edit", step=4)[0], changed, atol=1e-5)
    summary = results["activation_summary"].to_dataset().sel(component="block.1", step=4, kind="edit")
    np.testing.assert_allclose(summary["mean"][0], changed.mean(axis=(1, 2)), atol=1e-5)
    assert (int(summary.channels), int(summary.resolution)) == (8, 0), "there are no pixels"
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    assert results.declaration.variable_at("activations/block.1/baseline").dims[-2:] == ("token", "channel")
    results.export(tmp_path / "plain")
    assert cu.open_results(tmp_path / "plain")["activations/block.1/baseline"].sizes["token"] == 16


def test_components_of_other_dimensions_are_recorded_later(stack: Any, tmp_path: Path) -> None:
    cut = cu.Edit("block.0", cu.Window(4, 1), cu.Zero())
    study(cut).run(tmp_path / "s.zarr", model=stack, progress=False)
    later = study(cut, record=cu.Record(activations=("block.2",)))
    results = later.run(tmp_path / "s.zarr", model=stack, progress=False)
    expected = put_out(stack, results, 3, "blocks.2")
    np.testing.assert_allclose(results["activations/block.2/baseline"].sel(step=3), expected, atol=1e-2)
    assert results.verify(quiet=True), str(results.verify(quiet=True))


@pytest.mark.parametrize("dims", [("step", "channel"), ("a token", "channel"), ("token", "token")])
def test_dimensions_that_stores_cannot_name_are_told_before_anything_runs(stack: Any, dims: tuple[str, str]) -> None:
    blocks = tuple(replace(block, dims=dims) for block in stack.anatomy.components)
    stack.anatomy = replace(stack.anatomy, components=blocks)
    with pytest.raises(ComponentError, match=rf"block\.0 puts out \({', '.join(dims)}\), .*Rename the dimension"):
        study(record=cu.Record(activations=("block.0",))).plan(stack, calibrate=False)


@pytest.mark.parametrize(
    "fault", [{"dims": ["sample", "step", "place", "token"]}, {"dims": ["step", "token"]}, {"role": "audit"}]
)
def test_a_store_that_declares_a_component_otherwise_is_not_believed(stack: Any, fault: dict[str, Any]) -> None:
    plan = study(record=cu.Record(activations=("block.1",))).plan(stack, calibrate=False)
    written = Layout(plan, {}, 2).declaration.to_json()
    assert read_declaration(written, "here", factors=False).dims["token"]
    written["variables"]["activations/block.1/baseline"] |= fault
    with pytest.raises(DamageError, match=r"activations/block\.1/baseline is declared as something else|nothing that"):
        read_declaration(written, "here", factors=False)


def test_both_pass_all_checks(stack: Any) -> None:
    assert check_model(arms(), ["anything"])  # type: ignore[arg-type]
    assert check_model(stack, ["anything"])


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ({"hop_b": Port(0, cu.Channels(range(2, 6)))}, "hop.b enters dec.0 as channels 2-5 of argument 0, and"),
        ({"hop_b": Port(0)}, "hop.b enters dec.0 as argument 0, and"),
        ({"hop_b": Port(0, cu.Channels(range(8, 12)))}, "asks for channel 11 of argument 0, which has channel 0 ... 7"),
        ({"hop_a": Port(0)}, "hop.a enters dec.1 as argument 0, and what enc.0 puts out is"),
        ({"hop_a": Port(2)}, "hop.a enters dec.1 as argument 2, and the arguments of dec.1"),
    ],
)
def test_a_port_that_is_wrong_is_told(ports: dict[str, Port], said: str, tmp_path: Path) -> None:
    model: Any = arms(**ports)
    with pytest.raises(ModelError) as caught:
        study(cu.SkipSteps(cu.Window(2, 1))).run(tmp_path / "s.zarr", model=model, progress=False)
    assert said in str(caught.value)
    with pytest.raises(ConformanceError, match="joints"):
        check_model(model, ["anything"])


def test_without_a_port_it_is_looked_for() -> None:
    model: Any = arms(hop_a=None)
    assert check_model(model, ["anything"])
    assert study(cu.AblateSkip(2, WINDOW)).plan(model, calibrate=False).unet_calls


@pytest.mark.parametrize(("field", "value"), [("module", ()), ("module", ("a", 3)), ("dims", ("token",))])
def test_a_component_says_its_modules_and_dimensions(field: str, value: Any) -> None:
    given = {"name": "a", "role": "block", "level": 0, "depth": 0, "shape": (3, 4, 4), "flops": 1, "parameters": 1}
    with pytest.raises(CausalUNetError):
        Component(**{**given, "module": "a", field: value})  # type: ignore[arg-type]
