"""Whether a study can be run under the process of its model: told when it is planned."""

from __future__ import annotations

import numpy as np

from causalunet.bound import BoundStudy
from causalunet.design.samplers import SAMPLERS, Sampler
from causalunet.errors import ModelError, SpecError
from causalunet.models.checking import context_of
from causalunet.models.given import given_images
from causalunet.prediction import Prediction, prediction_of, process_of
from causalunet.process import Process
from causalunet.schedule import Schedule

__all__ = ["check_process"]


def check_process(bound: BoundStudy) -> None:
    """Check sampler, prediction and recording against the process of a model, where it is more than a scale.

    Parameters
    ----------
    bound : BoundStudy

    Raises
    ------
    SpecError
        The sampler does not work on single coordinates where these have noise of their own; it cannot begin where some
        have noise alone; it takes several calls a step, or whole activations are recorded, where the U-Net is given
        states of several sizes.
    ModelError
        The prediction says nothing under such a process, or the model does not give the image that states are shifted
        by.
    """
    model, sampler = bound.model, bound.spec.sampler
    process, prediction = process_of(model), prediction_of(model)
    _check_prediction(model.name, process, prediction)
    if process.shifted:
        _check_lines(model.name, process, prediction, bound.schedule)
        context = context_of(model, bound.spec.encoded_prompts, 1)
        given_images(model, context)
    if process.split:
        _check_bands(process, sampler, bound.schedule, bound.image_shape)
    if process.resized:
        if sampler.several:
            raise SpecError(
                f"The sampler {sampler.name!r} takes several U-Net calls a step, which would be of states of different "
                f"sizes under the process {str(process)!r}. Take one of a call a step, such as DDPM() or DDIM()."
            )
        if bound.spec.record.activations:
            raise SpecError(
                f"The study records whole activations ({', '.join(bound.spec.record.activations)}), whose size changes "
                f"from step to step under the process {str(process)!r}. Record their summary: Record(summary=...)."
            )


def _check_prediction(name: str, process: Process, prediction: Prediction) -> None:
    if prediction.of_given and not process.shifted:
        raise ModelError(
            f"The model {name!r} predicts the {prediction}, of a given image, and its process {str(process)!r} has "
            "none. Give it one that is shifted, such as causalunet.process.AroundResidual()."
        )
    if process.split and (prediction.variance or prediction.of_given):
        raise ModelError(
            f"The model {name!r} predicts {prediction} of pixels, and its process {str(process)!r} has noise of "
            'coordinates. Give it a prediction of one thing, such as Prediction("x0") or Prediction("eps").'
        )


def _check_lines(name: str, process: Process, prediction: Prediction, schedule: Schedule) -> None:
    """Whether x and what is predicted of it say both the image and the noise."""
    if prediction.pair or prediction.of == "resnoise":
        return
    first = schedule.level(schedule.steps)
    if process.weights(first.alpha_bar).image == 0 and prediction.of in ("eps", "score"):
        raise ModelError(
            f"The model {name!r} predicts the {prediction}, and at timestep {first.timestep:g}, where the run begins, "
            f"its process {str(process)!r} has nothing of the image in x, so that it does not follow. Begin at a lower "
            "timestep, as with spacing=Leading()."
        )


def _check_bands(process: Process, sampler: Sampler, schedule: Schedule, shape: tuple[int, int, int]) -> None:
    if not sampler.elementwise:
        able = [name for name in SAMPLERS if (kind := SAMPLERS.get(name)) is not None and kind.elementwise]
        raise SpecError(
            f"The sampler {sampler.name!r} looks at all numbers of a state together, and coordinates have noise of "
            f"their own under the process {str(process)!r} of the model. Samplers that work there: {', '.join(able)}."
        )
    height, width = shape[1:]
    shares = [process.shares(schedule.alpha_bar(step), height, width) for step in range(1, schedule.steps + 1)]
    if not sampler.from_noise and (np.stack(shares) == 0).any():
        able = [name for name in SAMPLERS if (kind := SAMPLERS.get(name)) is not None and kind.from_noise]
        raise SpecError(
            f"The sampler {sampler.name!r} divides by the signal, and coordinates have none at some steps under the "
            f"process {str(process)!r} of the model. Samplers that work there: {', '.join(able)}."
        )
