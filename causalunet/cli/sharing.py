"""Options of ``run`` and ``resume`` that share a study: between workers, devices of this machine, or jobs."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from causalunet.cli.printing import tell
from causalunet.errors import ClusterError, SpecError
from causalunet.study import runner_on_workers

if TYPE_CHECKING:
    from causalunet.plan import Plan

__all__ = ["device_count", "runner", "share"]

_SHARE = re.compile(r"(\d{1,5})/(\d{1,5})")
_ALL = -1
_SECONDS = 30


def share(text: str) -> tuple[int, int]:
    """Read ``k/n``, the k-th of n shares."""
    found = _SHARE.fullmatch(text)
    number, shares = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= shares:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give one such as 1/4, which counts from 1 to 4/4")
    return number, shares


def device_count(text: str) -> int:
    """Read a number of devices, or ``all``."""
    if text == "all":
        return _ALL
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of devices; give 'all', or one such as 2")
    return int(text)


@contextmanager
def runner(plan: Plan, chosen: Mapping[str, str], options: argparse.Namespace) -> Iterator[Callable[..., None]]:
    """What runs a plan as the options say, called as `causalunet.execute.run_plan` is.

    Parameters
    ----------
    plan : Plan
    chosen : mapping of str to str
        What the model's loader is given.
    options : Namespace

    Raises
    ------
    SpecError
        There are fewer devices.
    ClusterError
        No scheduler answers.
    MissingExtraError
        Workers are asked for, and dask is not installed.
    """
    if not options.scheduler and not options.devices:
        from causalunet.execute import run_plan

        yield partial(run_plan, shard=options.shard)
        return
    run_on_workers = runner_on_workers()
    import distributed

    from causalunet.cluster import Workers
    from causalunet.models import load_model

    if options.scheduler:
        load = partial(load_model, plan.spec.model, **chosen) if chosen else None
        try:
            client = distributed.Client(options.scheduler, timeout=_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(f"No scheduler of dask answers at {options.scheduler}: {error}") from error
        with client:
            yield partial(run_on_workers, client=Workers(client=client, load=load))
        return
    cluster, device = _local(options)
    on = {**chosen, **device}
    load = partial(load_model, plan.spec.model, **on) if on else None
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield partial(run_on_workers, client=Workers(client=client, load=load))


def _local(options: argparse.Namespace) -> tuple[Any, dict[str, str]]:
    """A process for each device of this machine, and what their models are told of it."""
    import distributed
    import torch

    on_gpus = torch.cuda.is_available() and (options.device or "cuda").startswith("cuda")
    there = torch.cuda.device_count() if on_gpus else _cores()
    number, what = there if options.devices == _ALL else options.devices, "GPUs" if on_gpus else "cores"
    if number > there:
        raise SpecError(f"--devices {number}, and this machine has {there} {what} for this process.")
    tell(f"  workers       {number} processes, each with its own {what[:-1]}")
    workers = {
        index: {"cls": distributed.Nanny, "options": {"nthreads": 1, "env": _environment(index, on_gpus=on_gpus)}}
        for index in range(number)
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"port": 0, "dashboard_address": ":0", "host": "127.0.0.1"}}
    return distributed.SpecCluster(workers, scheduler, silence_logs=50), {"device": "cuda"} if on_gpus else {}


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(index: int, *, on_gpus: bool) -> dict[str, str]:
    """Of a worker's process: the GPU that it sees, of those that this process sees."""
    if not on_gpus:
        return {"OMP_NUM_THREADS": "1"}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": seen.split(",")[index] if seen else str(index)}
