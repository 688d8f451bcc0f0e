"""What every outcome is: a value that says how alike a run's image is to the baseline's, or what it shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.digests import digest_of
from causalunet.design.limits import COMPONENT_NAME, shown
from causalunet.design.named import read_named, write_named
from causalunet.design.outcomes.dims import OutcomeDim
from causalunet.errors import SpecError
from causalunet.registry import Registry

__all__ = [
    "OUTCOMES",
    "Better",
    "Outcome",
    "OutcomeContext",
    "OutcomeVariable",
    "ReadFactors",
    "chosen_outcome",
    "outcome_named",
]

Better = Literal["higher", "lower"]
"""Values of an outcome that mean that an image is more like the baseline's."""

ReadFactors = Callable[[NDArray[np.float32]], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""As `causalunet.models.base.DiffusionModel.read_factors`."""

OUTCOMES: Registry[type[Outcome]] = Registry(
    "outcome", "causalunet.outcomes", late={"lpips": "causalunet.models.lpips"}
)
"""Every outcome, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeVariable:
    """One stored variable of an outcome.

    Parameters
    ----------
    name : str
        In ``results.outcomes``.
    meaning : str
        In a few words, for axes and tables.
    definition : str
        In one sentence, with its source.
    units : str
        "1" for a pure number.
    better : {"higher", "lower"}, optional
        Values that mean more alike; None where neither does.
    dims : tuple of str
        Beyond intervention and sample.
    dtype : str
        NumPy type.
    limits : tuple of float
        Least and largest value that is possible.
    """

    name: str
    meaning: str
    definition: str = ""
    units: str = "1"
    better: Better | None = None
    dims: tuple[str, ...] = ()
    dtype: str = "float64"
    limits: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeContext:
    """What is known of the runs whose images are measured.

    Attributes
    ----------
    prompts : sequence of str
        Of the samples; `causalunet.NO_PROMPT` where there is none.
    seeds : sequence of int
        Of the samples.
    stored : mapping of str to ndarray
        Stored variables that the outcome `reads`, by path, of the same runs and samples: ``trajectory/x0_distance`` is
        (intervention, sample, step), ``baseline/x0_hat`` (sample, step, channel, y, x). Steps descend from T to 1.
    read_factors : callable, optional
        The model's factor reader; None where no model is at hand, or it has none.
    sizes : mapping of str to int
        Lengths that values have along the dimensions beyond intervention and sample, as far as they are known.
    """

    prompts: Sequence[Any] = ()
    seeds: Sequence[int] = ()
    stored: Mapping[str, NDArray[Any]]
    read_factors: ReadFactors | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)


@clear_calls
@dataclass(frozen=True, slots=True)
class Outcome:
    """Base of every outcome. A subclass names itself, says what its numbers mean, and has `measure` give them.

    Subclassing enters it in the registry. Fields of the dataclass are its parameters, kept with the results.

    Attributes
    ----------
    name : str
        Its name in JSON, and that of its variable in ``results.outcomes``.
    title : str
        What figures and tables call it, such as "SSIM"; by default its variable.
    meaning : str
        What is measured, in a few words.
    definition : str
        In one sentence, with its source: others of the same name may give other numbers.
    units : str
        "1" for a pure number.
    better : {"higher", "lower"}, optional
        Values that mean that an image is more like the baseline's; None where neither does.
    limits : tuple of float
        Least and largest value that is possible.
    infinite : bool
        Whether infinity is a value, as the PSNR of identical images is.
    threshold : float, optional
        On the mean, for figures and criteria that are given none.
    axis : tuple of float, optional
        What figures show of its range; by default as much as the values take.
    digits : int
        Decimals in tables.
    reads : tuple of str
        Paths of stored variables that it needs beside images; see `OutcomeContext`.
    of_images : bool
        Whether it needs images.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    meaning: ClassVar[str] = ""
    definition: ClassVar[str] = ""
    units: ClassVar[str] = "1"
    better: ClassVar[Better | None] = None
    limits: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    infinite: ClassVar[bool] = False
    threshold: ClassVar[float | None] = None
    axis: ClassVar[tuple[float, float] | None] = None
    digits: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ()
    of_images: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(Outcome, cls).__init_subclass__(**kwargs)
        if cls.name == Outcome.name:  # a base of several outcomes needs none
            return
        if not isinstance(cls.name, str) or not COMPONENT_NAME.fullmatch(cls.name):
            raise SpecError(
                f"{cls.__name__} has the name {shown(cls.name)}, which names an array of the store; take letters, "
                "digits, underscores and dots."
            )
        if cls.better is not None and cls.better not in get_args(Better):
            raise SpecError(
                f"The outcome {cls.name!r} has better={shown(cls.better)}; that is 'higher' for a similarity, 'lower' "
                "for a distance, or None where neither means more alike."
            )
        OUTCOMES.register(cls.name, cls)

    @property
    def variable(self) -> str:
        """Name of its variable in ``results.outcomes``; an outcome that can be asked for twice gives each its own."""
        return self.name

    @property
    def variables(self) -> tuple[OutcomeVariable, ...]:
        """All that is stored of it: one number per cell, unless a subclass says otherwise."""
        one = OutcomeVariable(
            name=self.variable,
            meaning=self.meaning or self.definition or self.variable.replace("_", " "),
            definition=self.definition,
            units=self.units,
            better=self.better,
            limits=self.limits,
        )
        return (one,)

    def brings(self, image_shape: tuple[int, ...], factors: Mapping[str, Sequence[str]]) -> tuple[OutcomeDim, ...]:
        """Dimensions of its variables that not every store has, with their labels; none, unless a subclass has some.

        Parameters
        ----------
        image_shape : tuple of int
            (channel, y, x) of the images.
        factors : mapping of str to sequence of str
            Values of every factor that the model reads; empty where it reads none.
        """
        return ()

    def of_baseline(self, baseline: NDArray[np.float32], context: OutcomeContext) -> Mapping[str, NDArray[Any]]:
        """What is kept of the baseline's own images, in the group ``baseline``: only outcomes of every study have that.

        Parameters
        ----------
        baseline : ndarray of float32, (sample, channel, y, x)
        context : OutcomeContext

        Returns
        -------
        mapping of str to ndarray, (sample, ...)
        """
        return {}

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name what is measured: parameters, definition, weights."""
        told = [[one.name, one.definition, one.units, one.better] for one in self.variables]
        return digest_of({"outcome": self.essence(), "variables": told})

    def essence(self) -> dict[str, Any]:
        """What numbers depend on, as JSON: the parameters, unless a subclass knows more, such as a file's digest."""
        return self.to_json()

    def check(self, image_shape: tuple[int, ...], steps: int) -> None:
        """Raise `causalunet.SpecError` if it cannot be measured of such images and runs; asked before anything runs.

        Images have the shape (channel, y, x), runs so many steps.
        """

    @classmethod
    def check_threshold(cls, threshold: float) -> None:
        """Raise `causalunet.SpecError` for a threshold that says nothing: one outside the limits.

        Parameters
        ----------
        threshold : float
            On its values, in its units.
        """
        least, most = cls.limits
        if not least <= threshold <= most:
            advice = f" give such as {cls.threshold:g}." if cls.threshold is not None else " give one between."
            raise SpecError(
                f"Criterion got threshold={threshold!r} for {cls.title or cls.name}, which lies in {least:g} ... "
                f"{most:g};{advice}"
            )

    def measure(
        self, images: NDArray[np.float32], baseline: NDArray[np.float32], context: OutcomeContext
    ) -> NDArray[Any] | Mapping[str, NDArray[Any]]:
        """Measure the images of some runs.

        Parameters
        ----------
        images : ndarray of float32, (intervention, sample, channel, y, x)
            In [0, 1]. Neither they nor the baseline's are to be written into.
        baseline : ndarray of float32, (sample, channel, y, x)
            Images of the same samples without intervention.
        context : OutcomeContext

        Returns
        -------
        ndarray, (intervention, sample)
            One number per image, which depends on no other image. An outcome of several variables gives a mapping of
            their names to (intervention, sample, ...).
        """
        raise NotImplementedError(self.name)

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {...}}``."""
        return write_named(self)

    @staticmethod
    def from_json(value: Any) -> Outcome:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError
            The name is not registered or the configuration does not fit.
        """
        return read_named(OUTCOMES, value)


def chosen_outcome(value: Any) -> Outcome:
    """The outcome that is given, or that a name stands for.

    Raises
    ------
    SpecError
        It is neither, or the one of that name has parameters.
    """
    if isinstance(value, Outcome):
        OUTCOMES.check_named(value, "name", value.name)
        return value
    found = outcome_named(value) if isinstance(value, str) else None
    if found is None:
        told = f"no outcome {shown(value)} without parameters" if isinstance(value, str) else f"{shown(value)} is none"
        raise SpecError(
            f"Outcomes are given as values or by name, and there is {told}; there are {', '.join(OUTCOMES)}."
        )
    return found


def outcome_named(name: str) -> Outcome | None:
    """The outcome that a name stands for, if one is registered that needs no parameters; None otherwise."""
    kind = OUTCOMES.get(name)
    if kind is None:
        return None
    try:
        return kind()
    except (SpecError, TypeError):  # it has parameters without which it is none
        return None
