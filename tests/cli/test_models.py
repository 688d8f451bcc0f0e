"""Commands on what ships with the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from causalunet.models.checkpoints import file_digest
from causalunet.training.scenes import ScenesTrainingConfig
from tests.cli.conftest import Command


@pytest.mark.thorough
def test_models_lists_parameters_and_anatomy(command: Command) -> None:
    told = command("models")
    assert told.code == 0
    for part in ("shapes-flow", "14 in a row", "scenes", "glide", "385,030,726", "16 + 1 + 16"):
        assert part in told.out.replace("\n", " "), part


def test_evaluate_prints_every_factor_and_writes_the_sheet(tmp_path: Path, command: Command) -> None:
    sheet = tmp_path / "sheet.png"
    told = command("evaluate", "shapes", "--prompts", "2", "--steps", "3", "--held-out", "--sheet", sheet)
    assert told.code == 0
    for factor in ("texture", "colour", "shape", "position", "background", "all five"):
        assert factor in told.out
    assert f"sheet written to {sheet}\n" in told.out
    assert sheet.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_evaluate_scenes_prints_what_was_asked_and_what_depth_does(tmp_path: Path, command: Command) -> None:
    figure = tmp_path / "figure.png"
    told = command("evaluate", "scenes", "--prompts", "2", "--steps", "2", "--figure", figure)
    assert told.code == 0
    for part in ("single factors", "relation", "all", "any", "second place", "first tenth of 2 steps"):
        assert part in told.out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert ScenesTrainingConfig().candidate == "free"  # as --candidate is told by the help


def test_a_wrong_checkpoint_is_told_in_one_line(tmp_path: Path, command: Command) -> None:
    told = command("evaluate", "shapes", "--checkpoint", tmp_path / "none.safetensors")
    assert told.code == 2
    assert "There is no weights file" in told.err


def test_training_can_be_tried_and_goes_on(tmp_path: Path, command: Command) -> None:
    asked = ("train", "reader", "--directory", tmp_path, "--iterations", 1, "--figure", tmp_path / "curve.png")
    first, second = (command(*asked) for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert "iteration 1" in first.out
    assert "iteration" not in second.out
    assert (tmp_path / "reader.safetensors").exists()
    assert f"figure written to {tmp_path / 'curve.png'}" in second.out
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_training_begins_with_weights_that_are_there(tmp_path: Path, command: Command) -> None:
    first = tmp_path / "first" / "reader.safetensors"
    asked = ("train", "reader", "--batch-size", 2, "--iterations", 1)
    assert command(*asked, "--directory", first.parent).code == 0
    # The rate is that of the warm-up's first iteration: what ships is a rounding away from what it began with.
    told = command(*asked, "--directory", tmp_path, "--begin-with", first, "--learning-rate", 1e-9, "--decay", 1)
    assert told.code == 0
    before, after = load_file(first), load_file(tmp_path / "reader.safetensors")
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in before)
    with safe_open(tmp_path / "reader.safetensors", "pt") as stored:
        assert json.loads(stored.metadata()["training"])["begin_with"] == file_digest(first)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("reader", "--focus-from", 3), "--focus-from says nothing of the training of reader"),
        (("shapes-flow", "--candidate", "open"), "--candidate says nothing of the training of shapes-flow"),
        (("shapes-latent", "--begin-with", "some.safetensors"), "trained in two stages"),
        (("shapes-latent", "--candidate", "open"), "--candidate says nothing of the training of shapes-latent"),
        (("scenes", "--autocast", "int4"), "autocast is one of bfloat16"),
        (("scenes", "--begin-with", "some.safetensors"), "There is no weights file at some.safetensors"),
    ],
)
def test_choices_that_a_training_does_not_have_are_told(
    asked: tuple[object, ...], said: str, tmp_path: Path, command: Command
) -> None:
    told = command("train", *asked, "--directory", tmp_path)
    assert told.code == 2
    assert said in told.err


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["shapes-flow", "shapes-latent"])
def test_other_anatomies_are_trained_and_evaluated(name: str, tmp_path: Path, command: Command) -> None:
    asked = ("--focus-from", 0) if name == "shapes-latent" else ()
    told = command("train", name, "--directory", tmp_path, "--iterations", 1, "--batch-size", 2, *asked)
    assert told.code == 0
    weights = tmp_path / ("pipeline" if name == "shapes-latent" else f"{name}.safetensors")
    assert f"weights: {weights}" in told.out
    told = command("evaluate", name, "--checkpoint", weights, "--prompts", 2, "--steps", 2)
    assert told.code == 0
    assert "all five" in told.out
    assert "bar: 95%" in told.out


def test_models_are_listed_with_where_their_weights_are(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    told = command("models")
    assert "shapes-latent" in told.out
    assert "12 + 1 + 12" in told.out
    assert "weights of shapes, shapes-flow, shapes-latent, scenes: in the package" in told.out
    found = {"diffusers": True, "transformers": None}  # with one of the two alone nothing of it can be built
    monkeypatch.setattr(sys.modules["causalunet.models.architectures"], "find_spec", found.get)
    told = command("models")
    assert "12 + 1 + 12" not in told.out
    assert "pip install 'causalunet[diffusers]'" in told.out


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("shapes-flow", ["all five"]),
        ("shapes-latent", ["colour", "position", "background"]),  # texture misses the bar, as its card says
    ],
)
def test_other_anatomies_draw_what_prompts_say(name: str, known: list[str], command: Command) -> None:
    told = command("evaluate", name, "--prompts", 8, "--steps", 20)
    assert told.code == 0
    for factor in known:
        (share,) = (line for line in told.out.splitlines() if factor in line)
        assert "100.0%" in share
