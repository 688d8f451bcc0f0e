"""What goes on from places inside components, and attention that is computed where no module holds it."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from causalunet.design.inner import Attention
from causalunet.errors import FiringError, SpecError
from causalunet.execute.call.visits import CallRows, InnerVisit, filled
from causalunet.models.attention import attended, disagreement, logits_of
from causalunet.models.folding import folded, unfolded
from causalunet.models.modules import part_of, whole_with

__all__ = ["Inside", "visited"]

_HALF = (torch.float16, torch.bfloat16)


@dataclass
class Inside:
    """What was met inside the components in one U-Net call.

    Attributes
    ----------
    activations, kept : mapping of Tensor
        Where what is recorded, and kept, goes by the name of the place.
    sources : dict of Tensor
        What attention is computed from.
    """

    activations: MutableMapping[str, Tensor]
    kept: MutableMapping[str, Tensor]
    sources: dict[str, Tensor] = field(default_factory=dict)


def visited(visit: InnerVisit, whole: Any, rows: CallRows, inside: Inside) -> Any:
    """What goes on from an inner place: as it came, or after its edits.

    Parameters
    ----------
    visit : InnerVisit
    whole : Tensor, or tuple of them
        What the module was given as that argument, or put out.
    rows : CallRows
    inside : Inside

    Raises
    ------
    FiringError
        Heads are not what follows from their queries, keys and values.
    """
    place = visit.place
    tensor = part_of(whole, place.output)
    if place.attention is not None:
        value, tensor = _attention(visit, place.attention, tensor, rows, inside)
    else:
        own = unfolded(tensor, place)
        added = visit.owner.get_parameter(place.added)[place.part[1]] if place.added and place.part else None
        value = came = own if added is None else own + added
        if visit.fills:
            value = filled(came, visit.fills, place.dims, rows)
            # What is as it was keeps its bits.
            goes_in = value if added is None else torch.where(value == came, own, value - added)
            tensor = folded(tensor, place, goes_in)
    if visit.fills:
        whole = whole_with(whole, place.output, tensor)
    wanted = (
        (visit.record, inside.activations),
        (visit.keep, inside.kept),
        (visit.source, inside.sources),
    )
    for asked, found in wanted:
        if asked:
            found[place.name] = value.clone()
    return whole


def _attention(
    visit: InnerVisit, attention: Attention, tensor: Tensor, rows: CallRows, inside: Inside
) -> tuple[Tensor, Tensor]:
    """Logits or maps, and the heads' tensor with what follows from them where they were edited."""
    heads, logits_name = unfolded(tensor, attention.heads), f"{attention.name}.logits"
    logits = inside.sources.get(logits_name)
    known = logits is not None  # edited perhaps: then the heads are no longer the module's
    if logits is None:
        logits = logits_of(attention, inside.sources, visit.owner)
    came = logits if attention.what == "logits" else logits.softmax(dim=-1)
    if not known:
        off = disagreement(attention, logits, inside.sources, visit.owner, heads)
        if off > (0.05 if heads.dtype in _HALF else 1e-3):
            raise FiringError(
                f"The heads of {attention.name} differ from what follows from its queries, keys and values, by "
                f"{off:.2g} of their size, so {visit.place.name} is not what the module attends by; please report the "
                "model."
            )
    value = filled(came, visit.fills, visit.place.dims, rows) if visit.fills else came
    if attention.what == "logits":
        inside.sources[logits_name] = value
    if not visit.fills:
        return value, tensor
    if bool((value.isneginf().all(dim=-1) & ~came.isneginf().all(dim=-1)).any()):
        raise SpecError(
            f"Edits of {visit.place.name} exclude all that a query could attend to: there is no token left."
        )
    maps = value if attention.what == "maps" else value.softmax(dim=-1)
    # Queries whose map is as it was keep their bits: rows of other samples and branches among them.
    changed = (value != came).any(dim=-1)
    made = attended(attention, maps, inside.sources, visit.owner)
    dims = attention.heads.dims
    changed = changed.unsqueeze(1 + dims.index("channel"))
    return value, folded(tensor, attention.heads, torch.where(changed, made.to(heads.dtype), heads))
