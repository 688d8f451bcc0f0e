"""Whether what a store says in several places is one and the same: coordinates, declared edits, calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.coordinates import coordinates_of
from causalunet.design.limits import MOST_CALLS, is_number, shown
from causalunet.design.registered import plugins, unknown_sampler
from causalunet.design.samplers import Sampler
from causalunet.design.stages import times_edited
from causalunet.dims import FACTOR, INTERVENTION, SAMPLE, STEP
from causalunet.errors import CausalUNetError
from causalunet.results.guard.checked_store import Reader, Stored, dims_of
from causalunet.results.guard.coverage import Coverage
from causalunet.results.guard.findings import Finding
from causalunet.results.guard.readback import ReadBack
from causalunet.results.meaning.schema import CALLS
from causalunet.schedule import Level

__all__ = ["agreement"]

_UNET = "unet"
_ROUNDING = 1e-9


def agreement(reader: Reader, read: ReadBack, coverage: Coverage) -> Iterator[Finding]:
    """Compare what stands in several places, and what follows from the interventions with what is stored.

    Parameters
    ----------
    reader : Reader
    read : ReadBack
        The store's interventions.
    coverage : Coverage
    """
    compared = list(_Coordinates(reader, read).compared())
    problems = tuple(problem for found in compared for problem in found)
    yield Finding("coordinates", f"{len(compared)} arrays", problems)
    calls = _Calls(reader, coverage)
    wrong, unchecked = _declared(reader, read, coverage, calls)
    wrong += _miscounted(reader, coverage, calls)
    unchecked += calls.unchecked
    rows = len(coverage.marks["audit/declared"])
    yield Finding("edits and calls", f"{rows:,} interventions", tuple(wrong), unchecked=tuple(unchecked))


class _Coordinates:
    """Every coordinate of a store beside what it should be.

    Those of interventions follow from what is stored of them; what a class of somebody else's says, and what earlier
    versions said otherwise, need only be the same in all groups.
    """

    def __init__(self, reader: Reader, read: ReadBack) -> None:
        self._reader, self._read = reader, read
        self._steps: list[int] = self._values("baseline/step")
        self._expected: dict[str, list[Any]] = {
            one.name: self._values(f"{group}/{one.name}")
            for group, dim in (("outcomes", INTERVENTION), ("outcomes", SAMPLE), ("baseline", STEP))
            for one in reader.stored.declaration.coordinates_of(dim)
        }
        self._expected |= {
            **self._of_interventions(),
            SAMPLE: list(range(len(self._expected[SAMPLE]))),
            STEP: list(range(len(self._steps), 0, -1)),
            FACTOR: list(reader.stored.attributes.factors),
        }
        shares = np.array(self._expected["alpha_bar"])
        with np.errstate(divide="ignore", invalid="ignore"):
            self._expected["log_snr"] = np.log(shares / (1 - shares)).tolist()

    def compared(self) -> Iterator[list[str]]:
        """What is wrong with each coordinate."""
        for path, array in sorted(self._reader.stored.arrays.items()):
            group, _, name = path.rpartition("/")
            if name not in self._expected or dims_of(array) not in ((INTERVENTION,), (SAMPLE,), (STEP,), (FACTOR,)):
                continue
            found, expected = self._values(path), self._expected[name]
            if dims_of(array) == (STEP,) and group.startswith("activation"):
                expected = self._at_steps(self._values(f"{group}/{STEP}"), name, expected)
            yield [self._told(path, found, expected)] if not _same(found, expected) else []

    def _at_steps(self, steps: list[int], name: str, expected: list[Any]) -> list[Any]:
        """Of the steps that are recorded, descending."""
        known = set(self._steps)
        if name == STEP:
            return sorted(known & set(steps), reverse=True)
        return [expected[len(expected) - step] for step in steps if step in known]

    def _told(self, path: str, found: list[Any], expected: list[Any]) -> str:
        at = next(
            (n for n, pair in enumerate(zip(found, expected, strict=False)) if not _same(*([x] for x in pair))), 0
        )
        if len(found) != len(expected):
            return f"{path}: has {len(found):,} entries where {len(expected):,} belong"
        return f"{path}: {shown(found[at])} at position {at}, where {shown(expected[at])} belongs"

    def _of_interventions(self) -> dict[str, list[Any]]:
        along = self._reader.stored.declaration.coordinates_of(INTERVENTION)
        expected = {one.name: list(self._expected[one.name]) for one in along if one.name != "spec"}
        for position, document in enumerate(self._read.documents):
            configuration = document["configuration"]
            said: dict[str, Any] = {"kind": document["name"]}
            if isinstance(configuration.get("label"), str):
                said["label"] = configuration["label"]
            item = self._read.items.get(position)
            if item is not None and not any(plugins(document)) and not _said_otherwise(configuration):
                said |= coordinates_of(item)
            for name, value in said.items():
                if (label := INTERVENTION if name == "label" else name) in expected:
                    expected[label][position] = value
        return expected

    def _values(self, path: str) -> list[Any]:
        return list(self._reader.read(path).tolist())


def _said_otherwise(configuration: dict[str, Any]) -> bool:
    """Whether earlier versions gave it other coordinates: sums had an order, and windows could touch."""
    return "parts" in configuration or len(configuration.get("window") or ()) > 1


def _same(found: list[Any], expected: list[Any]) -> bool:
    if len(found) != len(expected):
        return False
    if all(isinstance(value, float) for value in (*found, *expected)):
        return bool(np.allclose(found, expected, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True))
    return found == expected


class _Calls:
    """U-Net calls that each intervention makes at every step, by the study's sampler.

    Attributes
    ----------
    by_step : ndarray of int, (intervention, step), or None
        None where ``trajectory/ran`` is not there or the sampler is not known.
    unchecked : list of str
        The sampler, where it is not known.
    """

    def __init__(self, reader: Reader, coverage: Coverage) -> None:
        self.by_step: NDArray[np.int64] | None = None
        self.unchecked: list[str] = []
        ran = coverage.marks.get("trajectory/ran")
        if ran is None or ran.shape != coverage.marks["audit/declared"].shape[:2]:
            return
        if not reader.has(f"baseline/{CALLS}"):  # each step takes one
            self.by_step = ran.astype(np.int64)
            return
        written = reader.stored.attributes.study.get("sampler")
        self.unchecked = unknown_sampler(written)
        columns = [reader.read(f"baseline/{name}").tolist() for name in ("timestep", "alpha_bar")]
        if self.unchecked or any(len(values) != ran.shape[1] for values in columns):
            return
        levels = [Level(*both) for both in zip(*columns, strict=True)]
        found = np.zeros(ran.shape, np.int64)
        try:
            sampler = Sampler.from_json(written)
            for row, at in enumerate(map(np.flatnonzero, ran)):
                found[row, at] = sampler.calls_along([*(levels[step] for step in at), Level(-1.0, 1.0)])
        except Exception as error:  # of a class of somebody else's
            self.unchecked.append(f"the sampler as it is defined here ({error!s:.200})")
            return
        self.by_step = found


def _declared(reader: Reader, read: ReadBack, coverage: Coverage, calls: _Calls) -> tuple[list[str], list[str]]:
    """Interventions that declare other edits than they make, the package's own and those of others."""
    declared = coverage.marks["audit/declared"]
    places = reader.read("audit/place").tolist()
    steps = declared.shape[1]
    # Where every step takes one call, and where it is not known how many do.
    most = np.full(steps, MOST_CALLS if calls.unchecked else 1)
    wrong: list[str] = []
    unchecked: dict[str, None] = {}
    for row, edits in read.edits.items():
        expected = np.zeros(declared.shape[1:], declared.dtype)
        fits = row < len(declared) and all(edit.component in places and edit.window.start <= steps for edit in edits)
        if fits:
            made = most if calls.by_step is None else calls.by_step[row]
            expected = times_edited(edits, made, places)
        if calls.unchecked:  # nothing is known of how often, only of where
            expected = (
                np.where(expected > 0, np.maximum(declared[row], 1), 0).astype(declared.dtype) if fits else expected
            )
        if fits and np.array_equal(declared[row], expected):
            continue
        if own := list(plugins(read.documents[row])):
            unchecked |= dict.fromkeys(f"{name} as it is defined here (other edits than were declared)" for name in own)
        else:
            wrong.append(f"audit/declared: intervention {row} edits something else than is declared of it")
    return wrong, list(unchecked)


def _miscounted(reader: Reader, coverage: Coverage, counted: _Calls) -> list[str]:
    """Interventions whose calls are not those at the steps that they do not skip."""
    declared, ran = coverage.marks["audit/declared"], coverage.marks.get("trajectory/ran")
    places = reader.read("audit/place").tolist()
    if ran is None or ran.shape != declared.shape[:2]:
        return []
    skipped = declared[:, :, places.index(_UNET)] > 0 if _UNET in places else np.zeros(ran.shape, bool)
    wrong = _listed("trajectory/ran", (ran == skipped).any(axis=1), "other steps than those that it does not skip")
    if reader.has("outcomes/unet_calls"):
        calls = reader.read("outcomes/unet_calls")
        expected = calls if counted.by_step is None else counted.by_step.sum(axis=1)
        wrong += _listed("outcomes/unet_calls", calls != expected, "another number than of steps that it runs")
    if reader.has("outcomes/unet_calls", "outcomes/flops"):
        flops, most = reader.read("outcomes/flops"), calls * _flops_per_call(reader.stored)
        wrong += _listed("outcomes/flops", (flops < 0) | (flops > most), "more than its calls can take")
    return wrong


def _flops_per_call(stored: Stored) -> float:
    """Most operations of a call for one sample."""
    of_model = stored.attributes.model_flops
    if of_model is None or not is_number(of_model):
        return np.inf
    try:
        rows = Sampler.from_json(stored.attributes.sampler).rows_per_sample
    except CausalUNetError:  # a sampler or a guidance that is not known here, which is told
        return np.inf
    return float(of_model) * rows


def _listed(path: str, wrong: NDArray[np.bool_], what: str) -> list[str]:
    return [f"{path}: intervention {row} has {what}" for row in np.flatnonzero(wrong).tolist()]
