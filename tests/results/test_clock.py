"""A clock behind the newest commit, as after NTP set it or on another machine: waited for, or told as what it is."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import numcodecs
import pytest
import zarr

from causalunet.errors import DamageError, StorageError
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository

HEADER = 39


def made_at(path: Path, seconds: float) -> Repository:
    """A repository whose newest commit was made so many seconds from now."""
    repository = Repository.create(Location.parse(path), lambda made: None)
    session = repository.writable()
    zarr.group(session.store)
    commit = repository.commit(session, "the first", {})
    (path / "sums").unlink()
    written, file = repository.history(most=1)[0].time, path / "snapshots" / commit
    moment = (written - datetime.datetime.fromtimestamp(0, datetime.UTC)) // datetime.timedelta(microseconds=1)
    content = file.read_bytes()
    unpacked = bytes(numcodecs.Zstd().decode(content[HEADER:]))
    before, after = (number.to_bytes(8, "little") for number in (moment, moment + int(seconds * 1e6)))
    assert unpacked.count(before) == 1
    file.write_bytes(content[:HEADER] + numcodecs.Zstd().encode(unpacked.replace(before, after)))
    return Repository.open(Location.parse(path))


def test_a_small_difference_is_waited_for(tmp_path: Path) -> None:
    repository, started = made_at(tmp_path / "s.zarr", 1.0), time.monotonic()
    session = repository.writable()
    zarr.open_group(session.store, mode="a").attrs["kept"] = 1
    repository.commit(session, "the second", {})
    assert 0.5 < time.monotonic() - started < 5
    assert [commit.message for commit in repository.history()][:2] == ["the second", "the first"]
    assert zarr.open_group(repository.readable(), mode="r").attrs["kept"] == 1


def test_a_large_difference_is_told_at_once(tmp_path: Path) -> None:
    repository = made_at(tmp_path / "s.zarr", 3_600.0)
    session = repository.writable()
    zarr.open_group(session.store, mode="a").attrs["kept"] = 1
    with pytest.raises(StorageError, match=r"clock of this machine is 3,\d\d\d s behind the newest commit") as caught:
        repository.commit(session, "the second", {})
    assert not isinstance(caught.value, DamageError)
    assert "damage" not in str(caught.value)
