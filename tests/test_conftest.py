"""What all tests share is tested where it decides which of them run."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest


def item(minutes: float) -> Any:
    """A test of a run that was given a time."""
    return SimpleNamespace(config=SimpleNamespace(getoption={"--minutes": minutes}.__getitem__))


def test_no_test_is_begun_when_time_is_up() -> None:
    conftest.pytest_runtest_setup(item(math.inf))
    with pytest.raises(pytest.skip.Exception, match="no time left"):
        conftest.pytest_runtest_setup(item(0))
