"""Which values of an outcome mean that an image is more like the baseline's: the larger, or the smaller."""

from __future__ import annotations

from typing import get_args

import xarray as xr

from causalunet.analysis.described import registered_outcome
from causalunet.design.outcomes import Better, Outcome
from causalunet.errors import SpecError

__all__ = ["SIGN", "sign_of"]

SIGN = {"higher": 1, "lower": -1}
"""Factor by which values are multiplied so that larger ones mean more alike."""


def sign_of(values: xr.DataArray, better: Better | None = None, outcome: Outcome | type[Outcome] | None = None) -> int:
    """1 where larger values of an outcome mean more alike, -1 where smaller ones do.

    Parameters
    ----------
    values : xarray.DataArray
        With its name. Stored outcomes say it in the attribute ``better``; others may be registered under the name.
    better : {"higher", "lower"}, optional
        For variables of one's own, instead of the attribute.
    outcome : Outcome, optional
        That the values are of.

    Raises
    ------
    SpecError
        It is not known, not one of the two, or said in two ways.
    """
    name = str(values.name)
    known = outcome or registered_outcome(name)
    by_outcome = f"the outcome {known.name!r}" if known is not None else ""
    said = {"the argument": better, "the attribute": values.attrs.get("better")}
    said[by_outcome] = known.better if known is not None else None
    found = {by: word for by, word in said.items() if word is not None}
    wrong = [word for word in found.values() if word not in get_args(Better)]
    if wrong:
        raise SpecError(
            f"better={wrong[0]!r} of {name!r} is neither 'higher' nor 'lower': which values mean more alike?"
        )
    if not found:
        raise SpecError(
            f"Whether larger or smaller values of {name!r} mean that images are more alike is not known. Say "
            f"better='lower' for a distance or better='higher' for a similarity, once for all by "
            f"results.outcomes[{name!r}].attrs['better'] = 'lower' where the variable is made, or in this call."
        )
    if len(set(found.values())) > 1:
        told = ", ".join(f"{by} says {word!r}" for by, word in found.items())
        raise SpecError(f"Which values of {name!r} mean more alike is said in two ways: {told}. Say it in one.")
    return SIGN[next(iter(found.values()))]
