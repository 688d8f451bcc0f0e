"""A study of a million cells on a thousand GPUs, reckoned from measurements: ``python -m tests.benchmarks.scale``.

Counted exactly: parts, commits and objects, from the layout of such a study. Measured: a commit into a store that holds
as much as that study's, what else the calling process does for a part, and a task of dask. Simulated: a thousand GPUs
and one calling process, event by event.
"""

from __future__ import annotations

import heapq
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import icechunk
import numpy as np
import zarr

from causalunet.bound import BoundStudy
from causalunet.design import DDPM, AblateBlock, StudySpec, Window
from causalunet.execute.fill import pace
from causalunet.execute.fill.parts import Part, lacks
from causalunet.plan import BASELINE, Plan, make_plan
from causalunet.results.engine import backend
from causalunet.results.engine.location import Location
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.attributes import StoreAttributes
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.schema import COMPLETE
from causalunet.schedule import Schedule, cosine_alpha_bar
from tests.design.examples import u_anatomy

INTERVENTIONS, SAMPLES, STEPS, WORKERS = 1000, 1000, 50, 1000
BLOCKS = (1, 4)
"""Samples of a block: one for each worker, and what fewer workers get."""
SECONDS_OF_CELLS = (0.3, 3.0, 30.0)
"""That a GPU takes for a cell: what a cell costs differs by model and intervention, so results are told for each."""
SPREAD = 0.2
"""Of the time that parts take, as a share (SD of a log-normal distribution)."""
REPEATS = 5


def large_plan(samples: int = SAMPLES) -> Plan:
    """A study of windows and depths of sixteen blocks, images of 3 x 64 x 64, in parts as a GPU gets them."""
    items = [
        AblateBlock(bottom, Window(start, length))
        for bottom in range(1, 17)
        for length in range(1, 11)
        for start in range(STEPS, length, -1)
    ][:INTERVENTIONS]
    sampler = DDPM(steps=STEPS)
    spec = StudySpec(name="scale", prompts=["a circle"], seeds=range(samples), interventions=items, sampler=sampler)
    bound = BoundStudy(spec, u_anatomy(16), Schedule.spaced(cosine_alpha_bar(), STEPS), (3, 64, 64))
    plan = make_plan(bound)
    return replace(plan, part_cells=max(pace.CELLS, INTERVENTIONS * SAMPLES // pace._COMMITS))


def parts_of_block(layout: Layout) -> list[Part]:
    """Parts of the first block, as a run cuts them."""
    group, count = layout.plan.group, len(layout.plan.spec.interventions)
    whole = [
        Part(
            slice(0, layout.block), ((BASELINE,) if first == 0 else ()) + tuple(range(first, min(first + group, count)))
        )
        for first in range(0, count, group)
    ]
    return [one for part in whole for one in pace.portions(part, layout.plan)]


def objects(layout: Layout) -> dict[str, int]:
    """Chunks of each array of a finished store."""
    return {
        array.path: math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True))
        for array in layout.arrays
    }


def median_seconds(does: Callable[[], object]) -> float:
    """Median of some repeats."""
    took = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        does()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def commit_times(layout: Layout, split: dict[int, int] | None) -> Iterator[tuple[float, float, float]]:
    """Share of the study that is there, seconds of a commit of a part, and megabytes of all lists of chunks.

    The store has the arrays of the study; what is there are references without bytes, since a commit handles those.
    """
    arrays = [one for one in layout.arrays if len(one.shape) > 1 and SAMPLES in one.shape[:2]]
    with tempfile.TemporaryDirectory() as folder:
        config = backend.settings()
        if split is not None:
            sizes = {icechunk.ManifestSplitDimCondition.Axis(axis): size for axis, size in split.items()}
            any_array = {icechunk.ManifestSplitCondition.AnyArray(): sizes}
            config.manifest = icechunk.ManifestConfig(splitting=icechunk.ManifestSplittingConfig.from_dict(any_array))
        repository = icechunk.Repository.create(icechunk.local_filesystem_storage(folder), config=config)
        session = repository.writable_session("main")
        root = zarr.open_group(session.store, mode="a")
        for one in arrays:
            root.create_array(one.path, shape=one.shape, chunks=one.chunks, dtype="f4")
        session.commit("laid out")
        done = 0
        for samples in (SAMPLES // 10, SAMPLES * 9 // 10):
            session = repository.writable_session("main")
            for one in arrays:
                counts = [-(-size // chunk) for size, chunk in zip(one.shape, one.chunks, strict=True)]
                axis = one.shape[:2].index(SAMPLES)
                first, last = (at * counts[axis] // SAMPLES for at in (done, samples))
                ranges = [range(first, last) if place == axis else range(count) for place, count in enumerate(counts)]
                session.store.set_virtual_refs(
                    one.path,
                    [
                        icechunk.VirtualChunkSpec(index=list(index), location="s3://b/c", offset=0, length=4)
                        for index in np.stack(np.meshgrid(*ranges), -1).reshape(-1, len(counts)).tolist()
                    ],
                    validate_containers=False,
                )
            session.commit("filled")
            done, took = samples, []
            for repeat in range(REPEATS):
                session = repository.writable_session("main")
                root = zarr.open_group(session.store, mode="a")
                for one in arrays:
                    axis, array = one.shape[:2].index(SAMPLES), root[one.path]
                    index = [slice(0, chunk) for chunk in one.chunks]
                    if axis == 1:  # a group of interventions, all chunks of it
                        index[0] = slice(128, 256)
                    at = samples + repeat * layout.block
                    index[axis] = slice(at, at + layout.block)
                    with zarr.config.set({"array.write_empty_chunks": True}):
                        array[tuple(index)] = 1.0
                started = time.perf_counter()
                commit = session.commit("a part")
                took.append(time.perf_counter() - started)
            found = repository.inspect_snapshot(commit)
            document = json.loads(found) if isinstance(found, str) else found
            size = sum(entry["size_bytes"] for entry in document["manifests"]) / 1e6
            yield samples / SAMPLES, statistics.median(took), size


def handling_seconds() -> dict[str, float]:
    """What the calling process does for a part besides the commit, in seconds; in a store of eight samples."""
    with tempfile.TemporaryDirectory() as folder:
        plan = large_plan(8)
        layout = Layout(plan, {}, 1)
        attributes = StoreAttributes(study=plan.spec.to_json(), digest=plan.spec.digest)
        writer = StudyWriter.create(Location.parse(Path(folder) / "x.zarr"), layout, attributes)
        part, took = parts_of_block(layout)[1], dict[str, list[float]]()
        rows = slice(part.interventions[0], part.interventions[-1] + 1)
        for sample in range(REPEATS + 1):  # the first warms up
            one = replace(part, samples=slice(sample, sample + 1))
            clock = [time.perf_counter()]
            session = StudyWriter(writer.repository)
            assert session.known.layout_id
            lacks(session, one)
            fork = session.fork()
            clock.append(time.perf_counter())
            worker = StudyWriter(writer.repository, fork)
            for name in ("ssim", "psnr", "mse"):
                worker.write(f"outcomes/{name}", (rows, one.samples), np.zeros((len(one.interventions), 1)))
            worker.write("outcomes/status", (rows, one.samples), np.array(COMPLETE))
            written = worker.written()
            clock.append(time.perf_counter())
            session.take(written)
            clock.append(time.perf_counter())
            session.commit("a part", {})
            clock.append(time.perf_counter())
            if sample:
                for name, seconds in zip(("open", "worker", "take", "commit"), np.diff(clock), strict=True):
                    took.setdefault(name, []).append(float(seconds))
        return {name: statistics.median(seconds) for name, seconds in took.items()}


def task_seconds(tasks: int = 500) -> float:
    """What a task takes the scheduler and the client, on two workers that do nothing."""
    from distributed import Client, LocalCluster, wait

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "processes": False}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        started = time.perf_counter()
        wait([client.submit(int, number, pure=False) for number in range(tasks)])
        return (time.perf_counter() - started) / tasks


def simulated(blocks: int, parts: int, seconds: float, service: float, seed: int = 0) -> tuple[float, float]:
    """Hours until all is committed, and the share of that in which the calling process is busy.

    Parts of a block run one after the other, each once the last was taken; the calling process takes one at a time.

    Parameters
    ----------
    blocks, parts : int
        Parts are those of a block.
    seconds : float
        That a part takes a GPU.
    service : float
        Seconds of the calling process for a part.
    """
    rng = np.random.default_rng(seed)
    free, busy, now, left = 0.0, 0.0, 0.0, blocks
    events: list[tuple[float, int]] = []  # when a part is run, and how many its block has left

    def send(at: float, rest: int) -> None:
        heapq.heappush(events, (at + seconds * rng.lognormal(-(SPREAD**2) / 2, SPREAD), rest))

    for _ in range(min(WORKERS, blocks)):
        left, free, busy = left - 1, free + service, busy + service
        send(free, parts - 1)
    while events:
        ran, rest = heapq.heappop(events)
        free = now = max(free, ran) + service
        busy += service
        if rest:
            send(now, rest - 1)
        elif left:
            left -= 1
            send(now, parts - 1)
    return now / 3600, busy / now


def main() -> None:
    """Print all tables."""
    backend.begin()
    print(f"{INTERVENTIONS} interventions x {SAMPLES} samples, {STEPS} steps, {WORKERS} GPUs")
    layouts = {block: Layout(large_plan(), {}, block) for block in BLOCKS}
    for block, layout in layouts.items():
        count, parts = objects(layout), parts_of_block(layout)
        largest = max(count, key=lambda path: count[path])
        blocks = math.ceil(SAMPLES / block)
        print(
            f"block of {block}: {blocks} blocks of {len(parts)} parts of at most {max(part.cells for part in parts)} "
            f"cells, {blocks * len(parts):,} commits; {sum(count.values()):,} chunks, most of them of {largest} "
            f"({count[largest]:,})"
        )
    commits = dict[str, float]()
    for told, split in (("along one axis", {0: 64}), ("by default", None)):
        for share, seconds, size in commit_times(layouts[1], split):
            commits[told] = seconds
            print(f"commit, lists of chunks split {told}: {share:.0%} there, {seconds * 1e3:.0f} ms, {size:.1f} MB")
    handling = handling_seconds()
    print("a part otherwise: " + ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in handling.items()))
    task = task_seconds()
    print(f"a task of dask: {task * 1e3:.2f} ms")
    parts = len(parts_of_block(layouts[1]))
    for told, commit in commits.items():
        service = commit + handling["open"] + handling["take"] + task
        for seconds in SECONDS_OF_CELLS:
            work = seconds * INTERVENTIONS / parts
            hours, busy = simulated(SAMPLES, parts, work, service)
            ideal = seconds * INTERVENTIONS * SAMPLES / WORKERS / 3600
            print(
                f"cells of {seconds:g} s, split {told}: {service * 1e3:.0f} ms a part, {hours:.2f} h where "
                f"{ideal:.2f} h is the least ({ideal / hours:.0%} of GPU time used), calling process busy {busy:.0%}"
            )


if __name__ == "__main__":
    sys.exit(main())
