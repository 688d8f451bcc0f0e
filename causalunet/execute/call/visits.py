"""What happens at each component under an action: which modules do not run, what is replaced, what is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Component
from causalunet.design.donors import FillContext, OwnInput
from causalunet.design.fills import Fill
from causalunet.design.inner import InnerPlace
from causalunet.design.ports import Port
from causalunet.design.site import Site
from causalunet.design.views import Axes, Whole
from causalunet.design.words import with_numbers, words_of
from causalunet.dims import ROW
from causalunet.errors import FiringError, SpecError
from causalunet.models.modules import argument_of, arguments_with, given_at
from causalunet.models.wiring import skip_ports
from causalunet.plan import Action, PlacedFill
from causalunet.programs import Origin

__all__ = [
    "CallContext",
    "CallResult",
    "CallRows",
    "InnerVisit",
    "UNetCaller",
    "Visit",
    "Visits",
    "check_call",
    "entering",
    "fill_edge",
    "filled",
    "lay_out_visits",
    "stand_in",
]


@dataclass(frozen=True, slots=True)
class CallContext:
    """Where in a run a U-Net call is, and what its fills take from others.

    Attributes
    ----------
    step : int
    timesteps : int
        Length of the training schedule.
    donors : mapping
        By place and origin: the whole value there, (row, channel, y, x), with the rows of the call.
    times : mapping
        By origin: the training timestep that the call was told which the value is of.
    tokens : mapping
        By the words that name them: numbers of the tokens in every row, none in those without a prompt.
    """

    step: int
    timesteps: int
    donors: Mapping[tuple[str, Origin], Tensor] = field(default_factory=dict)
    times: Mapping[Origin, float] = field(default_factory=dict)
    tokens: Mapping[tuple[str, ...], Sequence[tuple[int, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallResult:
    """What one U-Net call under an action gave.

    Attributes
    ----------
    output : Tensor, (row, 2 * channel, y, x)
    activations : dict of Tensor
        Output of every recorded component that ran, (row, channel, y, x).
    fired : Counter
        How often each edited place was replaced.
    kept : dict of Tensor
        What went on from every place asked for, after edits, (row, channel, y, x).
    """

    output: Tensor
    activations: dict[str, Tensor]
    fired: Counter[str]
    kept: dict[str, Tensor] = field(default_factory=dict)


class UNetCaller(Protocol):
    """A U-Net that can be called under actions: traced by nnsight, or with its cuts installed."""

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
            Places, components and skip connections, whose value is wanted as it goes on after edits.
        context : CallContext, optional
            For fills that ask where they are.
        """
        ...


class CallRows(NamedTuple):
    """What fills are told of a call under way.

    Attributes
    ----------
    cond : int
        Number of conditional rows, which are the first.
    timestep : Tensor, (row,)
    context : CallContext, optional
    """

    cond: int
    timestep: Tensor
    context: CallContext | None = None

    def told(self, placed: PlacedFill, axes: Axes, dtype: torch.dtype, entering: Tensor | None = None) -> FillContext:
        """What one fill is told; ``entering`` is what its component is given, (row, ...), of those that ask for it.

        Raises
        ------
        SpecError
            That was not said.
        """
        if self.context is None:
            raise SpecError(
                f"The fill {placed.fill.name!r} asks where in a run it is put; call with context=CallContext(...)."
            )
        place, view = placed.site.component, placed.site.view
        others = iter(placed.donors)
        origins = [None if isinstance(donor, OwnInput) else next(others) for donor in placed.fill.donors]
        given = (entering if of is None else self.context.donors[place, of] for of in origins)
        # A mean over runs is kept in more digits than what it is put in place of.
        donors = tuple(view.get(value, axes).to(dtype) for value in given)
        length = self.context.timesteps
        times = tuple(math.nan if of is None else self.context.times.get(of, math.nan) / length for of in origins)
        # Of the rows that the view shows, which may be those of one branch.
        column = self.timestep.reshape(-1, *[1] * (len(axes.shape) - 1)).expand(axes.shape)
        timestep = self.timestep if view == Whole() else view.get(column, axes).flatten(1)[:, 0]
        return FillContext(self.context.step, timestep, timestep / length, donors, axes.dims, times)


@dataclass(frozen=True, slots=True)
class InnerVisit:
    """What happens at one inner place; of a source it is only looked what is there."""

    place: InnerPlace
    fills: tuple[PlacedFill, ...] = ()
    record: bool = False
    keep: bool = False
    source: bool = False
    owner: nn.Module = field(default_factory=nn.Module, compare=False)  # whose weights its value depends on


@dataclass(frozen=True, slots=True)
class Visit:
    """What happens at one component, and inside it."""

    component: Component
    skip_value: str = ""  # "", "placeholder" or "zeros": the module does not run
    edge: str = ""
    port: Port | None = None
    edge_fills: tuple[PlacedFill, ...] = ()
    edge_dims: tuple[str, ...] = ()
    output_fills: tuple[PlacedFill, ...] = ()
    record: bool = False
    keep: bool = False
    keep_edge: bool = False
    inner: tuple[InnerVisit, ...] = ()

    @property
    def takes_input(self) -> bool:
        """Whether a fill takes what the component is given."""
        return any(placed.fill.takes_input for placed in self.output_fills)


class Visits(NamedTuple):
    """What happens in a call.

    Attributes
    ----------
    beside : tuple of InnerVisit
        Of what all components are given, before them.
    components : tuple of Visit
        In execution order, without those where nothing happens.
    weights : tuple of InnerVisit
        Of weights, which are others during the call.
    """

    beside: tuple[InnerVisit, ...]
    components: tuple[Visit, ...]
    weights: tuple[InnerVisit, ...] = ()


def check_call(action: Action, fired: Counter[str]) -> None:
    """Raise `FiringError` unless every edit of a call fired exactly once."""
    declared = Counter({fill.site.component: 1 for fill in action.fills})
    if fired != declared:
        raise FiringError(
            f"Edits declared {dict(declared)} but fired {dict(fired)}. The result would not be that of the "
            "intervention, so the run stops; please report the model and the intervention."
        )


def entering(visit: Visit, given: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """What a component is given that a fill puts in place of what it puts out; None where none takes it.

    Raises
    ------
    FiringError
        It is not called with a tensor there.
    """
    if not visit.takes_input:
        return None
    by_place: dict[Any, Any] = dict(enumerate(given))
    value = given_at(visit.component.input, by_place | named)
    if value is None:
        raise FiringError(
            f"{visit.component.name} was called without a tensor at {visit.component.input!r}, which is its input by "
            "the model's anatomy; please report the model."
        )
    return value


def stand_in(visit: Visit, like: Tensor, dtype: torch.dtype, rows: CallRows, entering: Tensor | None = None) -> Tensor:
    """Make what a component that does not run puts out: zeros, or what a fill puts in place of them.

    Rows and device are those of a tensor; ``entering`` is what the component is given, where a fill takes it.
    """
    if visit.skip_value == "placeholder":
        # Of no rows, so that it takes no memory, and of its shape, which the code between components may ask for.
        return like.new_zeros(0, *visit.component.shape, dtype=dtype)
    zeros = like.new_zeros(like.shape[0], *visit.component.shape, dtype=dtype)
    return filled(zeros, visit.output_fills, visit.component.dims, rows, entering)


def fill_edge(
    visit: Visit, given: tuple[Any, ...], named: dict[str, Any], rows: CallRows
) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """Replace what comes over the skip connection in the arguments, by position and by keyword, of a decoder block.

    Returns
    -------
    tuple, dict, Tensor
        Arguments, and what comes over the skip connection now.
    """
    port = visit.port
    if port is None:
        raise FiringError(f"Where {visit.edge} enters {visit.component.name} was not read; please report the model.")
    value: Tensor = argument_of(port.argument, given, named)
    axes = Axes((ROW, *visit.edge_dims), tuple(value.shape), rows.cond)
    comes = filled(port.view.get(value, axes), visit.edge_fills, visit.edge_dims, rows)
    replaced = port.view.put(value, comes, axes)
    return (*arguments_with(port.argument, given, named, replaced), comes)


def filled(
    value: Tensor,
    fills: tuple[PlacedFill, ...],
    dims: tuple[str, ...],
    rows: CallRows,
    entering: Tensor | None = None,
) -> Tensor:
    """Replace a value, or the part of it that a view shows; never in place, since others may hold the tensor.

    Parameters
    ----------
    value : Tensor, (row, ...)
    fills : tuple of PlacedFill
        Of parts that have nothing in common.
    dims : tuple of str
        Names of the dimensions after the rows.
    rows : CallRows
    entering : Tensor, (row, ...), optional
        What the component is given, for fills that take it.
    """
    axes = Axes((ROW, *dims), tuple(value.shape), rows.cond)
    entering = None if entering is None else entering.to(value.dtype)
    for placed in fills:
        view, fill = placed.site.view, placed.fill
        if words := words_of(view):
            value = _filled_by_row(value, placed, words, dims, rows)
            continue
        part = view.get(value, axes)
        told = rows.told(placed, axes, part.dtype, entering) if type(fill).put is not Fill.put else None
        replaced = fill.apply(part) if told is None else fill.put(part, told)
        held = told is not None and any(replaced is donor for donor in told.donors)
        if replaced is part or held or replaced.shape != part.shape or replaced.dtype != part.dtype:
            raise SpecError(
                f"The fill {fill.name!r} gave {_described(replaced)} for {_described(part)}; apply(value) has to give "
                "a new tensor of the same shape and dtype."
            )
        value = view.put(value, replaced, axes)
    return value


def _filled_by_row(
    value: Tensor, placed: PlacedFill, words: tuple[str, ...], dims: tuple[str, ...], rows: CallRows
) -> Tensor:
    """Replace the tokens of words, whose numbers differ by row."""
    context = rows.context
    if context is None or words not in context.tokens:
        raise SpecError(
            f"Which tokens {placed.site.view.words} means is known of a study's prompts; here are none. Give numbers."
        )
    alike: dict[tuple[int, ...], list[int]] = {}
    for row, numbers in enumerate(context.tokens[words]):
        if numbers:
            alike.setdefault(numbers, []).append(row)
    value = value.clone()
    for numbers, chosen in alike.items():
        view = with_numbers(placed.site.view, numbers)
        of_rows = CallRows(
            sum(row < rows.cond for row in chosen),
            rows.timestep[chosen],
            replace(context, donors={key: donor[chosen] for key, donor in context.donors.items()}),
        )
        there = placed._replace(site=Site(placed.site.component, view))
        value[chosen] = filled(value[chosen], (there,), dims, of_rows)
    return value


def _described(value: Tensor) -> str:
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def lay_out_visits(
    unet: nn.Module,
    anatomy: Anatomy,
    action: Action,
    record: tuple[str, ...],
    arguments: tuple[Tensor, ...],
    keep: tuple[str, ...] = (),
) -> Visits:
    """Turn an action into what happens beside all components, and then at each.

    Parameters
    ----------
    unet : torch.nn.Module
    anatomy : Anatomy
        Of that U-Net.
    action : Action
    record : tuple of str
        Components whose output is wanted.
    arguments : tuple of Tensor
        Of a call, by which it is read where skip connections enter, unless that is known.
    keep : tuple of str
        Places whose value is wanted as it goes on.
    """
    fills: dict[str, list[PlacedFill]] = {}
    for placed in action.fills:
        fills.setdefault(placed.site.component, []).append(placed)
    passed = {name for name, there in fills.items() if any(placed.fill.takes_input for placed in there)}
    ports = skip_ports(unet, anatomy, arguments) if (fills.keys() | set(keep)) & anatomy.skips.keys() else {}
    inner: dict[str, list[InnerVisit]] = {}
    weights = []
    for there in _inner_visits(unet, anatomy, fills, record, keep):
        if there.place.weight:
            weights.append(there)
        else:
            inner.setdefault(there.place.component, []).append(there)
    visits = []
    for component in anatomy.components:
        name = component.name
        if name in action.dead:
            skip_value = "zeros" if _is_met(name, anatomy, action.dead, passed) else "placeholder"
            visits.append(
                Visit(component, skip_value=skip_value, output_fills=tuple(fills.get(name, ())), keep=name in keep)
            )
            continue
        edge = anatomy.skip_into(name)
        edited = edge is not None and edge.name in fills
        visit = Visit(
            component,
            edge=edge.name if edge else "",
            port=ports.get(edge.name) if edge else None,
            edge_fills=tuple(fills[edge.name]) if edge and edited else (),
            edge_dims=anatomy.by_name[edge.source].dims if edge else (),
            output_fills=tuple(fills.get(name, ())),
            record=name in record,
            keep=name in keep,
            keep_edge=edge is not None and edge.name in keep,
            inner=tuple(inner.get(name, ())),
        )
        if any((visit.edge_fills, visit.output_fills, visit.record, visit.keep, visit.keep_edge, visit.inner)):
            visits.append(visit)
    return Visits(tuple(inner.get("", ())), tuple(visits), tuple(weights))


def _inner_visits(
    unet: nn.Module,
    anatomy: Anatomy,
    fills: Mapping[str, Sequence[PlacedFill]],
    record: tuple[str, ...],
    keep: tuple[str, ...],
) -> Iterator[InnerVisit]:
    """Inner places where something happens, and those of which attention is computed there, in their order."""
    asked = fills.keys() | {*record, *keep}
    attentions = (place.attention for place in anatomy.inner if place.attention and place.name in asked)
    sources = {one.name: attention for attention in attentions for one in attention.sources}
    masks = set[str]()
    for place in anatomy.inner:
        name, source = place.name, sources.get(place.name)
        if source is not None and source.mask is not None and source.mask.name not in masks:
            # What the whole module is given comes before all that is inside.
            masks.add(source.mask.name)
            yield InnerVisit(source.mask, source=True)
        if name in asked or source is not None:
            owner = unet.get_submodule(place.attention.owner if place.attention else place.module)
            there = tuple(fills.get(name, ()))
            yield InnerVisit(place, there, name in record, name in keep, source is not None, owner)


def _is_met(name: str, anatomy: Anatomy, dead: frozenset[str], passed: set[str]) -> bool:
    """Whether what a dead component puts out needs its true rows.

    So it is for a living block, even if only to be replaced on the edge, and for one that is passed by; and where what
    a living component puts out enters the same dead block, with which it is concatenated before that is left out. Any
    other dead tensor only has to concatenate with its like.
    """
    consumers = anatomy.consumers(name)
    entering = {edge.source for edge in anatomy.edges if edge.target in consumers}
    return any(place not in dead for place in (*consumers, *entering)) or not passed.isdisjoint(consumers)
