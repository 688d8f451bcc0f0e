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
from causalunet.process import VARIANCE_PRESERVING, Process
from causalunet.schedule import TrainingSchedule, straight_alpha_bar
from causalunet.thresholding import Thresholding

__all__ = ["SCHEDULERS", "Asking", "Noise", "read_noise", "sampler_like"]

_FLOW = "FlowMatchEulerDiscreteScheduler"
_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}

_THRESHOLDED = ("DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler")
_ROUNDING = 1e-3
"""In timesteps: what levels in float32 may be off by."""

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
    process : Process
        How large states are.
    thresholding : Thresholding, optional
        Of estimates of x_0, in place of clipping.
    """

    alpha_bar: NDArray[np.float64]
    prediction: Prediction
    clip: bool
    end: float
    process: Process = VARIANCE_PRESERVING
    thresholding: Thresholding | None = None


class Asking(NamedTuple):
    """How a pipeline of flow matching asks its scheduler for the noise of its steps.

    Attributes
    ----------
    tokens : int
        Of an image: schedulers with ``use_dynamic_shifting`` shift the noise by them (Esser et al. 2024, section
        5.3.2).
    from_one : bool
        Whether it gives noise levels of its own to be shifted, 1, 1 - 1 / steps, ..., 1 / steps.
    """

    tokens: int
    from_one: bool = False

    def set(self, scheduler: Any, steps: int) -> None:
        """Let a scheduler have that number of steps."""
        config = scheduler.config
        given: dict[str, Any] = {"sigmas": np.linspace(1.0, 1 / steps, steps)} if self.from_one else {}
        if config.use_dynamic_shifting:
            few, many = config.base_image_seq_len, config.max_image_seq_len
            share = (self.tokens - few) / (many - few)
            given["mu"] = config.base_shift + share * (config.max_shift - config.base_shift)
        scheduler.set_timesteps(steps, **given)


def _ddpm(config: Mapping[str, Any]) -> tuple[type[Sampler], dict[str, Any]]:
    variances = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": None}
    kind = config["variance_type"]
    if kind not in variances:
        raise ModelError(f"DDPMScheduler with variance_type={kind!r} is not known; known: {', '.join(variances)}.")
    return DDPM, {"variance": variances[kind]}


def _ddim(config: Mapping[str, Any]) -> tuple[type[Sampler], dict[str, Any]]:
    return DDIM, {"noise": "predicted"} if config["clip_sample"] or config["thresholding"] else {}


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
    _FLOW: lambda config: (Euler, {}),
    "HeunDiscreteScheduler": lambda config: (Heun, {}),
    "LCMScheduler": lambda config: (LCM, {}),
    "PNDMScheduler": _pndm,
    "UniPCMultistepScheduler": _unipc,
}
"""Schedulers that are known, by the name of their class."""


def read_noise(scheduler: Any, *, variance: bool, flow: bool = False) -> Noise:
    """Read what a scheduler says of a model.

    Parameters
    ----------
    scheduler : diffusers.SchedulerMixin
    variance : bool
        Whether the network puts out twice as many channels.
    flow : bool
        Whether the network is one of flow matching.

    Raises
    ------
    ModelError
        It is of a class that is not known or not of the network's kind, or does what no sampler here does.
    """
    config, kind = _config(scheduler), type(scheduler).__name__
    if flow != (kind == _FLOW):
        raise ModelError(
            f"The scheduler {kind} is {'not one' if flow else 'one'} of flow matching, and the network of this "
            f"pipeline is {'one' if flow else 'not one'}. Give the pipeline {_FLOW if flow else 'one of another kind'}."
        )
    if flow:
        for name in ("invert_sigmas", "stochastic_sampling"):
            _only(config, name, False)
        straight = straight_alpha_bar(config["num_train_timesteps"])
        return Noise(straight, Prediction("velocity", variance=variance), False, 1.0, Process("straight"))
    for name in ("use_beta_sigmas", "use_flow_sigmas", "use_lu_lambdas"):
        _only(config, name, False, None)
    predicted = config.get("prediction_type", "epsilon")
    if predicted not in _PREDICTIONS:
        raise ModelError(
            f"prediction_type={predicted!r} of the scheduler is not known; known: {', '.join(_PREDICTIONS)}."
        )
    threshold = _thresholding(config, kind)
    clip = bool(config.get("clip_sample", False)) and threshold is None
    if clip and (bound := config.get("clip_sample_range", 1.0)) != 1:
        raise ModelError(f"The scheduler clips to clip_sample_range={bound}; here estimates are clipped to 1, or not.")
    end = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    alpha_bar = scheduler.alphas_cumprod.double().cpu().numpy()
    prediction = Prediction(_PREDICTIONS[predicted], variance=variance)
    return Noise(alpha_bar, prediction, clip, end, thresholding=threshold)


def _thresholding(config: Mapping[str, Any], kind: str) -> Thresholding | None:
    if not config.get("thresholding", False):
        return None
    if kind not in _THRESHOLDED:
        raise ModelError(
            f"The {kind} has thresholding=True; estimates are thresholded as by {' and '.join(_THRESHOLDED)}. Take one "
            "of these, or thresholding=False."
        )
    return Thresholding(config["dynamic_thresholding_ratio"], config["sample_max_value"])


def sampler_like(
    scheduler: Any,
    training: TrainingSchedule,
    *,
    steps: int,
    guidance_scale: float,
    eta: float = 0.0,
    asking: Asking | None = None,
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
    asking : Asking, optional
        Of a pipeline of flow matching.

    Raises
    ------
    ModelError
        The scheduler is not known, or tells the network another noise than there is.
    SpecError
        There are more steps than timesteps.
    """
    config = _config(scheduler)
    own = copy.deepcopy(scheduler)
    if asking is None:
        own.set_timesteps(steps)
    else:
        asking.set(own, steps)
    kind, options = SCHEDULERS[type(scheduler).__name__](config)
    if kind is DDIM and eta:
        options["eta"] = eta
    listed = _times(own, training, steps) if asking is None else _flow_times(own, training)
    times = Given(timesteps=tuple(listed))
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


def _flow_times(scheduler: Any, training: TrainingSchedule) -> list[float]:
    """Timesteps of the steps: at t along the straight path lies t * timesteps - 1."""
    told = np.asarray(scheduler.sigmas.cpu(), dtype=np.float64)[:-1]
    times = told * training.timesteps - 1
    last = training.timesteps - 1
    if times.min() < -_ROUNDING or times.max() > last + _ROUNDING:
        raise ModelError(
            f"This {_FLOW} asks at t from {told.max():.4g} to {told.min():.4g} along the straight path; here t goes "
            f"from 1 to 1/{training.timesteps}. Ask for fewer steps, or give the scheduler a shift of 1 or more."
        )
    return [float(time) for time in times.clip(0, last)]


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
