"""One U-Net call under an action, as one nnsight trace, with proof that every edit fired."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# nnsight would otherwise replace glibc's backtrace() for the whole process on import.
os.environ.setdefault("NNSIGHT_DISABLE_CPP_BACKTRACE", "0")

import nnsight
import torch
from nnsight import NNsight
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Component
from causalunet.design.fills import Fill, Identity, Scale, Zero
from causalunet.design.interventions import Branch
from causalunet.errors import FiringError, SpecError
from causalunet.execute.allocator import keep_freed_memory
from causalunet.plan import Action

__all__ = ["TracedCall", "TracedUNet"]

_FILLS: dict[type[Fill], Callable[[Any, Tensor], Tensor]] = {
    Zero: lambda fill, value: torch.zeros_like(value),
    Identity: lambda fill, value: value.clone(),
    Scale: lambda fill, value: value * fill.factor,
}
"""What each fill puts in place of a value."""


@dataclass(frozen=True, slots=True)
class TracedCall:
    """What one traced call gave.

    Attributes
    ----------
    output : Tensor, (row, 2 * channel, y, x)
    activations : dict of Tensor
        Output of every recorded component that ran, (row, channel, y, x).
    fired : Counter
        How often each edited place was replaced.
    """

    output: Tensor
    activations: dict[str, Tensor]
    fired: Counter[str]


@dataclass(frozen=True, slots=True)
class _Visit:
    """What happens at one component, in execution order."""

    component: Component
    skip_value: str = ""  # "", "placeholder" or "zeros": the module does not run
    edge: str = ""
    edge_channels: int = 0
    edge_fills: tuple[tuple[Fill, Branch], ...] = ()
    output_fills: tuple[tuple[Fill, Branch], ...] = ()
    record: bool = False


@dataclass
class _Journal:
    activations: dict[str, Tensor] = field(default_factory=dict)
    fired: Counter[str] = field(default_factory=Counter)


class TracedUNet:
    """A U-Net wrapped by nnsight, called under actions.

    Parameters
    ----------
    unet : torch.nn.Module
    anatomy : Anatomy
        Of that U-Net.
    """

    def __init__(self, unet: nn.Module, anatomy: Anatomy) -> None:
        if next(unet.parameters()).device.type == "cpu":
            keep_freed_memory()
        self._model = NNsight(unet)
        self._anatomy = anatomy
        self._plans: dict[tuple[Action, tuple[str, ...]], tuple[_Visit, ...]] = {}
        self._envoys = {component.name: self._envoy(component.module) for component in anatomy.components}

    def __call__(
        self, action: Action, arguments: tuple[Tensor, ...], cond_rows: int, record: tuple[str, ...] = ()
    ) -> TracedCall:
        """Run the U-Net once.

        Parameters
        ----------
        action : Action
            Edits and dead components.
        arguments : tuple of Tensor
            Of the U-Net's forward; the first has one row per image, conditional rows first.
        cond_rows : int
            Number of conditional rows.
        record : tuple of str
            Components whose output is wanted; dead ones give none.

        Raises
        ------
        FiringError
            An edit did not fire exactly once.
        """
        visits = self._visits(action, record)
        journal = _Journal()
        rows = arguments[0].shape[0]
        with self._model.trace(*arguments):
            for visit in visits:
                self._visit(visit, rows, cond_rows, arguments[0], journal)
            output = nnsight.save(self._model.output)
        declared = Counter({fill.component: 1 for fill in action.fills})
        if journal.fired != declared:
            raise FiringError(
                f"Edits declared {dict(declared)} but fired {dict(journal.fired)}. The result would not be that of the "
                "intervention, so the run stops; please report the model and the intervention."
            )
        return TracedCall(output, journal.activations, journal.fired)

    def _visits(self, action: Action, record: tuple[str, ...]) -> tuple[_Visit, ...]:
        if (action, record) not in self._plans:
            self._plans[action, record] = _visits(self._anatomy, action, record)
        return self._plans[action, record]

    def _visit(self, visit: _Visit, rows: int, cond_rows: int, like: Tensor, journal: _Journal) -> None:
        """Edit and read one component while the U-Net runs."""
        component, envoy = visit.component, self._envoys[visit.component.name]
        if visit.skip_value == "placeholder":
            envoy.skip(like.new_zeros(0, 1, 1, 1))
            return
        if visit.skip_value == "zeros":
            envoy.skip(like.new_zeros(rows, *component.shape))
            journal.fired.update([component.name] if visit.output_fills else [])
            return
        if visit.edge_fills:
            split = envoy.input.shape[1] - visit.edge_channels
            path, skip = envoy.input.split([split, visit.edge_channels], dim=1)
            envoy.input = torch.cat([path, _filled(skip, visit.edge_fills, cond_rows)], dim=1)
            journal.fired[visit.edge] += 1
        if visit.output_fills:
            envoy.output = _filled(envoy.output, visit.output_fills, cond_rows)
            journal.fired[component.name] += 1
        if visit.record:
            journal.activations[component.name] = envoy.output

    def _envoy(self, path: str) -> Any:
        node: Any = self._model
        for part in path.split("."):
            node = node[int(part)] if part.isdigit() else getattr(node, part)
        return node


def _filled(value: Tensor, fills: tuple[tuple[Fill, Branch], ...], cond_rows: int) -> Tensor:
    """Replace a value, or the rows of one branch of it; never in place, since others may hold the tensor."""
    for fill, branch in fills:
        if type(fill) not in _FILLS:
            raise SpecError(f"The executor has no rule for the fill {fill.name!r}.")
        replaced = _FILLS[type(fill)](fill, value)
        if branch == "cond":
            replaced = torch.cat([replaced[:cond_rows], value[cond_rows:]])
        elif branch == "uncond":
            replaced = torch.cat([value[:cond_rows], replaced[cond_rows:]])
        value = replaced
    return value


def _visits(anatomy: Anatomy, action: Action, record: tuple[str, ...]) -> tuple[_Visit, ...]:
    """Turn an action into what happens at each component; components where nothing happens are left out."""
    fills: dict[str, list[tuple[Fill, Branch]]] = {}
    for placed in action.fills:
        fills.setdefault(placed.component, []).append((placed.fill, placed.branch))
    visits = []
    for component in anatomy.components:
        name = component.name
        if name in action.dead:
            # What a living block takes in needs its true shape, even if only to be replaced on the edge; any other dead
            # tensor only has to concatenate with its like.
            read = any(target not in action.dead for target in anatomy.consumers(name))
            skip_value = "zeros" if read else "placeholder"
            visits.append(_Visit(component, skip_value=skip_value, output_fills=tuple(fills.get(name, ()))))
            continue
        edge = anatomy.skip_into(name)
        edited = edge is not None and edge.name in fills
        visit = _Visit(
            component,
            edge=edge.name if edge else "",
            edge_channels=anatomy.by_name[edge.source].shape[0] if edge else 0,
            edge_fills=tuple(fills[edge.name]) if edge and edited else (),
            output_fills=tuple(fills.get(name, ())),
            record=name in record,
        )
        if visit.edge_fills or visit.output_fills or visit.record:
            visits.append(visit)
    return tuple(visits)
