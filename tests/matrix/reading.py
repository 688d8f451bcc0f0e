"""What one environment does, in a process of its own and without torch: write a store, go on with one, read all.

Run as ``python -I -m tests.matrix.reading write|add|read ...`` in an environment of `tests.matrix.environments`, which
finds the tests in the source tree and the package where it is installed.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import icechunk
import numpy as np
import xarray as xr

import causalunet as cu
from causalunet.errors import DamageError, StoreError
from causalunet.results.engine import backend as engine
from tests.matrix import sound_store
from tests.matrix.sound_store import LABEL

__all__ = ["main"]

NEWER = "newer"
"""Folder of stores in the format that the first major version of the engine does not read."""
READS_NEWER = int(icechunk.__version__.split(".")[0]) > 1
BLOCKED = ("einops", "nnsight", "safetensors", "torch")
LONGEST = 600.0
"""Seconds after which a process tells where its threads are, and ends: the longest takes about a hundred."""
SWEEP = {"kind": "ablate_block", "bottom": 2}
"""One of the written study's sweeps, over start."""


def main(arguments: list[str]) -> None:
    """Carry out one of ``write STORE``, ``add STORE COUNT|all`` and ``read OUT OWN STORE ...``."""
    warnings.filterwarnings("error", module=r"causalunet(\.|$)")  # what the newest versions will not do for long
    _check_environment()
    action, path, *rest = arguments
    if action == "write":
        _write(Path(path))
    elif action == "add":
        _add(Path(path), None if rest[0] == "all" else int(rest[0]))
    else:
        _read(Path(path), [Path(store) for store in rest])


def _check_environment() -> None:
    package = Path(cu.__file__).resolve()
    assert package.is_relative_to(Path(sys.prefix).resolve()), f"{package} is not the installed package"
    found = [name for name in BLOCKED if find_spec(name) is not None]
    assert not found, f"installed, though the reading side needs none of them: {found}"


def _write(path: Path) -> None:
    """Write a store, and where the engine can, one beside it in the format that only newer engines read."""
    sound_store.write(path)
    if READS_NEWER:
        with mock.patch.object(engine, "_SHARED_FORMAT", 2):
            sound_store.write(path.parents[1] / NEWER / path.name)


def _add(path: Path, count: int | None) -> None:
    """Write the next blocks, or all that are left, of a store that others began, or the first of a new one."""
    if not path.exists():
        sound_store.lay_out(path)
    done = int((cu.open_results(path).baseline.status == 1).sum())
    pending = [block for block in sound_store.blocks() if block.start >= done]
    now = pending[:count]
    sound_store.add_blocks(path, now)
    results = cu.open_results(path)
    assert results.verify().exit_code == (0 if now == pending else 3)
    results.tag(f"after {len(results.history())} commits")


def _read(out: Path, stores: list[Path]) -> None:
    """Do everything with the first store, and open, query and verify the others; say how each went."""
    told: dict[str, dict[str, str]] = {}
    start = time.monotonic()
    for store in stores:
        checks: dict[str, Callable[[Path, Path], None]] = {"open": _open, "query": _query, "verify": _verify}
        if store == stores[0]:
            checks |= {"export": _export, "plot": _plot, "CLI": _cli}
        if store.parent.name == NEWER:
            checks = {"newer": _newer}
        for name, check in checks.items():
            print(f"{time.monotonic() - start:.1f} s: {name} {store}", flush=True)
            try:
                check(store, out)
                told.setdefault(name, {})[store.stem] = "ok"
            except Exception as error:
                traceback.print_exc(file=sys.stdout)
                told.setdefault(name, {})[store.stem] = f"{type(error).__name__}: {error}"
    _check_environment()
    assert not any(name in sys.modules for name in BLOCKED), "something of the extra was imported"
    (out / "told.json").write_text(json.dumps(told), encoding="utf-8")


def _open(store: Path, out: Path) -> None:
    """Every array of every group holds what was written."""
    _compare(cu.open_results(store))


def _compare(results: xr.DataTree) -> None:
    for path, expected in sound_store.values().items():
        found = results[path].values
        if expected.dtype == object:
            assert found.tolist() == expected.tolist(), path
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=path)


def _newer(store: Path, out: Path) -> None:
    """A store in the newer format opens, or is told as what it is."""
    if READS_NEWER:
        _open(store, out)
        _verify(store, out)
        return
    told: object = "nothing"
    try:
        cu.open_results(store)
    except StoreError as error:
        told = error
    assert "is not damaged, but written in a newer format of icechunk" in str(told), f"{store}: {told}"
    assert not isinstance(told, DamageError), told


def _query(store: Path, out: Path) -> None:
    results, expected = cu.open_results(store), sound_store.values()
    outcomes = results["outcomes"].to_dataset()
    chosen = outcomes.ssim.sel(**SWEEP)
    assert chosen.start.values.tolist() == [6, 4, 3]
    np.testing.assert_allclose(chosen.mean("sample"), expected["outcomes/ssim"][:3].mean(axis=1), rtol=1e-5)
    labelled = outcomes.mse.sel(intervention=LABEL)
    np.testing.assert_allclose(labelled, expected["outcomes/mse"][outcomes.intervention.values == LABEL][0], rtol=1e-5)
    state = results.baseline.x0_hat.sel(step=5)
    np.testing.assert_allclose(state, expected["baseline/x0_hat"][:, 1], rtol=1e-5, atol=1e-6)
    table = results.to_frame("ssim", "mse")
    means = table[(table["kind"] == "ablate_block") & (table["bottom"] == 2)].groupby("start")["ssim"].mean()
    np.testing.assert_allclose(means.loc[[6, 4, 3]], chosen.mean("sample"), rtol=1e-6)
    assert set(table["prompt"]) == set(outcomes.prompt.values.tolist())
    effects = cu.analysis.effects(results, **SWEEP)
    assert np.isfinite(effects.to_dataframe().select_dtypes("number").to_numpy()).any()
    cu.analysis.compare(results, SWEEP, {**SWEEP, "bottom": 3})
    changes = cu.analysis.factor_changes(results, kind="skip_steps")
    np.testing.assert_allclose(
        changes.share.transpose("start", "factor"), expected["outcomes/factor_changed"][8:10].mean(axis=1)
    )
    cu.analysis.summary_table(results, {"two": SWEEP})
    cu.analysis.estimate_quality(results)
    assert len(results.history()) >= len(sound_store.blocks())


def _verify(store: Path, out: Path) -> None:
    found = cu.open_results(store).verify(deep=True, quiet=True)
    assert found, str(found)


def _export(store: Path, out: Path) -> None:
    exported = cu.open_results(store).export(out / "export.zarr")
    _compare(cu.open_results(exported))
    _verify(exported, out)
    with xr.open_datatree(exported, engine="zarr", consolidated=False) as plain:
        _compare(plain)


def _plot(store: Path, out: Path) -> None:
    results, report = cu.open_results(store), cu.report
    one = {**SWEEP, "start": 4}
    figures = {
        "anatomy": lambda: report.plot_anatomy(sound_store.small_anatomy(), ["up.1"]),
        "deviation": lambda: report.plot_deviation(results, one),
        "estimate": lambda: report.plot_estimate(results),
        "estimates": lambda: report.plot_estimates(results),
        "factors": lambda: report.plot_factors(results, {"two": SWEEP}),
        "grid": lambda: report.plot_grid(results, SWEEP),
        "histogram": lambda: report.plot_histogram(results, SWEEP),
        "pairs": lambda: report.plot_pairs(results, one),
        "panels": lambda: report.plot_panels(results),
        "plan": lambda: report.plot_plan(results, one),
        "samples": lambda: report.plot_samples(results),
        "schedule": lambda: report.plot_schedule(results),
        "trend": lambda: report.plot_trend(results, {"two": SWEEP}),
    }
    for name, draw in figures.items():
        for ending in ("png", "svg", "pdf") if name == "trend" else ("png",):
            path = report.save(draw(), out / f"{name}.{ending}", dpi=60)
            assert path.stat().st_size > 1000, path
    page = report.report(results, out / "page.html")
    assert LABEL in page.read_text(encoding="utf-8")
    print(report.table_by_start(results, {"two": SWEEP}))


def _cli(store: Path, out: Path) -> None:
    """Exit status and output of every command that reads."""
    command = shutil.which("causalunet", path=str(Path(sys.executable).parent))
    assert command is not None, "the command causalunet is not installed"
    expected = {
        ("--version",): cu.__version__,
        ("status", str(store)): "192 of 192 complete",
        ("verify", "--deep", str(store)): "sound and complete",
        ("ls", str(store)): "ssim",
        ("ls", str(store.parent)): store.name,
        ("export", str(store), str(out / "by-command.zarr")): "Exported",
        ("report", str(store), str(out / "by-command.html")): "Page",
    }
    for arguments, text in expected.items():
        done = _run([command, *arguments])
        assert done.returncode == 0, done
        assert text in done.stdout, done
    refused = _run([command, "run", str(store)])
    assert refused.returncode == 2, refused
    assert refused.stderr.splitlines()[-1].startswith("causalunet: "), refused  # libraries may warn before


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, encoding="utf-8")


if __name__ == "__main__":
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    main(sys.argv[1:])
    # Past the engine, as the command does: its threads may still end the process by a signal at its very end, all done
    # and stored, which says nothing of what was read and written.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
