"""What every sampler is: a value that says how a state goes from one noise level to a lower one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.guidance import CFG, Guidance, NoGuidance, checked_scale
from causalunet.design.limits import MOST_CALLS, MOST_STEPS, is_integer, plain_number, shown
from causalunet.design.named import class_named
from causalunet.design.spacings import Linspace, Spacing
from causalunet.errors import SpecError
from causalunet.registry import Registry
from causalunet.schedule import Level, Schedule, TrainingSchedule, training_schedule

__all__ = ["SAMPLERS", "Estimate", "Query", "Sampler", "State"]

SAMPLERS: Registry[type[Sampler]] = Registry("sampler", "causalunet.samplers")
"""Every sampler that this process knows, by name."""

_STEPS, _SCALE = 100, 3.0
"""Where none are given."""


class Estimate(NamedTuple):
    """What a U-Net call says about x at some noise level, guided.

    Attributes
    ----------
    x0 : Tensor, (sample, channel, y, x)
        Estimate of the image, clipped where the model's are.
    eps : Tensor, (sample, channel, y, x)
        Noise, as predicted: it does not know of clipping.
    fraction : Tensor, (sample, channel, y, x), or None
        Place of the log variance between its bounds, -1 ... 1, from models that predict one.
    x : Tensor, (sample, channel, y, x)
        What the U-Net was given, at scale 1, see `causalunet.schedule.Level`.
    level : Level
        Noise in it.
    """

    x0: Any
    eps: Any
    fraction: Any
    x: Any
    level: Level


class Query(NamedTuple):
    """What a further U-Net call of a step is given.

    Attributes
    ----------
    x : Tensor, (sample, channel, y, x)
    level : Level
        Its timestep need not be whole, see `causalunet.schedule.TrainingSchedule`.
    """

    x: Any
    level: Level


class State(NamedTuple):
    """Where a run stands between two steps. It is forked by being shared: nothing in it is ever written into.

    Attributes
    ----------
    x : Tensor, (sample, channel, y, x)
    past : tuple of Estimate
        What the first call of each passed step said, without ``fraction``; the newest first, as many as the sampler
        asks for, fewer near the first step.
    """

    x: Any
    past: tuple[Estimate, ...] = ()


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Base of every sampler. A subclass names itself, says `mean` and, if it draws noise, `spread`.

    One whose steps take several U-Net calls says how many by `calls`, and where each further one looks by `further`.
    Their arithmetic is that of tensors with Python's operators and ``math``, so that NumPy's arrays do as well: results
    are verified without torch.

    Parameters
    ----------
    steps : int
        Number of denoising steps T, spread over the training timesteps.
    guidance_scale : float
        Weight of the conditional over the unconditional prediction; 1 means no guidance and one row per call.
    guidance : Guidance, optional
        Another way to guide than by that scale, which is then the guidance's own.
    spacing : Spacing, optional
        At which timesteps the steps lie; by default the sampler's own ``usual_spacing``.

    Attributes
    ----------
    name : str
        Its name in JSON and in stored results.
    history : int
        How many earlier steps of a run it looks back on.
    usual_spacing : Spacing
        Where its steps lie unless another spacing is given.
    from_noise : bool
        Whether a step may begin where no signal is left, ``at.alpha_bar`` 0.
    elementwise : bool
        Whether its arithmetic is the same for every number of a state, whatever the others are; False where it looks
        at several together, as at their norm, or has numbers for every place.
    """

    name: ClassVar[str] = ""
    history: ClassVar[int] = 0
    usual_spacing: ClassVar[Spacing] = Linspace()
    from_noise: ClassVar[bool] = False
    elementwise: ClassVar[bool] = True

    steps: int = _STEPS
    guidance_scale: float = _SCALE
    guidance: Guidance | None = None
    spacing: Spacing | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(Sampler, cls).__init_subclass__(**kwargs)
        if cls.name != Sampler.name:
            SAMPLERS.register(cls.name, cls)

    def __post_init__(self) -> None:
        SAMPLERS.check_named(self, "name", self.name)
        for entry in fields(self):
            object.__setattr__(self, entry.name, plain_number(getattr(self, entry.name)))
        if self.spacing is not None:
            self._space_by(self.spacing)
        kind, steps = type(self).__name__, self.steps
        if not is_integer(steps) or not 1 <= steps <= MOST_STEPS:
            raise SpecError(f"{kind} got steps={shown(steps)}; it must be an integer in 1 ... {MOST_STEPS:,}.")
        scale = checked_scale(kind, "guidance_scale", self.guidance_scale)
        if self.guidance is not None:
            scale = self._scale_of(self.guidance, scale)
        object.__setattr__(self, "guidance_scale", scale)

    def _scale_of(self, guidance: Any, scale: float) -> float:
        """Check a guidance that was given, and drop it where its scale says all: one value has one spelling."""
        if not isinstance(guidance, Guidance):
            raise SpecError(f"{type(self).__name__} got guidance={shown(guidance)}; give a guidance, such as CFG(3).")
        if scale not in (_SCALE, guidance.scale):
            raise SpecError(
                f"{type(self).__name__} got guidance_scale={scale:g} beside a guidance of scale {guidance.scale:g}; "
                "give one of them."
            )
        if isinstance(guidance, CFG | NoGuidance):
            object.__setattr__(self, "guidance", None)
        return guidance.scale

    def _space_by(self, spacing: Any) -> None:
        """Check a spacing that was given, take its steps, and drop it where it is the usual one."""
        kind = type(self).__name__
        if not isinstance(spacing, Spacing):
            raise SpecError(f"{kind} got spacing={shown(spacing)}; give a spacing, such as Karras().")
        if spacing.count is not None:
            if self.steps not in (_STEPS, spacing.count):
                raise SpecError(
                    f"{kind} got steps={shown(self.steps)} beside a spacing of {spacing.count}; give one of them."
                )
            object.__setattr__(self, "steps", spacing.count)
        if spacing == self.usual_spacing:
            object.__setattr__(self, "spacing", None)

    def schedule(self, alpha_bar: NDArray[np.float64] | TrainingSchedule) -> Schedule:
        """Where its steps lie on the training schedule of a model.

        Parameters
        ----------
        alpha_bar : ndarray of float64, (timestep,), or TrainingSchedule
            Share of signal variance left at every training timestep.

        Raises
        ------
        SpecError
            There are more steps than timesteps, two at one, or one outside the training; or the sampler cannot begin
            where the first one lies.
        ModelError
            The shares of signal do not fall from below 1 to above 0.
        """
        training = training_schedule(alpha_bar)
        spacing = self.usual_spacing if self.spacing is None else self.spacing
        found = Schedule.at(training, spacing.times(training, self.steps))
        if found.alpha_bars[-1] == 0 and not self.from_noise:
            raise SpecError(
                f"The first of {self.steps} steps lies at timestep {found.timesteps[-1]:g}, where the model has noise "
                f"alone and no signal, and the sampler {self.name!r} divides by the signal. Begin at a lower timestep, "
                "as with spacing=Leading(), or take one that does not, such as DDIM(), Euler() or FlowHeun()."
            )
        return found

    @property
    def missing(self) -> str:
        """What it needs beside its class and is not known in this process, in words; empty if there is nothing."""
        return ""

    def check_model(self, model: Any, schedule: Schedule) -> None:
        """See that it can go along a model's noise levels, when a study is planned; most samplers go along any.

        Parameters
        ----------
        model : DiffusionModel
        schedule : Schedule
            Of its steps.

        Raises
        ------
        SpecError
            It cannot.
        """

    @property
    def guided_by(self) -> Guidance:
        """The guidance of its runs: the one given, or by its scale classifier-free guidance or none."""
        if self.guidance is not None:
            return self.guidance
        return NoGuidance() if self.guidance_scale == 1.0 else CFG(self.guidance_scale)

    @property
    def rows_per_sample(self) -> int:
        """Rows of a U-Net call per sample: two under guidance."""
        return len(self.guided_by.branches)

    @property
    def draws(self) -> bool:
        """Whether its steps draw noise."""
        return False

    @property
    def several(self) -> bool:
        """Whether a step may take more than one U-Net call."""
        return type(self).calls is not Sampler.calls

    def calls(self, at: Level, to: Level, passed: int) -> int:
        """How many U-Net calls a step takes; the first is always at the state itself.

        Parameters
        ----------
        at, to : Level
            From where to where.
        passed : int
            Steps that the run has taken before.

        Returns
        -------
        int
            At least 1.
        """
        return 1

    def further(
        self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, training: TrainingSchedule
    ) -> Query:
        """Say what the next call of a step is given, after what the earlier ones said.

        Asked for where a step takes several `calls`.

        Parameters
        ----------
        state : State
        estimates : tuple of Estimate
            Of the calls of this step so far, the first of ``state.x``.
        at, to : Level
            From where to where the step goes.
        training : TrainingSchedule
            Gives levels in between.

        Returns
        -------
        Query
        """
        raise NotImplementedError(self.name)

    def further_spread(self, estimates: tuple[Estimate, ...], at: Level, level: Level) -> float:
        """What standard normal noise, drawn for this call alone, is multiplied by before it is added to x of `further`.

        Asked for where the sampler `draws` and a step takes several `calls`; most add none there.

        Parameters
        ----------
        estimates : tuple of Estimate
            Of the calls of this step so far.
        at, level : Level
            Of the step, and of the call.

        Returns
        -------
        float
            At least 0.
        """
        return 0.0

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Where a step goes, but for the noise that it draws.

        A window that skips steps makes ``to`` lie further down: such a run is one on the schedule without those steps.

        Parameters
        ----------
        state : State
        estimates : tuple of Estimate
            Of all calls of the step, the first of ``state.x``; of most samplers it is the only one.
        at, to : Level
            From where to where. At the image ``to.alpha_bar`` is 1; a step of one call gives its ``x0`` there.

        Returns
        -------
        Tensor, (sample, channel, y, x)
        """
        raise NotImplementedError(self.name)

    def spread(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """What standard normal noise is multiplied by before it is added to `mean`.

        Asked for where the sampler `draws`, and never on the step to the image.

        Returns
        -------
        Tensor, (sample, channel, y, x), or float
            At least 0.
        """
        raise NotImplementedError(self.name)

    def step(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level, noise: Any) -> State:
        """Take one step.

        Parameters
        ----------
        state, estimates, at, to
            As for `mean`.
        noise : Tensor, (sample, channel, y, x), or None
            Standard normal; None where the sampler draws none.

        Returns
        -------
        State
        """
        x = self.mean(state, estimates, at, to)
        if self.draws and to.alpha_bar < 1:
            x = x + self.spread(state, estimates, at, to) * noise
        # Without the variance, which stores do not keep: a run that starts from a stored baseline has the same past.
        return State(x, (estimates[0]._replace(fraction=None), *state.past)[: self.history])

    def calls_along(self, levels: Sequence[Level]) -> list[int]:
        """How many U-Net calls each step of a run takes.

        Parameters
        ----------
        levels : sequence of Level
            That the run passes, the image last.

        Returns
        -------
        list of int
            One fewer than levels.

        Raises
        ------
        SpecError
            The sampler says something else than a number from 1 to 255.
        """
        if not self.several:
            return [1] * (len(levels) - 1)
        found = [self.calls(at, to, passed) for passed, (at, to) in enumerate(itertools.pairwise(levels))]
        for count in found:
            if not is_integer(count) or not 1 <= count <= MOST_CALLS:
                raise SpecError(
                    f"The sampler {shown(self.name)} says that a step takes {shown(count)} U-Net calls; calls() has to "
                    f"give an integer in 1 ... {MOST_CALLS}."
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {...}}``, without what is None: a guidance, a spacing."""
        given = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {
            "name": self.name,
            "configuration": {
                name: value.to_json() if isinstance(value, Guidance | Spacing) else value
                for name, value in given.items()
                # So that what was written before there were such fields is still written the same.
                if value is not None
            },
        }

    @staticmethod
    def from_json(value: Any) -> Sampler:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError
            The name is not known or the configuration does not fit.
        """
        kind, configuration = class_named(SAMPLERS, value)
        readers: dict[str, Callable[[Any], Any]] = {"guidance": Guidance.from_json, "spacing": Spacing.from_json}
        given = {name: read(configuration[name]) for name, read in readers.items() if configuration.get(name)}
        return kind(**{**configuration, **given})
