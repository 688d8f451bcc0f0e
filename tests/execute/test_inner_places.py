"""Places inside components: every edit there equals one by a hook, written by hand, in the original network."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from operator import add
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import causalunet as cu
from causalunet.design.inner import InnerPlace, unnumbered
from causalunet.design.views import View
from causalunet.errors import ComponentError, SpecError
from causalunet.execute import TracedUNet
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.walk.generate import generate
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Action, PlacedFill

tiny = pytest.importorskip("tests.models.pipelines.tiny")

PROMPTS = ["a red square", "a blue circle"]
Change = Callable[[Tensor], None]
"""Writes zeros into a copy of a module's tensor."""


def pipeline(name: str) -> Any:
    return cu.from_pipeline(getattr(tiny, name)())


@functools.cache
def model_of(name: str) -> Any:
    if name == "flow":
        return cu.load_model("shapes-flow")
    return cu.from_pipeline(tiny.flux(), told_guidance=3.5) if name == "flux" else pipeline(name)


def last_head(width: int, heads: int, *, axis: int, part: int = 0, parts: int = 1, outer: bool = False) -> Change:
    """Of a tensor whose ``width`` numbers along an axis are heads, and parts within each or around all."""
    size = width // (heads * parts)
    first = (part * heads + heads - 1) * size if outer else ((heads - 1) * parts + part) * size

    def change(tensor: Tensor) -> None:
        tensor.narrow(axis, first, size).zero_()

    return change


def two_zeroed(tensor: Tensor, axis: int) -> None:
    tensor.narrow(axis, 0, 2).zero_()


def by_hand(unet: nn.Module, place: InnerPlace) -> tuple[cu.design.View, Change]:
    """A view of the place, and the same by arithmetic on the indices of the module's own tensor."""
    path, group = place.module.rpartition(".")[2], place.name.split(".")
    if "head" not in place.dims:
        view: View = cu.Channels(0, 1)
        axis = 1 if path == "proj_out" else -1
        if place.name == "text":
            axis = 1 if place.layout == "row channel token" else 2
        return view, functools.partial(two_zeroed, axis=axis)
    heads = place.shape[place.dims.index("head")]
    axis, part, parts, outer = -1, 0, 1, False
    if path in ("qkv", "c_qkv", "encoder_kv", "key_value"):
        names = ["queries", "keys", "values"] if "qkv" in path else ["keys", "values"]
        part, parts = names.index(group[-1].removeprefix("text_")), len(names)
    if path in ("qkv", "encoder_kv", "proj_out"):
        axis = 1
    if path == "key_value":
        outer = True
    width = np.prod([size for size, dim in zip(place.shape, place.dims, strict=True) if dim in ("head", "channel")])
    return cu.Heads(heads - 1), last_head(int(width) * parts, heads, axis=axis, part=part, parts=parts, outer=outer)


def hooked(unet: nn.Module, place: InnerPlace, change: Change, arguments: tuple[Tensor, ...]) -> Tensor:
    """What the network gives under a hook."""

    def changed(tensor: Tensor) -> Tensor:
        other = tensor.clone()
        change(other)
        return other

    module = unet.get_submodule(place.module)
    if place.argument is None:
        handle = module.register_forward_hook(lambda _, given, output: changed(output))
    else:
        at = place.argument
        handle = module.register_forward_pre_hook(
            lambda _, given: (*given[:at], changed(given[at]), *given[at + 1 :])  # type: ignore[operator,misc]
        )
    try:
        output: Tensor = unet(*(part.clone() for part in arguments))
    finally:
        handle.remove()
    return output


def arguments_of(model: Any) -> tuple[Tensor, ...]:
    x = torch.randn(2, *model.image_shape, generator=torch.Generator().manual_seed(1))
    return (
        x,
        torch.tensor([500.0, 500.0]),
        *model.encode(PROMPTS if model.anatomy.inner[0].name == "text" else ["0", "1"]),
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["openai", "flow", "pixels", "stable_diffusion", "dit", "pixart"])
def test_an_edit_of_each_kind_equals_a_hook_in_the_network(name: str, tiny_model: TextToImage) -> None:
    model: Any = tiny_model if name == "openai" else model_of(name)
    arguments, unet = arguments_of(model), TracedUNet(model.unet, model.anatomy)
    values = [place for place in model.anatomy.inner if not place.weight and ".gate" not in place.name]
    kinds = {unnumbered(place.name): place for place in values if place.attention is None}
    assert {kind.rpartition(".")[2] for kind in kinds} >= {"queries", "keys", "values", "heads"}
    for place in kinds.values():
        view, change = by_hand(model.unet, place)
        action = Action(frozenset([PlacedFill(cu.Site(place.name) @ view, cu.Zero())]))
        with torch.no_grad():
            expected = hooked(model.unet, place, change, arguments)
            traced = unet(action, arguments, 2).output
            with InstalledUNet(model.unet, model.anatomy) as installed:
                plain = installed(action, arguments, 2).output
            untouched = model.unet(*arguments)
        assert torch.equal(traced, expected), place.name
        assert torch.equal(plain, expected), place.name
        # what adds one constant to all keys of a query, or acts behind zero weights, changes nothing
        assert not torch.equal(expected, untouched) or unnumbered(place.name) == "*.time", place.name


class PixelAttention(nn.Module):
    """Attention on pixels in the orders of EDM, k-diffusion and lucidrains, which can leave out a head by itself."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.left_out = kind, ("", 0)
        asked, projection = {"edm": ("qkv", "proj"), "k": ("qkv_proj", "out_proj"), "lucid": ("to_qkv", "to_out")}[kind]
        self.add_module(asked, nn.Conv2d(8, 24, 1))
        self.add_module(projection, nn.Conv2d(8, 8, 1))
        setattr(self, {"edm": "num_heads", "k": "n_head", "lucid": "heads"}[kind], 2)
        self.asked, self.projection = self.get_submodule(asked), self.get_submodule(projection)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        qkv = self.asked(x)
        if self.kind == "edm":
            q, k, v = qkv.reshape(n * 2, 4, 3, -1).unbind(2)
        else:
            q, k, v = (part.reshape(n * 2, 4, -1) for part in qkv.chunk(3, dim=1))
        what, head = self.left_out
        q, k, v = (
            torch.stack([one * (i % 2 != head or what != name) for i, one in enumerate(part)])
            for name, part in (("queries", q), ("keys", k), ("values", v))
        )
        out = (torch.einsum("bct,bcs->bts", q, k).softmax(dim=2) @ v.transpose(1, 2)).transpose(1, 2)
        return x + self.projection(out.reshape(n, c, h, w))


@pytest.mark.parametrize("kind", ["edm", "k", "lucid"])
def test_attention_on_pixels_has_its_heads_where_each_package_has_them(kind: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), PixelAttention(kind), nn.Conv2d(8, 3, 3, padding=1))
    names = {"block.0": "0", "block.1": "1", "block.2": "2"}
    shape, shares = (3, 4, 6), np.linspace(0.99, 0.01, 10)
    model = cu.from_network(
        network,
        name=kind,
        parts=names,
        image_shape=shape,
        alpha_bar=shares,
        skips=False,
        call=lambda one, x, *_: one(x),
    )
    x, traced = torch.randn(2, *shape), TracedUNet(model.unet, model.anatomy)
    arguments, attention = (x, torch.zeros(2), *model.encode(["", ""])), network[1]
    assert model.anatomy.described("block.1.self.heads").dims == ("head", "channel", "y", "x")
    with torch.no_grad():
        for what in ("queries", "keys", "values"):
            attention.left_out = ("", 0)
            got = traced(one_action(cu.Site(f"block.1.self.{what}") @ cu.Heads(1)), arguments, 2).output
            attention.left_out = (what, 1)
            torch.testing.assert_close(got, network(x), atol=1e-6, rtol=0)
        attention.left_out = ("values", 0)
        without = network(x)
        attention.left_out = ("", 0)
        head = traced(one_action(cu.Site("block.1.self.heads") @ cu.Heads(0)), arguments, 2).output
        torch.testing.assert_close(head, without, atol=1e-6, rtol=0)


def test_a_head_left_out_equals_its_columns_of_the_projection_left_out(tiny_model: TextToImage) -> None:
    arguments = arguments_of(tiny_model)
    place = next(one for one in tiny_model.anatomy.inner if one.name.endswith("joint.heads"))
    cut = copy.deepcopy(tiny_model.unet)
    weight = cut.get_submodule(place.module).weight
    heads, width = place.shape[0], place.shape[1]
    with torch.no_grad():
        weight[:, (heads - 1) * width :] = 0
        expected = cut(*arguments)
        traced = TracedUNet(tiny_model.unet, tiny_model.anatomy)
        got = traced(one_action(cu.Site(place.name) @ cu.Heads(heads - 1)), arguments, 2).output
        # a slice of what the projection gives is no head
        owner = place.name.removesuffix(".heads")
        sliced = traced(
            one_action(cu.Site(owner) @ cu.Channels(range((heads - 1) * width, heads * width))), arguments, 2
        )
        every = traced(one_action(cu.Site(place.name)), arguments, 2).output
        no_weight = copy.deepcopy(tiny_model.unet)
        no_weight.get_submodule(place.module).weight.zero_()
        only_bias = no_weight(*arguments)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    assert (sliced.output - got).abs().max() > 1e-4
    torch.testing.assert_close(every, only_bias, atol=1e-6, rtol=0)


def one_action(site: cu.Site) -> Action:
    return Action(frozenset([PlacedFill(site, cu.Zero())]))


@pytest.mark.parametrize("branch", ["cond", "uncond"])
def test_an_edit_of_one_branch_leaves_the_rows_of_the_other(branch: Any, tiny_model: TextToImage) -> None:
    anatomy, cond = tiny_model.anatomy, 2
    x, times, *context = (torch.cat([part, part]) for part in arguments_of(tiny_model))
    traced = TracedUNet(tiny_model.unet, anatomy)
    plain = traced(Action(), (x, times, *context), cond).output
    for place in {unnumbered(one.name): one.name for one in anatomy.inner if not one.weight}.values():
        site = cu.Site(place) @ cu.Rows(branch)
        got = traced(one_action(site), (x, times, *context), cond).output
        apart = slice(cond, None) if branch == "cond" else slice(0, cond)
        assert torch.equal(got[apart], plain[apart]), place


def test_a_study_edits_holds_patches_and_records_inside(tiny_model: TextToImage, run_study: Any) -> None:
    place = next(one for one in tiny_model.anatomy.inner if one.name.endswith("joint.heads")).name
    window = cu.Window(3, 3)
    edits = [
        cu.Edit(cu.Site(place) @ cu.Heads(0), window),
        cu.Edit(place, window, cu.Hold()),
        cu.Edit(place, window, cu.Patch()),
        cu.Edit("time", window, cu.Scale(0.5), branch="cond"),
    ]
    record = cu.Record(activations=(place, "mid"), summary=("*.*.joint.heads", "mid"), dtype="float32")
    results = run_study(*edits, steps=4, prompts=tuple(PROMPTS), record=record)
    results.verify()
    image = results.outcomes.image
    oneself = image.isel(intervention=2) - results.baseline.image
    assert float(abs(oneself).max()) < 1e-6
    assert all(float(abs(image.isel(intervention=i) - results.baseline.image).max()) > 1e-5 for i in (0, 1, 3))
    stored = results[f"activations/{place}"].baseline
    assert stored.dims == ("sample", "step", "head", "channel", "y", "x")
    heads = results["activation_summary"]
    assert place in heads.component.values
    for i, cut in enumerate(edits[:2]):
        got = generate(
            PROMPTS, model=tiny_model, sampler=cu.DDPM(steps=4, guidance_scale=3.0), intervention=cut, traced=False
        )
        np.testing.assert_allclose(got, image.isel(intervention=i), atol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("openai", ["text", "pooled"]),
        ("flow", ["text", "pooled"]),
        ("stable_diffusion", ["text"]),
        ("pixart", ["text"]),
        ("stable_diffusion_xl", ["text", "pooled"]),
        ("stable_diffusion_3", ["text", "pooled"]),
        ("flux", ["text", "pooled"]),
    ],
)
def test_patching_all_of_the_text_at_every_step_is_a_run_of_that_prompt(
    name: str, places: list[str], tiny_model: TextToImage
) -> None:
    model: Any = tiny_model if name == "openai" else model_of(name)
    given = [place.name for place in model.anatomy.inner if not place.module]
    assert given == places
    own = {"openai": cu.DDIM(steps=3, guidance_scale=3.0), "flow": cu.Euler(steps=3, guidance_scale=3.0)}
    sampler = own[name] if name in own else model.sampler(3, 1.0 if name == "flux" else 3.0)
    window, fill = cu.Window(3, 3), cu.Patch(prompt=PROMPTS[1])
    edit = functools.reduce(add, [cu.Edit(place, window, fill, branch="cond") for place in places])
    patched = generate([PROMPTS[0]], model=model, sampler=sampler, intervention=edit, traced=True)
    before, after = (generate([prompt], model=model, sampler=sampler) for prompt in PROMPTS)
    np.testing.assert_allclose(patched, after, atol=1e-5)
    assert np.abs(patched - before).max() > 1e-4


def test_a_token_of_the_text_is_what_the_encoder_gave_for_it() -> None:
    model = model_of("stable_diffusion")
    arguments = arguments_of(model)
    without = arguments[2].clone()
    without[:, 3] = 0
    got = TracedUNet(model.unet, model.anatomy)(one_action(cu.Site("text") @ cu.Tokens(3)), arguments, 2).output
    assert torch.equal(got, model.unet(*arguments[:2], without))


def test_what_does_not_run_has_no_inside(tiny_model: TextToImage) -> None:
    anatomy = tiny_model.anatomy
    place = next(one for one in anatomy.inner if one.name.startswith("mid.joint.heads"))
    both = cu.AblateBlock(bottom=2, window=cu.Window(3, 3)) + cu.Edit(place.name, cu.Window(2, 1))
    with pytest.raises(SpecError, match=r"edit of mid\.joint\.heads could never fire: mid is dead"):
        anatomy.check(both)
    at_once = cu.Edit("mid", cu.Window(2, 1)) + cu.Edit(place.name, cu.Window(2, 1))
    with pytest.raises(SpecError, match="could never fire"):
        anatomy.check(at_once)
    anatomy.check(cu.Edit("mid", cu.Window(2, 1), cu.Scale(0.5)) + cu.Edit(place.name, cu.Window(2, 1)))


def test_what_there_is_not_is_told_with_what_is_nearest(tiny_model: TextToImage) -> None:
    anatomy = tiny_model.anatomy
    with pytest.raises(
        ComponentError, match=r"asks for mid\.joint\.head, .*inside them .*\*\.joint\.heads.*Nearest: mid\.joint\.heads"
    ):
        anatomy.check(cu.Edit("mid.joint.head", cu.Window(2, 1)))
    with pytest.raises(ComponentError, match=r"asks for head 9 of mid\.joint\.heads, which has head 0 "):
        anatomy.check(cu.Edit(cu.Site("mid.joint.heads") @ cu.Heads(9), cu.Window(2, 1)))
    with pytest.raises(ComponentError, match=r"asks for head of mid, which has .* and no head"):
        anatomy.check(cu.Edit(cu.Site("mid") @ cu.Heads(0), cu.Window(2, 1)))
    with pytest.raises(ComponentError, match=r"No component matches 'mid\.joint\.haeds'.*Nearest: mid\.joint\.heads"):
        anatomy.select(["mid.joint.haeds"])
    with pytest.raises(ComponentError, match="the layout has to name row and each of them once"):
        InnerPlace(name="a", component="", module="m", dims=("head",), shape=(2,), layout="row token")


def test_patterns_mean_what_is_inside_only_with_as_many_dots(tiny_model: TextToImage) -> None:
    anatomy = tiny_model.anatomy
    assert anatomy.select(["up.*"]) == tuple(one.name for one in anatomy.decoder)
    assert anatomy.select(["*"]) == tuple(anatomy.by_name)
    assert anatomy.select(["text", "mid"]) == ("mid", "text")
    chosen = anatomy.select(["up.*.joint.heads"])
    assert chosen
    assert all(name.startswith("up.") and name.endswith(".joint.heads") for name in chosen)


def test_sites_lists_all_places(tiny_model: TextToImage) -> None:
    table = cu.sites(tiny_model)
    assert list(table.index) == list(tiny_model.anatomy.places)
    assert table.loc["mid.joint.heads", "what"] == "*.joint.heads"
    assert table.loc["mid.joint.heads", "dims"] == "head, channel, y, x"
    assert table.loc["skip.0", "component"] == tiny_model.anatomy.skips["skip.0"].target


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["flow", "dit", "pixart", "stable_diffusion_3", "flux"])
def test_a_gate_at_zero_is_its_branch_left_out(name: str) -> None:
    """To the bit; and gates are what multiplies what attention and feed-forward give."""
    model = cu.from_pipeline(tiny.flux(), told_guidance=3.5) if name == "flux" else model_of(name)
    arguments = arguments_of(model)
    gates = [place.name for place in model.anatomy.inner if ".gate" in place.name]
    blocks = {place.partition(".gate")[0] for place in gates}
    group = {"stable_diffusion_3": "joint", "flux": "joint"}.get(name, "self")
    tried = 0
    for block in sorted(blocks)[:2]:
        for gate, branch in (("attention", group), ("mlp", "mlp"), ("text_attention", ""), ("text_mlp", "")):
            place, other = f"{block}.gate.{gate}", f"{block}.{branch}"
            if place not in gates:
                continue
            if other not in model.anatomy.inner_by_name:
                other = f"{other}.0"  # that of the image, before that of the text
            closed = both_ways(model, one_action(cu.Site(place)), arguments)
            put_back = both_ways(model, Action(frozenset([PlacedFill(cu.Site(place), cu.Identity())])), arguments)
            assert torch.equal(put_back, model.unet(*arguments))
            if branch and other in model.anatomy.inner_by_name:
                assert torch.equal(closed, both_ways(model, one_action(cu.Site(other)), arguments)), place
                assert not torch.equal(closed, put_back)
                tried += 1
    assert tried >= 2


def both_ways(model: Any, act: Action, arguments: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        traced = TracedUNet(model.unet, model.anatomy)(act, arguments, 2).output
        with InstalledUNet(model.unet, model.anatomy) as installed:
            assert torch.equal(installed(act, arguments, 2).output, traced)
    return traced
