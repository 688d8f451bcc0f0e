"""What of a written intervention it can be selected by, beside its stored coordinates."""

from __future__ import annotations

from typing import Any

from causalunet.design.fills import fill_words

__all__ = ["SELECTORS", "selectors"]

SELECTORS = ("component", "fill", "branch")
"""What interventions are selected by beside the coordinates that they have of themselves."""


def selectors(value: Any) -> dict[str, str]:
    """Component, fill and branch of an intervention's JSON, whether its kind is known here or not.

    Parameters
    ----------
    value : JSON value
        As `Intervention.to_json` writes it.

    Returns
    -------
    dict of str to str
        As they are given to `Edit`, the fill in the words of labels, such as ``scale 0.5``. Empty where a kind has no
        such field, or the parts of a composition have several.
    """
    parts = value["configuration"].get("parts")
    if isinstance(parts, list):
        inner = [selectors(part) for part in parts]
        found = {name: {one[name] for one in inner} - {""} for name in SELECTORS}
        return {name: values.pop() if len(values) == 1 else "" for name, values in found.items()}
    fields = dict(value["configuration"])
    if isinstance(fields.get("fill"), dict):
        fields["fill"] = fill_words(fields["fill"])
    return {name: fields[name] if isinstance(fields.get(name), str) else "" for name in SELECTORS}
