"""Ratios of wall time, each against a named baseline in the same run: ``make bench``.

Arms are interleaved and the median of the repeats counts; the last lines printed are the table.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from causalunet.design import AblateBlock, Window, Zero
from causalunet.execute import TracedUNet
from causalunet.models import load_shapes
from causalunet.plan import Action, PlacedFill

pytestmark = pytest.mark.benchmark

_REPEATS = 9


def interleaved(arms: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of every arm; arms take turns, so that drift hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(_REPEATS + 1):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            if repeat:
                times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in times.items()}


@pytest.fixture(scope="module")
def call() -> dict[str, object]:
    """The embedded model with the arguments of one guided call of four samples (eight rows)."""
    model = load_shapes()
    rows = 8
    context = tuple(part.expand(rows, *part.shape[1:]) for part in model.encode(["a solid red circle"]))
    x = torch.randn(rows, *model.image_shape, generator=torch.Generator().manual_seed(0))
    return {"model": model, "arguments": (x, torch.full((rows,), 500.0), *context)}


@torch.inference_mode()
def test_tracing_against_the_plain_forward(call: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    model, arguments = call["model"], call["arguments"]
    traced = TracedUNet(model.unet, model.anatomy)  # type: ignore[attr-defined]
    medians = interleaved(
        {
            "plain forward": lambda: model.unet(*arguments),  # type: ignore[attr-defined,misc]
            "traced": lambda: traced(Action(), arguments, 4),  # type: ignore[arg-type]
        }
    )
    with capsys.disabled():
        ratio = medians["traced"] / medians["plain forward"]
        print(f"\none guided call, 4 samples: traced takes {ratio:.3f} of the plain forward's time")


@torch.inference_mode()
def test_dead_blocks_against_running_them(call: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    model, arguments = call["model"], call["arguments"]
    anatomy = model.anatomy  # type: ignore[attr-defined]
    traced = TracedUNet(model.unet, anatomy)  # type: ignore[attr-defined]
    lines = []
    for bottom in (2, 4, 6, 8, 10, 12):
        (edit,) = AblateBlock(bottom, Window(1, 1)).edits()
        dead = anatomy.dead({edit.component})
        action = Action(frozenset({PlacedFill(edit.site, Zero())}), dead)
        medians = interleaved(
            {
                "uncut": lambda: traced(Action(), arguments, 4),  # type: ignore[arg-type]
                "cut": partial(traced, action, arguments, 4),  # type: ignore[arg-type]
            }
        )
        saved, flops = 1 - medians["cut"] / medians["uncut"], 1 - anatomy.live_flops(dead) / anatomy.flops
        lines.append(f"{bottom:>6}  {saved:>10.1%}  {flops:>10.1%}")
    with capsys.disabled():
        print(f"\none guided call, 4 samples, {torch.get_num_threads()} threads; baseline: the uncut traced call")
        print("bottom  time saved  FLOPs dead\n" + "\n".join(lines))


_FORWARD = """
import time, torch
from causalunet.models import load_shapes
if {keep}:
    from causalunet.execute.call.allocator import keep_freed_memory
    assert keep_freed_memory()
model, rows = load_shapes(), 64
context = tuple(part.expand(rows, *part.shape[1:]) for part in model.encode(["a solid red circle"]))
arguments = (torch.randn(rows, *model.image_shape), torch.full((rows,), 500.0), *context)
times = []
with torch.inference_mode():
    for _ in range(6):
        started = time.perf_counter()
        model.unet(*arguments)
        times.append(time.perf_counter() - started)
print(sorted(times[1:])[2])
"""


def test_keeping_freed_memory_against_the_default_allocator(capsys: pytest.CaptureFixture[str]) -> None:
    medians: dict[bool, list[float]] = {True: [], False: []}
    for keep in (False, True) * 3:
        done = subprocess.run(
            [sys.executable, "-c", _FORWARD.format(keep=keep)], capture_output=True, text=True, check=True
        )
        medians[keep].append(float(done.stdout))
    ratio = float(np.median(medians[True]) / np.median(medians[False]))
    with capsys.disabled():
        print(f"\nforward of 64 rows: keeping freed memory takes {ratio:.2f} of the default allocator's time")
