"""Words instead of token numbers: which tokens a word has in a prompt, told by where a tokenizer has them from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from causalunet.design.anatomy import Anatomy
from causalunet.design.conflicts import check_conflicts
from causalunet.design.inner import InnerPlace
from causalunet.design.interventions import Edit, Intervention
from causalunet.design.limits import shown
from causalunet.design.views import Tokens, View, crossed, parts_of
from causalunet.errors import ComponentError, ModelError, PromptError, SpecError

__all__ = ["Spelling", "TokensOfWords", "spelled_by", "tokens_of", "with_numbers", "words_of"]

TokensOfWords = Mapping[tuple[str, tuple[str, ...]], tuple[int, ...]]
"""Numbers of the tokens of some words in a prompt, by prompt and words."""


class Spelling(NamedTuple):
    """Which part of a text each token is of.

    Attributes
    ----------
    text : str
        The prompt, or what the tokenizer made of it.
    tokens : tuple of (int, int, int)
        Number of the token, and where in the text it begins and ends; without those that are of no text.
    """

    text: str
    tokens: tuple[tuple[int, int, int], ...]

    def numbers(self, word: str) -> tuple[int, ...]:
        """Tokens of a word, at all its occurrences, in upper case or lower.

        Parameters
        ----------
        word : str
        """
        before, after = (r"(?<!\w)" if word[0].isalnum() else ""), (r"(?!\w)" if word[-1].isalnum() else "")
        spans = [one.span() for one in re.finditer(f"{before}{re.escape(word)}{after}", self.text, re.IGNORECASE)]
        return tuple(
            number for number, first, end in self.tokens if any(first < stop and end > start for start, stop in spans)
        )


def spelled_by(tokenizer: Any, prompt: str) -> Sequence[Spelling]:
    """What a tokenizer's method ``spelled`` says of a prompt; nothing of one without.

    Parameters
    ----------
    tokenizer : object
    prompt : str
    """
    spell = getattr(tokenizer, "spelled", None)
    said: Sequence[Spelling] = spell(prompt) if spell is not None else ()
    return said


def words_of(view: View) -> tuple[str, ...]:
    """The words by which a view names tokens; empty of one that does not.

    Parameters
    ----------
    view : View
    """
    return next((part.named for part in parts_of(view) if isinstance(part, Tokens)), ())


def with_numbers(view: View, numbers: Iterable[int]) -> View:
    """A view with numbers in place of its words.

    Parameters
    ----------
    view : View
    numbers : iterable of int
    """
    return crossed(
        Tokens(tokens=numbers) if isinstance(part, Tokens) and part.named else part for part in parts_of(view)
    )


def tokens_of(
    asked: Iterable[tuple[Intervention, Sequence[Edit]]], anatomy: Anatomy, prompts: Sequence[str], model: Any
) -> TokensOfWords:
    """Find the tokens of all words that interventions name, in every prompt, and see that they go together.

    Parameters
    ----------
    asked : iterable of (Intervention, sequence of Edit)
        Each with its edits, placed.
    anatomy : Anatomy
    prompts : sequence of str
    model : DiffusionModel
        Whose method ``spelled`` says of a prompt which part of it each token is of, a `Spelling` for every tokenizer.

    Raises
    ------
    PromptError
        A prompt has no such word, or the model reads no text so far.
    ModelError
        The model has no tokenizer that tells.
    ComponentError, SpecError
        A place has no tokens of a text; or two edits meet in a prompt.
    """
    found: dict[tuple[str, tuple[str, ...]], tuple[int, ...]] = {}
    spelled: dict[str, Sequence[Spelling]] = {}
    for intervention, edits in asked:
        worded = [edit for edit in edits if words_of(edit.view)]
        for edit in worded:
            _check_place(edit, anatomy)
        for prompt in dict.fromkeys(prompts) if worded else ():
            if prompt not in spelled:
                spelled[prompt] = _spelled(model, prompt)
            for edit in worded:
                words = words_of(edit.view)
                found[prompt, words] = _numbers(words, prompt, spelled[prompt])
            _check_together(intervention, edits, prompt, found, anatomy)
    return found


def _spelled(model: Any, prompt: str) -> Sequence[Spelling]:
    said = spelled_by(model, prompt)
    if not said:
        raise ModelError(
            f"The model {model.name!r} has no tokenizer that tells which tokens a word has, so Tokens takes numbers "
            "there, such as Tokens(3). A model of your own says it with a method spelled(prompt)."
        )
    return said


def _check_place(edit: Edit, anatomy: Anatomy) -> None:
    there = {*anatomy.by_name, *anatomy.skips}
    place = None if edit.component in there else anatomy.inner_by_name.get(edit.component)
    if edit.component not in anatomy.places:
        return  # told with what there is, as of any edit
    if not isinstance(place, InnerPlace) or not place.of_text:
        having = [one.name for one in anatomy.inner if one.of_text]
        raise ComponentError(
            f"{edit.view.words} of {edit.component}: its tokens are of no text, so no word names them. Places "
            f"whose tokens are of the text: {', '.join(having[:6]) or 'none'}{' ...' if len(having) > 6 else ''}."
        )
    if edit.branch == "uncond":
        raise SpecError(
            f"{edit.view.words} of {edit.component} in the unconditional branch: the words are those of the "
            "prompt, which that branch is not told. Leave branch= out, or give numbers."
        )


def _numbers(words: tuple[str, ...], prompt: str, spellings: Sequence[Spelling]) -> tuple[int, ...]:
    found = set[int]()
    for word in words:
        numbers = {number for one in spellings for number in one.numbers(word)}
        if not numbers:
            there = dict.fromkeys(re.findall(r"\w+|[^\w\s]", spellings[0].text))
            raise PromptError(
                f"The prompt {shown(prompt)} has no token of the word {shown(word)} that the model reads. Its words: "
                f"{', '.join(there) or 'none'}."
            )
        found |= numbers
    return tuple(sorted(found))


def _check_together(
    intervention: Intervention, edits: Iterable[Edit], prompt: str, found: TokensOfWords, anatomy: Anatomy
) -> None:
    """Edits by words may meet others in a prompt; the numbers have to be there."""

    def numbered(edit: Edit) -> Edit:
        words = words_of(edit.view)
        if not words:
            return edit
        return replace(edit, view=with_numbers(edit.view, found[prompt, words]))

    try:
        known = [numbered(edit) for edit in edits]
        check_conflicts(known)
        anatomy.check(intervention, known)
    except (ComponentError, SpecError) as error:
        error.add_note(f"with the tokens of the prompt {shown(prompt)}")
        raise
