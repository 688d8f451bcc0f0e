"""Estimating the effect of every intervention of a study without its run, to run only the strongest."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.design.coordinates import coordinate_columns
from causalunet.design.interventions import Intervention
from causalunet.design.limits import is_integer, shown
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import SpecError
from causalunet.plan import Plan
from causalunet.progress import show_progress
from causalunet.results.meaning.index import InterventionIndex

__all__ = ["METHODS", "Method", "check_screening", "screened", "strongest"]

Method = Literal["one_step", "gradient"]
"""How a screening knows what an intervention changes of a step: by the call, or to first order too."""
METHODS: tuple[Method, ...] = get_args(Method)
"""All of them."""
_MOST_PROBES = 4096


def check_screening(method: Any, probes: Any) -> None:
    """Check what a screening is asked for, before anything is loaded.

    Raises
    ------
    SpecError
        There is no such method, or the probes are no number of signs.
    """
    if method not in METHODS:
        raise SpecError(f"A screening got method={shown(method)}; it is {' or '.join(map(repr, METHODS))}.")
    if not is_integer(probes) or not 1 <= probes <= _MOST_PROBES:
        raise SpecError(f"A screening got probes={shown(probes)}; give an integer in 1 ... {_MOST_PROBES:,}.")


def screened(plan: Plan, *, method: Method, probes: int, memory: int | None, progress: bool) -> xr.Dataset:
    """Screen the interventions of a plan; parameters and result are those of `causalunet.Study.screen`."""
    from causalunet.execute.screen.screening import screen_plan

    with show_progress("U-Net calls", None, shown=progress) as counted:
        found = screen_plan(
            plan, by_gradient=method == "gradient", probes=probes, memory=memory, advance=counted.advance
        )
    spec = plan.spec
    error = found.change.std(0, ddof=1) / probes**0.5 if probes > 1 else np.full(found.change.shape[1:], np.nan)
    columns = coordinate_columns(spec.interventions, spec.edits)
    of_samples = {"prompt": [str(one.prompt) for one in spec.samples], "seed": [one.seed for one in spec.samples]}
    calls = found.calls + 2 * found.backward
    data = xr.Dataset(
        {
            "change": _variable(found.change.mean(0), "estimated mean square of the change of x_0"),
            "error": _variable(error, "standard error of that estimate, by the random signs"),
        },
        coords={
            INTERVENTION: [item.label for item in spec.interventions],
            SAMPLE: np.arange(len(spec.samples)),
            **{name: (INTERVENTION, values) for name, (_, values) in columns.items() if name != "label"},
            **{name: (SAMPLE, values) for name, values in of_samples.items()},
        },
        attrs={
            "method": method,
            "probes": probes,
            "unet_calls": calls,
            "unet_calls_back": found.backward,
            "unet_calls_sweep": plan.unet_calls,
            "share": calls / plan.unet_calls,
        },
    )
    return data.set_xindex([name for name in columns if name != "label"], InterventionIndex)


def _variable(values: NDArray[np.float64], meaning: str) -> tuple[tuple[str, str], NDArray[np.float64], dict[str, str]]:
    return (INTERVENTION, SAMPLE), values, {"long_name": meaning, "units": "1"}


def strongest(found: xr.Dataset, interventions: tuple[Intervention, ...], top: int) -> list[Intervention]:
    """The interventions of largest mean change, the largest first.

    Raises
    ------
    SpecError
        The screening is of other interventions, or there are not so many.
    """
    by_digest = {item.digest: item for item in interventions if item.kind != "null"}
    digests = [str(one) for one in found["digest"].values] if "digest" in found.coords else []
    if "change" not in found or not {*digests} & {*by_digest}:
        raise SpecError("The screening is of no intervention of this study; give what its own screen() gave.")
    here = [(float(value), digest) for value, digest in zip(found["change"].mean(SAMPLE).values, digests, strict=True)]
    known = [(value, by_digest[digest]) for value, digest in here if digest in by_digest]
    if not is_integer(top) or not 1 <= top <= len(known):
        raise SpecError(f"strongest() got top={shown(top)}; {len(known)} interventions were screened, so 1 to as many.")
    return [item for _, item in sorted(known, key=lambda pair: -pair[0])[:top]]
