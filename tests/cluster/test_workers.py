"""A study on workers stores what one process stores, and says before anything runs what workers cannot do."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import causalunet as cu
from causalunet.errors import ClusterError, FiringError, SpecError
from causalunet.results.meaning.schema import COMPLETE, MISSING
from tests.cluster.conftest import cluster, run
from tests.cluster.deadly import other_model
from tests.trust import small
from tests.trust.truth import Truth, read

filterwarnings = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
pytestmark = [filterwarnings]


def test_workers_store_what_one_process_does(whole: Truth, at_hand: Any, tmp_path: Path) -> None:
    results = run(tmp_path / "results.zarr", at_hand)
    seen = whole.compare(results)
    assert (seen.wrong, seen.whole) == ([], True)
    assert len([commit for commit in results.history() if commit.added.get("cells")]) == small.PARTS
    assert results.verify(quiet=True)


def test_workers_are_not_profiled_while_a_study_runs(
    at_hand: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took an eighth of the time of a part."""
    from distributed import get_worker

    from causalunet.cluster.worker import JobPlugin

    run_one, profiled = JobPlugin.run, []

    def seen(plugin: JobPlugin, *given: Any) -> Any:
        profiled.append([name for name in get_worker().periodic_callbacks if name.startswith("profile")])
        return run_one(plugin, *given)

    def after(dask_worker: Any) -> list[bool]:
        callbacks = dask_worker.periodic_callbacks
        return [one.is_running() for name, one in callbacks.items() if name.startswith("profile")]

    assert set(map(tuple, at_hand.run(after).values())) == {(True, True)}
    monkeypatch.setattr(JobPlugin, "run", seen)
    run(tmp_path / "results.zarr", at_hand)
    assert profiled == [[]] * small.PARTS
    assert set(map(tuple, at_hand.run(after).values())) == {(True, True)}


@pytest.mark.thorough
def test_what_is_stored_is_not_run_again(
    whole: Truth, at_hand: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "results.zarr", at_hand)
    monkeypatch.setattr("causalunet.cluster.coordinator._Crew.fill", lambda *_: pytest.fail("something was run"))
    run(tmp_path / "results.zarr", at_hand)


@pytest.mark.thorough
def test_an_interrupted_run_goes_on(
    whole: Truth, at_hand: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from causalunet.cluster import coordinator

    real, committed = coordinator.commit_parts, []

    def interrupted(*given: Any) -> None:
        real(*given)
        committed.append(given)
        if len(committed) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(coordinator, "commit_parts", interrupted)
        with pytest.raises(KeyboardInterrupt) as stopped:
            run(tmp_path / "results.zarr", at_hand)
    assert "cells are safe in" in stopped.value.__notes__[0]
    cut_off = cu.open_results(tmp_path / "results.zarr")
    assert (cut_off.outcomes.status.values == MISSING).any()
    assert whole.compare(cut_off).wrong == []
    seen = whole.compare(run(tmp_path / "results.zarr", at_hand))
    assert (seen.wrong, seen.whole) == ([], True)


@pytest.mark.thorough
def test_blocks_are_smaller_where_there_are_more_workers(at_hand: Any, tmp_path: Path) -> None:
    study = replace(small.STUDY, record=cu.Record())
    options: dict[str, Any] = {"model": small.model(), "memory": 1 << 30, "progress": False}
    workers = cu.Workers(client=at_hand, load=small.model)
    one = study.run(tmp_path / "one.zarr", **options)
    shared = study.run(tmp_path / "shared.zarr", client=workers, **options)
    assert (one.attrs["block"], shared.attrs["block"]) == (6, 3)
    equal_but_for_rounding(one, shared)


def equal_but_for_rounding(one: cu.results.Results, other: cu.results.Results) -> None:
    there = read(other)
    for path, (_, values) in read(one).items():
        measured = path.startswith(("outcomes/", "baseline/", "trajectory/")) and values.dtype.kind == "f"
        if measured and "psnr" not in path:  # of images that are alike it is that of rounding
            assert values == pytest.approx(there[path][1], abs=1e-5, nan_ok=True), path


@pytest.mark.thorough
def test_one_worker_and_four_store_what_one_process_does(whole: Truth, tmp_path: Path, small_groups: None) -> None:
    """Of one, blocks are those of the calling process; four have smaller ones, which are run in other batches."""
    with cluster(1) as client:
        seen = whole.compare(run(tmp_path / "one.zarr", client))
        assert (seen.wrong, seen.whole) == ([], True)
    with cluster(4) as client:
        shared = run(tmp_path / "four.zarr", client)
    alone = cu.open_results(whole.path)
    assert (alone.attrs["block"], shared.attrs["block"]) == (2, 1)
    assert (shared.outcomes.status == COMPLETE).all()
    equal_but_for_rounding(alone, shared)


def test_a_worker_with_another_model_is_told(at_hand: Any, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"loads another model than the one here: noise_schedule"):
        run(tmp_path / "results.zarr", at_hand, load=other_model)
    assert (cu.open_results(tmp_path / "results.zarr").outcomes.status.values == MISSING).all()


@pytest.mark.thorough
def test_a_loader_that_fails_on_a_worker_is_told(at_hand: Any, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"cannot load the model: FileNotFoundError: .*no_such_file"):
        run(tmp_path / "results.zarr", at_hand, load=lambda: Path("/no_such_file").read_text())


@pytest.mark.thorough
def test_an_error_that_another_try_would_end_in_too_ends_the_run(
    at_hand: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def wrong(*_: Any) -> None:
        tried.append(1)
        raise FiringError("fired twice")

    monkeypatch.setattr("causalunet.execute.fill.part_runner.check_fired", wrong)
    with pytest.raises(FiringError, match="fired twice"):
        run(tmp_path / "results.zarr", at_hand)
    assert len(tried) <= small.PARTS // 2, "each block's first part was run once"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("asked", ["nthreads", "submit", "wait", "get_events", "register_plugin"])
def test_a_scheduler_that_is_gone_is_told_in_one_way(
    asked: str, at_hand: Any, whole: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client says it in another way at each call, and every moment of a run is one at which it may be gone."""
    from distributed import KilledWorker
    from distributed.client import ClosedClientError, FuturesCancelledError
    from distributed.comm import CommClosedError

    from causalunet.cluster import coordinator

    errors = {"wait": FuturesCancelledError([]), "submit": ClosedClientError("closed")}

    def gone(*given: Any, **options: Any) -> Any:
        raise errors.get(asked, CommClosedError("closed"))

    def killed(*given: Any) -> Any:
        monkeypatch.setattr(at_hand, asked, gone)
        raise KilledWorker("part", "worker", 3)

    place = coordinator if asked == "wait" else at_hand
    if asked == "get_events":  # asked for where workers die
        monkeypatch.setattr(coordinator, "_result_of", killed)
        monkeypatch.setattr(coordinator._Crew, "_try", lambda crew: None)
    elif asked == "register_plugin":
        monkeypatch.setattr(place, asked, gone)
    else:  # after the first commit
        real = coordinator.commit_parts
        monkeypatch.setattr(
            coordinator, "commit_parts", lambda *given: (real(*given), monkeypatch.setattr(place, asked, gone))
        )
    with pytest.raises(ClusterError, match="The scheduler of the cluster is gone, or has forgotten this study"):
        run(tmp_path / "results.zarr", at_hand)
    monkeypatch.undo()
    small.in_small_groups(monkeypatch.setattr)
    seen = whole.compare(run(tmp_path / "results.zarr", at_hand))
    assert (seen.wrong, seen.whole) == ([], True)


@pytest.mark.thorough
def test_an_error_that_passes_is_tried_again(
    whole: Truth, at_hand: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from causalunet.execute.fill import part_runner

    real, failed = part_runner.check_fired, []

    def once(*given: Any) -> None:
        real(*given)
        if not failed:
            failed.append(given)
            raise OSError("the disk was away")

    monkeypatch.setattr(part_runner, "check_fired", once)
    seen = whole.compare(run(tmp_path / "results.zarr", at_hand))
    assert (len(failed), seen.wrong, seen.whole) == (1, [], True)
    failed.clear()
    with pytest.raises(ClusterError, match="OSError on every worker that tried it: the disk was away"):
        run(tmp_path / "again.zarr", at_hand, retries=0)


class _NoClient:
    pass


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"load": 3}, "which cannot be called"),
        ({"retries": -1}, "number of times"),
        ({"resources": {"GPU": 0}}, "amounts by name"),
        ({"client": _NoClient()}, "client=_NoClient is no client of dask"),
    ],
)
def test_what_is_no_crew_is_told(at_hand: Any, given: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        cu.Workers(**{"client": at_hand, **given})


def test_a_model_that_cannot_travel_is_told_before_there_is_a_store(at_hand: Any, tmp_path: Path) -> None:
    path, model = tmp_path / "results.zarr", small.model()
    unknown = replace(small.STUDY, model="no-such-model")
    with pytest.raises(SpecError, match="handed in as an object, and objects with weights are not sent"):
        unknown.run(path, model=model, client=at_hand, progress=False)
    large = b"0" * 20_000_000
    lock = threading.Lock()
    for load, told in ((lambda: (large, model), "20 MB: it carries a model"), (lambda: lock, "cannot be sent")):
        with pytest.raises(SpecError, match=told):
            run(path, at_hand, load=load)
    assert not path.exists()


@pytest.mark.thorough
def test_workers_without_what_is_asked_for_wait(whole: Truth, tmp_path: Path, small_groups: None) -> None:
    with cluster(1, processes=False, resources={"GPU": 1}) as client:
        seen = whole.compare(run(tmp_path / "results.zarr", client, resources={"GPU": 1}))
    assert (seen.wrong, seen.whole) == ([], True)


def test_a_study_whose_workers_are_all_gone_says_that_it_waits() -> None:
    from causalunet.cluster import coordinator

    said: list[str] = []
    crew = coordinator._Crew(SimpleNamespace(say=said.append), SimpleNamespace(client=None), b"")  # type: ignore[arg-type]
    for under_way, workers in [({1: None}, 2), ({1: None}, 0), ({1: None}, 0), ({1: None}, 1), ({}, 0), ({1: None}, 0)]:
        crew._under_way = under_way  # type: ignore[assignment]
        crew._tell_alone(workers)
    assert said == ["No worker is left; what is under way waits for others."] * 2
