"""Reading every chunk of a store, and checking what it says against what it should hold."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from zarr.abc.store import Store
from zarr.core.sync import sync

from causalunet.console import make_console, print_table
from causalunet.design.interventions import digest_of
from causalunet.design.limits import plain
from causalunet.design.study import StudySpec
from causalunet.errors import CausalUNetError, DamageError
from causalunet.results.coverage import Coverage, unrecorded
from causalunet.results.export import regions
from causalunet.results.faults import faults_told
from causalunet.results.schema import COMPLETE, DRIFT, FAILED, NULL_DIFFERENCE, VARIABLES
from causalunet.results.stored import Stored, read_stored, stored_grid

__all__ = ["Finding", "Verification", "verify_store"]

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
    looked_at : str
        How much of what.
    problems : tuple of str
        Empty if all is well.
    damage : bool
        Whether a problem means that the store is wrong, and not only unfinished.
    """

    check: str
    looked_at: str
    problems: tuple[str, ...] = ()
    damage: bool = True


@dataclass(frozen=True, slots=True)
class Verification:
    """What `Results.verify` found; true if all is well.

    Attributes
    ----------
    where : str
    findings : tuple of Finding
    """

    where: str
    findings: tuple[Finding, ...]

    def __bool__(self) -> bool:
        """Whether nothing is wrong and nothing is missing."""
        return not any(finding.problems for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if something is wrong, 3 if the store is sound but not complete."""
        wrong = [finding for finding in self.findings if finding.problems]
        return 0 if not wrong else 1 if any(finding.damage for finding in wrong) else 3

    @property
    def verdict(self) -> str:
        """What it comes to, in words."""
        return {0: "sound and complete", 1: "NOT sound", 3: "sound, not complete"}[self.exit_code]

    def table(self) -> Table:
        """The findings as a table."""
        table = Table()
        table.add_column("check")
        table.add_column("looked at", justify="right")
        table.add_column("found", overflow="fold")
        for finding in self.findings:
            named = list(finding.problems[:_MOST_NAMED])
            if len(finding.problems) > _MOST_NAMED:
                named.append(f"and {len(finding.problems) - _MOST_NAMED:,} more")
            table.add_row(finding.check, finding.looked_at, plain("\n".join(named)) or "ok")
        return table

    def print(self, console: Console | None = None) -> None:
        """Print the verdict and the table."""
        console = console or make_console()
        console.print(plain(f"{self.where}: {self.verdict}"), markup=False, highlight=False, soft_wrap=True)
        print_table(self.table(), console)

    def __str__(self) -> str:
        """Verdict and table as text."""
        text = io.StringIO()
        self.print(Console(width=120, file=text))
        return text.getvalue()


@dataclass(slots=True)
class _Problems:
    chunks: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    infinite: list[str] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    read: int = 0
    numbers: int = 0
    edits: int = 0


def verify_store(store: Store, where: object, *, export: bool = False) -> Verification:
    """Check a whole store, one chunk in memory at a time.

    Parameters
    ----------
    store : zarr Store
    where : object
        Whose text names the store.
    export : bool
        Whether every chunk must be there, also of what was not run.
    """
    stored = read_stored(store, where)
    arrays = stored.arrays
    problems = _Problems()
    _read_all(store, arrays, where, problems, export=export)
    findings = [
        _finding("chunks", f"{problems.read:,} read, with checksums", problems.chunks),
        _finding("written whole", f"{len(arrays)} arrays", [*_absent(stored), *problems.missing]),
        _finding("finite", f"{problems.numbers:,} numbers", problems.infinite),
    ]
    if not problems.chunks:
        findings += [
            _finding("edits fired", f"{problems.edits:,} of complete cells", problems.fired),
            *_small(stored, "null_difference", "noise floor", NULL_DIFFERENCE),
            *_small(stored, "drift", "drift", DRIFT),
            _finding("study", "digest and grid", _study_problems(stored, where)),
            *_completeness(stored),
        ]
    return Verification(str(where), tuple(findings))


def _read_all(
    store: Store, arrays: dict[str, zarr.Array[Any]], where: object, problems: _Problems, *, export: bool
) -> None:
    try:
        coverage = Coverage.read(arrays, where)
    except CausalUNetError as error:
        problems.chunks.append(str(error))
        coverage = None
    for path, array in sorted(arrays.items()):
        with faults_told(where, f"listing the chunks of {path} in"):
            written = _written(store, path)
        shards = array.shards or array.chunks
        for region in regions(array.shape, shards):
            key = _key(array, region, shards)
            if key not in written and not export:
                if coverage is None or coverage.expects(path, region):
                    problems.missing.append(f"{path}: chunk {key.rpartition('/c/')[2]} is missing")
                continue
            problems.read += 1
            try:
                with faults_told(where, "reading"):
                    values = np.asarray(array[region])
            except DamageError as error:
                reason = " ".join(str(error.__cause__ or error).split())[:100]
                problems.chunks.append(f"{path}: chunk {key.rpartition('/c/')[2]}: {reason}")
                continue
            if coverage is not None:
                _check_values(path, values, region, coverage, problems)


def _check_values(
    path: str, values: NDArray[Any], region: tuple[slice, ...], coverage: Coverage, problems: _Problems
) -> None:
    if values.dtype.kind == "f" and (required := coverage.finite(path, region)) is not None:
        wrong = required & (np.isnan(values) if path == "outcomes/psnr" else ~np.isfinite(values))
        problems.numbers += int(required.sum())
        if wrong.any():
            first = tuple(int(at) + part.start for at, part in zip(np.argwhere(wrong)[0], region, strict=True))
            problems.infinite.append(f"{path}: {int(wrong.sum()):,} not finite, the first at {first}")
    if path == "audit/fired":
        declared, done = coverage.declared(region)
        wrong = (values != declared) & done
        problems.edits += int((declared * done).sum())
        if wrong.any():
            run, sample, step, place = (int(at) + s.start for at, s in zip(np.argwhere(wrong)[0], region, strict=True))
            problems.fired.append(
                f"{int(wrong.sum()):,} edits fired another number of times than declared, the first of intervention "
                f"{run}, sample {sample}, step position {step}, place {place}"
            )


def _finding(check: str, looked_at: str, problems: list[str], *, damage: bool = True) -> Finding:
    return Finding(check, looked_at, tuple(problems), damage)


def _absent(stored: Stored) -> Iterator[str]:
    """Arrays of the schema that the store lacks."""
    factors = bool(stored.attributes.get("factors"))
    for variable in VARIABLES:
        needed = not variable.group.startswith("activation") and (factors or "factor" not in variable.dims)
        if needed and f"{variable.group}/{variable.name}" not in stored.arrays:
            yield f"{variable.group}/{variable.name}: the array is missing"


def _small(stored: Stored, name: str, check: str, most: float) -> Iterator[Finding]:
    if f"audit/{name}" not in stored.arrays:
        return
    values = np.asarray(stored.arrays[f"audit/{name}"][...])
    known = values[~np.isnan(values)]
    if len(known):
        largest = float(known.max())
        wrong = [f"largest difference {largest:.2g}, more than {most:g}"] if largest > most else []
        yield _finding(check, f"{len(known)} samples, at most {largest:.2g}", wrong)


def _study_problems(stored: Stored, where: object) -> list[str]:
    """Whether the stored study is the one that was run, and has a place for every cell."""
    try:
        written = stored.attributes["study"]
        study, grid = StudySpec.from_stored(written), stored_grid(stored, where)
    except (CausalUNetError, KeyError) as error:
        return [f"the stored study cannot be read: {error!s:.200}"]
    same = digest_of(written) == stored.attributes.get("digest")  # as it stands: later versions may write it otherwise
    problems = [] if same else ["the stored study is not the one that its digest names"]
    placed = {item.digest for item in grid.interventions}
    samples = len(set(study.samples) - set(grid.samples))
    lacking = {"interventions": len({item.digest for item in study.interventions} - placed), "samples": samples}
    return problems + [f"{count:,} {name} of the study have no place" for name, count in lacking.items() if count]


def _completeness(stored: Stored) -> Iterator[Finding]:
    for path, name in (("baseline/status", "baselines"), ("outcomes/status", "cells")):
        status = np.asarray(stored.arrays[path][...])
        done, failed = int((status == COMPLETE).sum()), int((status == FAILED).sum())
        lacking = [f"{status.size - done - failed:,} {name} not run yet"] if done + failed < status.size else []
        lacking += [f"{failed:,} {name} failed"] if failed else []
        yield _finding(f"complete {name}", f"{done:,} of {status.size:,}", lacking, damage=False)

    def read(path: str) -> NDArray[Any]:
        return np.asarray(stored.arrays[path][...])

    if any(path.startswith("activation") for path in stored.arrays):
        baseline, cells = read("baseline/status") == COMPLETE, read("outcomes/status") == COMPLETE
        count = unrecorded(stored.arrays, read, baseline, cells)
        lacking = [f"{count:,} outputs of components not recorded yet"] if count else []
        yield _finding("complete records", "every component", lacking, damage=False)


def _written(store: Store, path: str) -> set[str]:
    """Keys of an array's chunks that exist."""

    async def listed() -> set[str]:
        return {key async for key in store.list_prefix(path)}

    return sync(listed())


def _key(array: zarr.Array[Any], region: tuple[slice, ...], chunks: tuple[int, ...]) -> str:
    coordinates = (part.start // chunk for part, chunk in zip(region, chunks, strict=True))
    return f"{array.path}/{array.metadata.encode_chunk_key(tuple(coordinates))}"
