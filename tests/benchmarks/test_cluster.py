"""What workers cost and bring: one worker against the same process, and two workers against one. ``make bench``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import causalunet as cu

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

STUDY = cu.Study(
    name="bench",
    prompts=["a solid blue circle at the top, light background"],
    seeds=range(24),
    sampler=cu.DDPM(steps=20),
    interventions=cu.sweep(cu.AblateBlock, bottom=(2, 4), start=(20, 15, 10), length=4),
)
"""Of the embedded model: as its studies are, a few seconds of calls to a part."""
WARMING = dataclasses.replace(STUDY, seeds=range(4))
"""Of two parts: each worker loads the model."""
WORKERS = (1, 2)


@contextmanager
def one_thread() -> Iterator[None]:
    """What a worker of one thread has for its calls."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def test_workers_against_one_process(tmp_path: Path) -> None:
    from tests.cluster.conftest import cluster

    took = {}
    with one_thread():
        WARMING.run(tmp_path / "warm.zarr", progress=False)
        took["this process"] = seconds(lambda: STUDY.run(tmp_path / "alone.zarr", progress=False))
    for number in WORKERS:
        with cluster(number) as client:
            name, path = f"{number} worker{'s' * (number > 1)}", tmp_path / f"by-{number}.zarr"
            WARMING.run(tmp_path / f"warm-{number}.zarr", client=client, progress=False)
            took[name] = seconds(lambda client=client, path=path: STUDY.run(path, client=client, progress=False))
    calls = STUDY.plan(calibrate=False).unet_calls
    results = cu.open_results(tmp_path / "by-1.zarr")
    parts = sum(bool(one.added.get("cells")) for one in results.history())
    print(
        f"\n{calls} U-Net calls in {parts} parts: " + ", ".join(f"{name} {spent:.1f} s" for name, spent in took.items())
    )
    spent = float(results["audit"].seconds.sum())
    print(
        f"1 worker spends {spent:.1f} s in parts, so what is around them takes {took['1 worker'] / spent - 1:.1%} more"
    )
    print(f"1 worker takes {took['1 worker'] / took['this process']:.2f} times as long as this process")
    print(f"2 workers are {took['1 worker'] / took['2 workers']:.2f} times as fast as 1")
    assert parts >= 2 * len(WORKERS)
