"""How the components of a U-Net are joined: tried out on what lies between them, and compared with the anatomy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Edge
from causalunet.design.ports import Port
from causalunet.design.views import Axes, Channels
from causalunet.dims import ROW
from causalunet.errors import CausalUNetError, ComponentError, ModelError
from causalunet.models.alone import alone
from causalunet.models.modules import each_tensor, first_row, given_at, part_of, replace_forward, watched, whole_with

__all__ = ["SkipPlace", "read_wiring", "skip_places", "skip_ports"]

_FOUND: WeakKeyDictionary[nn.Module, dict[Anatomy, dict[str, SkipPlace]]] = WeakKeyDictionary()
"""What `read_wiring` has found in this process."""

Given = dict[int | str, Tensor]
"""Tensors that a component is called with, by position or keyword."""


class _Call(NamedTuple):
    """What components are called with, by name: by the U-Net, and once hooks of the user's have changed it."""

    asked: dict[str, Given]
    given: dict[str, Given]


_JOIN = (
    "Let the U-Net's own forward join path and skip connection, torch.cat([path, skip], dim=1), or give the block the "
    "skip connection as an argument of its own"
)


@dataclass(frozen=True, slots=True)
class SkipPlace:
    """Where a skip connection lies in what a component is called with.

    Parameters
    ----------
    argument : int or str
        Position or keyword.
    start, channels : int
        First channel, and number of channels.
    """

    argument: int | str
    start: int
    channels: int

    @property
    def port(self) -> Port:
        """The same in the terms of anatomies."""
        return Port(self.argument, Channels(range(self.start, self.start + self.channels)))

    def __str__(self) -> str:
        last = self.start + self.channels - 1
        return f"channels {self.start}-{last} of argument {self.argument!r}"


def read_wiring(
    unet: nn.Module,
    anatomy: Anatomy,
    arguments: tuple[Tensor, ...],
    outputs: Mapping[str, Tensor],
    owner: str,
    wholes: Mapping[str, Any] | None = None,
) -> dict[str, SkipPlace]:
    """Find where every skip connection enters its decoder block, and check that there are no edges but the anatomy's.

    The U-Net is called with stand-ins that put out what the components put out before, so that only what lies between
    them computes; then once per component, with other numbers for what that one puts out. What changes depends on it.

    Parameters
    ----------
    unet : torch.nn.Module
    anatomy : Anatomy
    arguments : tuple of Tensor
        Of a call.
    outputs : mapping of Tensor
        What every component put out in that call.
    owner : str
        Whose U-Net it is, for messages.
    wholes : mapping, optional
        All parts of what modules put out that put out several, by component.

    Returns
    -------
    dict of SkipPlace
        By the name of the skip connection.

    Raises
    ------
    ModelError
        A skip connection cannot be told from what else the block is given, or is not what the encoder block put out; a
        component is given what one without an edge to it put out; nothing depends on what a component puts out; a
        component does more than put out a tensor.
    """
    between = _Between(unet, anatomy, arguments, outputs, owner, wholes or {})
    usual = between.call({})
    _check_inputs(anatomy, usual, outputs, owner)
    for name in wholes or ():
        _check_beside(name, usual, between.call({}, beside=name), owner)
    found: dict[str, list[SkipPlace]] = {}
    widths: dict[str, dict[int | str, int]] = {}
    for number, component in enumerate(anatomy.components):
        name = component.name
        other = _other_numbers(outputs[name], number)
        call = between.call({name: other})
        asked, reached = (
            {_component(target) for target in before if _changed(before[target], after.get(target, {}))}
            for before, after in zip(usual, call, strict=True)
        )
        # What a hook of the user's takes away from the next block is still given by the U-Net.
        _check_used(anatomy, name, {*asked, *reached}, owner)
        _check_edges(anatomy, name, reached, owner)
        for edge in anatomy.skips.values():
            if edge.source != name:
                continue
            if edge.port is not None:
                _check_port(anatomy, edge, edge.port, usual, call, other, owner)
            else:
                found[edge.name] = _places(anatomy, edge, usual, call, other, owner)
                tensors = usual.given[edge.target].items()
                widths[edge.name] = {key: value.shape[1] for key, value in tensors if value.ndim > 1}
    places = _one_each(found, widths, owner)
    _FOUND.setdefault(unet, {})[anatomy] = places
    return places


def skip_ports(unet: nn.Module, anatomy: Anatomy, arguments: tuple[Tensor, ...]) -> dict[str, Port]:
    """Where every skip connection enters: as the anatomy says, and else as `skip_places` finds.

    Parameters
    ----------
    unet : torch.nn.Module
    anatomy : Anatomy
    arguments : tuple of Tensor
        Of a call.
    """
    said = {edge.name: edge.port for edge in anatomy.skips.values() if edge.port is not None}
    if len(said) == len(anatomy.skips):
        return said
    return said | {name: place.port for name, place in skip_places(unet, anatomy, arguments).items()}


def skip_places(unet: nn.Module, anatomy: Anatomy, arguments: tuple[Tensor, ...]) -> dict[str, SkipPlace]:
    """Give what `read_wiring` found; of a U-Net that it has not read yet, by a call with the first row.

    Parameters
    ----------
    unet : torch.nn.Module
    anatomy : Anatomy
    arguments : tuple of Tensor
        Of a call.
    """
    known = _FOUND.get(unet, {}).get(anatomy)
    if known is not None:
        return known
    wholes: dict[str, Any] = {}
    modules = {name: unet.get_submodule(path) for name, path in anatomy.modules.items()}
    row, ports = tuple(argument[:1] for argument in arguments), anatomy.output_ports
    with alone(unet), torch.no_grad():
        with watched(modules, lambda name, output: wholes.update({name: first_row(output)})):
            unet(*(argument.clone() for argument in row))
        outputs = {name: part_of(whole, ports.get(name)) for name, whole in wholes.items()}
        several = {name: wholes[name] for name in ports}
        return read_wiring(unet, anatomy, row, outputs, "The U-Net", several)


class _Between:
    """A U-Net with stand-ins for its components.

    Parameters
    ----------
    unet, anatomy, arguments, outputs, owner, wholes
        Of `read_wiring`.
    """

    def __init__(
        self,
        unet: nn.Module,
        anatomy: Anatomy,
        arguments: tuple[Tensor, ...],
        outputs: Mapping[str, Tensor],
        owner: str,
        wholes: Mapping[str, Any],
    ) -> None:
        self._wholes, self._ports = wholes, anatomy.output_ports
        self._unet, self._arguments, self._outputs, self._owner = unet, arguments, outputs, owner
        self._usual: _Call | None = None
        self._modules = {name: unet.get_submodule(path) for name, path in anatomy.modules.items()}
        self._told = {
            module: name if number == 0 else f"{name} {path}"  # what enters a component enters its first module
            for name, component in anatomy.by_name.items()
            for number, (module, path) in enumerate(zip(anatomy.modules_of(name), component.modules, strict=True))
        }

    def call(self, changed: Mapping[str, Tensor], *, beside: str = "") -> _Call:
        """Call the U-Net, components putting out what they did before, or what is given here by name.

        Of one component what its module puts out beside it may be other numbers. The U-Net's output is told as what
        ``out`` is called with.
        """
        told = _Call({}, {})

        def note(asked: bool, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            tensors: dict[Any, Any] = {**dict(enumerate(arguments)), **named}
            known = {} if self._usual is None else self._usual[not asked].get(name, {})
            told[not asked][name] = {
                key: _kept(value, known.get(key)) for key, value in tensors.items() if isinstance(value, Tensor)
            }

        def enter(stack: ExitStack, name: str, module: nn.Module) -> None:
            component = self._told[name]

            def forward(*arguments: Any, **named: Any) -> Any:
                note(False, component, arguments, named)
                told.asked.setdefault(component, told.given[component])
                return self._whole(name, self._outputs[name], other=name == beside)

            stack.callback(replace_forward(module, forward))
            if module._forward_pre_hooks:
                first = module.register_forward_pre_hook(
                    lambda _, arguments, named: note(True, component, arguments, named), prepend=True, with_kwargs=True
                )
                stack.callback(first.remove)
            last = module.register_forward_hook(
                lambda *_: self._whole(name, changed.get(name, self._outputs[name]), other=name == beside)
            )
            stack.callback(last.remove)

        with ExitStack() as stack:
            for name, module in self._modules.items():
                enter(stack, name, module)
            stack.enter_context(_same_chance(self._arguments[0].device))
            try:
                output = self._unet(*(argument.clone() for argument in self._arguments))
            except (CausalUNetError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever a foreign forward raises
                raise ModelError(
                    f"{self._owner} cannot be called with stand-ins for its components that give what these gave: "
                    f"{type(error).__name__}: {' '.join(str(error).split()):.300}. What a cut makes dead does not run, "
                    "so a component may do nothing but put out a tensor: keep skip connections in the U-Net's own "
                    "forward."
                ) from error
        told.given["out"] = {0: output.clone()}
        self._usual = self._usual or told
        return told

    def _whole(self, name: str, value: Tensor, *, other: bool) -> Any:
        """What a module puts out, with a value for its component's part, and the others as they were, or not."""
        if name not in self._wholes:
            return value.clone()
        parts = each_tensor(self._wholes[name], (lambda part: _other_numbers(part, 0)) if other else Tensor.clone)
        return whole_with(parts, self._ports[name], value.clone())


@contextmanager
def _same_chance(device: torch.device) -> Iterator[None]:
    """Let what is random, such as dropout, be the same in every call; the generators go on as if nothing had been."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(0)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        yield


def _kept(value: Tensor, known: Tensor | None) -> Tensor:
    """Copy a value, since what lies between components may change it in place; what is known already is not copied."""
    if known is not None and known.dtype == value.dtype and torch.equal(known, value):
        return known
    return value.clone()


def _other_numbers(value: Tensor, seed: int) -> Tensor:
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(seed)).to(value)


def _changed(before: Given, after: Given) -> dict[int | str, list[int]]:
    """Channels that differ, by argument; of a tensor without channels, or of another shape, the first."""
    changed = {}
    for key in before.keys() | after.keys():
        a, b = before.get(key), after.get(key)
        if a is None or b is None or a.shape != b.shape:
            changed[key] = [0]
            continue
        if a is b:
            continue
        differs = (a != b) & ~(a.isnan() & b.isnan())
        if differs.any():
            rest = [dimension for dimension in range(a.ndim) if dimension != 1]
            changed[key] = differs.any(dim=rest).nonzero().flatten().tolist() if a.ndim > 1 else [0]
    return dict(sorted(changed.items(), key=lambda item: str(item[0])))


def _check_inputs(anatomy: Anatomy, usual: _Call, outputs: Mapping[str, Tensor], owner: str) -> None:
    for name, component in anatomy.by_name.items():
        if component.input is None:
            continue
        given = usual.given[name]
        found = given_at(component.input, given)
        if found is None or found.shape[1:] != outputs[name].shape[1:]:
            tensors = ", ".join(f"{key!r} {tuple(value.shape[1:])}" for key, value in given.items()) or "none"
            raise ModelError(
                f"{owner}: the anatomy says that the input of {name} is argument {component.input!r}, of the shape of "
                f"what it puts out, {component.shape}; tensors that it is called with: {tensors}. Name one of that "
                "shape, or leave input out: then the component cannot be passed by."
            )


def _check_used(anatomy: Anatomy, source: str, used: Collection[str], owner: str) -> None:
    used_by = anatomy.consumers(source)
    # Of the output not before training, when its last layer is zero.
    if used_by and "out" not in used_by and not used:
        raise ModelError(
            f"{owner}: nothing depends on what {source} puts out, and the anatomy says that it goes to "
            f"{' and '.join(used_by)}. An edit there would change nothing: the value is dropped, overwritten in place, "
            f"or taken from elsewhere. Let forward go on with what the module returned, or leave {source} out of the "
            "anatomy."
        )


def _check_beside(name: str, usual: _Call, call: _Call, owner: str) -> None:
    """A component is one tensor: what its module puts out beside it may go nowhere, since a cut would not reach it."""
    for before, after in zip(usual, call, strict=True):
        reached = [target for target in before if _changed(before[target], after.get(target, {}))]
        if reached:
            told = "the U-Net's output" if reached[0] == "out" else f"what {_component(reached[0])} is given"
            raise ModelError(
                f"{owner}: {told} depends on another part of what {name} puts out than the one that the anatomy says, "
                "its output. Of several tensors that go on, name modules inside it that put out one each."
            )


def _check_edges(anatomy: Anatomy, source: str, reached: Collection[str], owner: str) -> None:
    for target in reached:
        if target not in anatomy.consumers(source):
            raise ModelError(
                f"{owner}: {'its output depends on' if target == 'out' else f'{target} is given'} what {source} puts "
                f"out, and the anatomy has no edge between them. What need not run after a cut is read off the edges: "
                f"add Edge({source!r}, {target!r})."
            )


def _component(told: str) -> str:
    """Which component is called, by what `_Call` has of its modules; names have no blanks."""
    return told.partition(" ")[0]


def _check_port(anatomy: Anatomy, edge: Edge, port: Port, usual: _Call, call: _Call, value: Tensor, owner: str) -> None:
    """Check that a skip connection enters where the anatomy says, and nowhere beside."""
    source, target, dims = edge.source, edge.target, (ROW, *anatomy.by_name[edge.source].dims)
    found = ""
    # Without a bottleneck the path brings it as well.
    by_path = any(other.source == source and other.target == target and not other.name for other in anatomy.edges)
    # Hooks of the user's may scale or zero what the U-Net gives a block, where it is: that is still the place.
    for before, after in ((usual.asked[target], call.asked[target]), (usual.given[target], call.given[target])):
        tensor = after.get(port.argument)
        if tensor is None or tensor.ndim != value.ndim:
            found = f"the arguments of {target} that are tensors of as many dimensions are " + (
                ", ".join(repr(key) for key, other in after.items() if other.ndim == value.ndim) or "none"
            )
            continue
        axes = Axes(dims, tuple(tensor.shape), len(tensor))
        try:
            port.view.check(axes, f"argument {port.argument!r}")
        except ComponentError as error:
            found = str(error)
            continue
        part, mask = port.view.get(tensor, axes), torch.from_numpy(port.view.mask(axes)).to(tensor.device)
        others = [key for key in after if key != port.argument and _changed({key: before[key]}, {key: after[key]})]
        elsewhere = not by_path and (bool(((tensor != before[port.argument]) & ~mask).any()) or bool(others))
        if part.shape == value.shape and torch.equal(part, value.to(part.dtype)) and not elsewhere:
            return
        found = f"what {source} puts out is {'found elsewhere too' if elsewhere else 'not found there'}"
    raise ModelError(
        f"{owner}: the anatomy says that {edge.name} enters {target} as {port}, and {found}. A cut would not be "
        "that of the skip connection. Let the edge say the right port, or none: then it is looked for."
    )


def _places(anatomy: Anatomy, edge: Edge, usual: _Call, call: _Call, value: Tensor, owner: str) -> list[SkipPlace]:
    """Places where a value lies; as many as there are edges between its source and its target."""
    source, target = edge.source, edge.target
    changed = _changed(usual.given[target], call.given[target])
    rivals = [other.name for other in anatomy.skips.values() if other.target == target]
    expected = sum(other.source == source and other.target == target for other in anatomy.edges)
    # Hooks of the user's may scale or zero what the U-Net gives a block, where it is: that is still the place.
    for before, after in ((usual.asked, call.asked), (usual.given, call.given)):
        places = [place for key, tensor in after[target].items() for place in _occurrences(key, tensor, value)]
        beside = _beside({**_changed(before[target], after[target]), **changed}, places)
        if len(places) == expected and not beside and len(rivals) == 1:
            return places
    if len(rivals) > 1:
        found, advice = f"{' and '.join(rivals)} both end there", "One can be cut"
    elif not changed:
        found = f"no tensor that {target} is called with depends on it; does it join inside, or come in a list?"
        advice = _JOIN
    elif beside:
        where = "; ".join(f"{_listed(channels)} of argument {key!r}" for key, channels in beside.items())
        found = f"{where} of what {target} is called with depend on it and are not equal to it"
        advice = f"What is done to it on the way (scale, resize, crop, add) belongs inside {source} or {target}"
    else:
        found = f"it lies there {len(places)} times, {' and '.join(map(str, places))}"
        advice = "Let it enter once"
    raise ModelError(
        f"{owner}: {edge.name} brings what {source} puts out to {target}, says the anatomy, but {found}. A cut would "
        f"not be that of the skip connection. {advice}; or give the edge no name, Edge({source!r}, {target!r}): "
        "then it cannot be cut, and all else can."
    )


def _beside(changed: Mapping[int | str, list[int]], places: Collection[SkipPlace]) -> dict[int | str, list[int]]:
    """Channels that changed outside the places, by argument."""
    inside = {(place.argument, channel) for place in places for channel in _range(place)}
    left = {key: [channel for channel in channels if (key, channel) not in inside] for key, channels in changed.items()}
    return {key: channels for key, channels in left.items() if channels}


def _occurrences(key: int | str, tensor: Tensor, value: Tensor) -> Iterator[SkipPlace]:
    """Places in one tensor; values are random, so that nothing is equal by chance."""
    if tensor.ndim != value.ndim or tensor.shape[0] != value.shape[0] or tensor.shape[2:] != value.shape[2:]:
        return
    sought, width = value.to(tensor.dtype), value.shape[1]
    first = (tensor == sought[:, :1]).transpose(0, 1).flatten(1).all(dim=1)
    for start in first.nonzero().flatten().tolist():
        if start + width <= tensor.shape[1] and torch.equal(tensor[:, start : start + width], sought):
            yield SkipPlace(key, start, width)


def _one_each(
    found: Mapping[str, list[SkipPlace]], widths: Mapping[str, Mapping[int | str, int]], owner: str
) -> dict[str, SkipPlace]:
    """Choose where path and skip connection are one tensor: as all others of the U-Net lie; without others, the last.

    ``widths`` has the channels of every argument, by the name of the skip connection.
    """

    def ends(name: str, place: SkipPlace) -> tuple[bool, bool]:
        return place.start == 0, place.start + place.channels == widths[name][place.argument]

    alone = {name: places[0] for name, places in found.items() if len(places) == 1}
    arguments, sides = (
        {place.argument for place in alone.values()},
        {ends(name, place) for name, place in alone.items()},
    )
    chosen = {}
    for name, places in found.items():
        alike = [place for place in places if {ends(name, place)} == sides]
        named = [place for place in alike if {place.argument} == arguments]
        last = [place for place in places[-1:] if not alone and ends(name, place)[1]]
        fitting = next((some for some in (places, alike, named, last) if len(some) == 1), None)
        if fitting is None:
            raise ModelError(
                f"{owner}: {name} and the path are one tensor where they enter a block, as "
                f"{' and '.join(map(str, places))}; which is which cannot be told, since other skip connections enter "
                "elsewhere. Let all enter alike, torch.cat([path, skip], dim=1), or give this edge no name: then it "
                "cannot be cut."
            )
        chosen[name] = fitting[0]
    return chosen


def _range(place: SkipPlace) -> range:
    return range(place.start, place.start + place.channels)


def _listed(channels: list[int]) -> str:
    if channels == list(range(channels[0], channels[-1] + 1)):
        return f"channels {channels[0]}-{channels[-1]}" if len(channels) > 1 else f"channel {channels[0]}"
    return f"channels {', '.join(map(str, channels[:4]))}{', ...' if len(channels) > 4 else ''}"
