"""Whether an outcome gives one number per image, the same every time, with the direction that it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.design.limits import shown
from causalunet.design.outcomes import OUTCOMES, Outcome, OutcomeContext
from causalunet.design.outcomes.base import ReadFactors
from causalunet.design.outcomes.measuring import READABLE, measured, rehearse_outcomes
from causalunet.errors import SpecError
from causalunet.testing.report import Checks, Conformance
from causalunet.testing.values import registered, round_trip

__all__ = ["check_outcome"]

_RUNS, _SAMPLES = 3, 4
_CLOSE = (1e-5, 1e-4)
"""Absolute and relative: networks add up in another order in another batch."""


def check_outcome(
    outcome: Outcome,
    *,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    steps: int = 8,
    read_factors: ReadFactors | None = None,
    factors: Mapping[str, Sequence[str]] | None = None,
) -> Conformance:
    """Check that an outcome does what studies rely on.

    It is known by its name and comes back from JSON; says what it is; gives numbers of the form and within the limits
    that it declares, the same every time, each image's from that image alone; writes into nothing that it is given;
    and holds nothing for more alike than two equal images.

    Parameters
    ----------
    outcome : Outcome
        With values of its fields that are not the defaults, so that a field that is lost shows.
    image_shape : tuple of int
        (channel, y, x) of images that it is tried on.
    steps : int
        Of the runs.
    read_factors : callable, optional
        A model's, for outcomes that need it.
    factors : mapping of str to sequence of str, optional
        Values of every factor that it reads.

    Returns
    -------
    Conformance

    Raises
    ------
    ConformanceError
        A check failed; each failure is a line of the message.
    SpecError
        It is no outcome.

    Examples
    --------
    >>> from causalunet.design.outcomes import MultiScaleSSIM
    >>> from causalunet.testing import check_outcome
    >>> check_outcome(MultiScaleSSIM(2))
    <Conformance of "the outcome 'ms_ssim_2'": passes 9 checks>
    """
    if not isinstance(outcome, Outcome):
        raise SpecError(f"{shown(outcome)} is no outcome. Give an instance of a subclass of Outcome.")
    checks = Checks(f"the outcome {shown(outcome.variable)}")
    checks.run("registered", "its name", lambda: registered(outcome, OUTCOMES, "name"))
    checks.run("JSON", "a round trip", lambda: round_trip(outcome, Outcome.from_json), ["registered"])
    checks.run("declared", f"{len(outcome.variables)} variables", lambda: _declared(outcome))
    trial = _Trial(outcome, image_shape, steps, read_factors, factors or {})
    cells = f"{_RUNS} x {_SAMPLES} images"
    checks.run("measured", cells, trial.measured)
    for name, check in (
        ("untouched", trial.untouched),
        ("repeatable", trial.repeatable),
        ("images apart", trial.images_apart),
        ("in limits", trial.in_limits),
        ("direction", trial.direction),
    ):
        checks.run(name, cells, check, ["measured"])
    return checks.done()


def _declared(outcome: Outcome) -> Iterator[str]:
    """What a reader of stored numbers needs to know."""
    for one in outcome.variables:
        if not one.definition:
            yield f"{one.name} has no definition: say in a sentence what is measured, and by whose method."
        if not one.units:
            yield f"{one.name} has no units; a pure number has '1'."
        if one.limits[0] > one.limits[1]:
            yield f"{one.name} has the limits {one.limits}; the least comes first."


class _Trial:
    """Runs whose images differ from the baseline's by noise, the more the further down, and one equal to it.

    Parameters
    ----------
    outcome, image_shape, steps, read_factors, factors
        As for `check_outcome`.
    """

    def __init__(
        self,
        outcome: Outcome,
        image_shape: tuple[int, int, int],
        steps: int,
        read_factors: ReadFactors | None,
        factors: Mapping[str, Sequence[str]],
    ) -> None:
        self._outcome, self._shape, self._steps, self._read_factors = outcome, image_shape, steps, read_factors
        self._factors = factors
        rng = np.random.default_rng(0)
        self._baseline = rng.random((_SAMPLES, *image_shape), dtype=np.float32)
        strength = np.linspace(0, 0.3, _RUNS)[:, None, None, None, None]
        noise = strength * rng.normal(size=(_RUNS, *self._baseline.shape))
        self._images = np.clip(self._baseline + noise, 0, 1).astype(np.float32)
        self._stored = {path: self._made_up(path, rng) for path in outcome.reads if path in READABLE}

    def _made_up(self, path: str, rng: np.random.Generator) -> NDArray[np.float32]:
        per_run, pictures = READABLE[path]
        if per_run:  # a distance, which grows with the noise of the image
            far = np.linspace(0, 1, _RUNS)[:, None, None]
            return (far * rng.uniform(0.5, 1, (_RUNS, _SAMPLES, self._steps))).astype(np.float32)
        return rng.normal(size=(_SAMPLES, self._steps, *(self._shape if pictures else ()))).astype(np.float32)

    def _context(self) -> OutcomeContext:
        return OutcomeContext(
            prompts=tuple(f"prompt {number}" for number in range(_SAMPLES)),
            seeds=tuple(range(_SAMPLES)),
            stored={path: value.copy() for path, value in self._stored.items()},
            read_factors=self._read_factors,
        )

    def _measure(self) -> dict[str, NDArray[Any]]:
        return measured(self._outcome, self._images.copy(), self._baseline.copy(), self._context())

    def measured(self) -> None:
        """Numbers of the declared form."""
        rehearse_outcomes([self._outcome], self._shape, self._steps, self._read_factors, self._factors)
        self._measure()

    def untouched(self) -> Iterator[str]:
        """Nothing is written into what other outcomes are given too."""
        images, baseline, context = self._images.copy(), self._baseline.copy(), self._context()
        measured(self._outcome, images, baseline, context)
        given = {"images": (images, self._images), "the baseline's images": (baseline, self._baseline)}
        given |= {path: (value, self._stored[path]) for path, value in context.stored.items()}
        for name, (after, before) in given.items():
            if not np.array_equal(after, before):
                yield f"measure() wrote into {name}, which other outcomes are given too. Make new arrays."

    def repeatable(self) -> Iterator[str]:
        """The same twice."""
        first, second = self._measure(), self._measure()
        for name in first:
            if not np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f"):
                yield f"{name} of the same images is another the second time. Draw nothing at random, and keep nothing."

    def images_apart(self) -> Iterator[str]:
        """Each number from its own image."""
        together, context = self._measure(), self._context()
        for row, sample in np.ndindex(_RUNS, _SAMPLES):
            own, of_sample = slice(row, row + 1), slice(sample, sample + 1)
            stored = {
                path: value[of_sample] if path.startswith("baseline/") else value[own, of_sample]
                for path, value in context.stored.items()
            }
            alone = replace(context, prompts=context.prompts[of_sample], seeds=context.seeds[of_sample], stored=stored)
            found = measured(self._outcome, self._images[own, of_sample], self._baseline[of_sample], alone)
            for name, value in found.items():
                beside = together[name][own, of_sample].astype(np.float64)
                if not np.allclose(beside, value.astype(np.float64), atol=_CLOSE[0], rtol=_CLOSE[1], equal_nan=True):
                    yield (
                        f"{name} of an image is {np.ravel(value)[0]:.6g} alone and {np.ravel(beside)[0]:.6g} beside "
                        "others. Results would depend on the batch: let nothing be pooled over interventions or "
                        "samples, the first two dimensions."
                    )
                    return

    def in_limits(self) -> Iterator[str]:
        """Numbers, within what is said to be possible."""
        for one in self._outcome.variables:
            values = self._measure()[one.name].astype(np.float64)
            if np.isnan(values).any():
                yield f"{one.name} is NaN, or infinite without infinite = True, for images of noise or equal ones."
            low, high = one.limits
            if (values < low - _CLOSE[0]).any() or (values > high + _CLOSE[0]).any():
                yield (
                    f"{one.name} takes values from {np.nanmin(values):.6g} to {np.nanmax(values):.6g}, outside of its "
                    f"limits {low:g} ... {high:g}."
                )

    def direction(self) -> Iterator[str]:
        """Equal images are as alike as can be."""
        for one in self._outcome.variables:
            if one.better is None:
                continue
            values = self._measure()[one.name].astype(np.float64)
            sign = 1 if one.better == "higher" else -1
            equal, others = sign * values[0], sign * values[1:]
            if (others > equal + _CLOSE[0]).any():
                yield (
                    f"{one.name} holds images with noise for more alike than equal ones: {values[0].ravel()[0]:.6g} of "
                    f"equal images, and as far as {sign * others.max():.6g}. It says better={one.better!r}; is it the "
                    "other way round?"
                )
