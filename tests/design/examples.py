"""Anatomies without a network, and hypothesis strategies for everything that a user of `causalunet.design` writes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection

from hypothesis import strategies as st

from causalunet.design import (
    AblateBlock,
    AblateSkip,
    Anatomy,
    Component,
    Composition,
    Edit,
    Fill,
    Identity,
    Intervention,
    Null,
    Scale,
    SkipSteps,
    Window,
    Windows,
    Zero,
)
from causalunet.design.anatomy import u_edges
from causalunet.design.conflicts import edits_to_json

BLOCKS = 4
"""Encoder blocks, and so decoder blocks and skips, of the anatomy that generated interventions fit."""

STEPS = 24
"""Generated interventions lie in the steps below; step 24 itself is left out, since it cannot be skipped."""

branches = st.sampled_from(["both", "cond", "uncond"])


def u_anatomy(blocks: int = BLOCKS) -> Anatomy:
    """Build a U of encoder blocks, bottleneck and as many decoder blocks; FLOPs are powers of two, so sums tell."""
    names = [*(f"down.{i}" for i in range(blocks)), "mid", *(f"up.{i}" for i in range(blocks))]
    roles = ["encoder"] * blocks + ["bottleneck"] + ["decoder"] * blocks
    components = tuple(
        Component(
            name=name,
            role=role,
            level=0,
            depth=min(index, len(names) - 1 - index),
            shape=(2, 4, 4),
            flops=2**index,
            parameters=1,
            module=name,
        )
        for index, (name, role) in enumerate(zip(names, roles, strict=True))
    )
    return Anatomy(components, u_edges(blocks, blocks), flops=2 ** (len(names) + 1), parameters=len(names))


def dead_by_search(anatomy: Anatomy, severed: Collection[str]) -> set[str]:
    """Follow every path from every component by depth-first search; dead is what never arrives at the image."""
    following = defaultdict(list)
    for edge in anatomy.edges:
        following[edge.source].append(edge)

    def arrives(component: str) -> bool:
        if component in severed:
            return False
        onward = (edge for edge in following[component] if edge.name not in severed or not edge.name)
        return any(edge.target == "out" or arrives(edge.target) for edge in onward)

    return {component.name for component in anatomy.components if not arrives(component.name)}


def fills() -> st.SearchStrategy[Fill]:
    """Every fill that replaces a value."""
    factors = st.floats(allow_nan=False, allow_infinity=False)
    return st.one_of(st.just(Zero()), st.just(Identity()), factors.map(Scale))


@st.composite
def single_windows(draw: st.DrawFn, low: int = 1, high: int = STEPS - 1) -> Window:
    """A window within the steps high ... low."""
    start = draw(st.integers(low, high))
    return Window(start, draw(st.integers(1, start - low + 1)))


@st.composite
def windows(draw: st.DrawFn, low: int = 1, high: int = STEPS - 1) -> Window | Windows:
    """One window, or several apart from each other (their gaps may be empty)."""
    parts, top = [], high
    for _ in range(draw(st.integers(1, 3))):
        if top < low:
            break
        parts.append(draw(single_windows(low=low, high=top)))
        top = parts[-1].stop - 1
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else Windows(tuple(parts))


@st.composite
def single_interventions(draw: st.DrawFn, low: int = 1, high: int = STEPS - 1) -> Intervention:
    """An intervention of any kind but composition, on the anatomy of `BLOCKS`."""
    window, count = draw(windows(low=low, high=high)), draw(st.integers(1, BLOCKS))
    components = [*u_anatomy().by_name, *u_anatomy().skips]
    label = draw(st.one_of(st.just(""), st.text(max_size=5)))
    makers: list[Callable[[], Intervention]] = [
        lambda: AblateSkip(count, window, draw(branches), label=label),
        lambda: AblateBlock(count, window, draw(branches), label=label),
        lambda: SkipSteps(window, label=label),
        lambda: Null(window, label=label),
        lambda: Edit(draw(st.sampled_from(components)), window, draw(fills()), draw(branches), label=label),
    ]
    return draw(st.sampled_from(makers))()


@st.composite
def interventions(draw: st.DrawFn, low: int = 1, high: int = STEPS - 1, depth: int = 2) -> Intervention:
    """An intervention of any kind; the parts of a composition, nested or not, have steps of their own."""
    if depth == 0 or low == high or draw(st.booleans()):
        return draw(single_interventions(low=low, high=high))
    middle = draw(st.integers(low, high - 1))
    earlier = draw(interventions(low=middle + 1, high=high, depth=depth - 1))
    later = draw(interventions(low=low, high=middle, depth=depth - 1))
    if draw(st.booleans()):
        return earlier + later
    return Composition((earlier, later), label=draw(st.text(max_size=5)))


def distinct_interventions(most: int = 6) -> st.SearchStrategy[list[Intervention]]:
    """Several interventions that may stand in one study."""
    return st.lists(
        interventions(),
        min_size=1,
        max_size=most,
        unique_by=(lambda item: item.label, lambda item: json.dumps(edits_to_json(item.edits()))),
    )
