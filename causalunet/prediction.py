"""What a U-Net predicts, and the one table by which image and noise follow from it, whatever it is.

Their arithmetic is that of tensors and of NumPy's arrays alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from causalunet.design.limits import shown
from causalunet.errors import ModelError
from causalunet.process import VARIANCE_PRESERVING, Process, Weights
from causalunet.schedule import Level, TrainingSchedule

__all__ = ["LEARNED", "PREDICTIONS", "Prediction", "Told", "prediction_of", "process_of", "training_of"]


class Told(NamedTuple):
    """What predictions are lines of: x = image x_0 + given u + noise eps is what the U-Net is given.

    Attributes
    ----------
    image, given, noise : float
        As of `causalunet.process.Weights`; without a shift image and noise are those of the level, and given is 0.
    kept : float
        alpha_t, the share of signal variance that the last timestep of the training kept.
    change : Weights
        What the process has for a velocity.
    """

    image: float
    given: float
    noise: float
    kept: float = 1.0
    change: Weights = Weights(-1.0, 0.0, 1.0)


PREDICTIONS: dict[str, Callable[[Told], Weights]] = {
    "eps": lambda told: Weights(0.0, 0.0, 1.0),
    "x0": lambda told: Weights(1.0, 0.0, 0.0),
    "v": lambda told: Weights(-told.noise, 0.0, told.image),
    "velocity": lambda told: told.change,
    "score": lambda told: Weights(0.0, 0.0, -1 / told.noise),
    "residual": lambda told: Weights(-1.0, 1.0, 0.0),
    "resnoise": lambda told: _resnoise(told.noise / (1 + told.kept**0.5)),
}
"""Weights of x_0, of the given image u and of the noise in what is predicted.

Ho et al. 2020 predict the noise; v is that of Salimans & Ho 2022, section 4, and 2 / pi times the velocity of the
trigonometric interpolant; the velocity is that of the straight path, eps - x_0 (Lipman et al. 2023), or the process's
own; the score is the gradient of the log density of x, given u (Song et al. 2021, section 2). Of a process that is
shifted by u the residual is R = u - x_0 (Liu et al. 2023), and the resnoise eps + (1 - sqrt(alpha_t))
sqrt(1 - ab_t) / (1 - alpha_t) R (Shi et al. 2023, equation 24).
"""

_PAIR = "residual_eps"
"""Residual and noise, each with channels of its own (Liu et al. 2023)."""

_SCORED = "velocity_score"
"""Velocity and score, each with channels of its own: of paths between two kinds of images, where neither tells both."""

_WORDS = {
    **dict(zip(PREDICTIONS, ("noise", "image", "v", "velocity", "score", "residual", "resnoise"), strict=True)),
    _PAIR: "residual and noise",
    _SCORED: "velocity and score",
}
_FROM_NOISE = ("x0", "v", "velocity", "residual", _PAIR, _SCORED)
"""What says something of the image where no signal is left."""
_OF_GIVEN = ("residual", "resnoise", _PAIR)
"""What only models of a shifted process predict."""


def _resnoise(of_residual: float) -> Weights:
    return Weights(-of_residual, of_residual, 1.0)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model's U-Net puts out.

    Parameters
    ----------
    of : str
        ``"eps"``, ``"x0"``, ``"v"``, ``"velocity"``, ``"score"``, ``"residual"`` or ``"resnoise"``, see
        ``PREDICTIONS``; or, as twice the channels, ``"residual_eps"``: residual and noise both, or
        ``"velocity_score"``: velocity and score both.
    variance : bool
        Whether it puts out as many channels again: the place of the log variance between its bounds, -1 ... 1 (Nichol
        & Dhariwal 2021, equation 15).

    Raises
    ------
    ModelError
        There is no such prediction.
    """

    of: str = "eps"
    variance: bool = False

    def __post_init__(self) -> None:
        if self.of not in _WORDS:
            raise ModelError(f"A prediction of {shown(self.of)} is not known; known: {', '.join(_WORDS)}.")
        if (self.pair or self.scored) and self.variance:
            raise ModelError(f"A prediction of {_WORDS[self.of]} has no variance beside; give variance=False.")

    def __str__(self) -> str:
        """In words, as stores name it."""
        return _WORDS[self.of] + " and variance" * self.variance

    @property
    def pair(self) -> bool:
        """Whether residual and noise are predicted apart."""
        return self.of == _PAIR

    @property
    def scored(self) -> bool:
        """Whether velocity and score are predicted apart: then x_0 and eps of an estimate do not make up x."""
        return self.of == _SCORED

    @property
    def by_step(self) -> bool:
        """Whether it hangs on how long a timestep of the training is."""
        return self.of == "resnoise"

    @property
    def of_given(self) -> bool:
        """Whether it is one of an image that the model is given, whose process is shifted."""
        return self.of in _OF_GIVEN

    @property
    def from_noise(self) -> bool:
        """Whether it says something of the image where no signal is left."""
        return self.of in _FROM_NOISE

    def channels(self, of_image: int) -> int:
        """Channels that the U-Net puts out."""
        return 2 * of_image if self.variance or self.pair or self.scored else of_image

    def split(self, output: Any) -> tuple[Any, Any]:
        """Take what the U-Net put out apart: value, and fraction of the variance or None.

        Parameters
        ----------
        output : Tensor, (row, channel, y, x)
        """
        if not self.variance:
            return output, None
        half = output.shape[1] // 2
        return output[:, :half], output[:, half:]

    def image_and_noise(
        self, value: Any, x: Any, level: Level, told: Told | None = None, given: Any = None
    ) -> tuple[Any, Any]:
        """Say x_0 and eps by what was predicted of x.

        Parameters
        ----------
        value : Tensor, (sample, channel, y, x)
            Predicted of x times ``level.scale``, which is what the U-Net was given.
        x : Tensor, (sample, channel, y, x)
        level : Level
            Noise in x; alpha_bar is below 1, and above 0 if the prediction is of eps or of the score.
        told : Told, optional
            By default that of a plain process.
        given : Tensor, (sample, channel, y, x), optional
            u, where the process is shifted.

        Notes
        -----
        Two lines with two unknowns: scale x = image x_0 + given u + noise eps, and value = p x_0 + r u + q eps. Of
        residual and noise both, x_0 is what x has beside them, as in the code of Liu et al. 2023. Of velocity and score
        both, x_0 is where the velocity leads, and eps what the score has for noise.
        """
        told = Told(level.signal, 0.0, level.noise) if told is None else told
        image, of_given, noise, scale = told.image, told.given, told.noise, level.scale
        if self.scored:
            half = value.shape[1] // 2
            x0, _ = Prediction("velocity").image_and_noise(value[:, :half], x, level, told, given)
            return x0, -noise * value[:, half:]
        if self.pair:
            # scale x = signal x_0 + given u + residual R + noise eps with R as it was predicted
            half = value.shape[1] // 2
            residual, eps = value[:, :half], value[:, half:]
            of_residual = level.signal - image
            rest = scale * x - of_residual * residual - (of_given - of_residual) * given - noise * eps
            return rest / level.signal, eps
        p, r, q = PREDICTIONS[self.of](told)
        area = image * q - noise * p
        x0 = _sum(scale * q / area, x, -noise / area, value)
        eps = _sum(-scale * p / area, x, image / area, value)
        if given is None:
            return x0, eps
        return x0 + (noise * r - of_given * q) / area * given, eps + (of_given * p - image * r) / area * given


LEARNED = Prediction("eps", variance=True)
"""Of models that do not say what theirs predicts."""


def prediction_of(model: Any) -> Prediction:
    """What a model says that its U-Net predicts: its attribute ``prediction``, by default noise and variance.

    Raises
    ------
    ModelError
        It is something else than a `Prediction`.
    """
    found = getattr(model, "prediction", LEARNED)
    if not isinstance(found, Prediction):
        raise ModelError(
            f"The model {model.name!r} has prediction={shown(found)}; give a causalunet.prediction.Prediction, such as "
            'Prediction("v") or Prediction("eps", variance=True).'
        )
    return found


def process_of(model: Any) -> Process:
    """What a model says of the scale of its states: its attribute ``process``, by default that variance is preserved.

    Raises
    ------
    ModelError
        It is something else than a `causalunet.process.Process`.
    """
    found = getattr(model, "process", VARIANCE_PRESERVING)
    if not isinstance(found, Process):
        raise ModelError(
            f"The model {model.name!r} has process={shown(found)}; give a causalunet.process.Process, such as "
            'Process("straight").'
        )
    return found


def training_of(model: Any) -> TrainingSchedule:
    """The noise of a model's training: its ``alpha_bar``, process and prediction, and where its runs end.

    Raises
    ------
    ModelError
        Process or prediction are none.
    """
    end = float(getattr(model, "end_alpha_bar", 1.0))
    return TrainingSchedule(model.alpha_bar, process_of(model), from_noise=prediction_of(model).from_noise, end=end)


def _sum(of_x: float, x: Any, of_value: float, value: Any) -> Any:
    """Leave out what has no weight: what is predicted is then what comes out, to the last bit, infinite or not."""
    if of_x == 0.0:
        return value if of_value == 1.0 else of_value * value
    return of_x * x if of_value == 0.0 else of_x * x + of_value * value
