"""Words to tokens: what the embedded model can read, and what it says of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalunet.errors import PromptError
from causalunet.models.vocabulary import CONTEXT, WORDS, tokenize
from causalunet.scenes import all_scenes


def read(tokens: np.ndarray) -> list[str]:
    return [WORDS[token - 1] for token in tokens if token]


def test_the_order_of_the_words_is_part_of_the_weights() -> None:
    prompt = "a striped red triangle on the left, dark background"
    tokens, mask = tokenize([prompt])
    assert tokens[0].tolist() == [1, 9, 11, 19, 3, 6, 21, 2, 26, 7, *[0] * 10]
    assert mask[0].tolist() == [True] * 10 + [False] * 10
    assert len(WORDS) == len(set(WORDS)) == 28


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=CONTEXT), min_size=1, max_size=4))
def test_words_come_back(prompts: list[list[str]]) -> None:
    tokens, mask = tokenize([" ".join(words) for words in prompts])
    assert tokens.shape == mask.shape == (len(prompts), CONTEXT)
    assert (tokens.dtype, mask.dtype) == (np.int64, bool)
    for row, words in enumerate(prompts):
        assert read(tokens[row]) == words
        assert mask[row].sum() == len(words)
        assert mask[row, : len(words)].all()


def test_every_scene_is_covered() -> None:
    prompts = [scene.prompt for scene in all_scenes()]
    tokens, _ = tokenize(prompts)
    assert [" ".join(read(row)).replace(" ,", ",") for row in tokens] == prompts


def test_case_and_spaces_do_not_matter() -> None:
    same, _ = tokenize(["A  Red circle ,dark\tbackground", "a red circle, dark background"])
    assert np.array_equal(*same)


def test_the_empty_prompt_is_padding_only() -> None:
    tokens, mask = tokenize([""])
    assert not tokens.any()
    assert not mask.any()
    assert tokenize([])[0].shape == (0, CONTEXT)


def test_unknown_words_are_told_with_the_known_ones() -> None:
    with pytest.raises(PromptError) as caught:
        tokenize(["a red circle", "a purple circle under a zebra."])
    message = str(caught.value)
    assert "'a purple circle under a zebra.' has words that the model does not know: purple, under, zebra.. " in message
    assert message.endswith(" ".join(WORDS))


def test_too_long() -> None:
    tokenize([" ".join(["red"] * CONTEXT)])
    with pytest.raises(PromptError, match=rf"has {CONTEXT + 1} words; the model reads at most {CONTEXT}"):
        tokenize([" ".join(["red"] * (CONTEXT + 1))])
