"""What workers cost and bring: one worker against the same process, and two workers against one. ``make bench``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import causalunet as cu
from tests.trust import small

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

STUDY = cu.Study(
    name="bench",
    prompts=["a solid blue circle at the top, light background"],
    seeds=range(8),
    sampler=cu.DDPM(steps=4),
    interventions=[cu.AblateBlock(bottom=2, window=cu.Window(3, 1)), cu.AblateSkip(top=1, window=cu.Window(3, 1))],
)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def test_workers_against_one_process(tmp_path: Path) -> None:
    from tests.cluster.conftest import cluster

    # Blocks of two samples in all three, so that only who runs them differs.
    options = {"memory": small.MEMORY, "progress": False}
    took = {"this process": seconds(lambda: STUDY.run(tmp_path / "alone.zarr", **options))}
    for number in (1, 2):
        with cluster(number) as client:
            STUDY.run(tmp_path / f"warm-{number}.zarr", client=client, **options)  # workers load the model
            name = f"{number} worker{'s' * (number > 1)}"
            took[name] = seconds(
                lambda client=client, number=number: STUDY.run(tmp_path / f"by-{number}.zarr", client=client, **options)
            )
    calls = STUDY.plan(calibrate=False).unet_calls
    parts = sum(bool(one.added.get("cells")) for one in cu.open_results(tmp_path / "by-1.zarr").history())
    print(
        f"\n{calls} U-Net calls in {parts} parts: " + ", ".join(f"{name} {spent:.1f} s" for name, spent in took.items())
    )
    print(f"1 worker takes {took['1 worker'] / took['this process']:.2f} times as long as this process")
    print(f"2 workers are {took['1 worker'] / took['2 workers']:.2f} times as fast as 1")
    assert parts > 1
