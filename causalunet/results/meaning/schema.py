"""Every stored variable: where it lies, its dimensions, type, unit and meaning. The stored form is this table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from causalunet.dims import CHANNEL, COMPONENT, FACTOR, INTERVENTION, PLACE, SAMPLE, STEP, X, Y

__all__ = [
    "CALLS",
    "COMPLETE",
    "DRIFT",
    "FAILED",
    "FORMAT",
    "FORMAT_VERSION",
    "MISSING",
    "NULL_DIFFERENCE",
    "VARIABLES",
    "Variable",
    "range_at",
    "variable_at",
]

FORMAT = "causalunet-results"
FORMAT_VERSION = 2
"""Attributes of the root that say what a store is."""

CALLS = "calls"
"""Coordinate along ``step``: U-Net calls of the baseline, in studies whose steps take several."""

MISSING, COMPLETE, FAILED = 0, 1, 2
"""Values of every ``status``. A cell that failed has its reason in ``outcomes/failure`` and no numbers."""

NULL_DIFFERENCE = 1e-5
"""Largest difference of a null run's image that rounding explains."""
DRIFT = 1e-3
"""Largest difference of a guided prediction that rounding explains, on a GPU with its reduced precision."""

_STATUS = "0 not run yet, 1 complete, 2 failed"

_IMAGE = (CHANNEL, Y, X)


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
    """

    group: str
    name: str
    dims: tuple[str, ...]
    dtype: str
    meaning: str
    units: str = "1"


def _variables() -> tuple[Variable, ...]:
    cell, unit = (INTERVENTION, SAMPLE), (SAMPLE,)
    baseline = [
        ("image", (*unit, *_IMAGE), "float32", "image of the run without intervention", "[0, 1]"),
        ("x_t", (*unit, STEP, *_IMAGE), "float32", "noisy image that goes into the call at the step", "1"),
        ("x0_hat", (*unit, STEP, *_IMAGE), "float32", "estimate of x_0 made at the step", "1"),
        ("eps", (*unit, STEP, *_IMAGE), "float32", "noise predicted at the step, after guidance", "1"),
        ("factor_code", (*unit, FACTOR), "int8", "most probable value of each factor, as an index", "1"),
        ("factor_probability", (*unit, FACTOR), "float32", "probability of that value", "1"),
        ("status", unit, "int8", f"of the run without intervention: {_STATUS}", "1"),
    ]
    outcomes = [
        ("image", (*cell, *_IMAGE), "float32", "image of the intervened run", "[0, 1]"),
        ("ssim", cell, "float64", "structural similarity to the baseline image", "1"),
        ("psnr", cell, "float64", "peak signal-to-noise ratio to the baseline image, infinite if equal", "dB"),
        ("mse", cell, "float64", "mean squared error to the baseline image", "1"),
        ("factor_code", (*cell, FACTOR), "int8", "most probable value of each factor, as an index", "1"),
        ("factor_probability", (*cell, FACTOR), "float32", "probability of that value", "1"),
        ("factor_changed", (*cell, FACTOR), "bool", "whether another value is read than in the baseline image", "1"),
        ("unet_calls", (INTERVENTION,), "int64", "U-Net calls of the run on its own, per sample", "1"),
        ("flops", (INTERVENTION,), "int64", "floating-point operations of the run on its own, per sample", "FLOP"),
        ("status", cell, "int8", f"of the cell: {_STATUS}", "1"),
        ("failure", cell, "str", "why the cell failed; empty for others", "1"),
    ]
    trajectory = [
        ("x0_distance", (*cell, STEP), "float32", "RMS difference of x0_hat to the baseline's at the step", "1"),
        ("eps_distance", (*cell, STEP), "float32", "RMS difference of guided eps to the baseline's at the step", "1"),
        ("ran", (INTERVENTION, STEP), "bool", "whether the run has a U-Net call at the step", "1"),
    ]
    activations = [
        ("baseline", (*unit, STEP, *_IMAGE), "float16", "block output in the baseline run, conditional branch", "1"),
        ("intervened", (*cell, STEP, *_IMAGE), "float16", "block output in the run, conditional branch", "1"),
        ("ran", (INTERVENTION, STEP), "bool", "whether the block ran at the step", "1"),
        ("baseline_status", unit, "int8", "1 where the baseline's output is stored", "1"),
        ("status", cell, "int8", "1 where the run's output is stored", "1"),
    ]
    inner = (*cell, STEP, COMPONENT)
    summary = [
        ("mean", inner, "float32", "mean of the block output, conditional branch", "1"),
        ("sd", inner, "float32", "standard deviation of the block output", "1"),
        ("norm", inner, "float32", "Euclidean norm of the block output", "1"),
        ("cosine", inner, "float32", "cosine between the block output and the baseline's", "1"),
        ("ran", (INTERVENTION, STEP, COMPONENT), "bool", "whether the block ran at the step", "1"),
        ("baseline_mean", inner[1:], "float32", "mean in the baseline run", "1"),
        ("baseline_sd", inner[1:], "float32", "standard deviation in the baseline run", "1"),
        ("baseline_norm", inner[1:], "float32", "Euclidean norm in the baseline run", "1"),
        ("baseline_status", (*unit, COMPONENT), "int8", "1 where the baseline's summary is stored", "1"),
        ("status", (*cell, COMPONENT), "int8", "1 where the run's summary is stored", "1"),
    ]
    audit = [
        ("fired", (*cell, STEP, PLACE), "uint8", "how often the edit at the place was seen to apply at the step", "1"),
        ("declared", (INTERVENTION, STEP, PLACE), "uint8", "how often it is declared to apply", "1"),
        ("null_difference", unit, "float32", "largest difference of a null run's image to the baseline's", "[0, 1]"),
        ("drift", unit, "float32", "largest difference of eps between an untraced call and the stored baseline", "1"),
        ("unet_calls", unit, "int64", "U-Net calls that the sample took so far", "1"),
        ("seconds", unit, "float64", "wall-clock time that the sample took so far", "s"),
    ]
    groups = {
        "baseline": baseline,
        "outcomes": outcomes,
        "trajectory": trajectory,
        "activations/*": activations,
        "activation_summary": summary,
        "audit": audit,
    }
    return tuple(
        Variable(group=group, name=name, dims=dims, dtype=dtype, meaning=meaning, units=units)
        for group, rows in groups.items()
        for name, dims, dtype, meaning, units in rows
    )


VARIABLES: tuple[Variable, ...] = _variables()
"""Every variable that a results store can hold."""

_AT_LEAST_ZERO = {
    *("psnr", "x0_distance", "eps_distance", "drift", "unet_calls", "flops", "seconds", "factor_code"),
    *("sd", "norm", "baseline_sd", "baseline_norm"),
}
_RANGES = {
    **dict.fromkeys(_AT_LEAST_ZERO, (0.0, math.inf)),
    **dict.fromkeys(("image", "null_difference", "mse", "factor_probability"), (0.0, 1.0)),
    **dict.fromkeys(("ssim", "cosine"), (-1.0, 1.0)),
    **dict.fromkeys(("status", "baseline_status"), (MISSING, FAILED)),
}
"""By name, least and largest value."""

_BY_PATH = {(variable.group, variable.name): variable for variable in VARIABLES}


def variable_at(path: str) -> Variable | None:
    """The variable that a path such as ``outcomes/ssim`` stands for; None for coordinates and what is none of ours."""
    group, _, name = path.rpartition("/")
    return _BY_PATH.get(("activations/*" if group.startswith("activations/") else group, name))


def range_at(path: str) -> tuple[float, float] | None:
    """Least and largest value that a stored variable can have; None where every number is possible."""
    return _RANGES.get(path.rpartition("/")[2]) if variable_at(path) is not None else None
