"""What schedulers of diffusers say: the noise of a model's training, and the sampler that equals them.

Every number is asked of the scheduler object, not computed again from its configuration.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.design.samplers import Sampler
from causalunet.design.samplers.ddim import DDIM
from causalunet.design.samplers.ddpm import DDPM
from causalunet.design.samplers.dpm_multistep import DPMMultistep
from causalunet.design.samplers.euler import Euler, EulerAncestral
from causalunet.design.samplers.heun import Heun
from causalunet.design.samplers.lcm import LCM
from causalunet.design.samplers.pndm import PNDM
from causalunet.design.samplers.unipc import UniPC
from causalunet.design.spacings import Given
from causalunet.errors import ModelError
from causalunet.prediction import Prediction
from causalunet.schedule import TrainingSchedule

__all__ = ["SCHEDULERS", "Noise", "read_noise", "sampler_like"]

_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}

Make = Callable[[Mapping[str, Any]], tuple[type[Sampler], dict[str, Any]]]
"""Of a scheduler's configuration: sampler and its fields."""


class Noise(NamedTuple):
    """What a scheduler says of a model.

    Attributes
    ----------
    alpha_bar : ndarray of float64, (timestep,)
    prediction : Prediction
    clip : bool
        Whether estimates of x_0 are clipped to [-1, 1].
    end : float
        Share of signal variance at which its runs end: 1, or that of the first timestep.
    """

    alpha_bar: NDArray[np.float64]
    prediction: Prediction
    clip: bool
    end: float


def _ddpm(config: Mapping[str, Any]) -> tuple[type[Sampler], dict[str, Any]]:
    variances = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": None}
    kind = config["variance_type"]
    if kind not in variances:
        raise ModelError(f"DDPMScheduler with variance_type={kind!r} is not known; known: {', '.join(variances)}.")
    return DDPM, {"variance": variances[kind]}


def _ddim(config: Mapping[str, Any]) -> tuple[type[Sampler], dict[str, Any]]:
    return DDIM, {"noise": "predicted"} if config["clip_sample"] else {}


def _pndm(config: Mapping[str, Any]) -> tuple[type[Sampler], dict[str, Any]]:
    return PNDM, {} if config["skip_prk_steps"] else {"runge_kutta": True}


def _dpm(config: Mapping[str, Any]) -> tuple[type[Sampler], dict[str, Any]]:
    _only(config, "algorithm_type", "dpmsolver++", "sde-dpmsolver++")
    _only(config, "solver_type", "midpoint")
    order = config["solver_order"]
    official = {"official": True} if order == 3 else {}
    stochastic = {"stochastic": True} if config["algorithm_type"].startswith("sde") else {}
    return DPMMultistep, {"order": order, **official, **stochastic}


def _unipc(config: Mapping[str, Any]) -> tuple[type[Sampler], dict[str, Any]]:
    _only(config, "predict_x0", True)
    return UniPC, {"order": config["solver_order"], "variant": config["solver_type"]}


SCHEDULERS: dict[str, Make] = {
    "DDIMScheduler": _ddim,
    "DDPMScheduler": _ddpm,
    "DPMSolverMultistepScheduler": _dpm,
    "EulerAncestralDiscreteScheduler": lambda config: (EulerAncestral, {}),
    "EulerDiscreteScheduler": lambda config: (Euler, {}),
    "HeunDiscreteScheduler": lambda config: (Heun, {}),
    "LCMScheduler": lambda config: (LCM, {}),
    "PNDMScheduler": _pndm,
    "UniPCMultistepScheduler": _unipc,
}
"""Schedulers that are known, by the name of their class."""


def read_noise(scheduler: Any, *, variance: bool) -> Noise:
    """Read what a scheduler says of a model.

    Parameters
    ----------
    scheduler : diffusers.SchedulerMixin
    variance : bool
        Whether the network puts out twice as many channels.

    Raises
    ------
    ModelError
        It is of a class that is not known, or does what no sampler here does.
    """
    config = _config(scheduler)
    for name in ("thresholding", "use_beta_sigmas", "use_flow_sigmas", "use_lu_lambdas"):
        _only(config, name, False, None)
    kind = config.get("prediction_type", "epsilon")
    if kind not in _PREDICTIONS:
        raise ModelError(f"prediction_type={kind!r} of the scheduler is not known; known: {', '.join(_PREDICTIONS)}.")
    clip = bool(config.get("clip_sample", False))
    if clip and (bound := config.get("clip_sample_range", 1.0)) != 1:
        raise ModelError(f"The scheduler clips to clip_sample_range={bound}; here estimates are clipped to 1, or not.")
    end = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    alpha_bar = scheduler.alphas_cumprod.double().cpu().numpy()
    return Noise(alpha_bar, Prediction(_PREDICTIONS[kind], variance=variance), clip, end)


def sampler_like(
    scheduler: Any, training: TrainingSchedule, *, steps: int, guidance_scale: float, eta: float = 0.0
) -> Sampler:
    """Make the sampler whose runs are those of a scheduler.

    Parameters
    ----------
    scheduler : diffusers.SchedulerMixin
        Left as it is.
    training : TrainingSchedule
        Of the model.
    steps : int
    guidance_scale : float
    eta : float
        Of DDIM.

    Raises
    ------
    ModelError
        The scheduler is not known, or tells the network another noise than there is.
    SpecError
        There are more steps than timesteps.
    """
    config = _config(scheduler)
    own = copy.deepcopy(scheduler)
    own.set_timesteps(steps)
    kind, options = SCHEDULERS[type(scheduler).__name__](config)
    if kind is DDIM and eta:
        options["eta"] = eta
    times = Given(timesteps=tuple(_times(own, training, steps)))
    return kind(guidance_scale=guidance_scale, spacing=times, **options)


def _times(scheduler: Any, training: TrainingSchedule, steps: int) -> list[float]:
    """Timesteps of the steps, one each: some schedulers list those of calls."""
    told = np.asarray(scheduler.timesteps.cpu(), dtype=np.float64)
    times = list(dict.fromkeys(told.tolist()))
    if len(times) == steps + 1 and type(scheduler).__name__ == "PNDMScheduler":
        del times[1]
    _check_strides(scheduler, times)
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(times) == steps:
        of_steps = np.asarray(sigmas.cpu(), dtype=np.float64)
        of_steps = of_steps[np.concatenate([[0], np.flatnonzero(np.diff(of_steps)) + 1])][:steps]
        there = np.array([training.level(time).sigma for time in times])
        if not np.allclose(there, of_steps, rtol=1e-3):
            raise ModelError(
                f"This {type(scheduler).__name__} tells the network timesteps whose noise is not that of the state, by "
                f"up to {np.abs(there / of_steps - 1).max():.1%}: it rounds them. Give a sampler of causalunet with "
                "such a spacing instead, as DPMMultistep(spacing=Karras())."
            )
    return times


def _check_strides(scheduler: Any, times: Sequence[float]) -> None:
    """Raise `ModelError` where a scheduler goes elsewhere than to the timestep that it asks next."""
    kind = type(scheduler).__name__
    if kind not in ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler"):
        return
    stride = scheduler.config.num_train_timesteps // len(times)
    for at, to in itertools.pairwise(times):
        if at - to != stride:
            raise ModelError(
                f"This {kind} goes from timestep {at:g} to the noise of {at - stride:g}, and asks the network at "
                f"{to:g} next: its {len(times)} steps are no equal strides. Give a number of steps that divides "
                f"{scheduler.config.num_train_timesteps}, or a sampler of causalunet, which goes to the timestep that "
                "it asks next, such as DDIM(spacing=Trailing())."
            )


def _config(scheduler: Any) -> Mapping[str, Any]:
    if type(scheduler).__name__ not in SCHEDULERS:
        raise ModelError(
            f"The scheduler {type(scheduler).__name__} is not known; known: {', '.join(SCHEDULERS)}. Give the pipeline "
            "one of them by from_config(pipe.scheduler.config)."
        )
    config: Mapping[str, Any] = scheduler.config
    return config


def _only(config: Mapping[str, Any], name: str, *known: Any) -> None:
    if config.get(name, known[0]) not in known:
        raise ModelError(
            f"The scheduler has {name}={config[name]!r}, which no sampler of causalunet does; it has to be "
            f"{' or '.join(repr(value) for value in known if value is not None)}."
        )
