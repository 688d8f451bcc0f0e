"""One U-Net call under an action, as one nnsight trace, with proof that every edit fired."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy
from causalunet.execute.call.allocator import keep_freed_memory
from causalunet.execute.call.inner import Inside, visited
from causalunet.execute.call.precision import OutputTypes
from causalunet.execute.call.visits import (
    CallContext,
    CallResult,
    CallRows,
    InnerVisit,
    Visit,
    Visits,
    check_call,
    entering,
    fill_edge,
    filled,
    lay_out_visits,
    stand_in,
)
from causalunet.execute.call.weights import edited_weights
from causalunet.models.alone import alone
from causalunet.models.devices import device_of
from causalunet.models.modules import argument_of, arguments_with, part_of, whole_with
from causalunet.plan import Action
from causalunet.process_effects import backtrace_kept

with backtrace_kept():
    import nnsight
    from nnsight import NNsight

__all__ = ["TracedUNet"]


@dataclass
class _Journal:
    activations: dict[str, Tensor] = field(default_factory=dict)
    fired: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inside = Inside(self.activations, self.kept)


class TracedUNet:
    """A U-Net wrapped by nnsight, called under actions.

    Parameters
    ----------
    unet : torch.nn.Module
    anatomy : Anatomy
        Of that U-Net.
    """

    def __init__(self, unet: nn.Module, anatomy: Anatomy) -> None:
        if device_of(unet).type == "cpu":
            keep_freed_memory()
        self._unet = unet
        with alone(unet):
            self._model = NNsight(unet)
        self._anatomy = anatomy
        self._plans: dict[tuple[Action, tuple[str, ...], tuple[str, ...]], Visits] = {}
        self._types = OutputTypes(unet, anatomy)
        self._envoys = {name: self._envoy(path) for name, path in anatomy.modules.items()}

    def __call__(
        self,
        action: Action,
        arguments: tuple[Tensor, ...],
        cond_rows: int,
        record: tuple[str, ...] = (),
        *,
        keep: tuple[str, ...] = (),
        context: CallContext | None = None,
    ) -> CallResult:
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
        keep : tuple of str
            Places whose value is wanted as it goes on after edits.
        context : CallContext, optional
            For fills that ask where they are.

        Raises
        ------
        FiringError
            An edit did not fire exactly once.
        """
        visits = self._visits(action, record, arguments, keep)
        journal, rows = _Journal(), CallRows(cond_rows, arguments[1], context)
        with alone(self._unet):
            if action.dead:
                self._types.read(arguments)
            with (
                edited_weights(self._unet, visits.weights, rows, journal.fired),
                self._model.trace(*arguments),
            ):
                for inner in visits.beside:
                    self._inner(inner, rows, journal)
                for visit in visits.components:
                    self._visit(visit, rows, arguments[0], journal)
                output = nnsight.save(self._model.output)
        check_call(action, journal.fired)
        return CallResult(output.clone(), journal.activations, journal.fired, journal.kept)

    def _visits(
        self, action: Action, record: tuple[str, ...], arguments: tuple[Tensor, ...], keep: tuple[str, ...]
    ) -> Visits:
        key = action, record, keep
        if key not in self._plans:
            self._plans[key] = lay_out_visits(self._unet, self._anatomy, action, record, arguments, keep)
        return self._plans[key]

    def _visit(self, visit: Visit, rows: CallRows, like: Tensor, journal: _Journal) -> None:
        """Edit and read one component while the U-Net runs."""
        component, envoy = visit.component, self._envoys[visit.component.name]
        first, *others = self._anatomy.modules_of(component.name)
        given_here = entering(visit, *self._envoys[first].inputs) if visit.takes_input else None
        if visit.skip_value:
            for name in (first, *others)[:-1]:
                _skip(self._envoys[name], self._types.zeros(name, like))
            value = stand_in(visit, like, self._types.of(component.name), rows, given_here)
            _skip(envoy, self._types.whole(component.name, value))
            if visit.keep:
                journal.kept[component.name] = value.clone()
            journal.fired.update([component.name] if visit.output_fills else [])
            return
        if visit.edge_fills or visit.keep_edge:
            self._enter(visit, self._envoys[first], rows, journal)
        for inner in visit.inner:
            self._inner(inner, rows, journal)
        port = component.output
        if visit.output_fills:
            put_out = filled(part_of(envoy.output, port), visit.output_fills, component.dims, rows, given_here)
            envoy.output = whole_with(envoy.output, port, put_out)
            journal.fired[component.name] += 1
        if visit.record:
            # A copy: what comes after may change the tensor in place.
            journal.activations[component.name] = part_of(envoy.output, port).clone()
        if visit.keep:
            journal.kept[component.name] = part_of(envoy.output, port).clone()

    def _enter(self, visit: Visit, envoy: Any, rows: CallRows, journal: _Journal) -> None:
        """Edit and read what comes over a skip connection."""
        given, named = envoy.inputs
        given, named, comes = fill_edge(visit, given, named, rows)
        if visit.keep_edge:
            journal.kept[visit.edge] = comes.clone()
        if visit.edge_fills:
            envoy.inputs = given, named
            journal.fired[visit.edge] += 1

    def _inner(self, visit: InnerVisit, rows: CallRows, journal: _Journal) -> None:
        """Edit and read a place inside a component, or beside all of them."""
        place = visit.place
        envoy = self._envoy(place.module)
        if place.argument is None:
            goes_on = visited(visit, envoy.output, rows, journal.inside)
            if visit.fills:
                envoy.output = goes_on
        else:
            given, named = envoy.inputs
            whole = argument_of(place.argument, given, named)
            goes_on = visited(visit, whole, rows, journal.inside)
            if visit.fills:
                envoy.inputs = arguments_with(place.argument, given, named, goes_on)
        journal.fired.update([place.name] if visit.fills else [])

    def _envoy(self, path: str) -> Any:
        node: Any = self._model
        for part in filter(None, path.split(".")):
            # A module called "output" is another attribute: that name is nnsight's for what a module puts out.
            inside = vars(node).get(part, vars(node).get(f"E_{part}"))
            node = node[int(part)] if part.isdigit() else inside if inside is not None else getattr(node, part)
        return node


def _skip(envoy: Any, value: Any) -> None:
    """Let a module not run; by the class, since a module inside it may be called "skip", as in EDM's blocks."""
    type(envoy).skip(envoy, value)
