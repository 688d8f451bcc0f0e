"""Skip connections are cut where they really enter, in whatever way a decoder block is called, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import causalunet as cu
from causalunet.design.anatomy import Edge
from causalunet.errors import ModelError
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.walk.generate import generate
from causalunet.models.wiring import SkipPlace, skip_places
from causalunet.plan import Action, PlacedFill
from tests.models.adapters import SIZE, Adapter, network
from tests.models.adapters import anatomy_of as plain_anatomy
from tests.models.joined import CUT, REFUSED, AlwaysCut, Join, anatomy_of, joined

LAST = CUT["skip last"]
PLACES = {
    "skip last": SkipPlace(0, 6, 5),
    "skip first": SkipPlace(0, 0, 5),
    "by keyword": SkipPlace("x", 6, 5),
    "by keyword, first": SkipPlace("x", 0, 5),
    "an argument of its own": SkipPlace(2, 0, 5),
    "a keyword of its own": SkipPlace("skip", 0, 5),
    "before an embedding": SkipPlace(0, 6, 5),
    "after an embedding": SkipPlace(0, 7, 5),
    "path scaled": SkipPlace(0, 6, 5),
}
STUDY = cu.Study(
    name="joined",
    prompts=["one", "two"],
    sampler=cu.DDPM(steps=3, guidance_scale=1),
    interventions=[cu.AblateSkip(2, cu.Window(3, 3))],
)


def adapted(unet: nn.Module, anatomy: Any) -> Any:
    return Adapter(unet, anatomy)


def call(seed: int = 0, rows: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, torch.linspace(0, 900, rows)


def action(*skips: int, branch: Any = "both", fill: Any = cu.design.Zero()) -> Action:  # noqa: B008 - a value
    return Action(frozenset(PlacedFill(cu.Site(f"skip.{skip}") @ cu.Rows(branch), fill) for skip in skips))


@pytest.mark.parametrize("name", CUT)
def test_where_a_skip_connection_enters_is_found(name: str) -> None:
    unet = joined(CUT[name], LAST)
    assert skip_places(unet, anatomy_of(unet), call()) == {"skip.0": SkipPlace(0, 7, 4), "skip.1": PLACES[name]}


@given(
    joins=st.tuples(*[st.sampled_from(sorted(CUT))] * 2),
    skips=st.sets(st.integers(0, 1)).map(sorted),
    branch=st.sampled_from(["both", "cond", "uncond"]),
    middle=st.booleans(),
    seed=st.integers(0, 99),
)
def test_cuts_are_those_of_a_forward_that_joins_zeros(
    joins: tuple[str, str], skips: list[int], branch: str, middle: bool, seed: int
) -> None:
    if not middle:  # path and skip connection of up.0 are one tensor: where it lies is told by up.1
        joins = (joins[1], joins[1])
        assume(joins[1] != "path scaled")  # in place, so that the skip connection is scaled too
    unet = joined(*(CUT[name] for name in joins), middle=middle)
    arguments = call(seed)
    with torch.no_grad():
        plain, cut = unet(*arguments), unet(*arguments, cut=skips)
        rows = torch.tensor([branch != "uncond"] * 2 + [branch != "cond"] * 2)
        expected = torch.where(rows[:, None, None, None], cut, plain)
        asked = action(*skips, branch=branch)
        traced = TracedUNet(unet, anatomy_of(unet))(asked, arguments, 2)
        with InstalledUNet(unet, anatomy_of(unet)) as installed:
            again = installed(asked, arguments, 2)
    torch.testing.assert_close(traced.output, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(again.output, traced.output, rtol=0, atol=0)
    assert traced.fired == again.fired == {f"skip.{skip}": 1 for skip in skips}
    assert not skips or float((cut - plain).abs().max()) > 1e-3


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", CUT)
def test_a_study_cuts_what_a_forward_that_joins_zeros_lacks(name: str, tmp_path: Path) -> None:
    unet, other = joined(CUT[name], CUT[name]), joined(CUT[name], CUT[name])
    results = STUDY.run(tmp_path / "s.zarr", model=adapted(unet, anatomy_of(unet)), progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    by_hand = adapted(AlwaysCut(other, (0, 1)), replace(anatomy_of(other, inside="inner."), edges=unnamed(other)))
    images = generate(STUDY.prompts, model=by_hand, sampler=STUDY.sampler)
    np.testing.assert_allclose(results.outcomes.image.sel(kind="ablate_skip").values[0], images, rtol=0, atol=1e-5)
    assert np.abs(images - results.baseline.image.values).max() > 1e-2


def unnamed(unet: Any) -> tuple[Edge, ...]:
    return tuple(Edge(edge.source, edge.target) for edge in anatomy_of(unet).edges)


@pytest.mark.parametrize(("name", "start"), [("skip last", 5), ("skip first", None), ("after an embedding", 6)])
def test_the_only_skip_connection_beside_itself_is_the_last(name: str, start: int | None) -> None:
    """Without a bottleneck the block is given one tensor twice; what is documented decides, or another connection."""
    unet = joined(CUT[name], CUT[name], middle=False)
    anatomy = anatomy_of(unet)
    edges = tuple(Edge(edge.source, edge.target, edge.name.replace("skip.0", "")) for edge in anatomy.edges)
    alone = skip_places(unet, replace(anatomy, edges=edges), call())["skip.1"].start
    assert (alone == start) == (start is not None)
    assert skip_places(unet, anatomy, call())["skip.1"].start == (start or 0)


def test_what_lies_beside_itself_unlike_the_others_is_told(tmp_path: Path) -> None:
    unet = joined(CUT["skip last"], CUT["before an embedding"], middle=False)
    refused(unet, anatomy_of(unet), r"skip\.1 and the path are one tensor .*which is which cannot be told", tmp_path)


def refused(unet: nn.Module, anatomy: Any, message: str, tmp_path: Path) -> None:
    model = adapted(unet, anatomy)
    with pytest.raises(ModelError, match=message):
        STUDY.plan(model)
    with pytest.raises(ModelError, match=message):
        STUDY.run(tmp_path / "s.zarr", model=model, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_cut_right_is_refused_by_name(name: str, tmp_path: Path) -> None:
    join, found = REFUSED[name]
    unet = joined(join, LAST)
    refused(unet, anatomy_of(unet), rf"model 'adapted': skip\.1 brings .*down\.1 .*up\.0.*{found}", tmp_path)
    for caller in (TracedUNet, InstalledUNet):  # and by whoever calls without a rehearsal
        with torch.no_grad(), pytest.raises(ModelError, match=found):
            caller(unet, anatomy_of(unet))(action(1), call(), 2)


def test_what_is_refused_runs_once_the_edge_has_no_name(tmp_path: Path) -> None:
    unet = joined(REFUSED["scaled"][0], LAST)
    anatomy = anatomy_of(unet)
    edges = tuple(Edge(edge.source, edge.target, edge.name.replace("skip.1", "")) for edge in anatomy.edges)
    model = adapted(unet, replace(anatomy, edges=edges))
    study = replace(STUDY, interventions=[cu.AblateSkip(1, cu.Window(2, 1)), cu.AblateBlock(1, cu.Window(2, 1))])
    assert study.run(tmp_path / "s.zarr", model=model, progress=False).verify(quiet=True)


def test_two_skip_connections_into_one_block_are_told(tmp_path: Path) -> None:
    unet = joined(LAST, LAST)
    anatomy = anatomy_of(unet)
    anatomy = replace(anatomy, edges=(*anatomy.edges, Edge("down.1", "up.1", "skip.2")))
    refused(unet, anatomy, r"skip\.0 brings .*skip\.0 and skip\.2 both end there", tmp_path)


def test_a_kept_tensor_that_a_block_takes_from_another_is_told(tmp_path: Path) -> None:
    def join(block: Any, h: Tensor, skip: Tensor, time: Tensor) -> Tensor:
        return block(h, time, unet.down[1])

    unet = joined(join, LAST)
    refused(unet, anatomy_of(unet), "no tensor that up.0 is called with depends on it", tmp_path)


class Own(nn.Module):
    """The network of `tests.models.adapters` with another forward."""

    def __init__(self, forward: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self._forward = network(skips=True, middle=True), forward

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self._forward(self.inner, x, timesteps[:, None] / 1000)


def own(forward: Callable[[Any, Tensor, Tensor], Tensor]) -> tuple[Own, Any]:
    unet = Own(forward)
    anatomy = plain_anatomy(unet.inner)
    components = tuple(replace(c, module=f"inner.{c.module}") for c in anatomy.components)
    return unet, replace(anatomy, components=components)


def long_way(inner: Any, x: Tensor, time: Tensor) -> Tensor:
    a = inner.down[0](x, time)
    b = inner.down[1](a, time)
    h = inner.up[0](torch.cat([inner.mid(b, time), b], dim=1), time)
    return inner.out(inner.up[1](torch.cat([h, a], dim=1), time) + b)


def to_another(inner: Any, x: Tensor, time: Tensor) -> Tensor:
    a = inner.down[0](x, time)
    b = inner.down[1](a, time)
    h = inner.up[0](torch.cat([inner.mid(b, time) + a, b], dim=1), time)
    return inner.out(inner.up[1](torch.cat([h, a], dim=1), time))


def exchanged(inner: Any, x: Tensor, time: Tensor) -> Tensor:
    a = inner.down[0](x, time)
    b = inner.down[1](a, time)
    h = inner.up[0](torch.cat([inner.mid(b, time), a], dim=1), time)
    return inner.out(inner.up[1](torch.cat([h, b], dim=1), time))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (long_way, r"output depends on what down\.1 puts out, .*no edge .*add Edge\('down\.1', 'out'\)"),
        (to_another, r"up\.0 is given what down\.0 puts out, .*add Edge\('down\.0', 'up\.0'\)"),
        (exchanged, r"up\.0 is given what down\.0 puts out"),
    ],
    ids=["to the output", "to another block", "exchanged"],
)
def test_joints_that_the_anatomy_lacks_are_told(
    forward: Callable[[Any, Tensor, Tensor], Tensor], message: str, tmp_path: Path
) -> None:
    refused(*own(forward), message, tmp_path)


class Keeping(nn.Module):
    """An encoder block that puts its output on a list too."""

    def __init__(self, inner: nn.Module, kept: list[Tensor]) -> None:
        super().__init__()
        self.inner, self.kept = inner, kept

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.kept.append(self.inner(x, time))
        return self.kept[-1]


def test_a_block_that_does_more_than_put_out_a_tensor_is_told(tmp_path: Path) -> None:
    kept: list[Tensor] = []

    def forward(inner: Any, x: Tensor, time: Tensor) -> Tensor:
        h = inner.mid(inner.down[1](inner.down[0](x, time), time), time)
        for block in inner.up:
            h = block(torch.cat([h, kept.pop()], dim=1), time)
        return inner.out(h)

    unet, anatomy = own(forward)
    unet.inner.down = nn.ModuleList(Keeping(block, kept) for block in unet.inner.down)
    refused(unet, anatomy, r"stand-ins .*IndexError: pop from empty list.*nothing but put out a tensor", tmp_path)


def test_reading_leaves_everything_as_it_was() -> None:
    unet = joined(CUT["by keyword"], LAST)
    arguments = call()
    with torch.no_grad():
        before, chance = unet(*arguments), torch.random.get_rng_state()
        kept = [argument.clone() for argument in arguments]
        skip_places(unet, anatomy_of(unet), arguments)
        assert torch.equal(torch.random.get_rng_state(), chance)
        assert all(map(torch.equal, arguments, kept))
        assert torch.equal(unet(*arguments), before)
    assert not any("forward" in vars(module) or module._forward_hooks for module in unet.modules())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["skip last", "skip first"])
@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_models_that_hooks_have_cut_are_models(name: str, factor: float, tmp_path: Path) -> None:
    """What checks an intervention by hand: a hook that is always on."""
    unet, hooked = joined(CUT[name], LAST), joined(CUT[name], LAST)
    place = PLACES[name]

    def scale(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        value = given[0].clone()
        value[:, place.start : place.start + place.channels] *= factor
        return (value, *given[1:])

    hooked.up[0].register_forward_pre_hook(scale)
    hooked.down[0].register_forward_hook(lambda _module, _given, output: 0.3 * output)
    edits = [cu.Edit("skip.1", cu.Window(3, 3), cu.Scale(factor)), cu.Edit("down.0", cu.Window(3, 3), cu.Scale(0.3))]
    results = replace(STUDY, interventions=[edits[0] + edits[1]]).run(
        tmp_path / "s.zarr", model=adapted(unet, anatomy_of(unet)), progress=False
    )
    images = STUDY.run(tmp_path / "h.zarr", model=adapted(hooked, anatomy_of(hooked)), progress=False).baseline.image
    cut = results.outcomes.image.sel(kind="composition").values[0]
    np.testing.assert_allclose(cut, images.values, rtol=0, atol=1e-5)
    assert np.abs(cut - results.baseline.image.values).max() > 1e-2


def test_a_hook_that_moves_the_skip_connection_moves_its_cut() -> None:
    unet = joined(CUT["skip first"], LAST)
    unet.up[0].register_forward_pre_hook(lambda _module, given: (given[0].roll(6, dims=1), *given[1:]))
    assert skip_places(unet, anatomy_of(unet), call())["skip.1"] == SkipPlace(0, 6, 5)


def dropped(block: Any, h: Tensor, skip: Tensor, time: Tensor) -> Tensor:
    return block(torch.cat([nn.functional.dropout(h, 0.5), skip], dim=1), time)


def test_what_is_random_on_the_path_hides_nothing() -> None:
    unet = joined(dropped, LAST)
    assert skip_places(unet, anatomy_of(unet), call())["skip.1"] == SkipPlace(0, 6, 5)


def test_numbers_that_are_none_hide_nothing() -> None:
    """Every component puts out NaN at first; where skip connections lie is told all the same."""

    def spoiled(block: Any, h: Tensor, skip: Tensor, time: Tensor) -> Tensor:
        return block(torch.cat([skip, h], dim=1), time)

    unet = joined(spoiled, LAST)
    x, timesteps = call()
    assert skip_places(unet, anatomy_of(unet), (x * float("nan"), timesteps))["skip.1"] == SkipPlace(0, 0, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_skip_connection_may_be_joined_in_another_precision(dtype: torch.dtype) -> None:
    def narrowed(block: Any, h: Tensor, skip: Tensor, time: Tensor) -> Tensor:
        return block(torch.cat([skip.to(dtype), h.to(dtype)], dim=1).float(), time)

    join: Join = narrowed
    unet = joined(join, LAST)
    with pytest.raises(ModelError, match="not equal"):  # rounded on the way, which is no longer what was put out
        skip_places(unet, anatomy_of(unet), call())
    unet = joined(lambda block, h, skip, time: block(torch.cat([skip, h], dim=1).to(dtype), time.to(dtype)), LAST)
    unet.up[0].to(dtype)
    unet.up[1].to(dtype)
    unet.out.to(dtype)
    unet.joins = [
        unet.joins[0],
        lambda block, h, skip, time: block(torch.cat([h, skip.to(dtype)], dim=1), time.to(dtype)),
    ]
    assert skip_places(unet, anatomy_of(unet), call()) == {"skip.0": SkipPlace(0, 7, 4), "skip.1": SkipPlace(0, 0, 5)}
