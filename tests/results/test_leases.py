"""Claims in an object store: one process has one, keeps it while it runs, and loses it some time after it is killed."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress

import icechunk
import pytest

from causalunet.errors import StorageError
from causalunet.results.engine import leases
from causalunet.results.engine.leases import Leases
from causalunet.results.engine.location import Location

BEAT, LEASE = 0.3, 1.5


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", BEAT)
    monkeypatch.setattr(leases, "LEASE_SECONDS", LEASE)


@pytest.fixture
def storage() -> icechunk.Storage:
    """A store's, as every process of it sees it."""
    made = icechunk.in_memory_storage()
    icechunk.Repository.create(made)
    return made


def process(storage: icechunk.Storage) -> Leases:
    """The claims of another process."""

    def commit(session: icechunk.Session, message: str, notes: dict[str, str]) -> str:
        return session.commit(message, metadata=notes)

    return Leases(icechunk.Repository.open(storage), Location.parse("s3://bucket/store"), commit)


def branches(storage: icechunk.Storage) -> set[str]:
    return icechunk.Repository.open(storage).list_branches()


def beats_of(one: Leases, storage: icechunk.Storage) -> list[int]:
    """Numbers of the branches that it is known by: one, or two while it beats."""
    return [int(name.rpartition("-")[2]) for name in branches(storage) if name.startswith(f"holder-{one._name}-")]


def die(one: Leases) -> None:
    """Do what being killed does: beat no more, and give nothing back."""
    one._ended.set()
    one._thread.join()


def test_of_many_processes_that_ask_at_once_one_has_the_claim(storage: icechunk.Storage) -> None:
    together, asked = threading.Barrier(6), threading.Barrier(6)
    had: list[bool] = []

    def ask(one: Leases) -> None:
        with one.at_work():
            together.wait()
            with one.claim("block", "no") as free:
                had.append(free)
                asked.wait()

    for _ in range(3):
        had.clear()
        threads = [threading.Thread(target=ask, args=(process(storage),)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(had) == [False] * 5 + [True]
    assert branches(storage) == {"main"}


def test_a_claim_is_free_again_when_it_is_given_back(storage: icechunk.Storage) -> None:
    one, two = process(storage), process(storage)
    with one.at_work(), two.at_work():
        with one.claim("a", "no") as free, one.claim("b", "no") as other, one.claim("a", "no") as again:
            assert (free, other, again) == (True, True, False)
            with two.claim("a", "no") as taken:
                assert not taken
            assert one.holds("a")
            assert not two.holds("a")
        with two.claim("a", "no") as taken:
            assert taken


@pytest.mark.thorough
def test_a_process_that_runs_keeps_its_claim_and_one_that_was_killed_loses_it(storage: icechunk.Storage) -> None:
    one, two = process(storage), process(storage)
    with ExitStack() as kept:
        kept.enter_context(one.claim("block", "no"))
        kept.enter_context(two.at_work())
        began = time.monotonic()
        while time.monotonic() < began + 2 * LEASE:
            with two.claim("block", "no") as free:
                assert not free
            time.sleep(BEAT / 2)
        with two.claim("block", "known") as free:
            assert not free
        die(one)
        began = time.monotonic()
        with two.claim("block", "free") as free:
            assert free
            assert time.monotonic() - began >= LEASE - BEAT
            assert not one.holds("block")
            one._release("block")
            assert two.holds("block"), "what was lost is not given back"


def test_what_killed_processes_left_is_collected(storage: icechunk.Storage) -> None:
    one, two = process(storage), process(storage)
    left = ExitStack()
    for name in ("a", "b", "c"):
        left.enter_context(one.claim(name, "no"))
    die(one)
    with two.at_work():
        with two.claim("b", "known") as free:
            assert free
        began = time.monotonic()
        with two.claim("c", "no") as free:
            assert free
        assert time.monotonic() - began < LEASE, "it is waited for once"
    assert branches(storage) == {"main"}


def test_one_that_was_held_up_is_heard_of_again(storage: icechunk.Storage) -> None:
    one, two = process(storage), process(storage)
    with two.at_work(), one.at_work():
        die(one)  # as if stopped
        time.sleep(LEASE + 3 * BEAT)
        assert two._watched[one._name].state == "gone"
        with one.claim("block", "no") as free:
            assert free
            one._beats += 1
            one._handle.create_branch(one._branch, one._mine)
            with two.claim("block", "no") as taken:
                assert not taken


def test_beats_go_on_after_another_process_has_cleared_up(storage: icechunk.Storage) -> None:
    one = process(storage)
    with one.at_work():
        with suppress(icechunk.IcechunkError):  # it beats meanwhile, and may have deleted that one itself
            one._handle.delete_branch(one._branch)
        # It is not asked which number its branch has now: the next beat may fall between two questions.
        until = time.monotonic() + 20
        while not (beats := beats_of(one, storage)) and time.monotonic() < until:
            time.sleep(BEAT)
        assert max(beats, default=0) > 0
    assert branches(storage) == {"main"}


def test_beats_are_watched_by_the_clock_of_the_one_that_watches() -> None:
    one = leases._Watched(7, 0.0)
    for now, beat, state in (
        (LEASE - BEAT, 7, "unknown"),
        (LEASE, 8, "runs"),
        (2 * LEASE - BEAT, 8, "runs"),
        (2 * LEASE, 8, "gone"),
        (3 * LEASE, 9, "runs"),
        (3 * LEASE + BEAT, None, "gone"),
        (4 * LEASE, 10, "runs"),
    ):
        one.see(beat, now, now)
        assert one.state == state
    one.see(10, 5 * LEASE - BEAT, 9 * LEASE)
    assert one.state == "runs", "a look counts from when it began"


def test_storage_that_refuses_a_claim_is_told(storage: icechunk.Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    one = process(storage)

    class Refusing:
        def __getattr__(self, name: str) -> object:
            return getattr(one_handle, name)

        def create_branch(self, *arguments: str) -> None:
            raise icechunk.IcechunkError("service error: AccessDenied")

    one_handle = one._handle
    with one.at_work():
        monkeypatch.setattr(one, "_handle", Refusing())
        with pytest.raises(StorageError, match="refused"), one.claim("block", "no"):
            pass


def test_claims_are_seen_without_taking_any(storage: icechunk.Storage) -> None:
    one, two, looking = process(storage), process(storage), process(storage)
    assert looking.seen() == {}
    before = branches(storage)
    with one.claim("block-000000", "no"), one.claim("block-000001", "no"), two.claim("block-000002", "no") as free:
        assert free
        seen = looking.seen()
        assert list(seen) == ["block-000000", "block-000001", "block-000002"]
        assert len(set(seen.values())) == 2
        assert seen["block-000000"] == seen["block-000001"]
    assert looking.seen() == {}
    assert branches(storage) == before
