"""What every store holds: each variable with its dimensions, type, unit and meaning, and every coordinate.

A store says the same of itself, in its declaration; those of format 2 say nothing, and are read by these tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from causalunet.dims import BIN, CHANNEL, COMPONENT, FACTOR, INTERVENTION, LATENTS, PLACE, SAMPLE, STEP, X, Y

__all__ = [
    "CALLS",
    "COMPLETE",
    "COORDINATES",
    "EXTREMES",
    "FAILED",
    "FORMAT",
    "FORMAT_VERSION",
    "GIVEN",
    "HISTOGRAMS",
    "MISSING",
    "OPTIONAL",
    "SAMPLE_START",
    "SELECTED",
    "SOMETIMES",
    "STATUS_MEANING",
    "VARIABLES",
    "DeclaredCoordinate",
    "Role",
    "Variable",
    "in_latents",
    "told_of",
]

FORMAT = "causalunet-results"
FORMAT_VERSION = 3
"""Attributes of the root that say what a store is."""

EXTREMES = tuple(f"activation_summary/{name}" for name in ("min", "max", "baseline_min", "baseline_max"))
"""Paths of what stores that were begun before there was any go on without."""

HISTOGRAMS = tuple(f"activation_summary/{name}" for name in ("histogram", "baseline_histogram"))
"""Paths of what studies store whose record has bins."""

GIVEN = "given"
"""Variable of the baseline, in studies of models whose process is shifted."""

SAMPLE_START = "sample_start"
CALLS = "calls"
"""Coordinate along ``step``: U-Net calls of the baseline, in studies whose steps take several."""

MISSING, COMPLETE, FAILED = 0, 1, 2
"""Values of every ``status``. A cell that failed has its reason in ``outcomes/failure`` and no numbers."""

STATUS_MEANING = "0 not run yet, 1 complete, 2 failed"
"""What these values say, in the meaning of every stored status."""

_IMAGE = (CHANNEL, Y, X)

Role = Literal["state", "outcome", "status", "failure", "recording", "audit", "cost"]
"""What a variable is to a study: images and states of runs, what is measured of them, whether that is done and why it
is not, outputs of components, checks, and what runs cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One stored variable.

    Parameters
    ----------
    group : str
        Group of the tree; ``activations/*`` stands for one group per component.
    name : str
    dims : tuple of str
    dtype : str
        NumPy type, or "str" for text of any length; that of activations is the study's choice.
    meaning : str
    units : str
        "1" for a pure number.
    role : str
    range : tuple of float
        Least and largest value that it can have.
    better : {"higher", "lower"}, optional
        Values that mean that an image is more like the baseline's; None where neither does.
    infinite : bool
        Whether infinity is a value, as the PSNR of equal images is.
    outcome : str
        Name of the outcome of the study's own that it belongs to; empty for what every study has.
    """

    group: str
    name: str
    dims: tuple[str, ...]
    dtype: str
    meaning: str
    units: str = "1"
    role: Role = "outcome"
    range: tuple[float, float] = (-math.inf, math.inf)
    better: Literal["higher", "lower"] | None = None
    infinite: bool = False
    outcome: str = ""

    @property
    def path(self) -> str:
        """``group/name``."""
        return f"{self.group}/{self.name}"


def in_latents(variable: Variable) -> Variable:
    """A state of the baseline's run as it is of models whose images are decoded from latents; all else is as it was."""
    if variable.role != "state" or (STEP not in variable.dims and variable.name != GIVEN):
        return variable
    return replace(variable, dims=(*(dim for dim in variable.dims if dim not in _IMAGE), *LATENTS))


def told_of(variable: Variable) -> dict[str, str]:
    """Attributes by which a labelled array says what it is."""
    better = {"better": variable.better} if variable.better else {}
    return {"long_name": variable.meaning, "units": variable.units, **better}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredCoordinate:
    """What labels the entries of one dimension.

    Parameters
    ----------
    name : str
    dim : str
    dtype : str
        NumPy type, or "str".
    meaning : str
    """

    name: str
    dim: str
    dtype: str
    meaning: str


_Row = tuple[str, tuple[str, ...], str, str, str]


def _rows() -> dict[str, list[_Row]]:
    """By group: name, dimensions, type, meaning and unit."""
    cell, unit = (INTERVENTION, SAMPLE), (SAMPLE,)
    baseline: list[_Row] = [
        ("image", (*unit, *_IMAGE), "float32", "image of the run without intervention", "[0, 1]"),
        ("x_t", (*unit, STEP, *_IMAGE), "float32", "noisy image that goes into the call at the step", "1"),
        ("x0_hat", (*unit, STEP, *_IMAGE), "float32", "estimate of x_0 made at the step", "1"),
        ("eps", (*unit, STEP, *_IMAGE), "float32", "noise predicted at the step, after guidance", "1"),
        (GIVEN, (*unit, *_IMAGE), "float32", "image that the states of the model's process are shifted by", "1"),
        ("factor_code", (*unit, FACTOR), "int8", "most probable value of each factor, as an index", "1"),
        ("factor_probability", (*unit, FACTOR), "float32", "probability of that value", "1"),
        ("status", unit, "int8", f"of the run without intervention: {STATUS_MEANING}", "1"),
    ]
    outcomes: list[_Row] = [
        ("image", (*cell, *_IMAGE), "float32", "image of the intervened run", "[0, 1]"),
        ("ssim", cell, "float64", "structural similarity to the baseline image", "1"),
        ("psnr", cell, "float64", "peak signal-to-noise ratio to the baseline image, infinite if equal", "dB"),
        ("mse", cell, "float64", "mean squared error to the baseline image", "1"),
        ("factor_code", (*cell, FACTOR), "int8", "most probable value of each factor, as an index", "1"),
        ("factor_probability", (*cell, FACTOR), "float32", "probability of that value", "1"),
        ("factor_changed", (*cell, FACTOR), "bool", "whether another value is read than in the baseline image", "1"),
        ("unet_calls", (INTERVENTION,), "int64", "U-Net calls of the run on its own, per sample", "1"),
        ("flops", (INTERVENTION,), "int64", "floating-point operations of the run on its own, per sample", "FLOP"),
        ("status", cell, "int8", f"of the cell: {STATUS_MEANING}", "1"),
        ("failure", cell, "str", "why the cell failed; empty for others", "1"),
    ]
    trajectory: list[_Row] = [
        ("x0_distance", (*cell, STEP), "float32", "RMS difference of x0_hat to the baseline's at the step", "1"),
        ("eps_distance", (*cell, STEP), "float32", "RMS difference of guided eps to the baseline's at the step", "1"),
        ("ran", (INTERVENTION, STEP), "bool", "whether the run has a U-Net call at the step", "1"),
    ]
    activations: list[_Row] = [
        ("baseline", (*unit, STEP, *_IMAGE), "float16", "block output in the baseline run, conditional branch", "1"),
        ("intervened", (*cell, STEP, *_IMAGE), "float16", "block output in the run, conditional branch", "1"),
        ("ran", (INTERVENTION, STEP), "bool", "whether the block ran at the step", "1"),
        ("baseline_status", unit, "int8", "1 where the baseline's output is stored", "1"),
        ("status", cell, "int8", "1 where the run's output is stored", "1"),
    ]
    inner = (*cell, STEP, COMPONENT)
    summary: list[_Row] = [
        ("mean", inner, "float32", "mean of the block output, conditional branch", "1"),
        ("sd", inner, "float32", "standard deviation of the block output", "1"),
        ("norm", inner, "float32", "Euclidean norm of the block output", "1"),
        ("min", inner, "float32", "least value of the block output", "1"),
        ("max", inner, "float32", "largest value of the block output", "1"),
        ("histogram", (*inner, BIN), "float64", "how many values of the block output lie in each bin", "1"),
        ("cosine", inner, "float32", "cosine between the block output and the baseline's", "1"),
        ("ran", (INTERVENTION, STEP, COMPONENT), "bool", "whether the block ran at the step", "1"),
        ("baseline_mean", inner[1:], "float32", "mean in the baseline run", "1"),
        ("baseline_sd", inner[1:], "float32", "standard deviation in the baseline run", "1"),
        ("baseline_norm", inner[1:], "float32", "Euclidean norm in the baseline run", "1"),
        ("baseline_min", inner[1:], "float32", "least value in the baseline run", "1"),
        ("baseline_max", inner[1:], "float32", "largest value in the baseline run", "1"),
        (
            "baseline_histogram",
            (*inner[1:], BIN),
            "float64",
            "how many values lie in each bin in the baseline run",
            "1",
        ),
        ("baseline_status", (*unit, COMPONENT), "int8", "1 where the baseline's summary is stored", "1"),
        ("status", (*cell, COMPONENT), "int8", "1 where the run's summary is stored", "1"),
    ]
    audit: list[_Row] = [
        ("fired", (*cell, STEP, PLACE), "uint8", "how often the edit at the place was seen to apply at the step", "1"),
        ("declared", (INTERVENTION, STEP, PLACE), "uint8", "how often it is declared to apply", "1"),
        ("null_difference", unit, "float32", "largest difference of a null run's image to the baseline's", "[0, 1]"),
        ("drift", unit, "float32", "largest difference of eps between an untraced call and the stored baseline", "1"),
        ("unet_calls", unit, "int64", "U-Net calls that the sample took so far", "1"),
        ("seconds", unit, "float64", "wall-clock time that the sample took so far", "s"),
    ]
    return {
        "baseline": baseline,
        "outcomes": outcomes,
        "trajectory": trajectory,
        "activations/*": activations,
        "activation_summary": summary,
        "audit": audit,
    }


def _variables() -> tuple[Variable, ...]:
    return tuple(
        Variable(
            group=group,
            name=name,
            dims=dims,
            dtype=dtype,
            meaning=meaning,
            units=units,
            role=_role(group, name),
            range=_RANGES.get(name, (-math.inf, math.inf)),
            better=_BETTER.get(name),
            infinite=name == "psnr",
        )
        for group, rows in _rows().items()
        for name, dims, dtype, meaning, units in rows
    )


def _role(group: str, name: str) -> Role:
    if name in ("status", "baseline_status"):
        return "status"
    if name == "failure":
        return "failure"
    if name in ("unet_calls", "flops", "seconds"):
        return "cost"
    if name == "ran" or group == "audit":
        return "audit"
    if group == "baseline" or name == "image":
        return "state"
    return "recording" if group.startswith("activation") else "outcome"


_BETTER: dict[str, Literal["higher", "lower"]] = {
    **dict.fromkeys(("ssim", "psnr"), "higher"),
    **dict.fromkeys(("mse", "x0_distance", "eps_distance"), "lower"),
}
_AT_LEAST_ZERO = {
    *("psnr", "x0_distance", "eps_distance", "drift", "unet_calls", "flops", "seconds", "factor_code"),
    *("sd", "norm", "baseline_sd", "baseline_norm", "histogram", "baseline_histogram"),
}
_RANGES = {
    **dict.fromkeys(_AT_LEAST_ZERO, (0.0, math.inf)),
    **dict.fromkeys(("image", "null_difference", "mse", "factor_probability"), (0.0, 1.0)),
    **dict.fromkeys(("ssim", "cosine"), (-1.0, 1.0)),
    **dict.fromkeys(("status", "baseline_status"), (float(MISSING), float(FAILED))),
}
"""By name, least and largest value."""

_ALL = _variables()
_SOMETIMES = {f"baseline/{GIVEN}", *EXTREMES, *HISTOGRAMS}
VARIABLES: tuple[Variable, ...] = tuple(one for one in _ALL if one.path not in _SOMETIMES)
"""Every variable that stores have without outcomes of their own."""

SOMETIMES: tuple[Variable, ...] = tuple(one for one in _ALL if one not in VARIABLES)
"""Variables that only some studies have."""

_ALONG: dict[str, dict[str, tuple[str, str]]] = {
    SAMPLE: {
        SAMPLE: ("int64", "place in the study"),
        "prompt": ("str", "text that the sample is made of; empty for none"),
        "seed": ("int64", "names the noise of every step"),
    },
    STEP: {
        STEP: ("int64", "T ... 1, descending"),
        "timestep": ("int64", "of the model's training, that the step's call is given"),
        "alpha_bar": ("float64", "share of the image in the variance of x_t"),
        "log_snr": ("float64", "logarithm of alpha_bar / (1 - alpha_bar)"),
    },
    INTERVENTION: {
        INTERVENTION: ("str", "label"),
        "kind": ("str", "name of its class"),
        "digest": ("str", "names its content"),
        "spec": ("str", "the intervention itself, as JSON"),
        "top": ("int64", "skip connections removed, from the top of the U; 0 where that says nothing of it"),
        "bottom": ("int64", "decoder blocks removed, from the bottom of the U; 0 where that says nothing of it"),
        "start": ("int64", "first step that is edited"),
        "length": ("int64", "steps of the first window, or of all windows of a sum"),
        "cuts": ("int64", "number of windows"),
        "relax": ("int64", "steps between the first two windows"),
    },
    COMPONENT: {
        COMPONENT: ("str", "name"),
        "role": ("str", "encoder, bottleneck or decoder"),
        "level": ("int64", "of resolution, from the top of the U"),
        "depth": ("int64", "blocks between it and the top of the U"),
        "resolution": ("int64", "pixels along y"),
        "channels": ("int64", "of its output"),
        "component_flops": ("int64", "floating-point operations of a call, per sample"),
    },
    BIN: {
        BIN: ("int64", "number, from the lowest"),
        "bin_low": ("float64", "its lower edge, which is in it"),
        "bin_high": ("float64", "its upper edge, which is in the last one only"),
    },
    PLACE: {PLACE: ("str", "name")},
    FACTOR: {FACTOR: ("str", "name")},
}
COORDINATES: tuple[DeclaredCoordinate, ...] = tuple(
    DeclaredCoordinate(name=name, dim=dim, dtype=dtype, meaning=meaning)
    for dim, names in _ALONG.items()
    for name, (dtype, meaning) in names.items()
)
"""Coordinates that every group has along the dimensions of its variables."""

OPTIONAL: tuple[DeclaredCoordinate, ...] = (
    DeclaredCoordinate(
        name=SAMPLE_START, dim=SAMPLE, dtype="str", meaning="the start itself, as JSON, where one is not a seed's noise"
    ),
    DeclaredCoordinate(
        name=CALLS, dim=STEP, dtype="int64", meaning="U-Net calls of the baseline, where steps take several"
    ),
)
"""Coordinates that only some studies have."""

SELECTED: tuple[DeclaredCoordinate, ...] = tuple(
    DeclaredCoordinate(name=name, dim=INTERVENTION, dtype="str", meaning=meaning)
    for name, meaning in (
        ("component", "that is edited; empty where it names none, or several"),
        ("fill", "in words; empty where it names none, or several"),
        ("branch", "half of the guided batch; empty where it names none, or several"),
        ("view", "part of what is edited, in words; empty where there are several"),
    )
)
"""Coordinates of interventions that format 2 does not store, since the interventions say them."""
