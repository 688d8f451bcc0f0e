"""What a U-Net predicts, and the one table by which noise, image and v follow from each other.

Their arithmetic is that of tensors and of NumPy's arrays alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from causalunet.design.limits import shown
from causalunet.errors import ModelError
from causalunet.process import VARIANCE_PRESERVING, Process
from causalunet.schedule import Level, TrainingSchedule

__all__ = ["LEARNED", "PREDICTIONS", "Prediction", "prediction_of", "process_of", "training_of"]

PREDICTIONS: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "eps": lambda signal, noise: (0.0, 1.0),
    "x0": lambda signal, noise: (1.0, 0.0),
    "v": lambda signal, noise: (-noise, signal),
    "velocity": lambda signal, noise: (-1.0, 1.0),
    "score": lambda signal, noise: (0.0, -1 / noise),
}
"""Weights of x_0 and of the noise in what is predicted, where x = signal x_0 + noise eps.

Ho et al. 2020 predict the noise; v is that of Salimans & Ho 2022, section 4, and 2 / pi times the velocity of the
trigonometric interpolant; the velocity is that of the straight path, eps - x_0 (Lipman et al. 2023); the score is the
gradient of the log density of x (Song et al. 2021, section 2).
"""

_WORDS = {"eps": "noise", "x0": "image", "v": "v", "velocity": "velocity", "score": "score"}
_FROM_NOISE = ("x0", "v", "velocity")
"""What says something of the image where no signal is left."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model's U-Net puts out.

    Parameters
    ----------
    of : str
        ``"eps"``, ``"x0"``, ``"v"``, ``"velocity"`` or ``"score"``, see ``PREDICTIONS``.
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
        if self.of not in PREDICTIONS:
            raise ModelError(f"A prediction of {shown(self.of)} is not known; known: {', '.join(PREDICTIONS)}.")

    def __str__(self) -> str:
        """In words, as stores name it."""
        return _WORDS[self.of] + " and variance" * self.variance

    def channels(self, of_image: int) -> int:
        """Channels that the U-Net puts out."""
        return 2 * of_image if self.variance else of_image

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

    def image_and_noise(self, value: Any, x: Any, level: Level) -> tuple[Any, Any]:
        """Say x_0 and eps by what was predicted of x.

        Parameters
        ----------
        value : Tensor, (sample, channel, y, x)
            Predicted of x times ``level.scale``, which is what the U-Net was given.
        x : Tensor, (sample, channel, y, x)
        level : Level
            Noise in x; alpha_bar is below 1, and above 0 if the prediction is of eps or of the score.

        Notes
        -----
        Two lines with two unknowns: scale x = signal x_0 + noise eps, and value = p x_0 + q eps.
        """
        signal, noise, scale = level.signal, level.noise, level.scale
        p, q = PREDICTIONS[self.of](signal, noise)
        area = signal * q - noise * p
        x0 = _sum(scale * q / area, x, -noise / area, value)
        return x0, _sum(-scale * p / area, x, signal / area, value)


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
    from_noise = prediction_of(model).of in _FROM_NOISE
    end = float(getattr(model, "end_alpha_bar", 1.0))
    return TrainingSchedule(model.alpha_bar, process_of(model), from_noise=from_noise, end=end)


def _sum(of_x: float, x: Any, of_value: float, value: Any) -> Any:
    """Leave out what has no weight: what is predicted is then what comes out, to the last bit, infinite or not."""
    if of_x == 0.0:
        return value if of_value == 1.0 else of_value * value
    return of_x * x if of_value == 0.0 else of_x * x + of_value * value
