"""Seeing who is at work on a store, without being in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from causalunet.results.engine import claims
from causalunet.results.engine.claims import claims_held

HOLD = (
    "import sys\nfrom filelock import FileLock\nwith FileLock(sys.argv[1]):\n    print('held', flush=True)\n    input()"
)


@pytest.fixture(params=["listed by the system", "tried"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    """Whether the system lists its locks."""
    if request.param == "tried":
        monkeypatch.setattr(claims, "_LOCKS", tmp_path / "no such file")
        return False
    if not claims._LOCKS.exists():
        pytest.skip("this system does not list its locks")
    return True


def test_claims_of_another_process_are_seen_until_it_ends(tmp_path: Path, way: bool) -> None:
    (tmp_path / "block-000001.lock").touch()
    path = tmp_path / "block-000000.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert claims_held(tmp_path) == {"block-000000": holder.pid if way else 0}
        with pytest.raises(Timeout):
            FileLock(path).acquire(timeout=0)
    finally:
        holder.kill()
        holder.communicate()
    assert claims_held(tmp_path) == {}


def test_looking_creates_nothing_and_takes_nothing(tmp_path: Path, way: bool) -> None:
    assert claims_held(tmp_path / "locks") == {}
    (tmp_path / "block-000000.lock").touch()
    (tmp_path / "link.lock").symlink_to(tmp_path / "block-000000.lock")
    before = sorted(tmp_path.iterdir())
    assert claims_held(tmp_path) == {}
    assert sorted(tmp_path.iterdir()) == before
    with FileLock(tmp_path / "block-000000.lock").acquire(timeout=0):
        assert claims_held(tmp_path) == {"block-000000": os.getpid() if way else 0}


def test_a_lock_that_the_system_does_not_list_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "block-000000.lock").touch()
    listed = tmp_path / "listed"
    listed.write_text(
        "1: FLOCK  ADVISORY  WRITE 77 fe:00:12 0 EOF\n1: -> FLOCK ADVISORY WRITE 78 fe:00:13 0 EOF\nodd\n"
    )
    monkeypatch.setattr(claims, "_LOCKS", listed)
    monkeypatch.setattr(claims, "_is_locked", lambda path: pytest.fail("it was tried"))
    assert claims_held(tmp_path) == {}
    assert claims._listed() == {12: 77}
