"""The reading side under every Python and every set of versions that is supported: ``make matrix``.

Every interpreter of Python 3.11 to 3.14 that is found (on PATH, among pyenv's versions, and what $MATRIX_PYTHONS names)
is crossed with the lower bounds of pyproject.toml, the pins of constraints.txt and the newest versions. Each such
combination writes a store, goes on with one that passes through all of them, opens, queries and verifies the stores of
all, and exports, plots and runs the commands on its own. Stores in a newer format of the engine (column "newer") open
where the engine reads it, and are told as what they are elsewhere. Nothing of this needs torch, which is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.matrix.environments import Combination, Failed, build_wheel
from tests.matrix.interpreters import MINORS, Interpreter, find
from tests.matrix.requirements import KINDS, LOWER, NEWEST

__all__ = ["CHECKS", "crossed", "main", "table"]

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ("install", "write", "pass on", "open", "query", "verify", "newer", "export", "plot", "CLI")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix, print a table, and give 0 if all is well, else 1."""
    options = _parser().parse_args(arguments)
    start = time.monotonic()
    work = options.folder / "run"
    shutil.rmtree(work, ignore_errors=True)
    (work / "stores").mkdir(parents=True)
    interpreters = find(os.environ)
    _tell_interpreters(interpreters)
    chosen = crossed(interpreters, ci=options.ci)
    combinations = [Combination(python, kind, ROOT, options.folder / "environments", work) for python, kind in chosen]
    print(f"Logs: {work}\n{len(combinations)} combinations, {options.jobs} at a time; installing", flush=True)
    _run_all(combinations, work, options.jobs)
    print(table(combinations))
    wrong = [f"{one.name}: {check}: {said}" for one in combinations for check, said in _wrong(one)]
    print("".join(f"{line}\n" for line in wrong), end="")
    print(f"{len(wrong)} failures, {time.monotonic() - start:.0f} s. Logs: {work}")
    return int(bool(wrong))


def crossed(interpreters: Sequence[Interpreter], *, ci: bool) -> list[tuple[Interpreter, str]]:
    """Interpreters by sets of requirements; for CI the newest on the newest Python, and the lower bounds on 3.11."""
    if not ci:
        if not interpreters:
            raise SystemExit("There is no Python 3.11 to 3.14 on PATH or among pyenv's. Name one in MATRIX_PYTHONS.")
        return [(python, kind) for python in interpreters for kind in KINDS]
    oldest = [python for python in interpreters if python.minor == MINORS[0]]
    if not oldest:
        raise SystemExit(
            "The lower bounds are tested on Python 3.11, and there is none on PATH or among pyenv's versions. Install "
            "one, or name it: MATRIX_PYTHONS=/path/to/python3.11"
        )
    return [(oldest[-1], LOWER), (interpreters[-1], NEWEST)]


def table(combinations: Iterable[Combination]) -> str:
    """How every step went under every combination, as text."""
    rows = [["Python", "versions", *CHECKS]]
    for one in combinations:
        marks = [_mark(one, check) for check in CHECKS]
        rows.append([str(one.interpreter), one.kind, *marks])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [f"{one.name}: {one.versions or one.results['install']}" for one in combinations]
    return "\n".join([*lines, "", *notes, ""])


def _mark(one: Combination, check: str) -> str:
    if one.left_out:
        return "not installable" if check == "install" else "-"
    said = one.results.get(check)
    return "-" if said is None else said if said == "ok" else "FAILED"


def _wrong(one: Combination) -> list[tuple[str, str]]:
    return [] if one.left_out else [(check, said) for check, said in one.results.items() if said != "ok"]


def _run_all(combinations: list[Combination], work: Path, jobs: int) -> None:
    try:
        wheel = build_wheel(ROOT, work)
    except Failed as failed:
        raise SystemExit(f"The package cannot be built: {failed}. The log is {work / 'wheel.log'}.") from failed
    with ThreadPoolExecutor(jobs) as pool:
        _each(pool, combinations, lambda one: one.install(wheel))
        ready = [one for one in combinations if one.works]
        print(f"{len(ready)} are installed; writing, passing on and reading", flush=True)
        _each(pool, ready, lambda one: _step(one, "write", "write", str(_store(one))))
        relay = work / "stores" / "passed-on.zarr"
        _pass_on(ready, relay)
        stores = [_store(one) for one in ready if one.results["write"] == "ok"]
        if all(one.results["pass on"] == "ok" for one in ready):
            stores.append(relay)
        stores += sorted(work.glob("newer/*.zarr"))
        _each(pool, ready, lambda one: _read(one, stores))


def _each(pool: ThreadPoolExecutor, combinations: list[Combination], step: Callable[[Combination], None]) -> None:
    list(pool.map(step, combinations))


def _step(one: Combination, check: str, *arguments: str) -> None:
    try:
        one.read(*arguments)
        one.results[check] = "ok"
    except Failed as failed:
        one.results[check] = str(failed)


def _pass_on(combinations: list[Combination], store: Path) -> None:
    """Let one combination after the other go on with a store: each writes a part, and the last what is left."""
    for one in combinations:
        _step(one, "pass on", "add", str(store), "1" if one is not combinations[-1] else "all")


def _read(one: Combination, stores: list[Path]) -> None:
    """Everything on the combination's own store, and opening, querying and verifying those of all."""
    own, out = _store(one), one.work / f"{one.name}-read"
    if own not in stores:
        return
    out.mkdir()
    others = [store for store in stores if store != own]
    try:
        one.read("read", str(out), str(own), *map(str, others))
    except Failed as failed:
        one.results["open"] = str(failed)
        return
    for check, by_store in json.loads((out / "told.json").read_text(encoding="utf-8")).items():
        wrong = [f"{store}: {said}" for store, said in by_store.items() if said != "ok"]
        one.results[check] = "; ".join(wrong) or "ok"


def _store(one: Combination) -> Path:
    return one.work / "stores" / f"{one.name}.zarr"


def _tell_interpreters(found: list[Interpreter]) -> None:
    for python in found:
        print(f"Python {python}: {python.path}")
    for minor in MINORS:
        if all(python.minor != minor for python in found):
            print(f"Python {minor[0]}.{minor[1]}: none found")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("--ci", action="store_true", help="the newest on the newest Python, and lower bounds on 3.11")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="combinations at a time")
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix", help="where environments and logs are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
