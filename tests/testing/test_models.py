"""The kit tells what is wrong with a model, all of it at once, and lets pass what is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import causalunet as cu
from causalunet.design.anatomy import Anatomy
from causalunet.errors import ComponentError, ConformanceError, ModelError, SpecError
from causalunet.models import from_unet
from causalunet.models.text_to_image import TextToImage
from causalunet.models.wiring import read_wiring
from causalunet.schedule import linear_alpha_bar
from causalunet.testing import Conformance, check_model
from tests.models import stand_ins
from tests.models.adapters import SIZE, Adapter, Network, adapter, anatomy_of, around, network

WORDS = 5
PROMPTS = ["one", "two words", "three words here"]


def rows(prompts: Sequence[str]) -> tuple[Tensor, ...]:
    return (torch.stack([torch.linspace(-1, 1, WORDS) * len(prompt) / 10 for prompt in prompts]),)


def worded(**fields: Any) -> Any:
    return adapter(words=WORDS, **{"encode": rows, **fields})


def failed(model: Any, prompts: Any = PROMPTS, **options: Any) -> dict[str, str]:
    """Problems by check."""
    with pytest.raises(ConformanceError) as told:
        check_model(model, prompts, **options)
    report: Conformance = told.value.report
    return {finding.check: "; ".join(finding.problems) for finding in report.findings if finding.problems}


class Normed(nn.Module):
    """A U with normalisation over the batch in front."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = network(skips=True, middle=True), nn.BatchNorm2d(3)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.inner(self.norm(x), timesteps)


def normed(*, training: bool) -> Any:
    model = around(lambda unet, x, t: unet(x, t))
    model.unet = Normed().train(training)
    return model


def mean_of_batch(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
    return unet(x + 0.1 * x.mean(0, keepdim=True), timesteps)


def first_condition(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
    return unet(x, timesteps) + x[:1].repeat(1, 2, 1, 1)


def by_batch(prompts: Sequence[str]) -> tuple[Tensor, ...]:
    (found,) = rows(prompts)
    return (found + len(prompts),)


def written_into(x0: Tensor) -> Any:
    x0.clamp_(-1, 1).add_(1).div_(2)
    return x0.numpy().copy()


def stretched(x0: Tensor) -> Any:
    """To the full range of the batch."""
    low, high = x0.min(), x0.max()
    return ((x0 - low) / (high - low)).numpy()


def reshaped_between(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
    """Between blocks by the number of rows, which what is dead does not have."""
    time = timesteps[:, None] / 1000
    first = unet.down[0](x, time)
    second = unet.down[1](first, time)
    h = unet.mid(second.reshape(len(x), -1).reshape(len(x), 4, SIZE, SIZE), time)
    h = unet.up[0](torch.cat([h, second], dim=1), time)
    return unet.out(unet.up[1](torch.cat([h, first], dim=1), time))


def half_outputs(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return unet(x, timesteps).float()


CASES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "no model": (lambda: 3, "protocol", "3 is no model: it lacks unet, anatomy"),
    "no components": (
        lambda: Adapter(network(skips=False, middle=True), Anatomy((), (), 0, 0)),
        "anatomy",
        "nothing to intervene on",
    ),
    "a condition that depends on the batch": (
        lambda: worded(encode=by_batch),
        "prompts",
        r"encode\(\) gives 'one' other numbers beside other prompts",
    ),
    "a condition elsewhere": (
        lambda: worded(encode=lambda prompts: tuple(part.to("meta") for part in rows(prompts))),
        "prompts",
        r"encode\(\) gives tensors on meta, and the weights are on cpu\. Move them",
    ),
    "images that depend on the batch": (lambda: worded(decode=stretched), "images", "beside others than alone"),
    "x_0 written into": (lambda: worded(decode=written_into), "images", r"decode\(\) wrote into x_0"),
    "random": (
        lambda: around(lambda unet, x, t: F.dropout(unet(x, t), 0.3)),
        "repeatable",
        r"two equal calls of the U-Net differ by .*unet\.eval\(\)",
    ),
    "normalised over the batch": (
        lambda: normed(training=True),
        "repeatable",
        r"changes buffers of the U-Net, norm\.running_mean, .*In training mode are norm\. .*unet\.eval\(\)",
    ),
    "a mean over the batch": (
        lambda: around(mean_of_batch),
        "rows apart",
        r"row 0 of 4 differs by .*the same row alone",
    ),
    "another row's condition": (lambda: around(first_condition), "rows apart", r"row 1 of 4 differs by"),
    "reshaped between blocks": (
        lambda: around(reshaped_between),
        "dead parts",
        r"^up\.0, up\.1: cut, and with what is dead then not run, the U-Net ends in RuntimeError",
    ),
    "autocast inside": (
        lambda: around(half_outputs),
        "dtype, device",
        r"down\.0 puts out torch\.bfloat16 where the weights say torch\.float32",
    ),
    "not finite": (lambda: around(lambda unet, x, t: unet(x, t) / 0), "one call", "not finite"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_with_a_model_is_told(name: str) -> None:
    build, check, message = CASES[name]
    problems = failed(build())
    assert check in problems
    with pytest.raises(ConformanceError, match=message):
        raise ConformanceError(problems[check])


@pytest.mark.parametrize(
    "name", ["a mean over the batch", "images that depend on the batch", "reshaped between blocks"]
)
def test_one_failure_is_one_line(name: str) -> None:
    build, check, _ = CASES[name]
    assert list(failed(build())) == [check]


def test_all_failures_are_told_at_once() -> None:
    """Of parts that do not need each other; what needs a failed one is not made, and is counted."""
    model = around(lambda unet, x, t: unet(x, t)[:, :3], decode=written_into)
    first, *others = model.anatomy.components
    model.anatomy = replace(model.anatomy, components=(replace(first, module="nowhere"), *others))
    with pytest.raises(ConformanceError) as told:
        check_model(model, PROMPTS)
    report = told.value.report
    assert [finding.check for finding in report.findings if finding.problems] == ["modules", "images", "one call"]
    assert "fails 3 of 18 checks, 11 not made before these are mended" in str(told.value)
    text = str(report)
    for part in ("┃ check", "reach", "not checkable here: needs", "'nowhere'"):
        assert part in text


@pytest.mark.parametrize("words", [0, WORDS])
@pytest.mark.parametrize("guidable", [True, False])
@pytest.mark.parametrize("skips", [True, False])
def test_what_is_right_passes(words: int, guidable: bool, skips: bool) -> None:
    fields: dict[str, Any] = {"encode": rows} if words else {}
    report = check_model(adapter(words=words, guidable=guidable, skips=skips, **fields), "one")
    assert report
    looked_at = {finding.check: finding.looked_at for finding in report.findings}
    assert looked_at["one call"] == ("4 rows" if guidable else "2 rows")
    assert looked_at["reach"] == ("7 places" if skips else "5 places")


def test_models_of_the_package_pass(tiny_model: TextToImage) -> None:
    report = check_model(tiny_model, ["a red circle", "a striped blue cross, dark background"])
    assert len(report.findings) == 18
    assert "passes 18 checks" in repr(report)


@pytest.mark.parametrize(
    ("unet", "options", "prompts"),
    [
        (lambda: stand_ins.UNetModel(num_classes=3), {"classes": ("cat", "dog", "fish")}, ["dog", "2"]),
        (lambda: stand_ins.UNetModel(num_classes=3), {"classes": ("cat", "dog"), "null_class": 2}, ["dog", "cat"]),
        (lambda: stand_ins.UNetModel(out_channels=3), {"variance": "small"}, ["first"]),
    ],
    ids=["classes", "a class for none", "noise only"],
)
def test_objects_that_are_handed_in_pass(unet: Any, options: dict[str, Any], prompts: list[str]) -> None:
    handed_in = stand_ins.randomised(unet())
    model = from_unet(handed_in, name="handed in", image_size=16, alpha_bar=linear_alpha_bar(), **options)
    assert check_model(model, prompts, places=["mid", "up.0", "skip.1"])


@pytest.mark.slow
def test_the_embedded_model_passes() -> None:
    assert check_model(cu.load_model("shapes"), ["a red circle", "a striped blue cross, dark background"])


def test_evaluation_mode_is_enough() -> None:
    assert check_model(normed(training=False), PROMPTS, places="mid")


def test_without_guidance_rows_are_told_apart_one_by_one() -> None:
    def exchanged(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
        return unet(x.flip(0), timesteps.flip(0)).flip(0)

    problems = failed(around(exchanged, guidable=False))
    assert list(problems) == ["reach"]
    assert "other numbers in row 0 change the output in rows 1." in problems["reach"]


def test_a_value_that_one_half_does_without() -> None:
    """Rows of the second half go on with zeros: seen where they are alone, and where their numbers are changed."""

    def half(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
        hook = unet.mid.register_forward_hook(
            lambda module, given, h: torch.where(torch.arange(len(h))[:, None, None, None] < 2, h, 0.1)
        )
        try:
            return unet(x, timesteps)
        finally:
            hook.remove()

    problems = failed(around(half))
    assert "row 2 of 4 differs" in problems["rows apart"]


def test_an_untrained_last_layer_is_told_in_one_line() -> None:
    model: Any = adapter()
    torch.nn.init.zeros_(model.unet.out.weight)
    problems = failed(model)
    assert list(problems) == ["reach"]
    assert problems["reach"].count("no place reaches the output") == 1
    assert "Load weights" in problems["reach"]


def test_places_can_be_chosen() -> None:
    report = check_model(adapter(), PROMPTS, places=["up.*", "skip.0"])
    assert {finding.looked_at for finding in report.findings if finding.check in ("null", "reach")} == {"3 places"}
    with pytest.raises(ComponentError, match=r"No place matches 'over\.\*'. The model has down\.0, .*skip\.1"):
        check_model(adapter(), PROMPTS, places=["up.*", "over.*"])


def test_prompts_are_needed() -> None:
    with pytest.raises(SpecError, match="check_model needs prompts"):
        check_model(adapter(), [])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_precisions(dtype: torch.dtype) -> None:
    model = around(lambda unet, x, t: unet(x.to(dtype), t.to(dtype)).float())
    model.unet.to(dtype)
    assert check_model(model, PROMPTS)


def test_a_model_is_left_as_it_was() -> None:
    model: Any = adapter()
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    state = torch.get_rng_state()
    check_model(model, PROMPTS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.unet.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.unet.modules())


def test_what_nothing_depends_on_is_told_where_joints_are_read() -> None:
    """But for the last block, whose output nothing depends on before training, and for what hooks of the user's do."""
    unet = network(skips=False, middle=True)
    anatomy = anatomy_of(unet)
    outputs = {name: torch.randn(1, *part.shape) for name, part in anatomy.by_name.items()}
    arguments = (torch.randn(1, 3, SIZE, SIZE), torch.ones(1))
    torch.nn.init.zeros_(unet.out.weight)
    assert read_wiring(unet, anatomy, arguments, outputs, "It") == {}
    unet.up[0].register_forward_pre_hook(lambda module, given: (torch.zeros_like(given[0]), given[1]))
    assert read_wiring(unet, anatomy, arguments, outputs, "It") == {}
    unet.forward = lambda x, timesteps: Network.forward(Dropping(unet), x, timesteps)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"It: nothing depends on what mid puts out, .*goes to up\.0"):
        read_wiring(unet, anatomy, arguments, outputs, "It")


class Dropping:
    """A network whose bottleneck runs for nothing."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unet, name)

    def mid(self, h: Tensor, time: Tensor) -> Tensor:
        return torch.zeros_like(self.unet.mid(h, time))
