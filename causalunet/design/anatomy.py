"""A U-Net as a graph: components in execution order, edges between them, and what is dead when an edge is cut."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from causalunet.calls import clear_calls
from causalunet.design.conflicts import twice
from causalunet.design.inner import InnerPlace, check_of_weights, unnumbered
from causalunet.design.interventions import Edit, Intervention
from causalunet.design.limits import COMPONENT_NAME, COORDINATE_NAME, is_integer, shown
from causalunet.design.ports import Port
from causalunet.design.stages import in_stage, stages_apart, stages_of
from causalunet.design.views import Axes, Whole
from causalunet.design.windows import overlaid
from causalunet.dims import CHANNEL, DIMS, ROW, X, Y
from causalunet.errors import ComponentError, SpecError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes as PlotAxes
    from matplotlib.figure import Figure

__all__ = ["Anatomy", "Component", "Edge", "Role", "u_edges"]

Role = Literal["encoder", "bottleneck", "decoder", "block"]
"""Which arm of the U a block belongs to; it is a mere block where there are no arms, as in a stack of blocks."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One block of a U-Net.

    Parameters
    ----------
    name : str
        Of a U ``down.i`` (from the top), ``mid`` or ``up.i`` (from the bottom); else of your choice.
    role : {"encoder", "bottleneck", "decoder", "block"}
    level : int
        Level of the U, 0 at full resolution, read off the output's resolution.
    depth : int
        Blocks between this one and the top of the U, or before it.
    shape : tuple of int
        Of what it puts out, without rows; (channel, y, x) unless ``dims`` says otherwise.
    flops : int
        Floating-point operations per row and call; a multiply-add counts as two.
    parameters : int
        Number of weights.
    module : str or tuple of str
        Dotted path of the block in the U-Net; of a block that is several modules those of all, in the order in which
        they run, such as a residual block and the attention after it. What enters the block enters the first, and what
        the last puts out is the block's.
    dims : tuple of str
        Names of the dimensions of ``shape``.
    output : int or tuple of int, optional
        Of a module that puts out a tuple or a list, the place of the tensor that goes on; nothing may depend on the
        others. Where several go on, as text and image of a joint block, the places of all: the block then puts out one
        tensor, these one after the other along the first dimension of ``shape``. By default it puts out a tensor.
    input : int, str or tuple of these, optional
        Position or keyword, in the call of its first module, of the tensor that it changes, which has the shape of
        what it puts out: what `causalunet.Bypass` puts in place. Of several tensors all, in the order of ``output``.
        By default there is none.
    """

    name: str
    role: Role
    level: int
    depth: int
    shape: tuple[int, ...]
    flops: int
    parameters: int
    module: str | tuple[str, ...]
    dims: tuple[str, ...] = (CHANNEL, Y, X)
    output: int | tuple[int, ...] | None = None
    input: int | str | tuple[int | str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not COMPONENT_NAME.fullmatch(self.name):
            raise ComponentError(
                f"A component is called {shown(self.name)}; results are stored under such names, so they are up to 128 "
                "letters, digits and any of . _ -, such as 'up.3'."
            )
        if not self.modules or not all(isinstance(path, str) for path in self.modules):
            raise ComponentError(
                f"The component {self.name} has module={shown(self.module)}; give the path of a module below the "
                "U-Net, or a tuple of several."
            )
        if self.output is not None and not all(is_integer(one) and one >= 0 for one in _several(self.output)):
            raise ComponentError(
                f"The component {self.name} has output={shown(self.output)}; give the place of a tensor in the tuple "
                "that its module puts out, from 0 on, of several a tuple, or None."
            )
        if self.input is not None and not all(
            isinstance(one, str) or (is_integer(one) and one >= 0) for one in _several(self.input)
        ):
            raise ComponentError(
                f"The component {self.name} has input={shown(self.input)}; give the position of an argument, from 0 "
                "on, a keyword, or None."
            )
        if len(self.dims) != len(self.shape):
            raise ComponentError(
                f"The component {self.name} has the shape {self.shape} and the dimensions {', '.join(self.dims)}; give "
                "a name for each."
            )

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of its modules, in the order in which they run."""
        return (self.module,) if isinstance(self.module, str) else tuple(self.module)


@clear_calls
@dataclass(frozen=True, slots=True)
class Edge:
    """A tensor that goes from one component to another.

    Parameters
    ----------
    source, target : str
        Component names; the target of the last edge is ``out``.
    name : str
        ``skip.i`` for a skip connection that can be cut, empty for all else.
    port : Port, optional
        Where a skip connection enters its target. By default that is found by trying, which takes it for a block of
        channels.
    """

    source: str
    target: str
    name: str = ""
    port: Port | None = None


@clear_calls
@dataclass(frozen=True)
class Anatomy:
    """Components of a U-Net in execution order, and the edges between them.

    Parameters
    ----------
    components : tuple of Component
    edges : tuple of Edge
    flops : int
        Of a whole call for one row, parts outside the components (timestep embedding, output convolution) included.
    parameters : int
        Of the whole model, text transformer included.
    inner : tuple of InnerPlace
        Values inside components, and beside them all, in the order in which they are computed.
    """

    components: tuple[Component, ...]
    edges: tuple[Edge, ...]
    flops: int
    parameters: int
    inner: tuple[InnerPlace, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Component]:
        """Component by name, in execution order."""
        return {component.name: component for component in self.components}

    @cached_property
    def inner_by_name(self) -> dict[str, InnerPlace]:
        """Inner place by name, in the order in which they are computed."""
        return {place.name: place for place in self.inner}

    @cached_property
    def places(self) -> tuple[str, ...]:
        """All that can be edited: components, skip connections, inner places."""
        return (*self.by_name, *self.skips, *self.inner_by_name)

    @cached_property
    def modules(self) -> dict[str, str]:
        """Path of every module, by what it is called here: the last one of a component like that."""
        return {
            module: path
            for name, component in self.by_name.items()
            for module, path in zip(self.modules_of(name), component.modules, strict=True)
        }

    @cached_property
    def output_ports(self) -> dict[str, int | tuple[int, ...]]:
        """Place of a component's tensor in the tuple that its module puts out, by name, of those that put out one."""
        return {name: one.output for name, one in self.by_name.items() if one.output is not None}

    def modules_of(self, component: str) -> tuple[str, ...]:
        """What `modules` calls the modules of a component, in the order in which they run."""
        *inner, _ = self.by_name[component].modules
        return (*(f"{component} ({path})" for path in inner), component)

    @cached_property
    def skips(self) -> dict[str, Edge]:
        """Skip connection by name, from the top: that of the component that runs first is the first."""
        place = {name: number for number, name in enumerate(self.by_name)}
        named = (edge for edge in self.edges if edge.name)
        return {edge.name: edge for edge in sorted(named, key=lambda edge: place.get(edge.source, 0))}

    @cached_property
    def decoder(self) -> tuple[Component, ...]:
        """Decoder blocks, from the bottom."""
        return tuple(component for component in self.components if component.role == "decoder")

    @cached_property
    def probes(self) -> tuple[str, ...]:
        """One place of every way of editing that there is: the output of one module, of several, and a skip.

        Null interventions that name no places are put there. Of the outputs it is the bottleneck's, if it has one.
        """
        if not self.components:
            raise ComponentError("The model's anatomy has no components, so there is nothing to intervene on.")
        middle = next(
            (c for c in self.components if c.role == "bottleneck"), self.components[len(self.components) // 2]
        )
        several = len(middle.modules) > 1
        others = (c.name for c in self.components if (len(c.modules) > 1) != several)
        return (middle.name, *itertools.islice(others, 1), *itertools.islice(self.skips, 1))

    @property
    def passable(self) -> tuple[str, ...]:
        """Components that can be passed by: with an input of the shape of their output, to which nothing is joined."""
        return tuple(one.name for one in self.components if one.input is not None and not self.skip_into(one.name))

    def skip_into(self, component: str) -> Edge | None:
        """The skip connection that ends in a component, if one does."""
        return next((edge for edge in self.skips.values() if edge.target == component), None)

    def select(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """Names of the components that match shell patterns such as ``up.*``, in execution order, then of inner places.

        A pattern means places inside components only if it has as many dots as their names: ``up.*.self.heads``. It
        never means weights.

        Raises
        ------
        ComponentError
            A pattern matches nothing.
        """
        chosen: set[str] = set()
        for pattern in patterns:
            matches = {name for name in self.by_name if fnmatchcase(name, pattern)}
            if pattern != "*":
                asked = (place.name for place in self.inner if not place.weight)
                alike = (name for name in asked if name.count(".") == pattern.count("."))
                matches |= {name for name in alike if fnmatchcase(name, pattern)}
            if not matches:
                raise ComponentError(f"No component matches {shown(pattern)}. The model has {self.nearest(pattern)}")
            chosen |= matches
        return tuple(name for name in (*self.by_name, *self.inner_by_name) if name in chosen)

    def described(self, place: str) -> Component | InnerPlace:
        """What says of which dimensions and sizes the value at a place is: of a skip connection where it begins."""
        if place in self.inner_by_name:
            return self.inner_by_name[place]
        return self.by_name[self.skips[place].source if place in self.skips else place]

    def owner(self, place: str) -> str:
        """The component that has to run for an edit at a place to fire; empty for what all components are given."""
        if place in self.inner_by_name:
            return self.inner_by_name[place].component
        return self.skips[place].target if place in self.skips else place

    def block(self, place: str) -> Component | None:
        """The component at which a place is, or whose skip connection it is; None beside them all."""
        name = self.skips[place].source if place in self.skips else self.owner(place)
        return self.by_name[name] if name else None

    def nearest(self, name: str) -> str:
        """What there is, and of that what is called most like a name, for messages."""
        # of a number that is too large the ranges tell
        numbered = {place.rpartition(".")[0] for place in (*self.by_name, *self.skips)} - {""}
        alike = [] if name.rpartition(".")[0] in numbered else get_close_matches(name, self.places, 3)
        told = f" Nearest: {', '.join(alike)}." if alike else ""
        return f"{self.listing}.{told}"

    def axes(self, place: str) -> Axes:
        """Dimensions of the value at a place, for one sample under guidance: two rows; of weights one."""
        described = self.described(place)
        rows = 1 if self._is_weight(place) else 2
        return Axes((ROW, *described.dims), (rows, *described.shape), 1)

    def _is_weight(self, place: str) -> bool:
        return place in self.inner_by_name and bool(self.inner_by_name[place].weight)

    def severed(self, edits: Iterable[Edit]) -> set[str]:
        """Places whose value is replaced as a whole, in all rows, so that what feeds only them is dead."""
        return {edit.component for edit in edits if edit.fill.severs and self._covered(edit)}

    def passed(self, edits: Iterable[Edit]) -> set[str]:
        """Places among the severed ones that what they are given goes past, so that it has to be computed."""
        return {edit.component for edit in edits if edit.fill.severs and edit.fill.takes_input and self._covered(edit)}

    def _covered(self, edit: Edit) -> bool:
        if edit.branch != "both":
            return False
        return edit.view == Whole() or edit.view.covers(self.axes(edit.component))

    def check_recorded(self, patterns: Iterable[str]) -> None:
        """Raise `ComponentError` unless what patterns select is there, and of dimensions that a store can name."""
        for name in self.select(patterns):
            dims = self.described(name).dims
            taken = [dim for dim in dims if dim in DIMS and dim not in (CHANNEL, Y, X)]
            strange = [dim for dim in dims if not isinstance(dim, str) or not COORDINATE_NAME.fullmatch(dim)]
            if taken or strange or len({*dims}) < len(dims):
                raise ComponentError(
                    f"{name} puts out ({', '.join(map(str, dims))}), and activations are stored along sample, step and "
                    "these: a name each, once, of letters, digits and underscores, and none that stores have for "
                    f"something else ({', '.join(sorted({*DIMS} - {CHANNEL, Y, X}))}). Rename the dimension in the "
                    "anatomy, or leave the component out of the record; it can be edited all the same."
                )

    def dead(self, severed: Collection[str], passed: Collection[str] = ()) -> frozenset[str]:
        """Components whose output reaches the image on no path once some places are severed.

        Parameters
        ----------
        severed : collection of str
            Component names (the value put out is replaced) and skip names (the edge carries something else).
        passed : collection of str
            Of the severed components those that are replaced by what they are given.

        Returns
        -------
        frozenset of str
            A severed component is itself dead: its own output is not used.
        """
        live = {"out"}
        for component in reversed(self.components):
            if component.name in severed and component.name not in passed:
                continue
            outgoing = (edge for edge in self.edges if edge.source == component.name and edge.name not in severed)
            if any(edge.target in live for edge in outgoing):
                live.add(component.name)
        return frozenset(self.by_name) - (live - {*passed})

    def live_flops(self, dead: Collection[str]) -> int:
        """Floating-point operations of one row's call when some components do not run."""
        return self.flops - sum(self.by_name[name].flops for name in dead)

    def consumers(self, component: str) -> tuple[str, ...]:
        """Components that read a component's output."""
        return tuple(edge.target for edge in self.edges if edge.source == component)

    def to_frame(self) -> pd.DataFrame:
        """Blocks as a table of pandas, in the order in which they run.

        Returns
        -------
        pandas.DataFrame
            By the block's name: ``role``, ``level``, ``depth``, ``output`` (channels x height x width), ``flops`` per
            row and call, and ``parameters``.
        """
        import pandas as pd

        columns = ("role", "level", "depth", "shape", "flops", "parameters")
        rows = [[getattr(block, column) for column in columns] for block in self.components]
        table = pd.DataFrame(rows, columns=list(columns), index=pd.Index(list(self.by_name), name="block"))
        return table.assign(shape=[" x ".join(map(str, shape)) for shape in table["shape"]]).rename(
            columns={"shape": "output"}
        )

    def plot(self, severed: Collection[str] = (), *, ax: PlotAxes | None = None) -> Figure:
        """Draw the U-Net, and what need not run once some places are severed.

        Parameters and errors are those of `causalunet.report.plot_anatomy`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        # Figures lie above the design, which never imports them; a method that says "draw yourself" asks them by name.
        figure: Figure = import_module("causalunet.report.anatomy").plot_anatomy(self, severed, ax=ax)
        return figure

    def check(self, intervention: Intervention, edits: Iterable[Edit] | None = None) -> None:
        """Raise `ComponentError` if an intervention names what the model does not have.

        Also raised for edits that could never fire because another edit of the same step makes their place dead.

        Parameters
        ----------
        intervention : Intervention
        edits : iterable of Edit, optional
            Its edits, where they are known.
        """
        told = intervention.edits() if edits is None else edits
        edits = [edit for edit in told if edit.component != "unet"]
        for edit in edits:
            # of a hundred thousand edits each: not a search through all places
            if not any(edit.component in there for there in (self.by_name, self.skips, self.inner_by_name)):
                raise ComponentError(
                    f"{intervention.label!r} asks for {edit.component}, which this U-Net does not have. "
                    f"It has {self.nearest(edit.component)}"
                )
            axes = self.axes(edit.component)
            edit.view.check(axes, edit.component)
            edit.fill.check(axes, edit.component)
            edit.fill.check_part(edit.view, axes, edit.component)
            if self._is_weight(edit.component):
                check_of_weights(edit)
            if edit.fill.takes_input:
                self._check_input(edit, intervention.label)
        # Windows are long and edits few: what holds at one step holds at many, and is looked at once.
        first: dict[tuple[int, ...], int] = {}
        for step, _, present in overlaid([edit.window for edit in edits]):
            first.setdefault(present, step)
        for present, step in first.items():
            there = tuple(edits[index] for index in present)
            self._check_apart(there, step)
            for stage in stages_of(there):
                self._check_reachable(tuple(in_stage(there, stage)), step)

    def _check_apart(self, edits: tuple[Edit, ...], step: int) -> None:
        """Of views that differ it may take the sizes to tell whether they meet."""
        for one, other in itertools.combinations(edits, 2):
            if one.component != other.component or one.view == other.view or stages_apart(one, other):
                continue
            axes = self.axes(one.component)
            if (one.site.view.mask(axes) & other.site.view.mask(axes)).any():
                raise SpecError(twice(one, other, step))

    def _check_input(self, edit: Edit, label: str) -> None:
        """Raise `ComponentError` unless a component has an input, and that is all that comes to it."""
        if edit.component in self.passable:
            return
        ends = self.skip_into(edit.component)
        why = "is no one tensor of the shape of what it puts out"
        if edit.component in self.skips:
            why = "is nothing: a skip connection is no block"
        elif edit.component in self.inner_by_name:
            why = "is not asked: it lies inside a block"
        elif ends is not None:
            why = f"is a path and {ends.name}"
        raise ComponentError(
            f"{label!r} puts what {edit.component} is given in place of what it puts out ({edit.fill.name!r}); what it "
            f"is given {why}. Components that can be passed by: {', '.join(_ranges(self.passable)) or 'none'}."
        )

    def _check_reachable(self, edits: tuple[Edit, ...], step: int) -> None:
        severed, passed = self.severed(edits), self.passed(edits)
        dead = self.dead(severed, passed)
        for edit in edits:
            place = self.owner(edit.component)
            read = any(target not in dead or target in passed for target in self.consumers(place))
            if place in dead and not (edit.component == place and place in severed and read):
                raise SpecError(
                    f"At step {step} the edit of {edit.component} could never fire: {place} is dead, because "
                    f"{', '.join(sorted(severed - {edit.component}))} is replaced. Leave that edit out."
                )

    @property
    def listing(self) -> str:
        """Components, skip connections and inner places in a few words."""
        kinds = dict.fromkeys(unnumbered(name) for name in self.inner_by_name)
        inside = f"; inside them {', '.join(kinds)}" if kinds else ""
        skips = ", ".join(_ranges(self.skips)) or "no skip connections"
        return f"{', '.join(_ranges(self.by_name))} and {skips}{inside}"


def _several(places: Any) -> tuple[Any, ...]:
    return places if isinstance(places, tuple) and places else (places,)


def _ranges(names: Iterable[str]) -> Iterator[str]:
    """Neighbouring names that differ in their number only, as one range."""
    for _, group in itertools.groupby(names, lambda name: name.rpartition(".")[0] or name):
        first, *others = group
        yield f"{first} ... {others[-1]}" if others else first


def u_edges(encoder: int, decoder: int) -> tuple[Edge, ...]:
    """Edges of a U with one skip connection per encoder block.

    Parameters
    ----------
    encoder, decoder : int
        Numbers of blocks, which must be equal: skip ``i`` joins ``down.i`` to ``up.(decoder - 1 - i)``.
    """
    if encoder != decoder:
        raise SpecError(
            f"A U with one skip per block needs as many decoder as encoder blocks; got {encoder}, {decoder}."
        )
    path = [*(f"down.{i}" for i in range(encoder)), "mid", *(f"up.{i}" for i in range(decoder)), "out"]
    main = (Edge(source, target) for source, target in itertools.pairwise(path))
    skips = (Edge(f"down.{i}", f"up.{decoder - 1 - i}", f"skip.{i}") for i in range(encoder))
    return (*main, *skips)
