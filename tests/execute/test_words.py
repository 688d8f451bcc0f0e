"""Words for tokens: found by each tokenizer, told where there are none, and edited row by row."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.bound import bind
from causalunet.design.study import one_run
from causalunet.design.words import Spelling, with_numbers
from causalunet.errors import ComponentError, ModelError, PromptError, SpecError
from causalunet.execute import TracedUNet
from causalunet.execute.call.visits import CallContext
from causalunet.execute.walk.generate import generate
from causalunet.models.byte_pairs import padded
from causalunet.models.text_to_image import TextToImage
from causalunet.models.vocabulary import WORDS, tokenize
from causalunet.plan import Action, PlacedFill
from tests.execute.test_inner_places import arguments_of

PROMPTS = ["a red square", "a blue circle on a red background", "red"]
SAMPLER = cu.DDIM(steps=2, guidance_scale=3.0)


class Pairs:
    """An encoder with the interface of GLIDE's: a space belongs to what follows it, and letters go two by two."""

    n_vocab = 5000

    def __init__(self) -> None:
        self.parts: list[str] = []

    def encode(self, text: str) -> list[int]:
        found = []
        for word in text.lower().replace(" ", "\n ").split("\n"):
            for part in (word[i : i + 2] for i in range(0, len(word), 2)):
                if part not in self.parts:
                    self.parts.append(part)
                found.append(self.parts.index(part))
        return found

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.parts[token] for token in tokens)


@functools.cache
def pipeline(name: str) -> Any:
    tiny = pytest.importorskip("tests.models.pipelines.tiny")
    return cu.from_pipeline(getattr(tiny, name)())


def numbers(spellings: Any, word: str) -> set[int]:
    return {number for one in spellings for number in one.numbers(word)}


@given(st.lists(st.sampled_from([word for word in WORDS if word != ","]), min_size=1, max_size=8), st.data())
def test_a_word_of_the_vocabulary_is_each_of_its_tokens(words: list[str], data: st.DataObject) -> None:
    word = data.draw(st.sampled_from(words))
    assert numbers(tokenize.spelled(" ".join(words)), word.upper()) == {i for i, one in enumerate(words) if one == word}
    ids, _ = tokenize([" ".join(words)])
    assert numbers(tokenize.spelled(" ".join(words)), word) == {*np.flatnonzero(ids[0] == WORDS.index(word) + 1)}


@given(st.lists(st.text("abcde", min_size=1, max_size=7), min_size=1, max_size=5), st.data())
def test_a_word_of_byte_pairs_is_all_its_tokens(words: list[str], data: st.DataObject) -> None:
    chosen, at, expected = data.draw(st.sampled_from(words)), 0, set[int]()
    for place, word in enumerate(words):
        count = -(-(len(word) + (place > 0)) // 2)
        expected |= {*range(at, at + count)} if word == chosen else set()
        at += count
    assert numbers(padded(Pairs(), 99).spelled(" ".join(words)), chosen) == expected


def test_a_word_is_no_part_of_another() -> None:
    spelling = Spelling("red reddish, red", ((0, 0, 3), (1, 4, 7), (2, 7, 11), (3, 11, 12), (4, 13, 16)))
    assert spelling.numbers("Red") == (0, 4)
    assert spelling.numbers("reddish") == (1, 2)
    assert spelling.numbers(",") == (3,)
    assert spelling.numbers("ish") == ()


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "deepfloyd_if"])
@pytest.mark.sampled(2)
def test_tokens_of_a_pipeline_are_where_its_encoder_has_them(name: str) -> None:
    """Another word there changes the text from there on, and nowhere before: encoders look back."""
    model = pipeline(name)
    first = min(numbers(model.spelled("a red square"), "square"))
    one, other = (model.conditions.tokens([prompt])[0][0] for prompt in ("a red square", "a red circle"))
    assert np.flatnonzero(one != other)[0] == first
    every = numbers(model.spelled("a red square"), "square")
    assert len(every) == (2 if name == "stable_diffusion_3" else 1)
    text = next(place for place in model.anatomy.inner if place.name == "text")
    assert max(every) < text.shape[0]


def place_of(model: Any) -> str:
    return [place.name for place in model.anatomy.inner if place.name.endswith("joint.maps")][-1]


def test_each_row_has_its_own_tokens(tiny_model: TextToImage) -> None:
    """A study by a word is one by numbers of each prompt; a batch is as its samples alone, and branches are apart."""
    place = place_of(tiny_model)
    for fill in (cu.Zero(), cu.AddNoise(0.5), cu.Patch(prompt="a green cross")):
        by_word = cu.Edit(cu.Site(place) @ cu.Tokens("red") @ cu.Heads(0), cu.Window(2, 2), fill)
        run = functools.partial(generate, seeds=[0], model=tiny_model, sampler=SAMPLER)
        together = run(PROMPTS, intervention=by_word)
        installed = run(PROMPTS, intervention=by_word, traced=False)
        np.testing.assert_array_equal(together, installed)
        for prompt, got in zip(PROMPTS, together, strict=True):
            where = [i for i, word in enumerate(prompt.split()) if word == "red"]
            by_number = cu.Edit(cu.Site(place) @ cu.Tokens(*where) @ cu.Heads(0), cu.Window(2, 2), fill, branch="cond")
            np.testing.assert_allclose(got, run([prompt], intervention=by_number)[0], atol=1e-6)
            assert np.abs(got - run([prompt])[0]).max() > 1e-6


def test_a_study_by_words_is_stored_and_read(tiny_model: TextToImage, run_study: Any) -> None:
    site = cu.Site("text") @ cu.Tokens("red", "square")
    results = run_study(cu.Edit(site, cu.Window(2, 2)), steps=2, prompts=("a red square",))
    results.verify()
    assert "tokens red square" in str(results.outcomes.intervention.values[0])
    numbered = cu.Edit(cu.Site("text") @ cu.Tokens(1, 2), cu.Window(2, 2), branch="cond")
    got = generate(
        ["a red square"], model=tiny_model, sampler=cu.DDPM(steps=2, guidance_scale=3.0), intervention=numbered
    )
    np.testing.assert_allclose(got, results.outcomes.image.isel(intervention=0), atol=1e-5)


def bound(model: Any, *edits: cu.Edit, prompts: list[str] | None = None) -> Any:
    whole = functools.reduce(lambda one, other: one + other, edits)
    return bind(one_run(prompts or PROMPTS[:1], None, SAMPLER, whole), model)


def test_what_has_no_such_tokens_is_told_before_anything_runs(tiny_model: TextToImage) -> None:
    window, place = cu.Window(2, 2), place_of(tiny_model)
    edit = cu.Edit(cu.Site(place) @ cu.Tokens("red"), window)
    with pytest.raises(PromptError, match=r"'a blue circle' has no token of the word 'red' .* words: a, blue, circle"):
        bound(tiny_model, edit, prompts=["a red square", "a blue circle"])
    with pytest.raises(ComponentError, match=r"tokens are of no text.*Places .*text"):
        bound(tiny_model, cu.Edit(cu.Site("mid") @ cu.Tokens("red"), window))
    with pytest.raises(SpecError, match="in the unconditional branch"):
        bound(tiny_model, cu.Edit(cu.Site(place) @ cu.Tokens("red"), window, branch="uncond"))
    with pytest.raises(SpecError, match=r"Step 2 .*twice|step 2"):
        bound(tiny_model, edit, cu.Edit(cu.Site(place) @ cu.Tokens(1), window, cu.Scale(2.0)))
    bound(tiny_model, edit, cu.Edit(cu.Site(place) @ cu.Tokens("square"), window, cu.Scale(2.0)))
    with pytest.raises(ComponentError, match=r"asks for mid\.joint\.mapz"):
        generate(
            PROMPTS[:1],
            model=tiny_model,
            sampler=SAMPLER,
            intervention=cu.Edit(cu.Site("mid.joint.mapz") @ cu.Tokens("red"), window),
        )
    silent = TextToImage("silent", tiny_model.unet, functools.partial(tokenize), tiny_model.alpha_bar)
    with pytest.raises(ModelError, match="has no tokenizer that tells"):
        bound(silent, edit)
    for wrong in (("red", 3), (" red",), ("",), ("a" * 65,)):
        with pytest.raises(SpecError, match="Tokens got"):
            cu.Tokens(*wrong)


def test_views_of_words_are_values() -> None:
    view = cu.Tokens("red", "blue")
    assert view == cu.Tokens(tokens=["blue", "red"]) == cu.design.View.from_json(view.to_json())
    assert view.words == "tokens blue red"
    assert with_numbers(cu.Heads(0) @ view, (3, 1)) == cu.Heads(0) @ cu.Tokens(1, 3)


def test_a_call_outside_of_a_study_knows_no_prompts(tiny_model: TextToImage) -> None:
    action = Action(frozenset([PlacedFill(cu.Site("text") @ cu.Tokens("red"), cu.Zero())]))
    unet = TracedUNet(tiny_model.unet, tiny_model.anatomy)
    with pytest.raises(SpecError, match="tokens red means is known of a study"):
        unet(action, arguments_of(tiny_model), 2, context=CallContext(1, 1))
