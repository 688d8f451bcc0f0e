"""What makes images what they are: named parts, stored with results and compared when these meet a model again.

Parts of the model are ``model_fingerprint`` (of its weights), ``noise_schedule``, ``clip``, ``prediction``,
``image_shape`` and ``tokens`` (what prompts become), and those that it names itself, such as ``null_class``; of the
sampler ``sampler.name`` and its parameters; of both ``steps``, the timestep and noise of every step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalunet.design.limits import check_plain, shown
from causalunet.design.samplers import Sampler
from causalunet.errors import CausalUNetError, ModelError, PromptError, SpecError
from causalunet.prediction import prediction_of, process_of, training_of
from causalunet.process import VARIANCE_PRESERVING
from causalunet.thresholding import THRESHOLDING

__all__ = [
    "END",
    "FINGERPRINT",
    "differences",
    "identity_of",
    "short",
    "steps_part",
    "telling_prompts",
]

END = "end_alpha_bar"
"""Share of signal variance at which runs end, of models whose runs end before the image itself."""
FINGERPRINT = "model_fingerprint"
"""The one part that stores of all versions hold."""

_TOKENS, _WEIGHTS, _PREDICTION, _PROCESS = "tokens", "weights", "prediction", "process"
_OWN_OF_ALL = (FINGERPRINT, END, "noise_schedule", "clip", "image_shape", _TOKENS, "steps")
_MOST_PROMPTS = 1024
_DECIMALS = 5
"""Of log SNR. Libraries compute schedules to some 1e-12; what differs by less than this gives the same images."""


def identity_of(model: Any, sampler: Sampler | None, prompts: Iterable[str]) -> dict[str, Any]:
    """Name what makes the images of a model and a sampler.

    Parameters
    ----------
    model : DiffusionModel
        May name parts of its own by an attribute ``identity``, a mapping of names to plain JSON values, and what
        prompts become by a method ``tokens(prompts)``, which gives arrays with one row per prompt.
    sampler : Sampler, optional
        Without one, only what is the model's.
    prompts : iterable of str
        Whose tokens are among the parts, see `telling_prompts`.

    Returns
    -------
    dict
        Of plain JSON types, by the name of the part. What nothing is known of is left out.

    Raises
    ------
    ModelError
        What the model says of itself is no mapping of names to plain values, or ``tokens`` gives no arrays.
    """
    alpha_bar = np.asarray(model.alpha_bar, dtype=np.float64)
    parts: dict[str, Any] = {
        FINGERPRINT: model.fingerprint,
        "noise_schedule": _schedule_part(alpha_bar),
        "clip": bool(model.clip),
        _PREDICTION: str(prediction_of(model)),
        # Left out as stores of earlier versions leave it out: of those it is known.
        **({_PROCESS: process.to_json()} if (process := process_of(model)) != VARIANCE_PRESERVING else {}),
        **({END: end} if (end := float(getattr(model, END, 1.0))) != 1 else {}),
        **({THRESHOLDING: bound.to_json()} if (bound := getattr(model, THRESHOLDING, None)) is not None else {}),
        "image_shape": [int(size) for size in model.image_shape],
        **_own_parts(model),
    }
    if callable(tokens := getattr(model, "tokens", None)):
        parts[_TOKENS] = {str(prompt): _digest_of_tokens(model, tokens, str(prompt)) for prompt in prompts}
    if sampler is not None:
        written = sampler.to_json()
        parts |= {"sampler.name": written["name"]} | _prefixed(written["configuration"])
        with suppress(SpecError, ModelError):  # a schedule that has no such steps, which planning tells
            schedule = sampler.schedule(training_of(model))
            parts["steps"] = steps_part(schedule.timesteps[::-1], schedule.alpha_bars[:0:-1])
    return parts


def differences(stored: Mapping[str, Any], model: Any, sampler: Sampler | None = None) -> list[str]:
    """Say in which parts a model and a sampler are not those that made what is stored.

    Parameters
    ----------
    stored : mapping
        As of `identity_of`. Parts that it lacks are not known, and compared with nothing.
    model, sampler
        As for `identity_of`.

    Returns
    -------
    list of str
        ``"clip is true there and false here"``; empty if nothing differs.
    """
    told = stored.get(_TOKENS)
    tokens = told if isinstance(told, Mapping) else {}
    here = identity_of(model, sampler, tokens)
    differing = {name for name in stored.keys() & here.keys() if name != _TOKENS and stored[name] != here[name]}
    if _WEIGHTS in stored and _WEIGHTS in here:
        differing.discard(FINGERPRINT)  # of more than the weights; the rest of it has names of its own
    if differing & {"sampler.steps", "sampler.spacing", "noise_schedule"}:
        differing.discard("steps")  # follows
    found = [
        f"{name} is {short(stored[name])} there and {short(here[name])} here" for name in here if name in differing
    ]
    ours = here.get(_TOKENS, tokens)
    other = [prompt for prompt in tokens if tokens[prompt] != ours[prompt]]
    if other:
        more = f" (and of {len(other) - 1} more)" if len(other) > 1 else ""
        first = other[0]
        found.append(_told(f"tokens of {short(first)}{more}", tokens[first], ours[first]))
    return found


def _told(name: str, there: Any, here: Any) -> str:
    return f"{name} is {short(there)} there and {short(here)} here"


def telling_prompts(prompts: Iterable[str], *, guided: bool) -> list[str]:
    """Choose the prompts whose tokens tell one tokenizer from another.

    Parameters
    ----------
    prompts : iterable of str
        Of a study. All are chosen up to 1,024; of more first those with words that no earlier one has.
    guided : bool
        Whether the empty prompt is encoded too.
    """
    known: set[str] = set()
    telling: list[str] = [""] if guided else []
    others: list[str] = []
    for prompt in dict.fromkeys(map(str, prompts)):
        words = set(prompt.replace(",", " , ").split())
        (others if words <= known else telling).append(prompt)
        known |= words
    return list(dict.fromkeys([*telling, *others]))[:_MOST_PROMPTS]


def steps_part(timesteps: Sequence[float], alpha_bars: ArrayLike) -> str:
    """Name timestep and noise of every step, given from the first of the run to the last."""
    of_noise = _rounded_noise(np.asarray(alpha_bars, dtype=np.float64))
    whole = all(float(time).is_integer() for time in timesteps)
    # Whole ones as ever, so that what earlier versions stored goes on meaning the same.
    times = np.asarray(timesteps, "<i8") if whole else np.round(np.asarray(timesteps, "<f8"), _DECIMALS)
    first, last = (f"{timesteps[end]:.0f}" if whole else f"{timesteps[end]:.7g}" for end in (0, -1))
    return f"{len(timesteps)} steps, timesteps {first} to {last}, {_digest(times, of_noise)}"


def short(value: Any) -> str:
    """Show a stored value in an error message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _schedule_part(alpha_bar: NDArray[np.float64]) -> str:
    first, last = (f"{value:.5g}" for value in alpha_bar[[0, -1]])
    return f"{len(alpha_bar)} timesteps, {first} to {last}, {_digest(_rounded_noise(alpha_bar))}"


def _rounded_noise(alpha_bar: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log SNR, in which all steps count alike, rounded."""
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = np.round(np.log(alpha_bar) - np.log1p(-alpha_bar), _DECIMALS)
    return np.asarray(noise + 0.0, dtype="<f8")  # -0.0 and 0.0 are one


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def _digest_of_tokens(model: Any, tokens: Any, prompt: str) -> str:
    """Name what one prompt becomes."""
    try:
        found = tokens([prompt])
    except PromptError:
        return "cannot be read"
    arrays = [np.asarray(part) for part in found] if isinstance(found, tuple | list) else []
    if not arrays or any(array.dtype.kind not in "biuf" or array.shape[:1] != (1,) for array in arrays):
        raise ModelError(
            f"The model {model.name!r}: tokens() gave {shown(found)} for one prompt; it has to give a tuple of NumPy "
            "arrays of numbers with one row per prompt."
        )
    return _digest(*(array.astype("<f8" if array.dtype.kind == "f" else "<i8") for array in arrays))


def _own_parts(model: Any) -> dict[str, Any]:
    """Parts that a model names itself."""
    own = getattr(model, "identity", {})
    taken = [name for name in own if name in _OWN_OF_ALL] if isinstance(own, Mapping) else []
    try:
        check_plain("It", dict(own) if isinstance(own, Mapping) else {})
        json.dumps(dict(own) if isinstance(own, Mapping) else {}, allow_nan=False)
        wrong = "" if isinstance(own, Mapping) and all(isinstance(name, str) for name in own) else f"got {shown(own)}"
    except (CausalUNetError, ValueError) as error:  # JSON has no infinite numbers
        wrong = str(error)
    wrong = wrong or (f"got {', '.join(taken)}" if taken else "")
    if wrong:
        raise ModelError(
            f"The model {model.name!r}: its identity names parts of it that change images, each with a plain JSON "
            f"value, and not those that all models have ({', '.join(_OWN_OF_ALL)}); {wrong}."
        )
    return dict(json.loads(json.dumps(dict(own))))


def _prefixed(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {f"sampler.{name}": value for name, value in configuration.items()}
