"""Logits and maps of attention: those of a softmax by hand in the original forward, and edits equal hooks by hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import causalunet as cu
from causalunet.design.fills import Fill
from causalunet.design.study import one_run
from causalunet.errors import ComponentError, FiringError, SpecError
from causalunet.execute import TracedUNet
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.planning import plan_run
from causalunet.execute.walk.batches import micro_batch_size, places_asked
from causalunet.execute.walk.generate import generate
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Action, PlacedFill
from tests.execute.test_inner_places import PixelAttention, arguments_of

tiny = pytest.importorskip("tests.models.pipelines.tiny")

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Of queries, keys, values and mask what heads give."""


@functools.cache
def model_of(name: str) -> Any:
    if name == "flow":
        return cu.load_model("shapes-flow")
    if name == "fused":
        pipe = tiny.stable_diffusion()
        pipe.unet.fuse_qkv_projections()
        return cu.from_pipeline(pipe)
    return cu.from_pipeline(getattr(tiny, name)())


def maps_by_hand(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    logits = torch.einsum("bhqc,bhkc->bhqk", query, key) / math.sqrt(query.shape[-1])
    shifted = logits if mask is None else logits + mask
    powers = (shifted - shifted.amax(dim=-1, keepdim=True)).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


@contextmanager
def attending(attend: Attend) -> Iterator[None]:
    """Every module attends by another function: all of these call PyTorch's."""

    def other(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any) -> Tensor:
        return attend(query, key, value, attn_mask)

    with mock.patch.object(F, "scaled_dot_product_attention", other):
        yield


def maps_in(model: Any, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    """Maps of all attention in a call, in order, by a softmax by hand."""
    found = []

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        found.append(maps_by_hand(query, key, mask))
        return found[-1] @ value

    with torch.no_grad(), attending(attend):
        model.unet(*(part.clone() for part in arguments))
    return found


def named(model: Any, what: str = "maps") -> list[str]:
    return [place.name for place in model.anatomy.inner if place.name.endswith(f".{what}")]


def recorded(model: Any, arguments: tuple[Tensor, ...], *names: str) -> dict[str, Tensor]:
    return TracedUNet(model.unet, model.anatomy)(Action(), arguments, 2, names).activations


def action(site: cu.Site, fill: Fill | None = None) -> Action:
    return Action(frozenset([PlacedFill(site, fill or cu.Zero())]))


def text_first(maps: Tensor, last: int) -> Tensor:
    """Of joint attention in which so many tokens of a text come last: text first, as places have it."""
    return torch.cat([maps[..., maps.shape[-1] - last :], maps[..., : maps.shape[-1] - last]], dim=-1)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "name",
    ["openai", "flow", "pixels", "stable_diffusion", "fused", "dit", "pixart", "stable_diffusion_3", "deepfloyd_if"],
)
def test_maps_are_a_softmax_by_hand(name: str, tiny_model: TextToImage) -> None:
    model: Any = tiny_model if name == "openai" else model_of(name)
    arguments, names = arguments_of(model), named(model)
    assert len(names) == sum(place.name.endswith(".heads") for place in model.anatomy.inner) > 0
    with torch.no_grad():
        found = recorded(model, arguments, *names, *named(model, "logits"))
        plain, traced = model.unet(*arguments), TracedUNet(model.unet, model.anatomy)
        assert torch.equal(traced(Action(), arguments, 2, tuple(names)).output, plain)
    expected = maps_in(model, arguments)
    assert len(expected) == len(names)
    for place, by_hand in zip(names, expected, strict=True):
        maps, asking = found[place].flatten(2, -2), math.prod(found[place].shape[2:-1])
        last = by_hand.shape[-1] - asking if name == "stable_diffusion_3" and "joint" in place else 0
        # there the text asks as well, after the image
        ordered = text_first(by_hand[:, :, :asking], last)
        torch.testing.assert_close(maps, ordered, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(maps.shape[:-1]))
        logits = found[place.replace(".maps", ".logits")]
        torch.testing.assert_close(logits.softmax(dim=-1), found[place])
        assert found[place].shape[1:] == model.anatomy.described(place).shape


@pytest.mark.parametrize("kind", ["edm", "k", "lucid"])
def test_maps_of_attention_on_pixels(kind: str) -> None:
    torch.manual_seed(0)
    model = cu.from_network(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), PixelAttention(kind), nn.Conv2d(8, 3, 3, padding=1)),
        name=kind,
        parts={"block.0": "0", "block.1": "1", "block.2": "2"},
        image_shape=(3, 4, 6),
        alpha_bar=np.linspace(0.99, 0.01, 10),
        skips=False,
        call=lambda one, x, *_: one(x),
    )
    arguments, place = (torch.randn(2, 3, 4, 6), torch.zeros(2), *model.encode(["", ""])), "block.1.self.maps"
    seen, softmax = [], Tensor.softmax
    with torch.no_grad():
        maps = recorded(model, arguments, place)[place]
        with mock.patch.object(
            Tensor, "softmax", lambda *given, **named: seen.append(softmax(*given, **named)) or seen[-1]
        ):
            model.unet(*arguments)
    assert maps.shape == (2, 2, 4, 6, 24)
    torch.testing.assert_close(maps.flatten(2, 3).flatten(0, 1), seen[0], atol=1e-6, rtol=1e-5)


class Linear(PixelAttention):
    """Attention without a softmax over keys, of the same parts."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = (part.reshape(n * 2, 4, -1) for part in self.asked(x).chunk(3, dim=1))
        context = torch.einsum("bct,bdt->bcd", k.softmax(dim=-1), v)
        return x + self.projection(torch.einsum("bcd,bct->bdt", context, q.softmax(dim=1)).reshape(n, c, h, w))


def test_attention_that_is_no_softmax_of_queries_and_keys_has_no_maps() -> None:
    model = cu.from_network(
        nn.Sequential(nn.Conv2d(3, 8, 1), Linear("lucid"), nn.Conv2d(8, 3, 1)),
        name="linear",
        parts={"block.0": "0", "block.1": "1", "block.2": "2"},
        image_shape=(3, 4, 4),
        alpha_bar=np.linspace(0.99, 0.01, 10),
        skips=False,
        call=lambda one, x, *_: one(x),
    )
    assert "block.1.self.heads" in model.anatomy.places
    assert not named(model) + named(model, "logits")


def test_queries_that_are_turned_by_their_place_have_no_maps() -> None:
    model = cu.from_pipeline(tiny.flux(), told_guidance=tiny.GUIDANCE)
    assert any(name.endswith("joint.heads") for name in model.anatomy.places)
    assert not named(model) + named(model, "logits")


def test_an_attention_that_has_become_another_is_told(tiny_model: TextToImage) -> None:
    arguments, place = arguments_of(tiny_model), named(tiny_model)[0]
    with (
        attending(lambda query, key, value, mask: maps_by_hand(2 * query, key, mask) @ value),
        pytest.raises(Exception, match="differ from what follows from its queries") as told,
    ):
        recorded(tiny_model, arguments, place)
    assert FiringError.__name__ in repr(told.value) or isinstance(told.value, FiringError)


@dataclass(frozen=True, slots=True)
class Without(Fill):
    """One token's column zeroed and the others renormalised, or its logits at minus infinity; under no name."""

    token: int = 0
    logits: bool = False
    name: ClassVar[str] = ""

    def apply(self, value: Tensor) -> Tensor:
        other = value.clone()
        other[..., self.token] = -math.inf if self.logits else 0
        return other if self.logits else other / other.sum(dim=-1, keepdim=True)


def both(model: Any, act: Action, arguments: tuple[Tensor, ...]) -> Tensor:
    """The output under an action, traced and installed, which are the same."""
    with torch.no_grad():
        traced = TracedUNet(model.unet, model.anatomy)(act, arguments, 2).output
        with InstalledUNet(model.unet, model.anatomy) as installed:
            assert torch.equal(installed(act, arguments, 2).output, traced)
    return traced


@pytest.mark.parametrize("what", ["maps", "logits"])
def test_a_token_masked_is_attention_without_it(what: str, tiny_model: TextToImage) -> None:
    arguments, place, seen = arguments_of(tiny_model), named(tiny_model, what)[-1], list[int]()

    def without(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        seen.append(1)
        if len(seen) == len(named(tiny_model)):
            key, value = (torch.cat([part[:, :, :3], part[:, :, 4:]], dim=2) for part in (key, value))
        return maps_by_hand(query, key, mask) @ value

    with torch.no_grad(), attending(without):
        expected = tiny_model.unet(*arguments)
    got = both(tiny_model, action(cu.Site(place), Without(3, what == "logits")), arguments)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    assert (got - tiny_model.unet(*arguments)).abs().max() > 1e-6


@pytest.mark.parametrize("name", ["openai", "stable_diffusion"])
def test_a_head_without_maps_is_a_head_left_out(name: str, tiny_model: TextToImage) -> None:
    model: Any = tiny_model if name == "openai" else model_of(name)
    arguments = arguments_of(model)
    for place in named(model)[-2:]:
        of_maps = both(model, action(cu.Site(place) @ cu.Heads(1)), arguments)
        of_heads = both(model, action(cu.Site(place.replace(".maps", ".heads")) @ cu.Heads(1)), arguments)
        torch.testing.assert_close(of_maps, of_heads, atol=1e-6, rtol=1e-5)
        identity = both(model, action(cu.Site(place), cu.Identity()), arguments)
        assert torch.equal(identity, model.unet(*arguments))


@pytest.mark.parametrize("name", ["openai", "dit"])
def test_some_queries_are_edited_and_no_others(name: str, tiny_model: TextToImage) -> None:
    model: Any = tiny_model if name == "openai" else model_of(name)
    place = named(model)[-1]
    heads, view = place.replace(".maps", ".heads"), cu.Queries(2, 5) if name == "dit" else cu.Pixels(y=(1, 3))
    unet, act = TracedUNet(model.unet, model.anatomy), action(cu.Site(place) @ view, cu.Scale(0.5))
    with torch.no_grad():
        kept = unet(act, arguments_of(model), 2, (heads,)).activations[heads]
        plain = unet(Action(), arguments_of(model), 2, (heads,)).activations[heads]
    expected = plain.clone()
    if name == "dit":
        expected[:, :, [2, 5]] *= 0.5
    else:
        expected[..., 1:3, :] *= 0.5
    torch.testing.assert_close(kept, expected)
    assert torch.equal(kept == plain, expected == plain)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_an_edit_of_one_branch_leaves_all_other_rows_to_the_bit(batch: int, tiny_model: TextToImage) -> None:
    prompts = ["a red square", "a blue circle", "a green cross", "a red circle", "a blue square"][:batch]
    x = torch.randn(batch, *tiny_model.image_shape, generator=torch.Generator().manual_seed(2))
    context = [
        torch.cat(pair) for pair in zip(tiny_model.encode(prompts), tiny_model.encode([""] * batch), strict=True)
    ]
    arguments = (torch.cat([x, x]), torch.full((2 * batch,), 500.0), *context)
    unet = TracedUNet(tiny_model.unet, tiny_model.anatomy)
    for place in (named(tiny_model)[-1], named(tiny_model, "logits")[0]):
        site = cu.Site(place) @ cu.Rows("cond") @ cu.Tokens(1)
        with torch.no_grad():
            got = unet(action(site, cu.Scale(2.0)), arguments, batch).output
            plain = unet(Action(), arguments, batch).output
        assert torch.equal(got[batch:], plain[batch:])
        assert all(not torch.equal(one, other) for one, other in zip(got[:batch], plain[:batch], strict=True))


def test_logits_and_maps_can_both_be_edited(tiny_model: TextToImage) -> None:
    place, arguments = named(tiny_model)[-1].removesuffix(".maps"), arguments_of(tiny_model)
    one = PlacedFill(cu.Site(f"{place}.logits"), Without(3, logits=True))
    other = PlacedFill(cu.Site(f"{place}.maps") @ cu.Heads(0), cu.Scale(0.5))
    last = PlacedFill(cu.Site(f"{place}.heads") @ cu.Heads(0), cu.Scale(4.0))
    together = both(tiny_model, Action(frozenset([one, other, last])), arguments)
    doubled = PlacedFill(cu.Site(f"{place}.heads") @ cu.Heads(0), cu.Scale(2.0))
    expected = both(tiny_model, Action(frozenset([one, doubled])), arguments)
    torch.testing.assert_close(together, expected, atol=1e-6, rtol=1e-5)


def test_a_study_patches_holds_and_records_maps(tiny_model: TextToImage, run_study: Any) -> None:
    place, window = named(tiny_model)[-1], cu.Window(3, 3)
    edits = [
        cu.Edit(place, window, cu.Patch()),
        cu.Edit(place, window, cu.Patch(prompt="a blue square")),
        cu.Edit(place, window, cu.AddNoise(0.5)),
    ]
    record = cu.Record(activations=["up.*.joint.maps"], summary=[place], dtype="float32")
    results = run_study(*edits, steps=4, prompts=("a red square", "a blue circle"), record=record)
    results.verify()
    image = results.outcomes.image
    far = [float(abs(image.isel(intervention=i) - results.baseline.image).max()) for i in range(3)]
    assert far[0] < 1e-6
    assert min(far[1:]) > 1e-5
    maps = results[f"activations/{place}"].baseline
    assert maps.dims == ("sample", "step", "head", "y", "x", "token")
    np.testing.assert_allclose(maps.sum("token"), 1, atol=1e-5)
    pooled = maps.mean(["step", "head"])
    assert pooled.dims == ("sample", "y", "x", "token")
    for i, edit in enumerate(edits[:2]):
        got = generate(
            ("a red square", "a blue circle"),
            model=tiny_model,
            sampler=cu.DDPM(steps=4, guidance_scale=3.0),
            intervention=edit,
            traced=False,
        )
        np.testing.assert_allclose(got, image.isel(intervention=i), atol=1e-5)


@contextmanager
def hooked(modules: list[nn.Module], hook: Callable[[nn.Module, Any], Any]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_maps_and_values_of_another_prompt_equal_hooks(tiny_model: TextToImage) -> None:
    """At all places and steps: what attention gives is then all that prompt's."""
    sampler, window, other = cu.DDIM(steps=3, guidance_scale=1.0), cu.Window(3, 3), "a blue circle"
    starts = [named(tiny_model)[i].removesuffix(".maps") for i in range(len(named(tiny_model)))]
    whole = functools.reduce(
        lambda one, two: one + two,
        (
            cu.Edit(f"{start}.{what}", window, cu.Patch(prompt=other))
            for start in starts
            for what in ("maps", "values", "text_values")
        ),
    )
    got = generate(["a red square"], model=tiny_model, sampler=sampler, intervention=whole)
    seen: list[Tensor] = []
    modules = [tiny_model.unet.get_submodule(tiny_model.anatomy.described(f"{one}.heads").module) for one in starts]
    with hooked(modules, lambda _, entering: seen.append(entering[0].clone())):
        generate([other], model=tiny_model, sampler=sampler, traced=False)
    given = iter(seen)
    with hooked(modules, lambda _, entering: (next(given),)):
        expected = generate(["a red square"], model=tiny_model, sampler=sampler, traced=False)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(got - generate(["a red square"], model=tiny_model, sampler=sampler)).max() > 1e-4


def test_memory_is_planned_with_maps(tiny_model: TextToImage) -> None:
    place, budget = named(tiny_model)[0], 1 << 24
    described = tiny_model.anatomy.described(place)
    rows = [micro_batch_size(tiny_model.anatomy, budget, 1, places) for places in ((), (place,), named(tiny_model))]
    assert rows == sorted(rows, reverse=True)
    few = 40 * math.prod(described.shape) * 5
    assert micro_batch_size(tiny_model.anatomy, few, 1, (place,)) <= 10
    spec = one_run(["a red square"], None, cu.DDIM(steps=2), cu.Edit(place, cu.Window(1, 1), cu.Hold()))
    assert places_asked(plan_run(spec.bind(tiny_model))) == {place}


def test_tokens_excluded_are_attention_without_them(tiny_model: TextToImage) -> None:
    """Everywhere at once, against a call of the network that is not told these tokens."""
    for name in ("stable_diffusion", "pixart"):
        model = model_of(name)
        x, time, states, *mask = arguments_of(model)
        logits = [place for place in named(model, "logits") if ".cross" in place]
        fills = frozenset(PlacedFill(cu.Site(place) @ cu.Tokens(1, 3), cu.Exclude()) for place in logits)
        kept = [token for token in range(states.shape[1]) if token not in (1, 3)]
        with torch.no_grad():
            expected = model.unet(x, time, states[:, kept], *(one[:, kept] for one in mask))
            plain = model.unet(x, time, states, *mask)
        got = both(model, Action(fills), (x, time, states, *mask))
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
        assert (plain - expected).abs().max() > 1e-5


def test_what_cannot_be_excluded_is_told(tiny_model: TextToImage) -> None:
    place, window = named(tiny_model, "logits")[-1], cu.Window(2, 1)
    many = tiny_model.anatomy.axes(place).size("token")
    for site, message in (
        (cu.Site("mid"), "token"),
        (cu.Site(place.replace(".logits", ".maps")) @ cu.Tokens(1), "no softmax"),
        (cu.Site("text") @ cu.Tokens(1), "no softmax"),
        (cu.Site(place), "no token"),
        (cu.Site(place) @ cu.Heads(0), "no token"),
        (cu.Site(place) @ cu.Heads(0) @ cu.Tokens(range(many)), "no token"),
    ):
        study = cu.Study(name="x", interventions=[cu.Edit(site, window, cu.Exclude())], prompts=["a red circle"])
        with pytest.raises(ComponentError, match=message):
            study.plan(tiny_model, calibrate=False)
    word = cu.Edit(cu.Site(place) @ cu.Tokens("red"), window, cu.Exclude())
    assert (
        cu.Study(name="x", interventions=[word], prompts=["a red circle"]).plan(tiny_model, calibrate=False).unet_calls
    )
    fills = [PlacedFill(cu.Site(place) @ cu.Tokens(some), cu.Exclude()) for some in (range(5), range(5, many))]
    with pytest.raises(SpecError, match="no token left"):
        both(tiny_model, Action(frozenset(fills)), arguments_of(tiny_model))
