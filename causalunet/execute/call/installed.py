"""A U-Net with its cuts installed in the modules themselves: no tracing in the loop, for shortcuts in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy
from causalunet.errors import SpecError
from causalunet.execute.call.allocator import keep_freed_memory
from causalunet.execute.call.inner import Inside, visited
from causalunet.execute.call.precision import OutputTypes
from causalunet.execute.call.visits import (
    CallContext,
    CallResult,
    CallRows,
    InnerVisit,
    Visit,
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
from causalunet.models.modules import argument_of, arguments_with, part_of, replace_forward, whole_with
from causalunet.plan import Action

__all__ = ["InstalledUNet"]


class InstalledUNet:
    """A U-Net whose modules are changed when the action changes, and called plainly in between.

    Called like `TracedUNet`, with the same outputs. A context manager: the modules are as they were afterwards, and
    other threads wait for the U-Net until then.

    Parameters
    ----------
    unet : torch.nn.Module
    anatomy : Anatomy
        Of that U-Net.
    """

    def __init__(self, unet: nn.Module, anatomy: Anatomy) -> None:
        if device_of(unet).type == "cpu":
            keep_freed_memory()
        self._unet, self._anatomy = unet, anatomy
        self._threads = ExitStack()
        self._modules = {name: unet.get_submodule(path) for name, path in anatomy.modules.items()}
        self._types = OutputTypes(unet, anatomy)
        self._installed: tuple[Action, tuple[str, ...]] = Action(), ()
        self._weights: tuple[InnerVisit, ...] = ()
        self._undo: list[Callable[[], None]] = []
        self._like: Tensor | None = None
        self._rows: CallRows | None = None
        self._entering: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        self._met = Inside({}, self._kept)
        self._fired: Counter[str] = Counter()

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
            Edits and dead components; installed if the last call had others.
        arguments : tuple of Tensor
            Of the U-Net's forward; the first has one row per image, conditional rows first.
        cond_rows : int
            Number of conditional rows.
        record : tuple of str
            Must be empty.
        keep : tuple of str
            Places whose value is wanted as it goes on after edits.
        context : CallContext, optional
            For fills that ask where they are.

        Raises
        ------
        SpecError
            Something is to be recorded, which only a traced U-Net does.
        FiringError
            An edit did not fire exactly once.
        """
        if record:
            raise SpecError(
                f"A U-Net with installed cuts records nothing; {', '.join(record)} asked. Trace it instead."
            )
        if (action, keep) != self._installed:
            self.remove()
            if action.dead:
                self._types.read(arguments)
            visits = lay_out_visits(self._unet, self._anatomy, action, (), arguments, keep)
            self._weights = visits.weights
            for inner in visits.beside:
                self._install_inner(inner)
            for visit in visits.components:
                self._install(visit)
            self._installed = action, keep
        self._like, self._rows = arguments[0], CallRows(cond_rows, arguments[1], context)
        self._fired, self._kept = Counter(), {}
        self._met = Inside({}, self._kept)
        try:
            with edited_weights(self._unet, self._weights, self._rows, self._fired):
                output = self._unet(*arguments)
        finally:
            self._like = self._rows = None
            self._entering = {}
            self._met = Inside({}, {})
        check_call(action, self._fired)
        return CallResult(output.clone(), {}, self._fired, self._kept)

    def remove(self) -> None:
        """Leave every module as it was."""
        while self._undo:
            self._undo.pop()()
        self._installed, self._weights = (Action(), ()), ()

    def __enter__(self) -> Self:
        self._threads.enter_context(alone(self._unet))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._threads:
            self.remove()

    def _install(self, visit: Visit) -> None:
        module = self._modules[visit.component.name]
        first, *others = self._anatomy.modules_of(visit.component.name)
        if visit.takes_input:
            handle = self._modules[first].register_forward_pre_hook(
                lambda _, given, named: self._enter(visit, given, named), with_kwargs=True
            )
            self._undo.append(handle.remove)
        if visit.skip_value:
            for name in (first, *others)[:-1]:
                self._undo.append(replace_forward(self._modules[name], partial(self._inside, name)))
            self._undo.append(replace_forward(module, lambda *arguments, **named: self._stand_in(visit)))
            return
        if visit.edge_fills or visit.keep_edge:
            handle = self._modules[first].register_forward_pre_hook(
                lambda _, given, named: self._edge(visit, given, named), with_kwargs=True
            )
            self._undo.append(handle.remove)
        for inner in visit.inner:
            self._install_inner(inner)
        if visit.output_fills or visit.keep:
            after = module.register_forward_hook(lambda _, given, output: self._output(visit, output))
            self._undo.append(after.remove)

    def _enter(self, visit: Visit, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        value = entering(visit, given, named)
        if value is not None:
            self._entering[visit.component.name] = value

    def _install_inner(self, visit: InnerVisit) -> None:
        where, module = visit.place.argument, self._unet.get_submodule(visit.place.module)
        if where is None:
            handle = module.register_forward_hook(lambda _, given, output: self._goes_on(visit, output))
        else:
            handle = module.register_forward_pre_hook(
                lambda _, given, named: arguments_with(
                    where, given, named, self._goes_on(visit, argument_of(where, given, named))
                ),
                with_kwargs=True,
            )
        self._undo.append(handle.remove)

    def _goes_on(self, visit: InnerVisit, whole: Any) -> Any:
        _, rows = self._now()
        self._fired.update([visit.place.name] if visit.fills else [])
        return visited(visit, whole, rows, self._met)

    def _inside(self, module: str, *_: Any, **__: Any) -> Tensor:
        return self._types.zeros(module, self._now()[0])

    def _stand_in(self, visit: Visit) -> Any:
        like, rows = self._now()
        name = visit.component.name
        self._fired.update([name] if visit.output_fills else [])
        value = stand_in(visit, like, self._types.of(name), rows, self._entering.get(name))
        if visit.keep:
            self._kept[name] = value.clone()
        return self._types.whole(name, value)

    def _edge(
        self, visit: Visit, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        _, rows = self._now()
        given, named, comes = fill_edge(visit, given, named, rows)
        if visit.keep_edge:
            self._kept[visit.edge] = comes.clone()
        if not visit.edge_fills:
            return None
        self._fired[visit.edge] += 1
        return given, named

    def _output(self, visit: Visit, output: Any) -> Any:
        _, rows = self._now()
        name, port = visit.component.name, visit.component.output
        part = part_of(output, port)
        if visit.output_fills:
            self._fired[name] += 1
            part = filled(part, visit.output_fills, visit.component.dims, rows, self._entering.get(name))
        if visit.keep:
            self._kept[name] = part.clone()
        return whole_with(output, port, part)

    def _now(self) -> tuple[Tensor, CallRows]:
        """The input of the call under way, and what its fills are told."""
        if self._like is None or self._rows is None:
            raise SpecError(
                "The U-Net was called past its InstalledUNet while cuts are installed; call remove() first."
            )
        return self._like, self._rows
