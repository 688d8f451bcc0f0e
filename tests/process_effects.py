"""Run by `tests/test_process.py`: prints as JSON what using the package changes in a process."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path

# Whatever these do to the process on import is theirs.
import icechunk
import matplotlib as mpl
import nnsight  # noqa: F401
import numpy as np
import rich.console  # noqa: F401
import scipy.stats  # noqa: F401
import torch
import torch._inductor.config
import xarray as xr
import zarr

with contextlib.suppress(ModuleNotFoundError):  # xarray imports it, where it is installed, with its first variable
    import dask.array  # noqa: F401

_BYTES = 64 << 20
"""More than glibc's threshold can grow to by itself, 32 MiB."""


def state() -> dict[str, str]:
    """Whatever of a process a library could change, by name."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        name: repr(value)
        for name, value in {
            **{f"variable {name}": value for name, value in os.environ.items()},
            "warning filters": warnings.filters,
            "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook, warnings.showwarning),
            "streams": (sys.stdin, sys.stdout, sys.stderr),
            "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
            "root logger": (logging.root.level, logging.root.handlers, logging.root.manager.disable),
            "module search": (sys.path, sys.meta_path),
            "folder and umask": (Path.cwd(), umask),
            "locale": locale.setlocale(locale.LC_ALL),
            "interpreter": (sys.getrecursionlimit(), gc.get_threshold(), gc.isenabled(), sys.getswitchinterval()),
            "event loops": asyncio.get_event_loop_policy(),
            "random": random.getstate(),
            "numpy.random": np.random.get_state(),  # noqa: NPY002
            "torch.random": torch.get_rng_state().tolist(),
            "numpy": (np.geterr(), np.get_printoptions()),
            "torch": (
                torch.is_grad_enabled(),
                torch.get_default_dtype(),
                torch.get_num_threads(),
                torch.get_num_interop_threads(),
                torch.are_deterministic_algorithms_enabled(),
                torch.get_float32_matmul_precision(),
                torch.backends.mkldnn.enabled,
            ),
            "matplotlib": (dict(mpl.rcParams), mpl.get_backend()),
            "xarray": sorted(xr.get_options().items(), key=str),
            "zarr": zarr.config.config,
        }.items()
    }


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", *"abcdef")]


def maps_large_blocks() -> bool | None:
    """Whether malloc maps a large block of its own from the system; None for other libraries than glibc."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = _Mallinfo2, ctypes.c_void_p, [ctypes.c_void_p]
    before = libc.mallinfo2().hblks
    block = libc.malloc(_BYTES)
    mapped = bool(libc.mallinfo2().hblks > before)
    libc.free(block)
    return mapped


def use(folder: Path) -> None:
    """Plan, run, search, open, verify, export, report and train, a little of each."""
    import causalunet as cu
    from causalunet.training.factor_reader import ReaderTrainingConfig, train_reader
    from tests.trust import small

    model = small.model()
    study = cu.Study(
        name="effects",
        prompts=["a red circle"],
        seeds=range(3),
        sampler=cu.DDPM(steps=2, guidance_scale=1.0),
        interventions=cu.sweep(cu.AblateBlock, bottom=1, start=(2, 1), length=1),
    )
    study.plan(model)
    results = study.run(folder / "results.zarr", model=model, progress=False)
    study.search(folder / "results.zarr", model=model, progress=False)
    results.verify(quiet=True)
    results.tag("paper")
    results.export(folder / "export.zarr")
    cu.analysis.effects(results)
    cu.report.report(results, folder / "report.html")
    next(iter(train_reader(ReaderTrainingConfig(iterations=1, batch_size=2), folder / "reader")))


def main() -> None:
    """Use the package between two looks at the process."""
    torch.manual_seed(7)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # torch imports much with its first optimizer
    mapped, before = maps_large_blocks(), state()
    use(Path(sys.argv[1]))
    after = state()
    changed = {
        name: [before.get(name), after.get(name)]
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }
    icechunk.Repository.create(icechunk.local_filesystem_storage(sys.argv[1] + "/own"))  # warns, if it logs
    print(json.dumps({"changed": changed, "mapped": [mapped, maps_large_blocks()]}))


if __name__ == "__main__":
    main()
