"""Fills: values, their JSON, and which of them cut off what lies below."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from causalunet.design import Fill, Identity, Jump, Scale, Zero
from causalunet.errors import SpecError
from tests.design.examples import fills


@given(fills())
def test_json_round_trip(fill: Fill) -> None:
    again = Fill.from_json(json.loads(json.dumps(fill.to_json())))
    assert again == fill
    assert type(again) is type(fill)
    assert hash(again) == hash(fill)
    assert again.to_json() == fill.to_json()


def test_only_a_value_that_owes_nothing_to_the_old_one_severs() -> None:
    assert Zero.severs
    assert not any(kind.severs for kind in (Identity, Scale, Jump))


def test_equal_scales_are_written_alike() -> None:
    assert Scale(2) == Scale(2.0)
    assert json.dumps(Scale(2).to_json()) == json.dumps(Scale(2.0).to_json())
    assert json.dumps(Scale(0.0).to_json()) == json.dumps(Scale(-0.0).to_json())


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.uint8, Fraction])
def test_numbers_of_numpy_are_numbers(kind: Any) -> None:
    assert Scale(kind(2)) == Scale(2.0)
    assert json.dumps(Scale(kind(2)).to_json()) == json.dumps(Scale(2).to_json())


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), "2", None])
def test_scale_needs_a_finite_number(factor: Any) -> None:
    with pytest.raises(SpecError, match=r"Scale factor .* is not a finite number"):
        Scale(factor)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "known fills: .*identity, .*jump, .*scale, .*zero"),
        ({"name": "average"}, "known fills: .*identity, .*jump, .*scale, .*zero"),
        ({"name": ["zero"]}, "known fills: .*identity, .*jump, .*scale, .*zero"),
        ({"name": "zero", "configuration": {"factor": 2.0}}, "Fill 'zero' cannot be read"),
        ({"name": "scale", "configuration": [2.0]}, "Fill 'scale' cannot be read"),
    ],
)
def test_json_of_something_else(value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Fill.from_json(value)
