"""Ctrl-C and dead threads within one process, which then goes on."""

from __future__ import annotations

import ctypes
import itertools
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import causalunet as cu
from causalunet.errors import StorageError
from causalunet.execute.call.trace import TracedUNet
from causalunet.results.engine.background_writer import BackgroundWriter
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.store import store_exists
from tests.trust import small
from tests.trust.truth import Truth

pytestmark = pytest.mark.usefixtures("small_groups")

WATCHED = ((TracedUNet, "__call__"), (StudyWriter, "write"), (StudyWriter, "read"), (StudyWriter, "commit"))


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], Iterator[int]]:
    """Count U-Net calls, writes, reads and commits, before and after each, and interrupt one."""
    counter = itertools.count()
    stop: list[int | None] = [None]

    def step() -> None:
        if next(counter) == stop[0]:
            raise KeyboardInterrupt

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            step()
            result = function(*arguments, **options)
            step()
            return result

        return call

    for owner, name in WATCHED:
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))

    def begin(at: int | None) -> Iterator[int]:
        nonlocal counter
        counter, stop[0] = itertools.count(), at
        return counter

    return begin


def look(truth: Truth, store: Path) -> int:
    """Number of complete cells, all of them right."""
    if not store_exists(store):
        return 0
    seen = truth.compare(cu.open_results(store))
    assert seen.wrong == []
    return len(seen.cells)


def interrupt(truth: Truth, store: Path, count: Callable[[int | None], Iterator[int]], moments: list[int]) -> list[int]:
    """Interrupt at counted moments, then let the study be completed; gives how many cells there were each time."""
    cells = []
    for at in moments:
        count(at)
        with pytest.raises(KeyboardInterrupt):
            small.run(store)
        cells.append(look(truth, store))
    count(None)
    seen = truth.compare(small.run(store))
    assert (seen.wrong, seen.whole) == ([], True)
    return cells


@pytest.mark.thorough
def test_an_interrupted_process_goes_on(
    truth: Truth, tmp_path: Path, count: Callable[[int | None], Iterator[int]]
) -> None:
    assert interrupt(truth, tmp_path / "results.zarr", count, [50, 250])[1] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_process_interrupted_at_any_call_goes_on(
    truth: Truth, tmp_path: Path, count: Callable[[int | None], Iterator[int]]
) -> None:
    begun = count(None)
    small.run(tmp_path / "whole.zarr")
    moments, draw = next(begun), random.Random(0)
    cells = [interrupt(truth, tmp_path / f"{number}.zarr", count, [draw.randrange(moments)])[0] for number in range(50)]
    print(f"\n{len(cells)} interrupts at counted calls, after {sorted(cells)} cells")


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Ctrl-C after some time, wherever the process is."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
@pytest.mark.timeout(3600, method="thread")
# An interrupt within zarr leaves a coroutine that nobody awaits.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_process_interrupted_at_any_instant_goes_on(truth: Truth, tmp_path: Path) -> None:
    draw, interrupted, stores = random.Random(0), 0, 0
    while interrupted < 50:
        store = tmp_path / f"{stores}.zarr"
        try:
            with alarm(draw.uniform(0, truth.seconds)):
                results = small.run(store)
        except KeyboardInterrupt:
            interrupted += 1
            look(truth, store)
            continue
        seen = truth.compare(results)
        assert (seen.wrong, seen.whole) == ([], True)
        stores += 1
    print(f"\n{interrupted} interrupts at random instants, {stores} stores completed")


def end_thread() -> None:
    """Make the writer's thread end, as nothing in Python should."""
    for thread in threading.enumerate():
        if thread.name == "causalunet-writer" and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


@pytest.mark.thorough
@pytest.mark.parametrize("number", [40, *(pytest.param(number, marks=pytest.mark.slow) for number in (0, 90))])
def test_a_dead_writer_is_told(truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    store, put, puts = tmp_path / "results.zarr", BackgroundWriter.put, itertools.count()

    def then_dead(writer: BackgroundWriter, write: Callable[[], None]) -> None:
        put(writer, write)
        if next(puts) == number:
            end_thread()

    with monkeypatch.context() as patch:
        patch.setattr(BackgroundWriter, "put", then_dead)
        with pytest.raises(StorageError, match="thread that writes results has died"):
            small.run(store)
    look(truth, store)
    seen = truth.compare(small.run(store))
    assert (seen.wrong, seen.whole) == ([], True)


def test_a_write_that_ends_its_thread_is_told() -> None:
    writer = BackgroundWriter()

    def write() -> None:
        raise SystemExit

    writer.put(write)
    with pytest.raises(StorageError, match="thread that writes results has died"):
        writer.drain()
    written: list[int] = []
    writer.put(lambda: written.append(1))
    writer.drain()
    assert written == [1], "it goes on with another thread"
