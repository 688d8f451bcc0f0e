"""Values of a study in words, and as tables that notebooks show."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from causalunet.design.fills.base import fill_words
from causalunet.design.limits import plain, shown

if TYPE_CHECKING:
    from causalunet.design.interventions import Edit, Intervention
    from causalunet.design.samplers.base import Sampler
    from causalunet.design.study import StudySpec

__all__ = ["facts_html", "facts_of_edits", "facts_of_study", "sampler_words", "several_words"]

_MOST = 6
"""Entries that are named one by one."""


def facts_html(title: str, facts: Mapping[str, str]) -> str:
    """Make a table of two columns; whatever stands in a text is text.

    Parameters
    ----------
    title : str
    facts : mapping of str to str
    """
    left = 'style="text-align: left"'
    rows = "".join(
        f"<tr><th {left}>{_escaped(name)}</th><td {left}>{_escaped(value)}</td></tr>" for name, value in facts.items()
    )
    return f"<table><caption {left}>{_escaped(title)}</caption><tbody>{rows}</tbody></table>"


def facts_of_study(spec: StudySpec) -> dict[str, str]:
    """What a study asks for, by what it is called."""
    kinds = Counter(item.kind for item in spec.interventions)
    asked = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    per = len(spec.samples) // len(spec.prompts) if spec.prompts else 0
    kept = [f"{name} of {several_words(found)}" for name, found in _recorded(spec).items() if found]
    return {
        "model": spec.model,
        "sampler": sampler_words(spec.sampler),
        "prompts": several_words(map(str, spec.prompts)),
        "samples": f"{len(spec.samples):,}, {per} of each prompt" if per > 1 else f"{len(spec.samples):,}",
        "interventions": f"{len(spec.interventions):,} ({asked})",
        "of them": several_words(item.label for item in spec.interventions),
        **({"recorded": "; ".join(kept)} if kept else {}),
        **({"outcomes": several_words(one.name for one in spec.outcomes)} if spec.outcomes else {}),
    }


def facts_of_edits(item: Intervention) -> dict[str, str]:
    """What an intervention does, edit by edit, as far as it is known without a model."""
    edits = item.edits()
    facts = {"kind": item.kind, "digest": item.digest}
    shown_edits = {f"edit {number}": _words(edit) for number, edit in enumerate(edits[:_MOST], 1)}
    rest = {"and": f"{len(edits) - _MOST:,} more"} if len(edits) > _MOST else {}
    return {**facts, **shown_edits, **rest}


def several_words(found: Iterable[str]) -> str:
    """The first few of several texts, and how many more there are."""
    texts = list(found)
    more = f" and {len(texts) - _MOST:,} more" if len(texts) > _MOST else ""
    return "; ".join(shown(text).strip("'\"") for text in texts[:_MOST]) + more


def _recorded(spec: StudySpec) -> dict[str, tuple[str, ...]]:
    return {"values": spec.record.activations, "statistics": tuple(map(str, spec.record.summary))}


def sampler_words(sampler: Sampler) -> str:
    """Name of a sampler and what it was given."""
    document = sampler.to_json()
    told = {name: value for name, value in document["configuration"].items() if value is not None}
    return ", ".join([str(document["name"]), *(f"{name.replace('_', ' ')} {value}" for name, value in told.items())])


def _words(edit: Edit) -> str:
    parts = ", ".join(f"{part.start}-{part.stop}" for part in edit.window.parts)
    stage = "" if edit.window.stage is None else f", call {edit.window.stage} of each"
    return f"{edit.site}: {fill_words(edit.fill.to_json())}, steps {parts}{stage}"


def _escaped(text: str) -> str:
    return html.escape(plain(text))
