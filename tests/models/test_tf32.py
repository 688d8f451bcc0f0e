"""Studies compute in whole float32, whatever PyTorch is told, and leave it as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import causalunet as cu
from causalunet.execute import generate
from causalunet.execute.measure.rounding import computed_on
from causalunet.models.text_to_image import TextToImage
from causalunet.models.tf32 import exact_float32, tf32_allowed

backends: Any = torch.backends
KINDS = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)


def older(value: bool) -> Callable[[], None]:
    def switch() -> None:
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = value

    return switch


def newer(*values: str) -> Callable[[], None]:
    def switch() -> None:
        for kind, value in zip(KINDS, values, strict=True):
            kind.fp32_precision = value

    return switch


def everywhere() -> None:
    """Each kind has nothing of its own."""
    newer("none", "none", "none")()
    backends.fp32_precision = "tf32"


SETTINGS = {
    "as PyTorch starts": tuple,
    "older switches on": older(True),
    "older switches off": older(False),
    "newer switches": newer("tf32", "tf32", "tf32"),
    "newer switches, convolutions alone": newer("tf32", "ieee", "ieee"),
    "newer switches, products alone": newer("ieee", "ieee", "tf32"),
    "one switch for all": everywhere,
}


def state() -> list[Any]:
    found: list[Any] = [backends.fp32_precision, *(kind.fp32_precision for kind in KINDS)]
    for place in (backends.cudnn, backends.cuda.matmul):
        try:
            found.append(place.allow_tf32)
        except RuntimeError:  # both ways were used
            found.append("mixed")
    return found


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    yield
    backends.fp32_precision = "none"
    newer("tf32", "tf32", "none")()
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = True, False
    newer("tf32", "tf32", "none")()


@pytest.mark.parametrize("switch", SETTINGS.values(), ids=list(SETTINGS))
def test_off_inside_and_as_before_outside(switch: Callable[[], None]) -> None:
    switch()
    before = state()
    assert tf32_allowed() == ("tf32" in before or True in before[4:])
    with exact_float32():
        assert not tf32_allowed()
        with exact_float32():
            assert not tf32_allowed()
        assert not tf32_allowed()
    assert state() == before


@pytest.mark.parametrize("switch", [older(True), older(False)], ids=["on", "off"])
def test_code_of_a_model_can_still_read_the_older_switches(switch: Callable[[], None]) -> None:
    switch()
    with exact_float32():
        assert not backends.cudnn.allow_tf32
        assert not backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(("switch", "outside"), [(older(True), True), (newer("ieee", "ieee", "ieee"), False)])
def test_provenance_names_it(tiny_model: TextToImage, switch: Callable[[], None], outside: bool) -> None:
    """Whether studies use it, and whether PyTorch does beside them."""
    switch()
    told = {"device": "cpu", "device_name": "cpu", "dtypes": ["float32"], "tf32": False, "tf32_outside": outside}
    assert computed_on(tiny_model) == told


def test_an_error_inside_puts_it_back() -> None:
    before = state()
    with pytest.raises(KeyboardInterrupt), exact_float32():
        raise KeyboardInterrupt
    assert state() == before


def test_the_last_of_several_threads_puts_it_back() -> None:
    before, inside, go_on = state(), threading.Event(), threading.Event()

    def other() -> None:
        with exact_float32():
            inside.set()
            go_on.wait(10)
            seen.append(tf32_allowed())

    seen: list[bool] = []
    with exact_float32():
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(10)
    assert not tf32_allowed(), "the other is still inside"
    go_on.set()
    thread.join()
    assert seen == [False]
    assert state() == before


def test_every_call_of_a_study(
    tiny_model: TextToImage, run_study: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, call = list[bool](), type(tiny_model.unet).forward

    def forward(self: Any, *given: Any, **options: Any) -> Any:
        if not given[0].is_meta:
            seen.append(tf32_allowed())
        return call(self, *given, **options)

    encode = TextToImage.encode

    def encoded(self: Any, *given: Any) -> Any:
        seen.append(tf32_allowed())
        return encode(self, *given)

    monkeypatch.setattr(type(tiny_model.unet), "forward", forward)
    monkeypatch.setattr(TextToImage, "encode", encoded)
    older(True)()
    run_study(cu.AblateBlock(1, cu.Window(3, 2)), steps=4)
    generate(["a red circle"], model=tiny_model, sampler=cu.DDPM(steps=2))
    assert len(seen) > 8
    assert not any(seen)
    assert tf32_allowed()
