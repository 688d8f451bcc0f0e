"""Weights of a U-Net as edits leave them, for one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn

from causalunet.execute.call.visits import CallRows, InnerVisit, filled

__all__ = ["edited_weights"]


@contextmanager
def edited_weights(
    unet: nn.Module, visits: Sequence[InnerVisit], rows: CallRows, fired: Counter[str]
) -> Iterator[None]:
    """Other weights in modules while the context lasts; their own are put back, and are never written into.

    Parameters
    ----------
    unet : torch.nn.Module
    visits : sequence of InnerVisit
        Of weights.
    rows : CallRows
        Of the call.
    fired : Counter
        Of edits that were applied; it is counted on.
    """
    with ExitStack() as undo:
        for visit in visits:
            place = visit.place
            module = unet.get_submodule(place.module)
            own = module.get_parameter(place.weight)
            one = CallRows(1, rows.timestep[:1], rows.context)
            changed = filled(own.detach()[None], visit.fills, place.dims, one)[0]
            undo.callback(setattr, module, place.weight, own)
            setattr(module, place.weight, nn.Parameter(changed, requires_grad=False))
            fired[place.name] += 1
        yield
