"""The command ``measure``: one more outcome of what a store holds, without a U-Net call."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from causalunet.cli.exits import Exit
from causalunet.cli.printing import one_line, tell
from causalunet.design.limits import read_json, shown
from causalunet.design.outcomes import Outcome
from causalunet.errors import SpecError
from causalunet.results.meaning.schema import COMPLETE
from causalunet.results.store import open_results
from causalunet.study import load_registered

__all__ = ["measure", "outcome_asked"]

_FORM = "Parameters are given as NAME=VALUE, such as scales=2, or all together as a JSON object"


def measure(options: argparse.Namespace) -> Exit:
    """Measure an outcome of every cell of a store that has it not measured yet."""
    outcome = outcome_asked(options.outcome, options.parameters)
    results = open_results(options.store)
    model = load_registered(results.attrs["study"]["model"]) if options.read_factors else None
    results = results.add_outcome(outcome, model=model, retry_failed=options.retry_failed)
    measured = np.asarray(results.outcomes[f"{outcome.variable}_status"].values == COMPLETE)
    tell(f"Measured: {outcome.variable} of {int(measured.sum()):,} of {measured.size:,} cells, in {options.store}")
    return Exit.DONE if measured.all() else Exit.INCOMPLETE


def outcome_asked(name: str, parameters: Sequence[str]) -> Outcome:
    """The outcome that a name and its parameters stand for.

    Parameters
    ----------
    name : str
        That of its class, such as "ms_ssim".
    parameters : sequence of str
        ``name=value`` each, a value that is no JSON being a text; or one JSON object with all of them.

    Raises
    ------
    SpecError
        There is no such outcome, or a parameter is not written so, stands twice, or is none of the outcome's.
    """
    configuration: dict[str, Any] = {}
    for text in parameters:
        for key, value in _read(text).items():
            if key in configuration:
                raise SpecError(f"The parameter {shown(key)} is given twice.")
            configuration[key] = value
    return Outcome.from_json({"name": name, "configuration": configuration})


def _read(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            found = read_json(text)
        except ValueError as error:
            raise SpecError(f"{one_line(text)} is not JSON: {one_line(error)}. {_FORM}.") from error
        return dict(found)
    key, separator, value = text.partition("=")
    if not separator or not key.isidentifier():
        raise SpecError(f"{shown(text)} is no parameter. {_FORM}.")
    try:
        return {key: read_json(value)}
    except json.JSONDecodeError:
        return {key: value}  # a path, say, without the quotes that a shell would take away
