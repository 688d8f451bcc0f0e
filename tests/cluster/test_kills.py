"""Long kill loops: workers, the scheduler and the coordinator die at random moments, and nothing is torn or lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.kills import KillLoop
from tests.trust.truth import Truth


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("target", "kills"), [("worker", 60), ("scheduler", 20), ("coordinator", 20)])
def test_many_kills(whole: Truth, tmp_path: Path, target: str, kills: int) -> None:
    figures = KillLoop(whole, tmp_path, target).run(kills)
    print(f"\n{target} {figures}")
    assert figures.kills >= kills
    assert figures.cells > 0
    assert (figures.torn, figures.lost, figures.again) == ([], set(), 0)
