"""Outcomes made again from stored images, and baselines from their seeds: numbers with right checksums may be wrong.

Needs neither the model nor torch, so what only the model can say (a prediction, the reading of a factor) is not asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet import metrics
from causalunet.design.limits import shown
from causalunet.design.registered import unknown_sampler, unknown_start
from causalunet.design.samplers import Sampler
from causalunet.errors import ModelError, PluginError, SpecError
from causalunet.process import VARIANCE_PRESERVING, Process
from causalunet.registry import is_own
from causalunet.results.engine.export import regions
from causalunet.results.guard.checked_store import Reader, Stored
from causalunet.results.guard.coverage import Coverage
from causalunet.results.guard.findings import Finding
from causalunet.results.guard.trajectories import Trajectory, trajectories
from causalunet.results.meaning.schema import SAMPLE_START

__all__ = ["recomputed"]

_CELLS, _BASELINES = 256, 8
"""Looked at unless all are."""
_TOLERANCES = {"ssim": (1e-4, 0.0), "mse": (1e-12, 1e-6), "psnr": (1e-4, 0.0)}
"""Absolute and relative. Outcomes are computed on the CPU, whatever the model runs on: SSIM in float32, where libraries
of linear algebra differ, MSE and PSNR in float64."""
_DISTANCE = (1e-5, 1e-3)
_NULL = 1e-6


def recomputed(reader: Reader, coverage: Coverage, kinds: Sequence[str], *, deep: bool) -> Iterator[Finding]:
    """Make numbers again, of all complete cells or of some that are drawn at random, another draw every time.

    Parameters
    ----------
    reader : Reader
    coverage : Coverage
    kinds : sequence of str
        Of the interventions.
    deep : bool
        All of them.
    """
    draw = np.random.default_rng()
    cells = _drawn(coverage.cells, coverage.cells, None if deep else _CELLS, draw)
    preferred = coverage.baselines & cells.any(axis=0) if cells.any() else coverage.baselines
    samples = _drawn(coverage.baselines, preferred, None if deep else _BASELINES, draw)
    found, unknown = _trajectories(reader, samples)
    unknown = (*unknown, *_unknown_starts(reader))
    check = _Cells(reader, coverage, kinds, found)
    check.look_at(cells)
    unchecked = () if _known_ssim(reader.stored) else ("SSIM, of another definition than this version's",)
    baselines = tuple(problem for one in found.values() for problem in one.problems)
    yield Finding(
        "baselines", _looked_at(samples, coverage.baselines, "from their seeds"), baselines, unchecked=unknown
    )
    looked_at = _looked_at(cells, coverage.cells, "from their images")
    yield Finding("outcomes", looked_at, tuple(check.problems), unchecked=unchecked)


def _unknown_starts(reader: Reader) -> list[str]:
    if not reader.has(f"baseline/{SAMPLE_START}"):
        return []
    written = map(json.loads, set(reader.read(f"baseline/{SAMPLE_START}").tolist()))
    return sorted({name for start in written for name in unknown_start(start)})


def _trajectories(reader: Reader, samples: NDArray[np.bool_]) -> tuple[dict[int, Trajectory], tuple[str, ...]]:
    """Follow baselines by the study's sampler, as far as it is known; also what is not known of it."""
    attributes = reader.stored.attributes
    written, of_model = attributes.study.get("sampler"), attributes.identity.get("process")
    try:
        process = VARIANCE_PRESERVING if of_model is None else Process.from_json(of_model)
    except (ModelError, PluginError) as error:
        return {}, (f"the process of the model ({error!s:.200})",)
    if unknown := tuple(unknown_sampler(written)):
        return trajectories(reader, samples, None, process), unknown
    try:
        sampler = Sampler.from_json(written)
    except SpecError:  # which the check of the study tells
        return trajectories(reader, samples, None, process), ()
    if is_own(type(sampler)):
        return trajectories(reader, samples, sampler, process), ()
    try:
        found, told = trajectories(reader, samples, sampler, process), "states that do not follow"
    except Exception as error:  # whatever a class of somebody else's raises
        found, told = {}, f"{type(error).__name__}: {error!s:.200}"
    if found and not any(one.problems for one in found.values()):
        return found, ()
    found = trajectories(reader, samples, None, process)
    return found, (f"the sampler {shown(sampler.name)} as it is defined here ({told})",)


def _drawn(
    complete: NDArray[np.bool_], preferred: NDArray[np.bool_], most: int | None, draw: np.random.Generator
) -> NDArray[np.bool_]:
    if most is None or complete.sum() <= most:
        return complete
    places = np.flatnonzero(preferred)
    chosen = np.zeros(complete.size, bool)
    chosen[draw.choice(places, min(most, len(places)), replace=False)] = True
    return chosen.reshape(complete.shape)


def _looked_at(chosen: NDArray[np.bool_], complete: NDArray[np.bool_], how: str) -> str:
    count, total = int(chosen.sum()), int(complete.sum())
    return f"{count:,} of {total:,} {how}" + (", at random" if count < total else "")


def _known_ssim(stored: Stored) -> bool:
    return stored.attributes.ssim in (None, metrics.SSIM_DEFINITION)


@dataclass(frozen=True)
class _Part:
    """Cells whose images are compared together.

    Parameters
    ----------
    reader : Reader
    region : tuple of slice
        Interventions and samples.
    chosen : ndarray of bool
        Which of them.
    """

    reader: Reader
    region: tuple[slice, ...]
    chosen: NDArray[np.bool_]
    wrong: dict[tuple[int, int], list[str]] = field(default_factory=dict)

    @cached_property
    def cells(self) -> list[tuple[int, int]]:
        """Positions of intervention and sample."""
        rows, samples = np.nonzero(self.chosen)
        first = (part.start for part in self.region)
        return list(zip((rows + next(first)).tolist(), (samples + next(first)).tolist(), strict=True))

    def read(self, path: str) -> NDArray[Any]:
        """Values by cell."""
        return self.reader.read(path, self.region)[self.chosen]

    def baseline(self, path: str) -> NDArray[Any]:
        """Values of each cell's sample."""
        return self.reader.read(path, self.region[1])[np.nonzero(self.chosen)[1]]

    def tell(self, cell: int, what: str) -> None:
        """Note what is wrong with a cell."""
        self.wrong.setdefault(self.cells[cell], []).append(what)


class _Cells:
    """Outcomes beside what the stored images give."""

    def __init__(
        self, reader: Reader, coverage: Coverage, kinds: Sequence[str], baselines: Mapping[int, Trajectory]
    ) -> None:
        self._reader, self._kinds, self._baselines = reader, kinds, baselines
        edited, ran = coverage.marks["audit/declared"].any(axis=2), coverage.marks.get("trajectory/ran")
        self._ran = ran if ran is not None and ran.shape == edited.shape else np.zeros(edited.shape, bool)
        self._before = self._ran & ~np.logical_or.accumulate(edited, axis=1)
        self._null_difference = reader.read("audit/null_difference")
        self._ssim = _known_ssim(reader.stored)
        self.problems: list[str] = []

    def look_at(self, chosen: NDArray[np.bool_]) -> None:
        """Compare cells, those of one chunk of images at a time."""
        if not self._reader.has("outcomes/image", "baseline/image"):
            return  # told as arrays that are missing
        image, baseline = (self._reader.stored.arrays[f"{group}/image"] for group in ("outcomes", "baseline"))
        if image.shape[2:] != baseline.shape[1:]:
            self.problems.append(f"images have the shape {image.shape[2:]}, and baselines {baseline.shape[1:]}")
            return
        for region in regions(chosen.shape, (image.shards or image.chunks)[:2]):
            if chosen[region].any():
                part = _Part(self._reader, region, chosen[region])
                self._compare(part)
                for (row, sample), told in sorted(part.wrong.items()):
                    self.problems.append(f"intervention {row}, sample {sample}: {'; '.join(told)}")

    def _compare(self, part: _Part) -> None:
        images, baseline = part.read("outcomes/image"), part.baseline("baseline/image")
        error = metrics.mse(images, baseline)
        expected = {"mse": error, "psnr": metrics.psnr(error)}
        if self._ssim:
            expected["ssim"] = metrics.ssim(metrics.moments(images), metrics.moments(baseline))
        for name, values in expected.items():
            if self._reader.has(f"outcomes/{name}"):
                found = part.read(f"outcomes/{name}")
                known = ~np.isnan(found)  # what is not finite is told already
                for cell in np.flatnonzero(known & ~_close(found, values, *_TOLERANCES[name])).tolist():
                    part.tell(cell, f"{name} is {found[cell]:.6g}, and its images give {values[cell]:.6g}")
        self._look_at_factors(part)
        self._look_at_distances(part, error)
        self._look_at_nulls(part, np.abs(images - baseline).max(axis=(1, 2, 3)))

    def _look_at_factors(self, part: _Part) -> None:
        """A factor has changed if another code is stored than the baseline's."""
        if self._reader.has("outcomes/factor_code", "outcomes/factor_changed", "baseline/factor_code"):
            changed = part.read("outcomes/factor_code") != part.baseline("baseline/factor_code")
            for cell, factor in np.argwhere(part.read("outcomes/factor_changed") != changed).tolist():
                part.tell(cell, f"factor_changed is not what the codes of factor {factor} say")

    def _look_at_distances(self, part: _Part, error: NDArray[np.float64]) -> None:
        """Before its first edit a run is the baseline; its last estimate of x_0 may be the image."""
        for name in ("x0_distance", "eps_distance"):
            if not self._reader.has(f"trajectory/{name}"):
                continue
            found = part.read(f"trajectory/{name}")
            for cell, (row, sample) in enumerate(part.cells):
                if found.shape[1:] != self._before[row].shape:
                    continue
                if (found[cell][self._before[row]] > _DISTANCE[0]).any():
                    part.tell(cell, f"{name} is not 0 before the first edit")
                is_image = sample in self._baselines and self._baselines[sample].is_image
                if name == "x0_distance" and is_image and self._ran[row, -1]:
                    last, expected = float(found[cell, -1]), 2 * math.sqrt(error[cell])
                    if not _close(last, expected, *_DISTANCE):
                        part.tell(cell, f"{name} at step 1 is {last:.6g}, and its images give {expected:.6g}")

    def _look_at_nulls(self, part: _Part, largest: NDArray[np.float32]) -> None:
        for cell, (row, sample) in enumerate(part.cells if len(self._null_difference) else ()):
            told = float(self._null_difference[sample])
            if row < len(self._kinds) and self._kinds[row] == "null" and not largest[cell] <= told + _NULL:
                part.tell(cell, f"null_difference is {told:.3g}, and its images give {largest[cell]:.3g}")


def _close(found: Any, expected: Any, absolute: float, relative: float) -> NDArray[np.bool_]:
    return np.asarray(np.isclose(found, expected, rtol=relative, atol=absolute))
