"""What is given to a study's methods beside the study: refused in its own words before anything runs."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.errors import CausalUNetError, ModelError, SpecError, StoreError
from causalunet.execute.walk.generate import generate
from causalunet.models import text_to_image
from causalunet.models.base import MODELS
from causalunet.models.checkpoints import fingerprint
from causalunet.models.text_to_image import TextToImage

STUDY = cu.Study(
    name="given",
    prompts=["a red circle"],
    sampler=cu.DDPM(steps=3, guidance_scale=1),
    interventions=cu.sweep(cu.AblateBlock, bottom=1, start=(3, 2), length=1),
)
SHORTCUT = cu.Shortcut(name="short", intervention=cu.SkipSteps(cu.Window(2, 2)), sampler=cu.DDPM(steps=3))


@pytest.mark.parametrize("model", ["shapes-of-mine", 5, int, object()], ids=["name", "number", "class", "object"])
def test_what_is_no_model(model: Any, tmp_path: Path) -> None:
    tried = [
        lambda: STUDY.plan(model),
        lambda: STUDY.run(tmp_path / "s", model=model),
        lambda: STUDY.search(tmp_path / "s", model=model),
        lambda: SHORTCUT.cost(model),
        lambda: SHORTCUT.apply(["a red circle"], model=model),
    ]
    for attempt in tried:
        with pytest.raises(ModelError, match=r"is no model: it lacks .*Give an object, such as load_model"):
            attempt()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("memory", ["1GB", 0, -5, float("nan"), True, [1]])
def test_what_is_no_number_of_bytes(memory: Any, tiny_model: TextToImage, tmp_path: Path) -> None:
    tried = [
        lambda: STUDY.plan(tiny_model, memory=memory),
        lambda: STUDY.run(tmp_path / "s", model=tiny_model, memory=memory),
        lambda: STUDY.search(tmp_path / "s", model=tiny_model, memory=memory),
        lambda: generate(["a red circle"], model=tiny_model, sampler=STUDY.sampler, memory=memory),
        lambda: SHORTCUT.apply(["a red circle"], model=tiny_model, memory=memory),
        lambda: cu.time_shortcut(SHORTCUT, ["a red circle"], model=tiny_model, memory=memory),
    ]
    for attempt in tried:
        with pytest.raises(SpecError, match="is no number of bytes; give one such as"):
            attempt()
    assert not list(tmp_path.iterdir())


def test_bytes_of_numpy_and_floats_are_numbers(tiny_model: TextToImage) -> None:
    for memory in (np.int64(1 << 30), 1e9, np.float32(1e9)):
        assert STUDY.plan(tiny_model, memory=memory).unet_calls == STUDY.plan(tiny_model).unet_calls


@pytest.mark.parametrize(
    ("attempt", "error", "said"),
    [
        (lambda: cu.load_model(["shapes"]), ModelError, "No model is called"),  # type: ignore[arg-type]
        (lambda: cu.load_model(None), ModelError, "No model is called None"),  # type: ignore[arg-type]
        (lambda: cu.time_shortcut(5, ["a"]), SpecError, "5 is no Shortcut"),  # type: ignore[arg-type]
        (lambda: cu.time_interventions(5, ["a"]), SpecError, "5 cannot be timed"),  # type: ignore[arg-type]
    ],
)
def test_other_things_that_are_not_what_is_asked_for(attempt: Any, error: type[CausalUNetError], said: str) -> None:
    with pytest.raises(error, match=said):
        attempt()


def test_states_are_named_by_text(run_study: Any) -> None:
    results = run_study(cu.SkipSteps(cu.Window(1, 1)), steps=2)
    for name in (5, None, b"x", ["x"]):
        with pytest.raises(StoreError, match="cannot be a tag"):
            results.tag(name)
        if name is not None:
            with pytest.raises(StoreError, match="is neither a tag nor a commit"):
                cu.open_results(results.source.location, at=name)


@pytest.fixture
def loads(tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the registered model "counted" was loaded, and its weights were hashed."""
    counts: Counter[str] = Counter()

    def load() -> TextToImage:
        counts["loads"] += 1
        return replace(tiny_model)

    def digest(module: torch.nn.Module) -> str:
        counts["digests"] += 1
        return fingerprint(module)

    monkeypatch.setitem(MODELS._entries, "counted", load)
    monkeypatch.setattr(text_to_image, "fingerprint", digest)
    return counts


def test_a_study_loads_and_hashes_its_model_once(loads: Counter[str], tmp_path: Path) -> None:
    def make() -> cu.Study:
        return cu.Study(
            name="s",
            model="counted",
            prompts=["a red circle"],
            sampler=cu.DDPM(steps=4),
            interventions=cu.sweep(cu.SkipSteps, start=(3, 2), length=1),
        )

    study = make()
    study.plan(calibrate=False)
    study.run(tmp_path / "s.zarr", progress=False)
    study.run(tmp_path / "s.zarr", progress=False)
    study.search(tmp_path / "s.zarr", progress=False)
    assert loads == {"loads": 1, "digests": 1}
    assert study == make()
    assert b"torch" not in pickle.dumps(study), "the model does not go where the study goes"
    assert pickle.loads(pickle.dumps(study)) == study
    replace(study, name="t").plan(calibrate=False)
    assert loads["loads"] == 2


def test_a_loader_that_is_defined_again_is_called(
    loads: Counter[str], tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(STUDY, model="counted")
    study.plan(calibrate=False)
    monkeypatch.setitem(MODELS._entries, "counted", lambda: tiny_model)
    study.plan(calibrate=False)
    assert loads["loads"] == 1
    assert study._chosen(None) is tiny_model
