"""The first stage of `scenes`: what prompts say is told of their encodings, words of it too."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from causalunet.errors import SpecError
from causalunet.models.openai_layout import TextUNet
from causalunet.models.vocabulary import SCENES_VOCABULARY
from causalunet.training.loop import train
from causalunet.training.scenes import ScenesTrainingConfig, candidate, train_scenes
from causalunet.training.scenes_text import _CLASSES, _SKIPPED, DrawSaid, TextStage, _factors, _words, taught_for
from causalunet.worlds.groups import Description

UNET = candidate("free").unet
WORLD = candidate("free").world


def test_classes_are_what_the_prompt_says_of_mentions_and_of_groups_in_the_scene() -> None:
    told = _factors(Description.parse("two striped red squares below a circle"))
    # count, texture, colour, shape of each; one past the last value where nothing is said
    assert told[:8].tolist() == [1, 1, 0, 1, 0, 3, 6, 0]
    assert told[8:16].tolist() == [0, 3, 6, 0, 1, 1, 0, 1], "the circle is above, so it is the first group"
    assert told[16] == 1
    assert (told < np.array(_CLASSES)).all()
    either = _factors(Description.parse("something red and a blue cross"))
    assert either[8:16].tolist() == [_SKIPPED] * 8, "which is which is not said"
    assert either[16] == 4


def test_words_belong_to_a_mention_and_a_side() -> None:
    told = _words(Description.parse("two striped red squares left of a circle"))
    assert told.shape == (SCENES_VOCABULARY.context, 2)
    assert told[:8, 0].tolist() == [0] * 6 + [1] * 2
    assert told[:8, 1].tolist() == [2] * 6 + [3] * 2
    assert set(_words(Description.parse("a circle and a cross"))[:, 1].tolist()) == {4}


def test_batches_are_functions_of_the_seed_and_leave_padding_out() -> None:
    draw = DrawSaid(taught_for(8, seed=0), WORLD)
    one, other, again = (draw(at, np.random.default_rng((0, at))) for at in (0, 1, 0))
    assert one["factors"].shape == (256, len(_CLASSES))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["tokens"], other["tokens"])
    assert (one["words"][~one["mask"]] == _SKIPPED).all()
    assert (one["words"][one["mask"]] >= 0).all()


def test_what_is_taught_is_the_text_transformer_of_the_unet_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = TextUNet(UNET)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    config = taught_for(3, seed=0)
    list(train(TextStage(unet, DrawSaid(config, WORLD)), config, tmp_path))
    changed = {name.split(".")[0] for name, value in unet.state_dict().items() if not torch.equal(value, before[name])}
    text = {"transformer", "final_ln", "token_embedding", "transformer_proj", "positional_embedding"}
    assert text <= changed <= text | {"padding_embedding"}
    stored = load_file(tmp_path / "text.safetensors")
    of_unet = {name: value for name, value in stored.items() if name in before}
    assert {name.split(".")[0] for name in stored} - {name.split(".")[0] for name in of_unet} == {"factors", "words"}
    for name, value in of_unet.items():
        torch.testing.assert_close(value, unet.state_dict()[name].half())


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_six_hundred_iterations_tell_which_group_words_belong_to(tmp_path: Path) -> None:
    """From scratch; a sum over words could tell half of it."""
    torch.manual_seed(0)
    unet, config = TextUNet(UNET), taught_for(600, seed=0)
    *_, last = train(TextStage(unet, DrawSaid(config, WORLD)), config, tmp_path)
    assert last["told"] > 0.99
    tokens, mask = map(torch.from_numpy, SCENES_VOCABULARY(WORLD.draw_prompts(200, seed=9)))
    with torch.no_grad():
        pooled = unet.encode_text(tokens, mask).pooled
    assert pooled.mean(dim=0).abs().max() < 0.5, "no channel is far from 0 in every prompt"
    assert 0.5 < pooled.var(dim=0).mean() < 2


def test_the_second_stage_begins_with_what_the_first_has_taught(tmp_path: Path) -> None:
    config = ScenesTrainingConfig(iterations=1, batch_size=1, warmup=1, decay=1, focus_from=0, text_iterations=4)
    records = list(train_scenes(config, tmp_path, report_every=1))
    assert ["told" in record for record in records] == [True] * 4 + [False]
    text, whole = load_file(tmp_path / "text" / "text.safetensors"), load_file(tmp_path / "scenes.safetensors")
    torch.manual_seed(0)
    drawn = TextUNet(UNET).state_dict()
    kept = set(text) & set(whole)
    assert {"positional_embedding", "padding_embedding", "token_embedding.weight", "transformer_proj.weight"} <= kept
    for name in kept:  # denoising would make a bag of words of it again
        assert torch.equal(whole[name], text[name]), name
    word = "token_embedding.weight"
    assert (whole[word].float() - drawn[word]).abs().max() > 1e-3
    assert any((whole[name].float() - drawn[name]).abs().max() > 1e-4 for name in set(whole) - kept)
    assert not list(train_scenes(config, tmp_path)), "both are finished"


def test_the_first_stage_is_left_out_where_it_is_not_asked_for(tmp_path: Path) -> None:
    config = ScenesTrainingConfig(iterations=1, batch_size=1, warmup=1, decay=1, text_iterations=0)
    assert len(list(train_scenes(config, tmp_path))) == 1
    assert not (tmp_path / "text").exists()
    with pytest.raises(SpecError, match="text_iterations is a number of iterations, 0 or more; got -1"):
        ScenesTrainingConfig(text_iterations=-1)


@pytest.mark.thorough
def test_a_run_that_is_stopped_in_either_stage_is_the_uninterrupted_run(tmp_path: Path) -> None:
    config = ScenesTrainingConfig(iterations=2, batch_size=1, warmup=1, decay=1, focus_from=0, text_iterations=3)
    often = {"checkpoint_every": 1, "report_every": 1}
    list(train_scenes(config, tmp_path / "whole", **often))
    for stop in (2, 2, 1):
        list(itertools.islice(train_scenes(config, tmp_path / "parts", **often), stop))
    list(train_scenes(config, tmp_path / "parts", **often))
    whole, parts = (load_file(tmp_path / name / "scenes.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_first_stage_begins_with_given_weights_too(tmp_path: Path) -> None:
    first = ScenesTrainingConfig(iterations=1, batch_size=1, warmup=1, decay=1, focus_from=0, text_iterations=1)
    list(train_scenes(first, tmp_path / "first"))
    given = str(tmp_path / "first" / "scenes.safetensors")
    second = ScenesTrainingConfig(
        iterations=1, batch_size=1, warmup=1000, decay=1, focus_from=0, text_iterations=1, begin_with=given, seed=5
    )
    list(train_scenes(second, tmp_path / "second"))
    before, after = load_file(given), load_file(tmp_path / "second" / "text" / "text.safetensors")
    word = "token_embedding.weight"
    torch.testing.assert_close(after[word], before[word], atol=3e-3, rtol=0)
    assert json.loads((tmp_path / "second" / "text" / "log.jsonl").read_text().splitlines()[0])["iteration"] == 1
