"""Adapters that do not give what is asked for: told when a study is planned, in words, before anything is made."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import causalunet as cu
from causalunet.errors import CausalUNetError, CausalUNetWarning, ModelError
from causalunet.execute.walk.generate import generate
from causalunet.models import from_unet
from causalunet.models.checkpoints import fingerprint
from causalunet.schedule import cosine_alpha_bar
from tests.models import stand_ins
from tests.models.adapters import SIZE, Adapter, adapter, anatomy_of, around, network

WORDS = 5
STUDY = cu.Study(
    name="checked",
    prompts=["one", "two words", "three words here"],
    sampler=cu.DDPM(steps=3, guidance_scale=2),
    interventions=[cu.AblateBlock(1, cu.Window(2, 1)), cu.AblateSkip(1, cu.Window(3, 2))],
)
UNGUIDED = replace(STUDY, sampler=cu.DDPM(steps=3, guidance_scale=1))


def rows(prompts: Sequence[str], width: int = WORDS) -> Tensor:
    return torch.stack([torch.linspace(-1, 1, width) * len(prompt) / 10 for prompt in prompts])


def worded(**fields: Any) -> Any:
    return adapter(words=WORDS, **{"encode": lambda prompts: (rows(prompts),), **fields})


def with_components(change: Callable[[Any], Any]) -> Any:
    model: Any = adapter()
    model.anatomy = replace(model.anatomy, components=tuple(change(model.anatomy.components)))
    return model


def meta() -> Any:
    model: Any = adapter()
    model.unet.to("meta")
    return model


def with_integers(unet: nn.Module, x: Tensor, timesteps: Tensor) -> Tensor:
    table = torch.arange(1000.0)
    return unet(x, F.embedding(timesteps, table[:, None])[:, 0])


def halved() -> Any:
    model: Any = adapter()
    model.unet.half()
    return model


def padded(prompts: Sequence[str]) -> tuple[Tensor]:
    longest = max(len(prompt.split()) for prompt in prompts)
    return (rows(prompts, max(longest, 1)),)


def forgetful(components: Any) -> Any:
    first, *others = components
    return [replace(first, module="down.7"), *others]


def swapped(components: Any) -> Any:
    a, b, *others = components
    return [b, a, *others]


def doubled(components: Any) -> Any:
    a, b, *others = components
    return [a, replace(b, module=a.module), *others]


def reshaped(components: Any) -> Any:
    first, *others = components
    return [replace(first, shape=(5, SIZE, SIZE)), *others]


CASES: dict[str, tuple[Callable[[], Any], cu.Study, str]] = {
    "weights without values": (meta, UNGUIDED, r"weights .*without values \(down\.0\.convolve\.weight and \d+ more\)"),
    "one row for all prompts": (
        lambda: worded(encode=lambda prompts: (rows(["same"]),)),
        STUDY,
        r"encode\(\) gave tensors of shapes \(1, 5\) for \d prompts; .*one row per prompt",
    ),
    "no row of its own": (
        lambda: worded(encode=lambda prompts: (torch.tensor(1.0),)),
        STUDY,
        r"encode\(\) gave tensors of shapes \(\) for",
    ),
    "not a tuple": (lambda: worded(encode=rows), STUDY, r"encode\(\) gave a Tensor; .*a tuple of tensors"),
    "not tensors": (lambda: worded(encode=lambda prompts: (np.ones(2),)), STUDY, r"encode\(\) gave a tuple of ndarray"),
    "padded to the longest": (
        lambda: worded(encode=padded),
        STUDY,
        r"encode\(\) gave rows of shape .* for '' alone and .* other prompts.*pad to one length",
    ),
    "whole timesteps": (lambda: around(with_integers), UNGUIDED, r"takes whole timesteps.*timesteps\.long\(\)"),
    "half precision": (halved, UNGUIDED, r"float16 weights.*x\.half\(\).*\.float\(\)"),
    "another condition": (
        lambda: worded(encode=lambda p: (rows(p, 4),)),
        STUDY,
        r"call .* ended in RuntimeError: mat1",
    ),
    "a condition on another device": (
        lambda: worded(encode=lambda prompts: (rows(prompts).to("meta"),)),
        STUDY,
        r"call .* ended in .*encode\(\) gives tensors on meta, and the weights are on cpu: move them",
    ),
    "no such module": (lambda: with_components(forgetful), UNGUIDED, r"down\.0 .*module 'down\.7', .* does not have"),
    "components out of order": (
        lambda: with_components(swapped),
        UNGUIDED,
        r"components .*order down\.0, down\.1, .*anatomy says down\.1, down\.0",
    ),
    "two components of one module": (
        lambda: with_components(doubled),
        UNGUIDED,
        r"down\.0 and down\.1 are one module, 'down\.0'",
    ),
    "a component called twice": (
        lambda: around(lambda unet, x, t: unet(x, t) + unet(x, t)),
        UNGUIDED,
        r"ran 2 times in one call: down\.0, .*once",
    ),
    "another shape": (
        lambda: with_components(reshaped),
        UNGUIDED,
        r"down\.0 of .* puts out \(4, 12, 12\).*\(5, 12, 12\)",
    ),
    "noise only": (
        lambda: around(lambda unet, x, t: unet(x, t)[:, :3]),
        UNGUIDED,
        r"gave \(1, 3, 12, 12\); expected .*\(1, 6, 12, 12\): noise and variance, as its prediction says",
    ),
    "another kind of output": (lambda: around(lambda unet, x, t: {"sample": unet(x, t)}), UNGUIDED, r"gave a dict"),
    "images of another size": (
        lambda: worded(decode=lambda x0: np.zeros((len(x0), 3, 24, 24), np.float32)),
        STUDY,
        r"decode\(\) gave \(1, 3, 24, 24\) .*\(1, 3, 12, 12\)",
    ),
    "images in another range": (
        lambda: worded(decode=lambda x0: x0.numpy()),
        STUDY,
        r"decode\(\) gave values from -1 to 1 for x_0 from -1 to 1; .*in \[0, 1\].*\(x0 \+ 1\) / 2",
    ),
    "images of bytes": (
        lambda: worded(decode=lambda x0: ((x0 + 1) * 127.5).byte().numpy()),
        STUDY,
        r"decode\(\) gave values from 0 to 255 ",
    ),
    "images that leave the range": (
        lambda: worded(clip=False, decode=lambda x0: ((x0 + 1) / 2).numpy()),
        STUDY,
        r"decode\(\) gave values from -\d.* to \d.*clip what lies outside",
    ),
    "images that are no numbers": (
        lambda: worded(decode=lambda x0: np.full(tuple(x0.shape), np.nan, np.float32)),
        STUDY,
        r"decode\(\) gave values from nan to nan",
    ),
    "factors of another number": (
        lambda: worded(
            factors={"colour": ("red", "blue")}, read_factors=lambda images: (np.zeros((1, 2)), np.zeros((1, 2)))
        ),
        STUDY,
        r"read_factors\(\) gave .*\(1, 2\).* \(1, 1\)",
    ),
    "images too small": (
        lambda: Adapter(
            network(skips=True, middle=True), anatomy_of(network(skips=True, middle=True), 8), image_shape=(3, 8, 8)
        ),
        UNGUIDED,
        "SSIM needs images of at least 11 x 11 pixels; .*8 x 8",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_an_adapter_gives_wrongly_is_told_when_a_study_is_planned(name: str, tmp_path: Path) -> None:
    build, study, message = CASES[name]
    with pytest.raises(CausalUNetError, match=message):
        study.plan(build())
    with pytest.raises(CausalUNetError, match=message):
        study.run(tmp_path / "s.zarr", model=build(), progress=False)
    assert not list(tmp_path.iterdir())


def test_images_of_what_is_clipped_need_no_clipping() -> None:
    STUDY.plan(worded(decode=lambda x0: ((x0 + 1) / 2).numpy()), calibrate=False)
    STUDY.plan(worded(decode=lambda x0: ((x0 + 1) / 2 * (1 + 1e-6)).numpy()), calibrate=False)


def test_images_may_be_small_where_none_are_compared() -> None:
    unet = network(skips=True, middle=True)
    model: Any = Adapter(unet, anatomy_of(unet, 8), image_shape=(3, 8, 8), fingerprint="x")
    assert generate(["one"], model=model, sampler=cu.DDPM(steps=2, guidance_scale=1)).shape == (1, 3, 8, 8)


def test_a_model_without_a_condition_is_planned_timed_and_run(tmp_path: Path) -> None:
    model: Any = adapter()
    assert model.encode(["one"]) == ()
    plan = UNGUIDED.plan(model)
    assert plan.seconds is not None
    assert UNGUIDED.run(tmp_path / "s.zarr", model=model, progress=False).verify(quiet=True)


def test_without_guidance_nobody_asks_for_the_empty_prompt(tmp_path: Path) -> None:
    def encode(prompts: Sequence[str]) -> tuple[Tensor]:
        if "" in prompts:
            raise ValueError("no such prompt")
        return (rows(prompts),)

    model = worded(encode=encode)
    assert UNGUIDED.plan(model).seconds is not None
    assert UNGUIDED.run(tmp_path / "s.zarr", model=model, progress=False).verify(quiet=True)


class Inside(nn.Module):
    """Blocks in half precision, what goes in and comes out in float32: as OpenAI's models with ``use_fp16``."""

    def __init__(self, inner: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner, dtype
        for part in (*inner.down, inner.mid, *inner.up):
            part.to(dtype)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        inner, time, kept, h = self.inner, (timesteps[:, None] / 1000).to(self.dtype), [], x.to(self.dtype)
        for layer in inner.down:
            h = layer(h, time)
            kept.append(h)
        h = inner.mid(h, time)
        for layer in inner.up:
            h = layer(torch.cat([h, kept.pop()], dim=1), time)
        return inner.out(h.float())


def half_inside(dtype: torch.dtype) -> Any:
    inner = network(skips=True, middle=True)
    anatomy = anatomy_of(inner)
    components = tuple(replace(c, module=f"inner.{c.module}") for c in anatomy.components)
    unet = Inside(inner, dtype)
    return Adapter(unet, replace(anatomy, components=components), fingerprint=fingerprint(unet))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inside(dtype: torch.dtype, tmp_path: Path) -> None:
    """Cut blocks do not run, and give what zeroing them by a hook gives."""
    model, whole = half_inside(dtype), half_inside(dtype)
    whole.unet.inner.up[1 - 1].register_forward_hook(lambda _m, _i, output: torch.zeros_like(output))
    always = replace(UNGUIDED, interventions=[cu.AblateBlock(1, cu.Window(3, 3)), cu.AblateSkip(2, cu.Window(2, 1))])
    results = always.run(tmp_path / "s.zarr", model=model, progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    hooked = UNGUIDED.run(tmp_path / "h.zarr", model=whole, progress=False)
    cut = results.outcomes.image.sel(kind="ablate_block").values[0]
    np.testing.assert_allclose(cut, hooked.baseline.image.values, rtol=0, atol=2e-3)
    assert np.abs(cut - results.baseline.image.values).max() > 1e-2
    for traced in (True, False):
        sampler, intervention = always.sampler, always.interventions[0]
        images = generate(always.prompts, model=model, sampler=sampler, intervention=intervention, traced=traced)
        np.testing.assert_allclose(images, cut, rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_every_type_have_a_fingerprint(dtype: torch.dtype) -> None:
    unet = network(skips=True, middle=True).to(dtype)
    before = fingerprint(unet)
    assert fingerprint(network(skips=True, middle=True).to(dtype)) == before
    with torch.no_grad():
        unet.out.bias[0] += 1
    assert fingerprint(unet) != before
    if dtype == torch.float32:
        assert before == fingerprint(network(skips=True, middle=True))


def test_objects_without_values_are_refused_when_handed_in() -> None:
    with torch.device("meta"):
        unet = stand_ins.UNetModel()
    with pytest.raises(ModelError, match=r"weights .*without values.*Load them"):
        from_unet(unet, name="empty", image_size=16, alpha_bar=cosine_alpha_bar())


def dropping(*, training: bool) -> Any:
    return around(lambda unet, x, t: F.dropout(unet(x, t), 0.3, training=training))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("check_twice", [True, False])
def test_dropout_left_on_is_told(check_twice: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the run by two equal calls, and after it by its own numbers."""
    if not check_twice:
        monkeypatch.setattr("causalunet.execute.planning.rehearse", lambda *_: None)
    with pytest.warns(CausalUNetWarning) as told:
        UNGUIDED.run(tmp_path / "s.zarr", model=dropping(training=True), progress=False)
    texts = [str(entry.message) for entry in told]
    before = [text for text in texts if "Two equal calls" in text]
    assert len(before) == check_twice
    assert all("eval()" in text for text in before)
    (after,) = [text for text in texts if "verify" in text]
    assert "null intervention" in after
    assert "drift" in after
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        UNGUIDED.run(tmp_path / "t.zarr", model=dropping(training=False), progress=False)
