"""The same promises in an object store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import causalunet as cu
from causalunet.errors import DamageError, StorageError, StoreError
from causalunet.results.engine import repository
from causalunet.results.engine.writer import StudyWriter
from tests.trust import small
from tests.trust.children import Child, read_log
from tests.trust.kills import KillLoop
from tests.trust.object_store import ENVIRONMENT, put, s3_server
from tests.trust.test_kills import check
from tests.trust.truth import Truth

pytest.importorskip("moto", reason="the S3 server is not installed")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Address of an empty bucket; everything that opens it is in the environment."""
    with pytest.MonkeyPatch.context() as patch, s3_server("results") as url:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        yield "s3://results"


def stop_after(monkeypatch: pytest.MonkeyPatch, store: str, number: int) -> None:
    """Run until a number of commits are made."""
    commit, commits = StudyWriter.commit, iter(range(100))

    def then_stop(writer: StudyWriter, *arguments: object) -> None:
        commit(writer, *arguments)  # type: ignore[arg-type]
        if next(commits) == number:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StudyWriter, "commit", then_stop)
        with pytest.raises(KeyboardInterrupt):
            small.run(store)


@pytest.mark.thorough
@pytest.mark.usefixtures("small_groups")
def test_an_object_store_holds_what_a_folder_holds(truth: Truth, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, f"{bucket}/whole", 3)
    seen = truth.compare(small.run(f"{bucket}/whole"))
    assert (seen.wrong, seen.whole) == ([], True)


def test_a_store_of_a_newer_engine_is_told_as_what_it_is(bucket: str) -> None:
    """Stores in a newer format begin with an object ``repo``; here of a format that nobody knows yet."""
    address = f"{bucket}/newer"
    put(f"{address}/repo", "ICE🧊CHUNK".encode() + b"ic-9.0.0".ljust(24) + bytes([3, 6, 1]) + bytes(40))
    for way in (cu.open_results, small.run):
        with pytest.raises(StoreError, match="is not damaged, but written in a newer format of icechunk") as told:
            way(address)
        assert not isinstance(told.value, DamageError)
    with pytest.raises(StoreError, match="nothing of causalunet's is there"):
        cu.open_results(f"{bucket}/nothing")


@pytest.mark.slow
@pytest.mark.usefixtures("small_groups")
def test_what_can_be_done_with_a_folder_can_be_done_with_an_object_store(
    truth: Truth, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"{bucket}/used"
    stop_after(monkeypatch, store, 3)
    unfinished = cu.open_results(store)
    before = truth.compare(unfinished)
    assert (before.wrong, before.whole) == ([], False)
    assert len(before.cells) > 0
    unfinished.tag("draft")
    results = small.run(store)
    assert results.verify(quiet=True)
    assert truth.compare(cu.open_results(store, at="draft")).cells == before.cells
    assert [commit.tags for commit in results.history() if commit.tags] == [("draft",)]
    exported = cu.open_results(results.export(tmp_path / "export"))
    assert (truth.compare(exported).wrong, truth.compare(exported).whole) == ([], True)
    with pytest.raises(StoreError, match="has no tag or commit 'other'"):
        cu.open_results(store, at="other")


@pytest.mark.slow
def test_a_killed_run_into_an_object_store_goes_on(truth: Truth, bucket: str, tmp_path: Path) -> None:
    check(KillLoop(truth, tmp_path, address=f"{bucket}/killed").run(2), 2)


@pytest.mark.thorough
def test_processes_that_share_an_object_store_are_killed(truth: Truth, bucket: str, tmp_path: Path) -> None:
    check(KillLoop(truth, tmp_path, address=f"{bucket}/shared", writers=2).run(3), 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("writers", [1, 2])
def test_many_kills_of_runs_into_an_object_store(truth: Truth, bucket: str, tmp_path: Path, writers: int) -> None:
    loop = KillLoop(truth, tmp_path, address=f"{bucket}/{writers}", writers=writers, seed=writers)
    check(loop.run(30), 30)


@pytest.mark.slow
def test_two_processes_commit_no_cell_twice_into_an_object_store(truth: Truth, bucket: str, tmp_path: Path) -> None:
    store, log = f"{bucket}/two", tmp_path / "log"
    children = [Child.start(store, log, together=2) for _ in range(2)]
    assert [child.ended() for child in children] == [0, 0]
    seen = truth.compare(cu.open_results(store))
    assert (seen.wrong, seen.whole) == ([], True)
    said = read_log(log)
    committed = [cell for line in said if line["event"] == "committed" for cell in line["cells"]]
    assert len(committed) == len(set(committed)) == len(seen.cells)
    begun = [cell for line in said if line["event"] == "begin" for cell in line["cells"]]
    assert len(begun) == len(set(begun)), "no cell was run by both"


@pytest.fixture
def refusing(bucket: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """Address at which an object store cannot be used, for the reason that the test names."""
    if request.param == "no bucket":
        yield "s3://nowhere/nothing"
    elif request.param == "server down":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        yield f"{bucket}/nothing"
    else:
        with s3_server("results", INITIAL_NO_AUTH_ACTION_COUNT="1") as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            yield f"{bucket}/nothing"


@pytest.mark.parametrize(
    "refusing", ["no bucket", "wrong key", pytest.param("server down", marks=pytest.mark.slow)], indirect=True
)
def test_an_object_store_that_refuses_is_told(refusing: str) -> None:
    for doing in (cu.open_results, small.run):
        started = time.monotonic()
        with pytest.raises(StorageError, match="the object store refused or could not be reached"):
            doing(refusing)
        print(f"\n{doing.__name__}: {time.monotonic() - started:.1f} s")


@pytest.mark.thorough
@pytest.mark.usefixtures("small_groups")
def test_a_creation_that_was_cut_off_before_its_study_was_laid_out_goes_on(
    truth: Truth, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"{bucket}/empty"

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StudyWriter, "lay_out", killed)
        with pytest.raises(KeyboardInterrupt):
            small.run(store)
    with pytest.raises(StoreError, match="holds no study yet") as error:
        cu.open_results(store)
    assert not isinstance(error.value, DamageError)
    assert truth.compare(small.run(store)).whole


def test_a_creation_that_was_cut_off_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "_LOOKS", 2)
    put(f"{bucket}/cut/config.yaml", b"")
    with pytest.raises(StoreError, match="creation was cut off"):
        small.run(f"{bucket}/cut")
