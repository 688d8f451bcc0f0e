"""Reading every chunk of a store, and checking what it says against what it should hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.sync import sync

from causalunet.design.digests import digest_of
from causalunet.design.registered import unknown_outcomes, unknown_sampler, unknown_start
from causalunet.design.study import StudySpec
from causalunet.dims import FACTOR
from causalunet.errors import CausalUNetError, DamageError
from causalunet.identity import short
from causalunet.results.engine.export import regions
from causalunet.results.guard.agreement import agreement
from causalunet.results.guard.checked_store import Reader, Stored, read_stored, stored_grid
from causalunet.results.guard.coverage import Coverage, unrecorded
from causalunet.results.guard.findings import Finding, Verification
from causalunet.results.guard.measured_again import measured_again
from causalunet.results.guard.readback import ReadBack
from causalunet.results.guard.recomputed import recomputed
from causalunet.results.guard.storage_errors import faults_told
from causalunet.results.meaning.identity import shown_identity
from causalunet.results.meaning.noise_floor import NULL_DIFFERENCE, Bounds, beyond_rounding, first_distance
from causalunet.results.meaning.schema import COMPLETE, FAILED

__all__ = ["verify_store"]

_ROUNDING = 1e-5


@dataclass(slots=True)
class _Problems:
    largest_codes: NDArray[np.int64]
    chunks: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    infinite: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    read: int = 0
    numbers: int = 0
    bounded: int = 0
    edits: int = 0


def verify_store(store: Store, where: object, *, export: bool = False, deep: bool = False) -> Verification:
    """Check a whole store, one chunk in memory at a time.

    Parameters
    ----------
    store : zarr Store
    where : object
        Whose text names the store.
    export : bool
        Whether every chunk must be there, also of what was not run.
    deep : bool
        Make the outcomes of all cells again, and follow all baselines, instead of some drawn at random.
    """
    stored = read_stored(store, where)
    arrays = stored.arrays
    problems = _Problems(np.array([len(values) - 1 for values in stored.attributes.factors.values()]))
    coverage = _read_all(store, stored, where, problems, export=export)
    findings = [
        _finding("chunks", f"{problems.read:,} read, with checksums", problems.chunks),
        _finding("written whole", f"{len(arrays)} arrays", [*_absent(stored), *problems.missing]),
        _finding("finite", f"{problems.numbers:,} numbers", problems.infinite),
        _finding("in range", f"{problems.bounded:,} numbers", problems.outside),
    ]
    if coverage is not None and not problems.chunks:
        read, reader = ReadBack.of(stored, where), Reader(stored, where)
        kinds = [item["name"] for item in read.documents]
        findings += [
            _finding("edits fired", f"{problems.edits:,} of complete cells", problems.fired),
            *_noise_floor(stored, kinds),
            *_drift(stored),
            _study(stored, read, where),
            _identity(reader),
            *agreement(reader, read, coverage),
            *recomputed(reader, coverage, kinds, deep=deep),
            *measured_again(reader, coverage, deep=deep),
            *_completeness(stored),
        ]
    return Verification(str(where), tuple(findings))


def _read_all(store: Store, stored: Stored, where: object, problems: _Problems, *, export: bool) -> Coverage | None:
    arrays, declaration = stored.arrays, stored.declaration
    try:
        coverage = Coverage.read(arrays, declaration, where)
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
                _check_range(path, values, region, coverage, problems)
    return coverage


def _check_values(
    path: str, values: NDArray[Any], region: tuple[slice, ...], coverage: Coverage, problems: _Problems
) -> None:
    if values.dtype.kind == "f" and (required := coverage.finite(path, region)) is not None:
        variable = coverage.declaration.variable_at(path)
        endless = variable is not None and variable.infinite
        wrong = required & (np.isnan(values) if endless else ~np.isfinite(values))
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


def _check_range(
    path: str, values: NDArray[Any], region: tuple[slice, ...], coverage: Coverage, problems: _Problems
) -> None:
    variable = coverage.declaration.variable_at(path)
    if variable is None or variable.dtype == "str" or not np.isfinite(variable.range).any():
        return
    limits = variable.range
    asked = np.ones((1,) * values.ndim, bool) if variable.role == "status" else coverage.required(path, region)
    asked = np.broadcast_to(asked, values.shape)
    largest: Any = limits[1]
    if path.endswith("factor_code") and len(problems.largest_codes) >= region[-1].stop:
        largest = problems.largest_codes[region[-1]]
    wrong = asked & ((values < limits[0] - _ROUNDING) | (values > largest + _ROUNDING))
    problems.bounded += int(asked.sum())
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0].tolist())
        at = tuple(place + part.start for place, part in zip(first, region, strict=True))
        span = f"{limits[0]:g} ... {np.broadcast_to(largest, values.shape)[first]:g}"
        problems.outside.append(f"{path}: {int(wrong.sum()):,} not in {span}, the first, {values[first]:g}, at {at}")


def _finding(check: str, looked_at: str, problems: list[str], *, damage: bool = True) -> Finding:
    return Finding(check, looked_at, tuple(problems), damage)


def _absent(stored: Stored) -> Iterator[str]:
    """Arrays that the store declares and lacks."""
    factors = bool(stored.attributes.factors)
    for variable in stored.declaration.variables:
        needed = not variable.group.startswith("activation") and (factors or FACTOR not in variable.dims)
        if needed and variable.path not in stored.arrays:
            yield f"{variable.path}: the array is missing"


def _audited(stored: Stored, name: str) -> NDArray[Any]:
    """Values of the audit along samples, none where there is no such array."""
    path = f"audit/{name}"
    return np.asarray(stored.arrays[path][...]) if path in stored.arrays else np.empty(0)


def _noise_floor(stored: Stored, kinds: Sequence[str]) -> Iterator[Finding]:
    """What null interventions changed, and whether rounding explains it."""
    values = _audited(stored, "null_difference")
    known = values[~np.isnan(values)]
    if not len(known):
        return
    largest, bounds = float(known.max()), Bounds.of(stored.attributes.rounding)
    looked_at, told = f"{len(known)} samples, at most {largest:.2g}", list[str]()
    if largest > NULL_DIFFERENCE:
        first = _first_calls(stored, kinds, len(values))
        if (beyond := beyond_rounding(values, first, bounds)).any():
            told.append(_beyond(values, first, beyond, bounds))
        else:
            looked_at += f", from {float(np.nanmax(first)):.1g} in a call; bounds {bounds.told}"
    yield _finding("noise floor", looked_at, told)


def _beyond(values: NDArray[Any], first: NDArray[np.float64], beyond: NDArray[np.bool_], bounds: Bounds) -> str:
    worst = int(np.where(beyond, values, -1).argmax())
    told = f"largest difference {values[worst]:.2g}, more than {NULL_DIFFERENCE:g}"
    if not first[worst] <= bounds.call:
        call = "not stored" if np.isnan(first[worst]) else f"{first[worst]:.2g}"
        return f"{told}, of which the first call is {call}, and a call may round off {bounds.call:.2g} ({bounds.told})"
    return f"{told}, and runs may make {bounds.image:.2g} of the rounding of a call ({bounds.told})"


def _first_calls(stored: Stored, kinds: Sequence[str], samples: int) -> NDArray[np.float64]:
    """What the first calls of null runs differ by, (sample,); NaN, which explains nothing, where it is not there."""
    distances = stored.arrays.get("trajectory/eps_distance")
    nulls = [row for row, kind in enumerate(kinds) if kind == "null"]
    if distances is None or not nulls or max(nulls) >= distances.shape[0] or distances.shape[1:2] != (samples,):
        return np.full(samples, np.nan)
    return first_distance(np.stack([np.asarray(distances[row]) for row in nulls]))


def _drift(stored: Stored) -> Iterator[Finding]:
    values = _audited(stored, "drift")
    known = values[~np.isnan(values)]
    if len(known):
        largest, bounds = float(known.max()), Bounds.of(stored.attributes.rounding)
        more = f"largest difference {largest:.2g}, more than {bounds.drift:.2g} ({bounds.told})"
        looked_at = f"{len(known)} samples, at most {largest:.2g}; bounds {bounds.told}"
        yield _finding("drift", looked_at, [more] if largest > bounds.drift else [])


def _study(stored: Stored, read: ReadBack, where: object) -> Finding:
    """Whether the stored study is the one that was run, and has a place for every cell."""
    written = stored.attributes.study
    same = digest_of(written) == stored.attributes.digest  # as it stands: later versions may write it otherwise
    problems = [*read.problems] if same else ["the stored study is not the one that its digest names", *read.problems]
    names = unknown_outcomes(written.get("outcomes")) if isinstance(written, dict) else []
    starts = written.get("starts") if isinstance(written, dict) else None
    names += sorted({name for one in (starts if isinstance(starts, list) else []) for name in unknown_start(one)})
    unchecked = (*read.unchecked, *names, *unknown_sampler(stored.attributes.sampler))
    if not read.problems and not unchecked:
        problems += _places(stored, where)
    return Finding("study", "digest and grid", tuple(problems), unchecked=unchecked)


def _identity(reader: Reader) -> Finding:
    """Whether the identity that is kept is what the study, the steps and the states show of it."""
    kept, seen = reader.stored.attributes.identity, shown_identity(reader)
    wrong = [
        f"{name} is {short(kept[name])} in what is kept of the model and sampler, and {short(part)} in what they made"
        for name, part in seen.items()
        if kept.get(name, part) != part
    ]
    return _finding("identity", f"{len(kept)} parts", wrong)


def _places(stored: Stored, where: object) -> list[str]:
    try:
        study, grid = StudySpec.from_stored(stored.attributes.study), stored_grid(stored, where)
    except CausalUNetError as error:
        return [f"the stored study cannot be read: {error!s:.200}"]
    placed = {item.digest for item in grid.interventions}
    samples = len(set(study.samples) - set(grid.samples))
    lacking = {"interventions": len({item.digest for item in study.interventions} - placed), "samples": samples}
    return [f"{count:,} {name} of the study have no place" for name, count in lacking.items() if count]


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
