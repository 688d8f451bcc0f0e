"""Tags: whatever is accepted is listed and opens again; what could not be is refused before it is used up."""

from __future__ import annotations

import string
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from causalunet.errors import StoreError
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository

NEVER_LISTED = ("ä", "März", "日本", *(f"a{sign}b" for sign in '#%*?[]{}~|<>"^\\`'), "a\u200bb")


def nothing(repository: Repository) -> None:
    """Lay out nothing."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository.create(Location.parse(tmp_path_factory.mktemp("tags") / "s.zarr"), nothing)


def references(repository: Repository) -> set[str]:
    folder = repository.location.folder
    assert folder is not None
    return {entry.name for entry in (folder / "refs").iterdir()}


@pytest.mark.parametrize("name", [*NEVER_LISTED, "", "a/b", "a\nb", ".", "..", ".a", " a", "a ", "a\n", "x" * 300, 5])
def test_what_cannot_be_listed_is_refused_and_not_used_up(repository: Repository, name: Any) -> None:
    before = references(repository)
    with pytest.raises(StoreError, match=r"cannot be a tag: such names could not be listed\. Give at most 100"):
        repository.tag(name, repository.newest())
    assert references(repository) == before


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(string.printable + "äß€", min_size=1, max_size=6) | st.text(min_size=1, max_size=3))
def test_what_is_accepted_is_listed_and_opens(repository: Repository, name: str) -> None:
    before, known = references(repository), repository.tags()
    with suppress(StoreError):
        repository.tag(name, repository.newest())
    assert len(references(repository) - before) == len(repository.tags() - known)
    assert repository.tags() - known <= {name}
    if name in repository.tags():
        repository.readable(name)
        assert any(name in commit.tags for commit in repository.history())


def test_a_tag_never_looks_like_a_commit(repository: Repository) -> None:
    *_, first = repository.history()
    for name in (first.id, "0" * 20):
        with pytest.raises(StoreError, match="looks like the identifier of a commit"):
            repository.tag(name, repository.newest())


def test_tags_that_earlier_versions_made_open(tmp_path: Path) -> None:
    """Tags that are not listed, and one that is named like another commit, which is what its name opens."""
    repository = Repository.create(Location.parse(tmp_path / "s.zarr"), nothing)
    session = repository.writable()
    zarr.group(session.store)
    session.commit("another", metadata={})
    newest, first = repository.history()
    for name in ("März", first.id):
        repository._handle.create_tag(name, newest.id)
    assert repository.readable("März").session.snapshot_id == newest.id  # type: ignore[attr-defined]
    assert repository.readable(first.id).session.snapshot_id == first.id  # type: ignore[attr-defined]
