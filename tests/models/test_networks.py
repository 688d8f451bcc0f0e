"""Networks that say where their blocks are, and two that somebody else trained."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import causalunet as cu
from causalunet.errors import CausalUNetError, ModelError, PromptError
from causalunet.execute import TracedUNet
from causalunet.models.networks import NetworkModel, from_network
from causalunet.plan import Action, PlacedFill
from causalunet.prediction import Prediction
from causalunet.schedule import linear_alpha_bar
from causalunet.testing import check_model
from tests.docs.blocks import find, first_missing

PAGE = Path(__file__).parents[2] / "docs/howto/a-model-from-the-wild.md"
WEIGHTS = os.environ.get("CAUSALUNET_WILD_WEIGHTS", "")
"""Folder with ``digits.pt`` and ``clothes.pt``, see the page."""


class Own(nn.Module):
    """Two levels, the lower of two modules; skip connections first; a table of times."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.times = nn.Embedding(1000, 4)
        self.labels = nn.Embedding(max(classes, 1), 4)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.shrink, self.second = nn.Conv2d(4, 4, 2, 2), nn.Conv2d(4, 6, 3, padding=1)
        self.bottom = nn.Conv2d(6, 6, 3, padding=1)
        self.back, self.grow = nn.Conv2d(12, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, 2)
        self.last = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        told = self.times(timesteps) + (0 if labels is None else self.labels(labels))
        top = torch.tanh(self.first(x)) + told[:, :, None, None]
        first = self.first(x)
        second = self.second(self.shrink(first + 0 * top))
        h = self.grow(self.back(torch.cat([second, self.bottom(second)], dim=1)))
        return self.last(torch.cat([first, h], dim=1)) + told.mean(dim=1)[:, None, None, None]


class Plain(Own):
    """Called once each."""

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        told = self.times(timesteps) + (0 if labels is None else self.labels(labels))
        first = self.first(x)
        second = self.second(self.shrink(first) + told[:, :, None, None])
        h = self.grow(self.back(torch.cat([second, self.bottom(second)], dim=1)))
        return self.last(torch.cat([first, h], dim=1))


PARTS: dict[str, str | tuple[str, ...]] = {
    "down.0": "first",
    "down.1": ("shrink", "second"),
    "mid": "bottom",
    "up.0": ("back", "grow"),
    "up.1": "last",
}


def made(**changed: Any) -> NetworkModel:
    given: dict[str, Any] = {
        "network": Plain(),
        "name": "own",
        "parts": PARTS,
        "image_shape": (1, 12, 12),
        "alpha_bar": linear_alpha_bar(),
        "whole_timesteps": True,
    }
    return from_network(**{**given, **changed})


def test_its_anatomy_is_read_off_a_call() -> None:
    anatomy = made().anatomy
    told = {one.name: (one.role, one.level, one.depth, one.shape) for one in anatomy.components}
    assert told == {
        "down.0": ("encoder", 0, 0, (4, 12, 12)),
        "down.1": ("encoder", 1, 1, (6, 6, 6)),
        "mid": ("bottleneck", 1, 2, (6, 6, 6)),
        "up.0": ("decoder", 0, 1, (4, 12, 12)),
        "up.1": ("decoder", 0, 0, (1, 12, 12)),
    }
    assert {(edge.source, edge.target) for edge in anatomy.skips.values()} == {("down.0", "up.1"), ("down.1", "up.0")}
    assert anatomy.by_name["up.0"].modules == ("network.back", "network.grow")
    # 144 numbers, each of 3 x 3 products with 1 channel, for 4 channels; a multiply-add counts as two
    assert anatomy.by_name["down.0"].flops == 2 * 144 * 9 * 4


@pytest.mark.parametrize("classes", [None, 3, ["cat", "dog", "none"]])
def test_it_is_what_studies_take_it_for(classes: Any) -> None:
    count = 0 if classes is None else 3
    model = made(network=Plain(count), classes=classes, null_class=None if classes is None else 2)
    prompts = ["one"] if classes is None else ["0", "1"] if classes == 3 else ["cat", "dog"]
    assert check_model(model, prompts)
    if classes is not None:
        with pytest.raises(PromptError):
            model.check_prompts(["7"])


def test_a_study_is_the_loop_by_hand(tmp_path: Path) -> None:
    model = made(clip=False)
    cut = cu.Edit("up.0", cu.Window(3, 3))
    study = cu.Study(
        name="own", model="own", prompts=["a"], sampler=cu.DDIM(steps=3, guidance_scale=1), interventions=[cut]
    )
    results = study.run(tmp_path / "s.zarr", model=model, progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    share, x = linear_alpha_bar(), torch.from_numpy(results["baseline/x_t"].values[:, 0])
    handle = model.unet.network.grow.register_forward_hook(lambda _m, _i, output: output * 0)  # type: ignore[union-attr,operator]
    for at, to in zip((999, 500, 0), (500, 0, None), strict=True):
        with torch.inference_mode():
            eps = model.unet.network(x, torch.tensor([at]))
        later = 1.0 if to is None else share[to]
        x0 = (x - (1 - share[at]) ** 0.5 * eps) / share[at] ** 0.5
        x = later**0.5 * x0 + (1 - later) ** 0.5 * eps
    handle.remove()
    np.testing.assert_allclose(results.outcomes.image.sel(kind="edit").values[0], model.decode(x), rtol=0, atol=1e-5)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a path that is not there": (
        {"parts": {"down.0": "nothing"}, "skips": False},
        "A path of parts is none of this Plain",
    ),
    "another order": (
        {"parts": {**dict(reversed(PARTS.items()))}},
        "network.first ran where network.last was expected",
    ),
    "a module that runs twice": ({"network": Own()}, "network.first ran where network.shrink was"),
    "another size": ({"image_shape": (3, 12, 12)}, r"cannot be called with one image of \(3, 12, 12\): RuntimeError"),
    "skips that are none": ({"skips": {"down.0": "up.7"}}, "skips names 'up.7', which is no component"),
    "a prediction that is none": ({"prediction": "noise"}, "A prediction of 'noise' is not known"),
    "an uneven U": ({"parts": {name: PARTS[name] for name in ("down.0", "down.1", "mid", "up.0")}}, "as many decoder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_told(name: str) -> None:
    changed, said = WRONG[name]
    with pytest.raises(CausalUNetError, match=said):
        made(**changed)


def test_what_changes_images_is_in_the_fingerprint() -> None:
    others = [
        made(),
        made(clip=False),
        made(prediction=Prediction("v")),
        made(alpha_bar=linear_alpha_bar(500)),
        made(network=Plain(2)),
    ]
    assert made().fingerprint == others[0].fingerprint
    assert len({one.fingerprint for one in others}) == len(others)
    with pytest.raises(ModelError, match="no factor reader"):
        made().read_factors(np.zeros((1, 1, 12, 12), np.float32))


@pytest.mark.skipif(not WEIGHTS, reason="CAUSALUNET_WILD_WEIGHTS names no folder of weights")
def test_models_that_somebody_else_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of the documentation, as typed: its numbers are those that it prints."""
    for name in ("digits.pt", "clothes.pt"):
        (tmp_path / name).symlink_to(Path(WEIGHTS).resolve() / name)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in find(PAGE.read_text(encoding="utf-8")):
        if "writes into the documentation" in block.reason:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, PAGE, "exec", dont_inherit=True), namespace)
        assert not first_missing(block.shown, printed.getvalue()), printed.getvalue()
    assert namespace["results"].verify(quiet=True)
    digits = namespace["digits"]
    assert check_model(digits, ["one"])
    clothes = from_network(
        namespace["load"]("clothes.pt"),
        name="clothes",
        parts={
            part: tuple(re.sub("^network.", "", path) for path in one.modules)
            for part, one in digits.anatomy.by_name.items()
        },
        image_shape=(1, 28, 28),
        alpha_bar=linear_alpha_bar(),
        whole_timesteps=True,
    )
    x, timesteps = torch.randn(2, 1, 28, 28), torch.tensor([700.0, 20.0])
    whole = clothes.unet(x, timesteps, *clothes.encode(["", ""]))
    assert whole.shape == x.shape
    assert clothes.fingerprint != digits.fingerprint


class Named(nn.Module):
    """Modules called as what nnsight has for every module."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.skip = nn.ModuleDict({"skip": nn.Conv2d(1, 4, 3, padding=1)})
        self.output = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 1))

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.output(self.skip["skip"](x))


def test_modules_may_be_called_as_nnsight_calls_its_values() -> None:
    """One called "skip" hid what leaves a module out, so that it ran; one called "output" was not found."""
    network = Named()
    parts: dict[str, str | tuple[str, ...]] = {"one": "skip.skip", "two": "output.0"}
    model = made(network=network, parts=parts, skips=False, whole_timesteps=False)
    with pytest.warns(UserWarning, match="has a submodule named 'output'"):
        traced = TracedUNet(model.unet, model.anatomy)
    edit = cu.Edit("two", cu.Window(1, 1))
    action = Action(frozenset({PlacedFill(edit.site, edit.fill)}), model.anatomy.dead({"two"}))
    x, labels = torch.randn(2, 1, 12, 12), torch.zeros(2, dtype=torch.long)
    with torch.inference_mode():
        found = traced(action, (x, torch.zeros(2), labels), 2, ()).output
        expected: Any = network.output[1](torch.zeros(2, 4, 12, 12))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("TextToImage", lambda: cu.load_model("shapes")),
        ("FlowModel", lambda: cu.load_model("shapes-flow")),
        ("ExactModel", lambda: cu.load_model("exact-gaussian")),
        ("NetworkModel", made),
    ],
)
def test_a_model_is_shown_in_one_line(kind: str, make: Callable[[], Any]) -> None:
    """The text of its network has hundreds."""
    model = make()
    shown = repr(model)
    assert shown.startswith(f"<{kind} {model.name!r}: ")
    assert "\n" not in shown
    assert len(shown) < 120
